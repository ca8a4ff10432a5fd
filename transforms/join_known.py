"""The state of a bucket of the keyed join as it is in memory: what is open, and an index of what has left."""

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from transforms import keys
from transforms.enrich import key_and_group_hashes
from transforms.enrich_rows import REPORT_SCHEMA, SEND_SCHEMA, column
from transforms.join_log import BUCKET_NAME_BYTES, LEFT_BAGS, LeftChunk, OpenChunk, unpack_hashes
from transforms.keyed_rows import Keyed, KeyedRows, are_among, concatenated
from transforms.keys import Hashes
from transforms.moments import Milliseconds, milliseconds
from transforms.news import rows_of_contract
from transforms.packed import pack, unpack
from transforms.tables import Table
from transforms.unseen import message_days

_INDEX_SCHEMA: Final = pa.schema(
    [pa.field("bag", pa.int8(), nullable=False), pa.field("chunk", pa.int64(), nullable=False)]
)


class Spans(NamedTuple):
    """How long who stays, in milliseconds.

    ``tick`` is what the moments of the timer are rounded up to: each costs as much as a bundle.
    """

    patience: int
    memory: int
    tick: int


class Open(NamedTuple):
    """Sends and reports that wait, with the hashes of their keys and groups, the sends first."""

    sends: pa.Table
    reports: pa.Table
    hashes: Hashes
    groups: Hashes

    def without(self, others: Hashes) -> "Open":
        """Leave out those with some hashes (ascending)."""
        is_kept = ~are_among(self.hashes, others)
        count = self.sends.num_rows
        return Open(
            self.sends.filter(pa.array(is_kept[:count])),
            self.reports.filter(pa.array(is_kept[count:])),
            self.hashes[is_kept],
            self.groups[is_kept],
        )


def open_of(sends: pa.Table, reports: pa.Table) -> Open:
    """Hash what waits."""
    return Open(sends, reports, *key_and_group_hashes(sends, reports))


def pack_open(sends: pa.Table, reports: pa.Table) -> bytes:
    """Turn what waits into bytes."""
    return pack({"sends": sends, "reports": reports})


def unpack_open(packed: bytes) -> Open:
    """Turn the bytes of :func:`pack_open` into what waits."""
    parts = unpack(packed)
    return open_of(
        rows_of_contract(parts, "sends", "send_log_entry"),
        rows_of_contract(parts, "reports", "delivery_report"),
    )


class Known(NamedTuple):
    """The state of a bucket; waiting reports without a phone number are ``nameless``.

    ``left`` has the numbers of bags and chunks; the rows themselves are read when they are asked for.
    """

    sends: KeyedRows
    waiting: KeyedRows
    nameless: KeyedRows
    left: KeyedRows

    @property
    def open(self) -> tuple[KeyedRows, KeyedRows, KeyedRows]:
        """All that waits."""
        return self.sends, self.waiting, self.nameless

    @property
    def next_due_ms(self) -> int:
        """The earliest moment at which anything is to be done."""
        return min(rows.next_due_ms for rows in self)

    def add_open(self, open_: Open, spans: Spans) -> None:
        """Let sends wait for their reports, and reports for their sends."""
        count = open_.sends.num_rows
        if count:
            due_ms = _due_ms(open_.sends, "requested_at", spans)
            self.sends.add(Keyed(open_.sends, open_.hashes[:count], open_.groups[:count], due_ms))
        if open_.reports.num_rows:
            due_ms = _due_ms(open_.reports, "enqueued_at", spans)
            hashes, groups = open_.hashes[count:], open_.groups[count:]
            self._add_reports(open_.reports, Keyed(open_.reports, hashes, groups, due_ms))

    def _add_reports(self, reports: pa.Table, keyed: Keyed) -> None:
        if not column(reports, "phone_number").null_count:
            self.waiting.add(keyed)
            return
        is_nameless = column(reports, "phone_number").is_null().to_numpy(zero_copy_only=False)
        self.waiting.add(keyed.take(np.flatnonzero(~is_nameless)))
        self.nameless.add(keyed.take(np.flatnonzero(is_nameless)))

    def add_left(self, bag: int, chunks: Iterable[LeftChunk], spans: Spans) -> None:
        """Remember where to look for what has left: in chunks of a bag."""
        indices = [_index(bag, chunk, spans) for chunk in chunks]
        if indices:
            self.left.add(concatenated(indices))

    def drop_open(self, hashes: Hashes) -> None:
        """End the wait of all that have these hashes."""
        for rows in self.open:
            rows.drop(hashes)


def nothing_known() -> Known:
    """An empty bucket."""
    return Known(
        sends=KeyedRows(SEND_SCHEMA),
        waiting=KeyedRows(REPORT_SCHEMA),
        nameless=KeyedRows(REPORT_SCHEMA),
        left=KeyedRows(_INDEX_SCHEMA),
    )


def known_of(
    open_log: Iterable[OpenChunk], left: Iterable[Iterable[LeftChunk]], spans: Spans
) -> Known:
    """Read the state out of its log, the oldest chunk first, and of the bags with what has left."""
    known = nothing_known()
    for chunk in open_log:
        known.drop_open(unpack_hashes(chunk.changed))
        known.add_open(unpack_open(chunk.tables), spans)
    for bag, chunks in enumerate(left):
        known.add_left(bag, chunks, spans)
    return known


def _index(bag: int, chunk: LeftChunk, spans: Spans) -> Keyed:
    hashes = unpack_hashes(chunk.hashes)
    bags = pa.array(np.full(len(hashes), bag, dtype=np.int8))
    numbers = pa.array(np.full(len(hashes), chunk.number, dtype=np.int64))
    forget_ms = np.full(len(hashes), forgotten_at(chunk.moment_ms, spans), dtype=np.int64)
    rows = pa.Table.from_arrays([bags, numbers], schema=_INDEX_SCHEMA)
    return Keyed(rows, hashes, unpack_hashes(chunk.groups), forget_ms)


class KnownBuckets:
    """States in memory by their tokens, one of each bucket; the least recently visited is given up first.

    A token is never used twice, so a state that is found is the right one, whatever became of the bundle
    that left it here. Who takes a state owns it. What a failed bundle has left is given up at the next visit:
    nobody will ask for it, and a bundle may fail a thousand times.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_bucket: OrderedDict[bytes, tuple[bytes, Known]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._by_bucket)

    def take(self, token: bytes) -> Known | None:
        """Hand a state over, if it is here."""
        with self._lock:
            kept, known = self._by_bucket.pop(token[:BUCKET_NAME_BYTES], (b"", None))
        return known if kept == token else None

    def put(self, token: bytes, known: Known) -> None:
        """Keep a state for the next visit."""
        with self._lock:
            self._by_bucket[token[:BUCKET_NAME_BYTES]] = token, known
            while len(self._by_bucket) > self._most:
                self._by_bucket.popitem(last=False)


def forgotten_at(moment_ms: int, spans: Spans) -> int:
    """When what left at a moment is forgotten: some steps for all, not one for each."""
    return rounded_up(moment_ms + spans.memory, _memory_step(spans))


def left_bag(moment_ms: int, spans: Spans) -> int:
    """The number of the bag for what leaves at a moment: together with what is forgotten when it is."""
    return forgotten_at(moment_ms, spans) // _memory_step(spans) % LEFT_BAGS


def _memory_step(spans: Spans) -> int:
    return max(spans.memory // LEFT_BAGS, 1)


def rounded_up(moment_ms: int, step_ms: int) -> int:
    """The next of the moments that are a step apart."""
    return -(-moment_ms // step_ms) * step_ms


def group_hashes(rows: pa.Table) -> Hashes:
    """Hash the ``biz_id`` of each row: what a report without a phone number is known by."""
    return keys.hash_strings(column(rows, "biz_id"))


def message_hashes(rows: pa.Table, table: Table) -> Hashes:
    """Hash the message of each row with its day and its table."""
    days = keys.hash_strings(message_days(rows, table).combine_chunks())
    (of_table,) = keys.hash_strings(pa.array([table.name]))
    return keys.combine(days, np.full(len(days), of_table, dtype=np.uint64))


def _due_ms(rows: pa.Table, time: str, spans: Spans) -> Milliseconds:
    # Who is exactly as old as patience allows still waits: see transforms.match.
    return milliseconds(rows.column(time)) + spans.patience + 1
