"""The tables: which day a row belongs to, and how it is written.

Every table is a Parquet dataset, partitioned by Beijing day (``dt=YYYY-MM-DD``). Files are written below a
staging directory and become part of the dataset only when the catalog says so.
"""

import os
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.contracts import contract
from transforms import keys
from transforms.moments import beijing_days, day_name, milliseconds


class Table(NamedTuple):
    """A table of the dataset: its name, its contract, and the column whose Beijing day partitions it."""

    name: str
    contract: str
    day_column: str

    @property
    def schema(self) -> pa.Schema:
        """The columns of the table."""
        return contract(self.contract).arrow


ENRICHED_REPORTS: Final = Table("enriched_reports", "enriched_report", "send_time")
INBOUND_SMS: Final = Table("inbound_sms", "inbound_sms", "send_time")
UNREPORTED_SENDS: Final = Table("unreported_sends", "unreported_send", "requested_at")
FAILED_EVENTS: Final = Table("failed_events", "failed_event", "enqueued_at")
# Failed send log entries have no place in a queue, hence no day but the one they were read on.
FAILED_SENDS: Final = Table("failed_sends", "failed_event", "failed_at")
OPEN_SENDS: Final = Table("open_sends", "send_log_entry", "requested_at")
WAITING_REPORTS: Final = Table("waiting_reports", "delivery_report", "send_time")

TABLES: Final = (
    ENRICHED_REPORTS,
    INBOUND_SMS,
    UNREPORTED_SENDS,
    FAILED_EVENTS,
    FAILED_SENDS,
    OPEN_SENDS,
    WAITING_REPORTS,
)

# A dictionary pays where values repeat; for ids it costs time and space.
_DICTIONARY_COLUMNS: Final = frozenset(
    {
        "match", "origin", "success", "err_code", "err_msg", "sms_size", "revision", "sign_name",
        "template_code", "sms_up_extend_code", "campaign", "dest_code", "stage", "reason", "detail",
        "schema_name", "schema_fingerprint", "queue_name", "message_type", "pipeline_version",
    }
)  # fmt: skip


# Who reads a range asks for times; statistics of all other columns cost an eighth of the writing.
_RANGE_COLUMNS: Final = frozenset(
    {"send_time", "report_time", "requested_at", "enqueued_at", "failed_at"}
)
# Large enough to compress and to scan well; who reads or merges a file holds one of them in memory, some 15 MB.
# Four times as many scan an eighth faster, and compress no better.
_ROWS_PER_GROUP: Final = 25_000


class TableFileError(Exception):
    """Raised when a file of a table is damaged; a sentence with cause and fix."""


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Name the file that turns out to be damaged while it is read.

    Raises:
        TableFileError: it is.
    """
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the file is not there, or the disk is broken: the system says so itself
        raise TableFileError(
            f"The file {path} of the dataset is damaged ({type(error).__name__}): restore it from a copy, "
            "or recompute its day with sms-receipts backfill."
        ) from error


def read_rows(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a file of a table, or some of its columns.

    Raises:
        TableFileError: the file is damaged.
    """
    with reading(path):
        return pq.read_table(path, columns=columns and list(columns), partitioning=None)


def read_rows_of_keys(
    path: str, columns: Sequence[str], key: str, hashes: keys.Hashes
) -> Iterator[pa.Table]:
    """Read the rows of a file of a table that belong to some keys, a row group at a time.

    Of row groups without such rows only the key is decoded: 0.1 us a row instead of 0.5, and no more
    memory than a row group takes, however long the file is.

    Args:
        path: the file.
        columns: what to read.
        key: the column that holds the keys, strings without nulls.
        hashes: of the keys, as ``keys.distinct_hashes`` gives them. Keys that share a hash with one of them
            come along.

    Raises:
        TableFileError: the file is damaged.
    """
    with reading(path), pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            of_keys = keys.are_among(file.read_row_group(group, [key]).column(key), hashes)
            if of_keys.any():
                yield file.read_row_group(group, list(columns)).filter(pa.array(of_keys))


def read_metadata(path: str) -> pq.FileMetaData:
    """Read the row counts and statistics of a file of a table.

    Raises:
        TableFileError: the file is damaged.
    """
    with reading(path):
        return pq.read_metadata(path)


class Written(NamedTuple):
    """What is written of a table's day: every file in its directory, but for those that are leaving.

    A run opens the days that have news and no others, so it looks them up when it meets them: handing
    over a list of all files would cost what the whole history costs.

    ``leaving`` are paths, relative to the dataset, that no longer count but that a reader may still hold.
    """

    dataset: str
    leaving: frozenset[str]

    def files(self, table: str, day: int) -> list[str]:
        """The current files of a table's Beijing day, absolute."""
        partition = os.path.join(table, f"dt={day_name(day)}")
        try:
            names = sorted(os.listdir(os.path.join(self.dataset, partition)))
        except (FileNotFoundError, NotADirectoryError):
            return []
        # A network file system keeps what was deleted under a reader, under a name of its own.
        paths = (os.path.join(partition, name) for name in names if name.endswith(".parquet"))
        return [os.path.join(self.dataset, path) for path in paths if path not in self.leaving]


# For a run that recomputes: the past has no say in it.
NOTHING_WRITTEN: Final = Written(os.devnull, frozenset())


class WrittenFile(NamedTuple):
    """A Parquet file that waits in the staging directory; ``path`` is relative to the dataset."""

    table: str
    dt: str
    path: str
    rows: int
    size: int


def write_table(
    table: Table, rows: pa.Table, staging: str, days: Collection[int] | None = None
) -> Iterator[WrittenFile]:
    """Write rows to one synced Parquet file per Beijing day.

    Args:
        table: where the rows belong.
        rows: any number of rows of ``table.schema``, of any days.
        staging: the directory that stands for the dataset until the files are committed.
        days: leave out the rows of all other days; None keeps every row.
    """
    if not rows.num_rows:
        return
    row_days = _days(rows.column(table.day_column))
    for day in _distinct(row_days):
        if days is not None and day not in days:
            continue
        of_day = row_days == day
        day_rows = rows if of_day.all() else rows.filter(pa.array(of_day))
        yield _write_file(table, day_name(day), [day_rows], staging)


def distinct_days(rows: pa.Table | pa.RecordBatch, column: str) -> list[int]:
    """Tell the Beijing days that occur in a timestamp column, ascending; nulls have none."""
    return _distinct(_days(pc.drop_null(rows.column(column))))


def _days(times: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return beijing_days(milliseconds(times))


def _distinct(days: npt.NDArray[np.int64]) -> list[int]:
    """The days that occur, ascending; rows of few days come in millions, so no sorting of them."""
    found = []
    while len(days):
        found.append(int(days.min()))
        days = days[days != found[-1]]
    return found


def merge_files(table: Table, dt: str, paths: Sequence[str], staging: str) -> WrittenFile:
    """Write the rows of several files of one day to one, some ten thousand rows at a time."""
    return _write_file(table, dt, _row_groups(paths), staging)


def _row_groups(paths: Sequence[str]) -> Iterator[pa.Table]:
    """Read files as row groups of a good size, whatever size theirs are."""
    gathered: list[pa.Table] = []
    for path in paths:
        with reading(path), pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                gathered.append(file.read_row_group(group))
                if sum(rows.num_rows for rows in gathered) >= _ROWS_PER_GROUP:
                    yield pa.concat_tables(gathered)
                    gathered = []
    if gathered:
        yield pa.concat_tables(gathered)


def _write_file(table: Table, dt: str, row_groups: Iterable[pa.Table], staging: str) -> WrittenFile:
    path = os.path.join(table.name, f"dt={dt}", f"{uuid.uuid4().hex}.parquet")
    target = os.path.join(staging, path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    dictionary = [name for name in table.schema.names if name in _DICTIONARY_COLUMNS]
    row_count = 0
    with open(target, "wb") as file:
        with pq.ParquetWriter(
            file,
            table.schema,
            compression="zstd",
            use_dictionary=dictionary,
            write_statistics=[name for name in table.schema.names if name in _RANGE_COLUMNS],
        ) as writer:
            for rows in row_groups:
                writer.write_table(rows)
                row_count += rows.num_rows
        file.flush()
        os.fsync(file.fileno())
    return WrittenFile(table.name, dt, path, row_count, os.path.getsize(target))
