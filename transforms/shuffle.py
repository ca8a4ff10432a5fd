"""Bring what belongs together to one place: slices of tables, shuffled by bucket.

A shuffle of single records costs eight to ten times more CPU than the work itself, and the local runner
keeps all shuffled bytes in memory several times over. So the element of the shuffle is a *claim check*: the
rows of one bucket, as an Arrow stream in a file that every worker can open, and only the file's name is
shuffled.

The files are not compressed: writing and reading a row takes 0.15 us so, and 1.1 us with the fastest zstd;
they cost some 400 bytes of disk for a report with its send until the run ends. Their names carry an id of
the attempt: a bundle that a runner tries again never writes into a file of its first try.
"""

import os
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from typing_extensions import Self

from transforms import keys

# Small batches are gathered, since splitting costs something per call; larger ones would not stay in the
# processor's cache while their rows are picked in the order of the buckets.
_ROWS_PER_SPLIT: Final = 16_000


class Slice(NamedTuple):
    """The rows of one kind and one bucket, waiting in a file (an Arrow IPC stream)."""

    kind: str
    path: str


class SliceWriter:
    """Split tables by bucket and write each part to its own file.

    A context manager: the files are complete when it exits. Use one per unit of work.

    Args:
        directory: where all workers can read; created if missing.
        bucket_count: how many buckets there are in this run.
    """

    def __init__(self, directory: str, bucket_count: int) -> None:
        self._directory = directory
        self._bucket_count = bucket_count
        self._attempt = uuid.uuid4().hex
        self._pending: defaultdict[tuple[str, str], list[pa.Table]] = defaultdict(list)
        self._pending_rows: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._writers: dict[tuple[str, int], pa.RecordBatchStreamWriter] = {}
        # Arrow does not close the file of a writer that the disk refuses to end: it is closed here.
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        os.makedirs(self._directory, exist_ok=True)
        return self

    def add(self, kind: str, rows: pa.Table, key: str) -> None:
        """Add rows, spread by the strings of their column ``key``."""
        if not rows.num_rows:
            return
        self._pending[kind, key].append(rows)
        self._pending_rows[kind, key] += rows.num_rows
        if self._pending_rows[kind, key] >= _ROWS_PER_SPLIT:
            self._split(kind, key)

    def slices(self) -> Iterator[tuple[int, Slice]]:
        """Finish all files; tell each one's bucket."""
        for kind, key in list(self._pending):
            self._split(kind, key)
        self._opened.close()
        for kind, bucket in self._writers:
            yield bucket, Slice(kind, self._path(kind, bucket))

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _split(self, kind: str, key: str) -> None:
        rows = pa.concat_tables(self._pending.pop((kind, key))).combine_chunks()
        self._pending_rows[kind, key] = 0
        if self._bucket_count == 1:
            self._write(kind, 0, rows)
            return
        column = rows.column(key)
        buckets = keys.buckets(
            column.chunk(0) if isinstance(column, pa.ChunkedArray) else column, self._bucket_count
        )
        ordered = rows.take(pa.array(np.argsort(buckets, kind="stable")))
        ends = np.cumsum(np.bincount(buckets, minlength=self._bucket_count))
        start = 0
        for bucket, end in enumerate(ends.tolist()):
            if end > start:
                self._write(kind, bucket, ordered.slice(start, end - start))
            start = end

    def _write(self, kind: str, bucket: int, rows: pa.Table) -> None:
        writer = self._writers.get((kind, bucket))
        if writer is None:
            file = self._opened.enter_context(pa.OSFile(self._path(kind, bucket), "wb"))
            writer = self._opened.enter_context(pa.ipc.new_stream(file, rows.schema))
            self._writers[kind, bucket] = writer
        writer.write_table(rows)

    def _path(self, kind: str, bucket: int) -> str:
        return os.path.join(self._directory, f"{kind}-{bucket:05d}-{self._attempt}.arrows")


def read_slices(slices: Iterable[Slice], kind: str, schema: pa.Schema) -> pa.Table:
    """Read all rows of one kind; the empty table if there are none.

    The order of slices depends on the runner, so they are read in the order of their names.
    """
    tables = []
    for part in sorted(part for part in slices if part.kind == kind):
        with pa.ipc.open_stream(part.path) as reader:
            tables.append(reader.read_all())
    return pa.concat_tables([schema.empty_table(), *tables])


def key_hashes(slices: Iterable[Slice], key: str) -> keys.Hashes:
    """The hashes of the strings in the column ``key`` of some slices; ascending, each once."""
    return keys.distinct_hashes(
        batch.column(key) for part in slices for batch in _batches(part.path)
    )


def _batches(path: str) -> Iterator[pa.RecordBatch]:
    """Read a slice without touching the columns that nobody looks at."""
    with pa.memory_map(path) as file, pa.ipc.open_stream(file) as reader:
        yield from reader
