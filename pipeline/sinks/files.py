"""Files of rows: ``<directory>/<table>/dt=<YYYY-MM-DD>/<name>.parquet`` or ``.avro``, by Beijing day.

The directory is a local one that all workers see, or a place in an object store (``transforms.file_store``).
"""

import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from hashlib import md5
from typing import Any, BinaryIO, Final, NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.coders import BytesCoder, TupleCoder, VarIntCoder
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import (
    BagStateSpec,
    ReadModifyWriteStateSpec,
    TimerSpec,
    on_timer,
)
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue
from typing_extensions import override

from pipeline.clock import utc_now
from pipeline.errors import OutputError
from pipeline.sinks.rows import STREAMED, records_of, rows_of
from schemas.contracts import contract
from transforms import file_store
from transforms.avro_blocks import write_container
from transforms.row_ids import row_ids
from transforms.tables import ROWS_PER_GROUP, Table, rows_by_day, write_parquet

# Packed rows take a tenth of what a worker needs to write them.
_FULL_BYTES: Final = 16 * 1024 * 1024
# One worker writes a million rows a second as Parquet. Two shards let two workers write the same table, and
# make twice as many files.
_SHARDS: Final = 2

# Rows and files that were written, as attempts: a bundle that is tried again counts again.
_written_rows = Metrics.counter("files", "written_rows")
_written_files = Metrics.counter("files", "written_files")

_Key = tuple[str, int]


class _Format(NamedTuple):
    """How a file of rows is named and written."""

    suffix: str
    write: Callable[[Table, BinaryIO, pa.Table], object]


def _write_parquet(table: Table, file: BinaryIO, rows: pa.Table) -> None:
    groups = range(0, rows.num_rows, ROWS_PER_GROUP)
    write_parquet(table, file, (rows.slice(start, ROWS_PER_GROUP) for start in groups))


def _write_avro(table: Table, file: BinaryIO, rows: pa.Table) -> None:
    write_container(file, contract(table.contract), records_of(rows))


class _WriteFiles(beam.PTransform[PCollection[tuple[str, bytes]], PCollection[str]]):
    """Gather rows by table and write them to files, at least once.

    Rows wait in the engine's state until a file is due, so a crash loses none: those of a bundle that is run
    again are written again. A file's name is a digest of the ids of its rows: the same rows replace their
    file, and rows that were cut differently the second time are told by their ids. What killed writers have
    left unfinished is deleted when it is a day old. The output is the paths.
    """

    _format: _Format

    def __init__(
        self, directory: str, secs: float = 60.0, clock: Callable[[], datetime] = utc_now
    ) -> None:
        """Describe the files.

        Args:
            directory: a local directory that all workers see, or a place in an object store.
            secs: after at most so long a row is in a file; the shorter, the more files.
            clock: the time (aware); a function that pickles.
        """
        super().__init__()
        self._directory = directory
        self._secs = secs
        self._clock = clock

    def require_usable(self) -> None:
        """Prove that files can be written there.

        Raises:
            OutputError: they cannot.
        """
        try:
            file_store.require_writable(self._directory)
        except OSError as error:
            raise _unwritable(self._directory, error) from error

    @override
    def expand(self, rows: PCollection[tuple[str, bytes]]) -> PCollection[str]:
        write = _WriteFn(self._directory, self._secs, self._clock, self._format)
        paths: PCollection[str] = (
            rows
            | "SpreadOverShards"
            >> beam.ParDo(_SpreadFn()).with_output_types(tuple[_Key, list[bytes]])
            | "GatherAndWrite" >> beam.ParDo(write).with_output_types(str)
        )
        return paths


class WriteParquet(_WriteFiles):
    """Write rows as Parquet, laid out as the tables of a dataset are; ``sms-receipts report`` reads them."""

    _format = _Format("parquet", _write_parquet)


class WriteAvro(_WriteFiles):
    """Write rows as Avro containers of their contracts (zstandard, with checksums)."""

    _format = _Format("avro", _write_avro)


class _SpreadFn(beam.DoFn):
    """Bring the rows of a bundle together: state is asked once a bundle and table, not once a bucket."""

    def __init__(self) -> None:
        self._gathered: dict[str, list[bytes]] = {}
        self._timestamp: Any = None

    @override
    def start_bundle(self) -> None:
        self._gathered = {}

    @override
    def process(
        self, element: tuple[str, bytes], timestamp: Any = beam.DoFn.TimestampParam
    ) -> None:
        name, packed = element
        self._gathered.setdefault(name, []).append(packed)
        self._timestamp = timestamp

    @override
    def finish_bundle(self) -> Iterator[WindowedValue]:
        for name, packed in self._gathered.items():
            # Any spreading will do; this one is the same when the bundle is run again.
            shard = zlib.crc32(packed[0]) % _SHARDS
            element = ((name, shard), packed)
            yield WindowedValue(element, self._timestamp, (GlobalWindow(),))


class _WriteFn(beam.DoFn):
    """Keep packed rows until there are enough of them, or they have waited long enough.

    Beam's GroupIntoBatches knows no bound in bytes. The state is what every engine has: bags. A timer that an
    engine loses delays rows until the next ones come.
    """

    _ROWS = BagStateSpec("rows", BytesCoder())
    # Bytes that wait, and since when they are due (Unix seconds).
    _HELD = ReadModifyWriteStateSpec("held", TupleCoder((VarIntCoder(), VarIntCoder())))
    _DUE = TimerSpec("due", TimeDomain.REAL_TIME)
    # A stream that is drained has no time to wait for.
    _END = TimerSpec("end", TimeDomain.WATERMARK)

    def __init__(
        self, directory: str, secs: float, clock: Callable[[], datetime], form: _Format
    ) -> None:
        self._directory = directory
        self._secs = secs
        self._clock = clock
        self._format = form

    @override
    def process(
        self,
        element: tuple[_Key, Iterable[bytes]],
        rows: Any = beam.DoFn.StateParam(_ROWS),
        held: Any = beam.DoFn.StateParam(_HELD),
        due: Any = beam.DoFn.TimerParam(_DUE),
        end: Any = beam.DoFn.TimerParam(_END),
    ) -> Iterator[str]:
        (name, _), packed = element
        now_secs = self._clock().timestamp()
        size, due_secs = held.read() or (0, math.ceil(now_secs + self._secs))
        is_first = not size
        for each in packed:
            rows.add(each)
            size += len(each)
        if size >= _FULL_BYTES or due_secs < now_secs:
            yield from self._flush(name, rows, held)
            due.clear()
            return
        held.write((size, due_secs))
        if is_first:
            due.set(due_secs)
            end.set(GlobalWindow().max_timestamp())

    @on_timer(_DUE)
    def when_due(
        self,
        key: Any = beam.DoFn.KeyParam,
        rows: Any = beam.DoFn.StateParam(_ROWS),
        held: Any = beam.DoFn.StateParam(_HELD),
    ) -> Iterator[str]:
        """Write what has waited long enough; a timer that comes late finds nothing, or a little less."""
        yield from self._flush(key[0], rows, held)

    @on_timer(_END)
    def at_the_end(
        self,
        key: Any = beam.DoFn.KeyParam,
        rows: Any = beam.DoFn.StateParam(_ROWS),
        held: Any = beam.DoFn.StateParam(_HELD),
    ) -> Iterator[str]:
        """Write what is left when nothing more will come."""
        yield from self._flush(key[0], rows, held)

    def _flush(self, name: str, rows: Any, held: Any) -> Iterator[str]:
        table = STREAMED[name]
        parts = [rows_of(table, packed) for packed in rows.read()]
        if parts:
            yield from self._write_days(table, pa.concat_tables(parts))
        rows.clear()
        held.clear()

    def _write_days(self, table: Table, rows: pa.Table) -> Iterator[str]:
        for dt, of_day in rows_by_day(table, rows):
            ids = sorted(row_ids(table.name, of_day).to_pylist())
            name = md5("".join(ids).encode(), usedforsecurity=False).hexdigest()
            path = file_store.join(
                self._directory, table.name, f"dt={dt}", f"{name}.{self._format.suffix}"
            )
            _put(self._directory, path, table, of_day, self._format)
            file_store.tidy(self._directory, path)
            _written_rows.inc(of_day.num_rows)
            _written_files.inc()
            yield path


def _put(directory: str, path: str, table: Table, rows: pa.Table, form: _Format) -> None:
    try:
        file_store.write_whole(path, lambda file: form.write(table, file, rows))
    except OSError as error:
        raise _unwritable(directory, error) from error


def _unwritable(directory: str, error: OSError) -> OutputError:
    return OutputError(
        f"The output {directory} cannot be written ({error.strerror or type(error).__name__}): free space or "
        "grant write permission there; the rows of the failed bundle come again."
    )
