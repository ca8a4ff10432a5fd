"""Sort the rows of a day, however many they are: DuckDB keeps what does not fit into memory on the disk."""

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final

import duckdb
import pyarrow as pa

from transforms.tables import (
    LARGE_FILE_ROWS,
    ROWS_PER_GROUP,
    Table,
    WrittenFile,
    gathered,
    row_groups,
    write_file,
)

# All files but the last are large ones, also when row groups are not quite full.
ROWS_PER_FILE: Final = 2 * LARGE_FILE_ROWS
_GROUPS_PER_FILE: Final = ROWS_PER_FILE // ROWS_PER_GROUP
# What DuckDB may hold of them; with all that is around it, a compaction takes some 700 MB. With four times as
# much it is hardly faster.
_MEMORY: Final = "256MB"


class SortError(Exception):
    """Raised when DuckDB cannot sort for want of room, on the disk or in memory."""


def sort_files(
    table: Table, dt: str, paths: Sequence[str], staging: str, spill: str
) -> Iterator[WrittenFile]:
    """Write the rows of files of one day anew, sorted by the table's ``sort_column``, to few files.

    Args:
        table: the table.
        dt: the day.
        paths: the files, whichever version of the contract they were written with.
        staging: the directory that stands for the dataset until the files are committed.
        spill: a directory for what does not fit into memory; it is made, and left empty.

    Raises:
        TableFileError: a file is damaged.
        FileNotFoundError: a file is gone.
        SortError: there is no room.
    """
    groups = gathered(_sorted(table, paths, spill))
    for group in groups:
        of_file = itertools.chain([group], itertools.islice(groups, _GROUPS_PER_FILE - 1))
        yield write_file(table, dt, of_file, staging, is_sorted=True)


def _sorted(table: Table, paths: Sequence[str], spill: str) -> Iterator[pa.Table]:
    feed = _Feed(table, paths)
    os.makedirs(spill, exist_ok=True)
    with closing(duckdb.connect()) as connection:
        connection.execute(f"SET memory_limit = '{_MEMORY}'")
        connection.execute("SET temp_directory = ?", [spill])
        try:
            rows = connection.from_arrow(feed.reader()).order(f'"{table.sort_column}"')
            for batch in rows.to_arrow_reader(ROWS_PER_GROUP):
                yield pa.Table.from_batches([batch]).cast(table.schema)
        except (duckdb.Error, pa.ArrowException) as failure:
            if feed.failure is not None:
                raise feed.failure from None
            if isinstance(failure, (duckdb.IOException, duckdb.OutOfMemoryException)):
                raise SortError(f"no room to sort in {spill}") from failure
            raise


class _Feed:
    """The rows of files as a stream, which remembers what DuckDB only passes on as text: why it broke off."""

    def __init__(self, table: Table, paths: Sequence[str]) -> None:
        self._table = table
        self._paths = paths
        self.failure: BaseException | None = None

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self._table.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for rows in row_groups(self._table, self._paths):
                yield from rows.to_batches()
        except BaseException as failure:
            self.failure = failure
            raise
