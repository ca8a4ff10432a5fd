"""What a run of the bounded graph reports about itself, as data: nothing may be committed without it.

Runner metrics are attempts, not facts: a bundle that is tried again counts twice. Notes travel through the
graph like records, so only those of bundles that counted arrive, exactly once.
"""

import json
import os
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final, TypeAlias

import apache_beam as beam
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection
from typing_extensions import override

from transforms.damage import Damage
from transforms.tables import WrittenFile

# One JSON object: {"counts": …}, {"archive_file": …, "days": […]}, {"damage": […]},
# {"enqueued": …, "days": […]} or {"file": […]}.
Note: TypeAlias = bytes

FILE_NAME: Final = "manifest.jsonl"
# Beam's namespace for the counts of the graph: records, as attempts.
METRICS: Final = "graph"


def counts_note(counts: Mapping[str, int]) -> Note:
    """Note how much of what was seen; whoever watches the runner sees it in Beam's metrics, too."""
    for name, count in counts.items():
        Metrics.counter(METRICS, name).inc(count)
    return json.dumps({"counts": counts}).encode()


def days_note(archive_file: str, days: Sequence[int]) -> Note:
    """Note which Beijing days the records of an archive file belong to."""
    return json.dumps({"archive_file": archive_file, "days": days}).encode()


def damage_note(damage: Damage) -> Note:
    """Note what an archive file does not give back."""
    return json.dumps({"damage": damage}).encode()


def record_days_note(enqueued: int, days: Sequence[int]) -> Note:
    """Note to which other Beijing days replayed messages of one day turned out to belong."""
    return json.dumps({"enqueued": enqueued, "days": days}).encode()


def file_note(file: WrittenFile) -> Note:
    """Note a file to be committed."""
    return json.dumps({"file": file}).encode()


@dataclass(frozen=True)
class Manifest:
    """All notes of a run, put together; ``record_days`` are by the day on which messages were enqueued."""

    counts: Counter[str]
    files: Sequence[WrittenFile]
    archive_days: Mapping[str, Sequence[int]]
    damage: Sequence[Damage]
    record_days: Mapping[int, Set[int]]


class WriteManifest(beam.PTransform[PCollection[Note], PCollection[str]]):
    """Gather all notes of the run into one file, which appears when it is complete.

    Args:
        staging: the directory of the attempt.
    """

    def __init__(self, staging: str) -> None:
        super().__init__()
        self._staging = staging

    @override
    def expand(self, notes: PCollection[Note]) -> PCollection[str]:
        path: PCollection[str] = (
            notes
            | "KeyByNothing" >> beam.Map(_keyed)
            | "GatherNotes" >> beam.GroupByKey()
            | "Write" >> beam.FlatMap(_write_notes, self._staging)
        )
        return path


def _keyed(note: Note) -> tuple[int, Note]:
    return 0, note


def _write_notes(element: tuple[int, Iterable[Note]], staging: str) -> Iterator[str]:
    _, notes = element
    path = os.path.join(staging, FILE_NAME)
    # A second attempt of this bundle writes the same notes, to a file of its own: the last rename wins.
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    with open(temporary, "wb") as file:
        for note in notes:
            file.write(note + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    yield path


def read_manifest(staging: str) -> Manifest:
    """Read what a finished run noted.

    Raises:
        FileNotFoundError: the run did not finish.
    """
    counts: Counter[str] = Counter()
    files: list[WrittenFile] = []
    archive_days: dict[str, Sequence[int]] = {}
    damage: list[Damage] = []
    record_days: defaultdict[int, set[int]] = defaultdict(set)
    with open(os.path.join(staging, FILE_NAME), "rb") as lines:
        for line in lines:
            note = json.loads(line)
            counts.update(note.get("counts", {}))
            if "file" in note:
                files.append(WrittenFile(*note["file"]))
            if "archive_file" in note:
                archive_days[note["archive_file"]] = note["days"]
            if "damage" in note:
                damage.append(Damage(*note["damage"]))
            if "enqueued" in note:
                record_days[note["enqueued"]].update(note["days"])
    return Manifest(counts, sorted(files), archive_days, sorted(damage), record_days)
