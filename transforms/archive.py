"""The archive: every message as it was received, on disk before it is deleted from its queue.

``<archive>/<queue_name>/landed=<YYYY-MM-DD>/<oldest>-<youngest>-<messages>-<uuid>.avro``, where the
day is UTC and the two times are enqueue times in ms. A file is an Avro container (zstandard) of the
schema ``mns_message``. It appears under its name only when it is complete and synced.
"""

import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import apache_beam as beam
import datafusion
import fastavro
import pyarrow as pa
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection
from typing_extensions import override

from schemas.contracts import contract
from schemas.records import MnsMessage
from transforms.moments import from_ms, to_ms
from transforms.tally import tally_of

_CODEC: Final = "zstandard"
_SYNC_INTERVAL_BYTES: Final = 256 * 1024
_BATCH_ROWS: Final = 50_000
_FILE_NAME: Final = re.compile(
    r"(?P<first>-?\d+)-(?P<last>-?\d+)-(?P<messages>\d+)-[0-9a-f]{32}\.avro"
)
_DAY_NAME: Final = re.compile(r"landed=(?P<day>\d{4}-\d\d-\d\d)")

# Messages and files that were synced, as attempts: a bundle that is tried again counts again.
_archived_messages = Metrics.counter("archive", "archived_messages")
_archive_files = Metrics.counter("archive", "archive_files")


class ArchiveError(Exception):
    """Raised when the archive cannot be written; a sentence with cause and fix."""


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
    size: int
    """Bytes."""


class ArchiveRaw(beam.PTransform[PCollection[list[MnsMessage]], PCollection[list[MnsMessage]]]):
    """Write the messages of each bundle to the archive, and pass them on.

    The bundle finishes only when its files are synced; a failure fails the bundle. Directly behind a
    source that deletes at finalization, nothing is therefore deleted before it is on disk. A bundle
    that is run again writes its messages again: readers of the archive meet repeats, which have the
    same ``message_id``.
    """

    def __init__(
        self, archive: str, clock: Callable[[], datetime], *, run_id: str | None = None
    ) -> None:
        """Describe the archive.

        Args:
            archive: directory; made when it is missing.
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
                write_archive_file(self._archive, messages, self._clock())
            except ArchiveError as failure:
                if self._run_id is not None:
                    tally_of(self._run_id).fail(failure)
                raise
            _archived_messages.inc(len(messages))
            _archive_files.inc()
            if self._run_id is not None:
                tally_of(self._run_id).add(archived=len(messages), archive_files=1)
        self._messages = {}


def write_archive_file(archive: str, messages: Sequence[MnsMessage], now: datetime) -> Path:
    """Write messages of one queue to a new file of the archive; return it once it is synced."""
    first, last = (to_ms(edge(message.enqueued_at for message in messages)) for edge in (min, max))
    day = now.astimezone(timezone.utc).date().isoformat()
    directory = Path(archive, messages[0].queue_name, f"landed={day}")
    name = f"{first}-{last}-{len(messages)}-{uuid.uuid4().hex}.avro"
    temporary = directory / f".{name}.tmp"
    try:
        _make_directory(directory)
        try:
            with temporary.open("xb") as file:
                fastavro.writer(
                    file,
                    contract("mns_message").schema,
                    (message._asdict() for message in messages),
                    codec=_CODEC,
                    sync_interval=_SYNC_INTERVAL_BYTES,
                )
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(directory / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_directory(directory)
    except OSError as error:
        raise _unwritable(archive, error) from error
    return directory / name


def require_writable_archive(archive: str) -> None:
    """Make the archive's directory and prove that files can be written there.

    Raises:
        ArchiveError: They cannot.
    """
    if "://" in archive:
        raise ArchiveError(
            f"The archive {archive} is not a directory of this machine: give --archive a local path"
        )
    probe = Path(archive, f".{uuid.uuid4().hex}.tmp")
    try:
        _make_directory(Path(archive))
        with probe.open("xb") as file:
            file.write(b"probe")
            os.fsync(file.fileno())
        probe.unlink()
    except OSError as error:
        raise _unwritable(archive, error) from error


def list_archive(archive: str, *, landed_from: date | None = None) -> list[ArchiveFile]:
    """List the complete files, oldest landing day first, then by enqueue time.

    Args:
        archive: its directory; an archive that is not there yet has no files.
        landed_from: skip the directories of earlier landing days.
    """
    files = [
        file
        for queue in _scan(archive)
        if queue.is_dir()
        for day in _scan(queue.path)
        if (landed := _landing_day(day.name)) and (landed_from is None or landed >= landed_from)
        for entry in _scan(day.path)
        if (file := _archive_file(queue.name, landed, entry))
    ]
    return sorted(files, key=lambda file: (file.landed, file.first_enqueued_at, file.path))


def read_archive(path: str) -> Iterator[pa.RecordBatch]:
    """Read a file in batches of at most 50,000 messages, in the Arrow schema of ``mns_message``.

    Raises:
        ArchiveFileError: The file is damaged: it cannot be read, or does not hold as many messages as
            its name says.
    """
    messages = 0
    try:
        for batch in _read(path):
            messages += batch.num_rows
            yield batch
    except OSError:  # says itself what is wrong
        raise
    except Exception as error:  # whatever a decoder raises on bytes that are no Avro
        raise _damaged(path, type(error).__name__) from error
    parts = _FILE_NAME.fullmatch(Path(path).name)
    if parts is not None and messages != int(parts["messages"]):
        raise _damaged(path, f"its name promises {parts['messages']} messages, it holds {messages}")


def _read(path: str) -> Iterator[pa.RecordBatch]:
    """Read a file with datafusion, at a fifth of fastavro's cost; what it cannot read, with fastavro."""
    try:
        frame = _session().read_avro(path, file_extension=Path(path).suffix)
        batches = [batch.to_pyarrow() for batch in frame.execute_stream()]
    except Exception:  # noqa: BLE001 - datafusion raises Exception itself
        batches = []
    if not batches:
        yield from _read_with_fastavro(path)
        return
    table = pa.Table.from_batches(batches).select(contract("mns_message").arrow.names)
    yield from table.cast(contract("mns_message").arrow).to_batches()


def _read_with_fastavro(path: str) -> Iterator[pa.RecordBatch]:
    schema = contract("mns_message").arrow
    rows: list[Any] = []
    with Path(path).open("rb") as file:
        for record in fastavro.reader(file):
            rows.append(record)
            if len(rows) == _BATCH_ROWS:
                yield pa.RecordBatch.from_pylist(rows, schema)
                rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema)


@cache
def _session() -> datafusion.SessionContext:
    # One file is one unit of work here; more partitions would only reorder its rows.
    return datafusion.SessionContext(
        datafusion.SessionConfig().with_target_partitions(1).with_batch_size(_BATCH_ROWS)
    )


def _archive_file(queue_name: str, landed: date, entry: os.DirEntry[str]) -> ArchiveFile | None:
    parts = _FILE_NAME.fullmatch(entry.name)
    if parts is None:
        return None
    return ArchiveFile(
        path=entry.path,
        queue_name=queue_name,
        landed=landed,
        first_enqueued_at=from_ms(int(parts["first"])),
        last_enqueued_at=from_ms(int(parts["last"])),
        messages=int(parts["messages"]),
        size=entry.stat().st_size,
    )


def _landing_day(name: str) -> date | None:
    parts = _DAY_NAME.fullmatch(name)
    return date.fromisoformat(parts["day"]) if parts else None


def _scan(directory: str) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _make_directory(directory: Path) -> None:
    """Make a directory and its parents so that they outlive a crash."""
    if directory.is_dir():
        return
    _make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damaged(path: str, reason: str) -> ArchiveFileError:
    return ArchiveFileError(
        f"The archive file {path} is damaged ({reason}): restore it from a copy, or move it out of the "
        "archive to go on without its messages."
    )


def _unwritable(archive: str, error: OSError) -> ArchiveError:
    return ArchiveError(
        f"The archive {archive} cannot be written ({error.strerror or type(error).__name__}): free "
        "space or grant write permission there; no message of the failed bundle was deleted"
    )
