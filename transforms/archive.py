"""The archive: every message as it was received, on disk before it is deleted from its queue.

It is a directory, or a place in an object store (``transforms.file_store``): the latter is written only;
who reads it reads a copy.

``<archive>/<queue_name>/landed=<YYYY-MM-DD>/<oldest>-<youngest>-<messages>-<uuid>.avro``, where the
day is UTC and the two times are enqueue times in ms. A file is an Avro container (zstandard, with checksums)
of the schema ``mns_message``. It appears under its name only when it is complete and synced. If it is damaged
later, its whole blocks are still read.
"""

import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Final, NamedTuple

import apache_beam as beam
import datafusion
import pyarrow as pa
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection
from typing_extensions import override

from schemas.contracts import contract
from schemas.records import MnsMessage
from transforms import file_store
from transforms.avro_blocks import DamagedPart, count_avro_records, salvage, write_container
from transforms.moments import from_ms, to_ms
from transforms.tally import tally_of

_BATCH_ROWS: Final = 50_000
_FILE_NAME: Final = re.compile(
    r"(?P<first>-?\d+)-(?P<last>-?\d+)-(?P<messages>\d+)-[0-9a-f]{32}\.avro"
)
_WHAT_TO_DO: Final = "restore it from a copy, or move it out of the archive to go on without it."
_DAY_NAME: Final = re.compile(r"landed=(?P<day>\d{4}-\d\d-\d\d)")

# Messages and files that were synced, as attempts: a bundle that is tried again counts again.
_archived_messages = Metrics.counter("archive", "archived_messages")
_archive_files = Metrics.counter("archive", "archive_files")


class ArchiveError(Exception):
    """Raised when the archive cannot be written or looked through; a sentence with cause and fix."""


class ArchiveFileError(Exception):
    """Raised when a file of the archive cannot be used; a sentence with cause and fix."""


class ArchiveFile(NamedTuple):
    """One file of the archive, as its name tells it."""

    path: str
    queue_name: str
    landed: date
    first_enqueued_at: datetime
    last_enqueued_at: datetime
    messages: int


class ArchivedMessages(NamedTuple):
    """What a file of the archive gives: its messages, and what is missing.

    Attributes:
        file: which one.
        batches: of at most 50,000 messages each, in the Arrow schema of ``mns_message``.
        lost: how many messages its name promises and ``batches`` lack.
        damaged: where the lost ones were; none if none are lost.
    """

    file: ArchiveFile
    batches: Sequence[pa.RecordBatch]
    lost: int = 0
    damaged: Sequence[DamagedPart] = ()


class ArchiveRaw(beam.PTransform[PCollection[list[MnsMessage]], PCollection[list[MnsMessage]]]):
    """Write the messages of each bundle to the archive, and pass them on.

    The bundle finishes only when its files are synced; a failure fails the bundle. Directly behind a
    source that deletes at finalization, nothing is therefore deleted before it is on disk. A bundle
    that is run again writes its messages again: readers of the archive meet repeats, which have the
    same ``message_id``. What killed writers have left unfinished is deleted when it is a day old.
    """

    def __init__(
        self, archive: str, clock: Callable[[], datetime], *, run_id: str | None = None
    ) -> None:
        """Describe the archive.

        Args:
            archive: directory, made when it is missing, or a place in an object store.
            clock: the time (aware), for the landing day; a function that pickles.
            run_id: name of the tally to count into (``transforms.tally``).
        """
        super().__init__()
        self._archive = archive
        self._clock = clock
        self._run_id = run_id

    @override
    def expand(self, messages: PCollection[list[MnsMessage]]) -> PCollection[list[MnsMessage]]:
        archived: PCollection[list[MnsMessage]] = messages | "WriteArchive" >> beam.ParDo(
            _ArchiveFn(self._archive, self._clock, self._run_id)
        )
        return archived


class _ArchiveFn(beam.DoFn):
    def __init__(self, archive: str, clock: Callable[[], datetime], run_id: str | None) -> None:
        self._archive = archive
        self._clock = clock
        self._run_id = run_id
        self._messages: dict[str, list[MnsMessage]] = {}

    @override
    def start_bundle(self) -> None:
        self._messages = {}

    @override
    def process(self, messages: list[MnsMessage]) -> Iterator[list[MnsMessage]]:
        # One receive reads one queue.
        self._messages.setdefault(messages[0].queue_name, []).extend(messages)
        yield messages

    @override
    def finish_bundle(self) -> None:
        for messages in self._messages.values():
            try:
                path = write_archive_file(self._archive, messages, self._clock())
            except ArchiveError as failure:
                if self._run_id is not None:
                    tally_of(self._run_id).fail(failure)
                raise
            file_store.tidy(self._archive, path)
            _archived_messages.inc(len(messages))
            _archive_files.inc()
            if self._run_id is not None:
                tally = tally_of(self._run_id)
                tally.add(archived=len(messages), archive_files=1)
                tally.note_oldest(archived=min(message.enqueued_at for message in messages))
        self._messages = {}


def write_archive_file(archive: str, messages: Sequence[MnsMessage], now: datetime) -> str:
    """Write messages of one queue to a new file of the archive; return its path once it is synced.

    Raises:
        ArchiveError: It cannot be written.
    """
    first, last = (to_ms(edge(message.enqueued_at for message in messages)) for edge in (min, max))
    day = now.astimezone(timezone.utc).date().isoformat()
    name = f"{first}-{last}-{len(messages)}-{uuid.uuid4().hex}.avro"
    path = file_store.join(archive, messages[0].queue_name, f"landed={day}", name)
    records = (message._asdict() for message in messages)
    try:
        file_store.write_whole(
            path, lambda file: write_container(file, contract("mns_message"), records)
        )
    except OSError as error:
        raise _unwritable(archive, error) from error
    return path


def require_writable_archive(archive: str) -> None:
    """Make the archive's directory and prove that files can be written there.

    Raises:
        ArchiveError: They cannot.
    """
    try:
        file_store.require_writable(archive)
    except OSError as error:
        raise _unwritable(archive, error) from error


def list_archive(
    archive: str,
    *,
    landed_from: date | None = None,
    choose: Callable[[Sequence[str]], Sequence[str]] | None = None,
) -> list[ArchiveFile]:
    """List the complete files, oldest landing day first, then by enqueue time.

    Args:
        archive: its directory; an archive that is not there yet has no files.
        landed_from: skip the directories of earlier landing days.
        choose: tells which files of a day are wanted, by their paths relative to the archive, before each is
            looked at; None wants all.

    Raises:
        ArchiveError: A directory cannot be read.
    """
    root = os.path.join(archive, "")
    files: list[ArchiveFile] = []
    for entries in _by_day(archive, landed_from):
        complete = (entry.path for entry in entries if _FILE_NAME.fullmatch(entry.name))
        paths: Sequence[str] = [path.removeprefix(root) for path in complete]
        if choose is not None:
            paths = choose(paths)
        files += filter(None, (_archive_file(root + path) for path in paths))
    return sorted(files, key=lambda file: (file.landed, file.first_enqueued_at, file.path))


def delete_unfinished_files(archive: str, now: datetime) -> int:
    """Delete the files of writers that were killed; return how many.

    What has no name yet was never acknowledged, so nothing depends on it. A day is left to writers that may
    still be at work; one that took longer would find its file gone, and its messages would come once more.
    """
    return file_store.delete_unfinished_files(archive, now.timestamp())


def unfinished_files(archive: str) -> list[str]:
    """List the files that their writers, killed or still at work, have not given a name.

    Raises:
        ArchiveError: A directory cannot be read.
    """
    try:
        return file_store.unfinished_files(archive)
    except OSError as error:
        raise _unreadable(archive, error) from error


def _by_day(archive: str, landed_from: date | None = None) -> Iterator[Iterable[os.DirEntry[str]]]:
    """What is in the directories of landing days, one after the other."""
    try:
        yield from (_scan(day.path) for day in _days(archive, landed_from))
    except OSError as error:
        raise _unreadable(archive, error) from error


def _days(archive: str, landed_from: date | None) -> Iterator[os.DirEntry[str]]:
    for queue in _scan(archive):
        for day in _scan(queue.path):
            landed = _landing_day(day.name)
            if landed is not None and (landed_from is None or landed >= landed_from):
                yield day


def is_archive_file(path: str) -> bool:
    """Tell whether a complete file of an archive has such a name, in such a directory."""
    return _archive_file(path) is not None


def read_archive(path: str) -> ArchivedMessages:
    """Read what can be read of a file.

    Raises:
        ArchiveFileError: The file is none of ours: by its name, or because it holds more messages than its
            name says; or the disk does not give it back.
    """
    file = _archive_file(path)
    if file is None:
        raise ArchiveFileError(f"The file {path} is not named as the files of an archive are.")
    try:
        whole = _read_whole(file)
        return whole if whole is not None else _salvage(file)
    except OSError as error:
        if error.filename is not None:
            raise  # it is gone, or may not be read: says so itself
        raise ArchiveFileError(
            f"The archive file {path} cannot be read ({error.strerror}): {_WHAT_TO_DO}"
        ) from error


def _salvage(file: ArchiveFile) -> ArchivedMessages:
    data = Path(file.path).read_bytes()
    batches: list[pa.RecordBatch] = []
    damaged: list[DamagedPart] = []
    for part in salvage(data, contract("mns_message")):
        if isinstance(part, DamagedPart):
            damaged.append(part)
        else:
            batches.append(part)
    lost = file.messages - sum(batch.num_rows for batch in batches)
    if lost < 0:
        raise ArchiveFileError(
            f"The archive file {file.path} holds {file.messages - lost} messages, {-lost} more than its name "
            f"promises: {_WHAT_TO_DO}"
        )
    if not lost:
        damaged = []  # in the header, or behind the last block: nothing is missing
    elif not damaged:
        damaged = [DamagedPart(len(data), 0, 0, b"")]  # cut short between two blocks
    table = pa.Table.from_batches(batches, contract("mns_message").arrow).combine_chunks()
    return ArchivedMessages(file, table.to_batches(_BATCH_ROWS), lost, damaged)


def _read_whole(file: ArchiveFile) -> ArchivedMessages | None:
    """Read a file with datafusion, at a fifth of fastavro's cost; None if not everything comes out."""
    schema = contract("mns_message").arrow
    try:
        with Path(file.path).open("rb") as opened:
            if count_avro_records(opened) != file.messages:
                return None
        frame = _session().read_avro(file.path)
        batches = [batch.to_pyarrow() for batch in frame.execute_stream()]
        rows = pa.Table.from_batches(batches)
        known = pa.schema([field for field in schema if field.name in rows.schema.names])
        table = contract("mns_message").complete(rows.select(known.names).cast(known))
    except OSError:
        raise
    except MemoryError:
        raise  # the bytes may be well
    except Exception:  # noqa: BLE001 - datafusion raises Exception itself
        return None
    return ArchivedMessages(file, table.to_batches()) if len(table) == file.messages else None


def _session() -> datafusion.SessionContext:
    # One for each file: a session keeps 4 KB of every file it was shown (datafusion 55), and a new one costs
    # nothing. One file is one unit of work here; more partitions would only reorder its rows.
    return datafusion.SessionContext(
        datafusion.SessionConfig().with_target_partitions(1).with_batch_size(_BATCH_ROWS)
    )


def _archive_file(path: str) -> ArchiveFile | None:
    directory, name = os.path.split(path)
    queue, day = os.path.split(directory)
    landed, parts = _landing_day(day), _FILE_NAME.fullmatch(name)
    if landed is None or parts is None:
        return None
    return ArchiveFile(
        path=path,
        queue_name=os.path.basename(queue),
        landed=landed,
        first_enqueued_at=from_ms(int(parts["first"])),
        last_enqueued_at=from_ms(int(parts["last"])),
        messages=int(parts["messages"]),
    )


def _landing_day(name: str) -> date | None:
    parts = _DAY_NAME.fullmatch(name)
    try:
        return date.fromisoformat(parts["day"]) if parts else None
    except ValueError:
        return None


def _scan(directory: str) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _unreadable(archive: str, error: OSError) -> ArchiveError:
    return ArchiveError(
        f"The archive {archive} cannot be read ({error.strerror}): correct --archive, or grant read "
        "permission there."
    )


def _unwritable(archive: str, error: OSError) -> ArchiveError:
    return ArchiveError(
        f"The archive {archive} cannot be written ({error.strerror or type(error).__name__}): free "
        "space or grant write permission there; no message of the failed bundle was deleted"
    )
