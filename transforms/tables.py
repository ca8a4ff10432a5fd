"""The tables: which day a row belongs to, and how it is written.

Every table is a Parquet dataset, partitioned by Beijing day (``dt=YYYY-MM-DD``). Files are written below a
staging directory and become part of the dataset only when the catalog says so. A file's key-value metadata
say which version of which contract its rows have (``sms_receipts.contract``,
``sms_receipts.schema_fingerprint``).
"""

import errno
import os
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.contracts import ContractError, contract
from transforms import keys
from transforms.moments import beijing_days, day_name, milliseconds


class Table(NamedTuple):
    """A table of the dataset.

    Attributes:
        name: its directory.
        contract: what its rows are.
        day_column: the column whose Beijing day partitions it.
        sort_column: the column by which single rows are looked up; compacted files are sorted by it.
    """

    name: str
    contract: str
    day_column: str
    sort_column: str

    @property
    def schema(self) -> pa.Schema:
        """The columns of the table."""
        return contract(self.contract).arrow


ENRICHED_REPORTS: Final = Table("enriched_reports", "enriched_report", "send_time", "biz_id")
INBOUND_SMS: Final = Table("inbound_sms", "inbound_sms", "send_time", "phone_number")
UNREPORTED_SENDS: Final = Table("unreported_sends", "unreported_send", "requested_at", "biz_id")
FAILED_EVENTS: Final = Table("failed_events", "failed_event", "enqueued_at", "message_id")
# Failed send log entries have no place in a queue, hence no day but the one they were read on.
FAILED_SENDS: Final = Table("failed_sends", "failed_event", "failed_at", "message_id")
OPEN_SENDS: Final = Table("open_sends", "send_log_entry", "requested_at", "biz_id")
WAITING_REPORTS: Final = Table("waiting_reports", "delivery_report", "send_time", "biz_id")
QUERY_ANSWERS: Final = Table("query_answers", "query_answer", "requested_at", "biz_id")

TABLES: Final = (
    ENRICHED_REPORTS,
    INBOUND_SMS,
    UNREPORTED_SENDS,
    FAILED_EVENTS,
    FAILED_SENDS,
    OPEN_SENDS,
    WAITING_REPORTS,
    QUERY_ANSWERS,
)

# A dictionary pays where values repeat; for ids it costs time and space.
_DICTIONARY_COLUMNS: Final = frozenset(
    {
        "match", "origin", "success", "err_code", "err_msg", "sms_size", "revision", "sign_name",
        "template_code", "sms_up_extend_code", "campaign", "dest_code", "stage", "reason", "detail",
        "schema_name", "schema_fingerprint", "queue_name", "message_type", "pipeline_version", "answer",
    }
)  # fmt: skip


# Who reads a range asks for times; statistics of all other columns cost an eighth of the writing.
_RANGE_COLUMNS: Final = frozenset(
    {"send_time", "report_time", "requested_at", "enqueued_at", "failed_at"}
)
# Large enough to compress and to scan well; who reads or merges a file holds one of them in memory: 15 MB.
# Four times as many scan an eighth faster, and compress no better.
ROWS_PER_GROUP: Final = 25_000
# A file of so many rows is never merged with others: what is gained is not worth writing it once more.
LARGE_FILE_ROWS: Final = 1_000_000


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
    except (pa.ArrowException, OSError, ContractError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the file is not there, or the disk is broken: the system says so itself
        if isinstance(error, FileNotFoundError):  # read_table says it without the system's words
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
        raise TableFileError(
            f"The file {path} of the dataset is damaged ({type(error).__name__}): restore it from a copy, "
            "or recompute its day with sms-receipts backfill."
        ) from error


def read_rows(table: Table, path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a file of a table, or some of its columns, whichever version of the contract it was written with.

    Raises:
        TableFileError: the file is damaged.
    """
    with reading(path):
        rows = pq.read_table(path, columns=columns and list(columns), partitioning=None)
        return contract(table.contract).complete(rows, columns)


def read_rows_of_keys(
    table: Table, path: str, columns: Sequence[str], key: str, hashes: keys.Hashes
) -> Iterator[pa.Table]:
    """Read the rows of a file of a table that belong to some keys, a row group at a time.

    Of row groups without such rows only the key is decoded: 0.1 us a row instead of 0.5, and no more
    memory than a row group takes, however long the file is.

    Args:
        table: the table.
        path: the file, whichever version of the contract it was written with.
        columns: what to read.
        key: the column that holds the keys, strings without nulls.
        hashes: of the keys, as ``keys.distinct_hashes`` gives them. Keys that share a hash with one of them
            come along.

    Raises:
        TableFileError: the file is damaged.
    """
    with reading(path), pq.ParquetFile(path) as file:
        names = [name for name in columns if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            of_keys = keys.are_among(file.read_row_group(group, [key]).column(key), hashes)
            if of_keys.any():
                rows = file.read_row_group(group, names).filter(pa.array(of_keys))
                yield contract(table.contract).complete(rows, columns)


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
    for dt, of_day in rows_by_day(table, rows, days):
        yield write_file(table, dt, [of_day], staging)


def rows_by_day(
    table: Table, rows: pa.Table, days: Collection[int] | None = None
) -> Iterator[tuple[str, pa.Table]]:
    """Part rows by their Beijing day, ``YYYY-MM-DD``; arguments as those of :func:`write_table`."""
    if not rows.num_rows:
        return
    row_days = _days(rows.column(table.day_column))
    for day in _distinct(row_days):
        if days is not None and day not in days:
            continue
        of_day = row_days == day
        yield day_name(day), rows if of_day.all() else rows.filter(pa.array(of_day))


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
    """Write the rows of several files of one day to one, some ten thousand rows at a time, as they come."""
    return write_file(table, dt, row_groups(table, paths), staging)


def row_groups(table: Table, paths: Sequence[str]) -> Iterator[pa.Table]:
    """Read files as row groups of a good size, whatever size theirs are.

    Raises:
        TableFileError: a file is damaged.
    """
    return gathered(_row_groups(table, paths))


def _row_groups(table: Table, paths: Sequence[str]) -> Iterator[pa.Table]:
    for path in paths:
        with reading(path), pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield contract(table.contract).complete(file.read_row_group(group))


def gathered(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Put rows together to row groups of a good size, in their order."""
    group: list[pa.Table] = []
    for rows in parts:
        group.append(rows)
        if sum(part.num_rows for part in group) >= ROWS_PER_GROUP:
            yield pa.concat_tables(group)
            group = []
    if group:
        yield pa.concat_tables(group)


def is_sorted(path: str) -> bool:
    """Tell whether a file of a table says that it is sorted: those that were compacted do.

    Raises:
        TableFileError: the file is damaged.
    """
    metadata = read_metadata(path)
    return all(
        metadata.row_group(group).sorting_columns for group in range(metadata.num_row_groups)
    )


def write_file(
    table: Table, dt: str, groups: Iterable[pa.Table], staging: str, *, is_sorted: bool = False
) -> WrittenFile:
    """Write rows of one day to one synced Parquet file.

    Args:
        table: where the rows belong.
        dt: their day.
        groups: the rows, as the row groups of the file.
        staging: the directory that stands for the dataset until the file is committed.
        is_sorted: whether they come in the order of the table's ``sort_column``: then the file says so, and
            what range of it each row group has.
    """
    path = os.path.join(table.name, f"dt={dt}", f"{uuid.uuid4().hex}.parquet")
    target = os.path.join(staging, path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "wb") as file:
        row_count = write_parquet(table, file, groups, is_sorted=is_sorted)
        file.flush()
        os.fsync(file.fileno())
    return WrittenFile(table.name, dt, path, row_count, os.path.getsize(target))


def write_parquet(
    table: Table, file: BinaryIO, groups: Iterable[pa.Table], *, is_sorted: bool = False
) -> int:
    """Write rows as a Parquet file of the table; return how many.

    Args:
        table: where the rows belong.
        file: takes the bytes.
        groups: the rows, as the row groups of the file.
        is_sorted: as in :func:`write_file`.
    """
    dictionary = [name for name in table.schema.names if name in _DICTIONARY_COLUMNS]
    ranges = _RANGE_COLUMNS | ({table.sort_column} if is_sorted else set())
    row_count = 0
    with pq.ParquetWriter(
        file,
        table.schema,
        compression="zstd",
        use_dictionary=dictionary,
        write_statistics=[name for name in table.schema.names if name in ranges],
        sorting_columns=_sorting(table) if is_sorted else None,
    ) as writer:
        for rows in groups:
            writer.write_table(rows)
            row_count += rows.num_rows
        writer.add_key_value_metadata(
            {
                "sms_receipts.contract": table.contract,
                "sms_receipts.schema_fingerprint": contract(table.contract).fingerprint,
            }
        )
    return row_count


def _sorting(table: Table) -> Sequence[pq.SortingColumn]:
    order = [(table.sort_column, "ascending")]
    sorting: Sequence[pq.SortingColumn] = pq.SortingColumn.from_ordering(
        table.schema, order, null_placement="at_end"
    )
    return sorting
