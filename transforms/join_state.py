"""The keyed join of one bucket: facts come, rows leave, and what must wait or be remembered stays.

:func:`transforms.enrich.enrich` decides, as it does in the bounded graph; this module finds the facts that it
must be asked about. Nobody loses patience while news come: that happens when the bucket's timer says so.

A visit reads the head of the state (:mod:`transforms.join_log`) and mostly nothing else: what the rest
says is in memory already, under the token of the head. If it is not (after a start, a failure, a move to
another worker) all of it is read. What has left is read again when news speak of it: repeats, corrections.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from secrets import token_bytes
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms import tables
from transforms.enrich import (
    SETTLED_SCHEMA,
    Enriched,
    Facts,
    enrich,
    key_and_group_hashes,
    key_hashes,
)
from transforms.enrich_rows import column
from transforms.join_known import (
    Known,
    KnownBuckets,
    Spans,
    forgotten_at,
    group_hashes,
    known_of,
    left_bag,
    message_hashes,
    nothing_known,
    open_of,
    pack_open,
    rounded_up,
)
from transforms.join_log import (
    BUCKET_NAME_BYTES,
    Bags,
    Head,
    LeftChunk,
    OpenChunk,
    encode,
    pack_hashes,
    read_head,
    read_left,
    read_open,
)
from transforms.keyed_rows import NEVER, are_among
from transforms.keys import Hashes
from transforms.match import Patience
from transforms.news import NEWS_CONTRACTS, News, no_rows, rows_of_contract
from transforms.packed import pack_packed, pack_rows, unpack
from transforms.tables import Table
from transforms.unseen import seen_schema, unseen

_NOBODY_LEAVES: Final = Patience(-(2**62), -(2**62))
_NO_NEWS: Final = News(*map(no_rows, NEWS_CONTRACTS))
_MESSAGE_TABLES: Final[Mapping[str, Table]] = {
    table.name: table for table in (tables.INBOUND_SMS, tables.QUERY_ANSWERS, tables.FAILED_EVENTS)
}
_NOTHING: Final[Hashes] = np.empty(0, dtype=np.uint64)
# A log that is not longer than this is not worth writing anew.
_SHORT_LOG_BYTES: Final = 64 * 1024
_ROWS_PER_CHUNK: Final = 4096


class JoinStateError(Exception):
    """Raised when the state that is there belongs to another join; a sentence with cause and fix."""


class Visited(NamedTuple):
    """What comes of a visit.

    Attributes:
        rows: by table name, those that leave, packed; no empty tables.
        counts: as :func:`transforms.enrich.enrich` counts, and ``duplicate_messages``' records.
        open_rows: the sends and reports that wait now.
        timer_ms: what to set the timer to; None leaves it as it is.
        is_over: nothing waits and nothing is remembered: the timer can be cleared.
    """

    rows: Mapping[str, bytes]
    counts: Counter[str]
    open_rows: int
    timer_ms: int | None
    is_over: bool


class Visit:
    """One look after a bucket: by its news, or by its timer. Use it once."""

    def __init__(self, bags: Bags, spans: Spans, buckets: KnownBuckets, bucket_count: int) -> None:
        """Look at the state of a bucket, one of ``bucket_count``.

        Raises:
            JoinStateError: it was written when there were more buckets, or fewer.
        """
        self._bags = bags
        self._spans = spans
        self._buckets = buckets
        self._bucket_count = bucket_count
        self._head = read_head(bags.head)
        if self._head.token and self._head.bucket_count != bucket_count:
            raise JoinStateError(
                f"The state is of a join with --join_buckets={self._head.bucket_count}, not {bucket_count}: "
                "go on with that number, or start anew without the savepoint."
            )
        self._known = self._remembered_or_read()
        self._next_number = self._head.next_number
        self._open_bytes = self._head.open_bytes
        self._whole_bytes = self._head.whole_bytes
        self._reached_ms = self._head.reached_ms
        self._is_changed = False

    def _remembered_or_read(self) -> Known:
        if not self._head.token:
            return nothing_known()
        bags = self._bags
        return self._buckets.take(self._head.token) or known_of(
            read_open(bags.open), map(read_left, bags.left), self._spans
        )

    def arrive(self, news: News, moment_ms: int) -> Visited:
        """Let news in.

        Args:
            news: what a bundle brings.
            moment_ms: its event time (UTC milliseconds): what leaves is remembered from then on, or from the
                latest moment so far. One old message makes a whole bundle old.
        """
        self._reached_ms = max(self._reached_ms, moment_ms)
        return self._answer(news, _NOTHING, _NOBODY_LEAVES, self._head.armed_ms)

    def fall_due(self, as_of_ms: int) -> Visited:
        """Let those leave whose patience ends at a moment, and forget what was remembered long enough.

        A call that comes too early does nothing; one that comes late does what is to be done.
        """
        self._reached_ms = max(self._reached_ms, as_of_ms)
        self._forget(as_of_ms)
        due = np.unique(np.concatenate([rows.hashes_due(as_of_ms) for rows in self._known.open]))
        deadline = as_of_ms - self._spans.patience
        return self._answer(_NO_NEWS, due, Patience(deadline, deadline), None)

    def _answer(self, news: News, due: Hashes, patience: Patience, armed_ms: int | None) -> Visited:
        asked = self._asked(news, due)
        messages = _messages(news)
        left = self._left(asked, messages)
        rows: dict[str, pa.Table] = {}
        counts: Counter[str] = Counter()
        if len(asked.hashes):
            enriched = self._enriched(news, asked, left, patience)
            counts.update(enriched.counts)
            rows[tables.ENRICHED_REPORTS.name] = enriched.rows
            rows[tables.UNREPORTED_SENDS.name] = enriched.unreported
        for message in messages:
            rows[message.table.name] = unseen(message.rows, left.seen(message.table), message.table)
            counts["duplicate_messages"] += (
                message.rows.num_rows - rows[message.table.name].num_rows
            )
        rows = {name: leaving for name, leaving in rows.items() if leaving.num_rows}
        packed = {name: pack_rows(leaving) for name, leaving in rows.items()}
        self._remember(rows, packed)
        return self._kept(packed, counts, armed_ms)

    # -- what is asked about, and what is known of it -------------------------------------------------

    def _asked(self, news: News, due: Hashes) -> "_Asked":
        of_news = _distinct(key_hashes(news.reports, news.sends))
        groups = self._groups_in_question(news)
        of_groups = [rows.hashes_of_groups(groups) for rows in self._known.open]
        return _Asked(of_news, _distinct(of_news, due, *of_groups), groups)

    def _groups_in_question(self, news: News) -> Hashes:
        """Whose a report without a number is depends on all recipients of its ``biz_id``."""
        groups = _NOTHING
        if column(news.reports, "phone_number").null_count:
            is_nameless = column(news.reports, "phone_number").is_null()
            groups = group_hashes(news.reports.filter(is_nameless))
        if len(self._known.nameless) and news.sends.num_rows:
            waiting = self._known.nameless.groups_among(group_hashes(news.sends))
            groups = np.concatenate([groups, waiting])
        return _distinct(groups)

    def _left(self, asked: "_Asked", messages: Sequence["_Messages"]) -> "_Left":
        """Read what has left of those who are asked about; nearly always nothing."""
        index = self._known.left
        sought = _distinct(
            asked.hashes,
            index.hashes_of_groups(asked.groups),
            *(message.hashes for message in messages),
        )
        places = index.of_hashes(sought).rows
        numbers = set(places.column("chunk").to_pylist())
        chunks = [
            chunk
            for bag in places.column("bag").unique().to_pylist()
            for chunk in read_left(self._bags.left[bag])
            if chunk.number in numbers
        ]
        chunks.sort(key=lambda chunk: chunk.number)
        return _Left([unpack(chunk.tables) for chunk in chunks], asked)

    def _enriched(self, news: News, asked: "_Asked", left: "_Left", patience: Patience) -> Enriched:
        sends, waiting, nameless = (rows.of_hashes(asked.hashes) for rows in self._known.open)
        standing = left.rows_of(tables.ENRICHED_REPORTS)
        facts = Facts(
            reports=news.reports,
            waiting=pa.concat_tables([waiting.rows, nameless.rows]),
            sends=news.sends,
            open_sends=sends.rows,
            unreported=left.rows_of(tables.UNREPORTED_SENDS),
            settled=standing.select(SETTLED_SCHEMA.names),
        )

        def fetch_rows(event_ids: Sequence[str]) -> pa.Table:
            return standing.filter(pc.is_in(standing.column("event_id"), pa.array(event_ids)))

        enriched = enrich(facts, patience, fetch_rows)
        before = _distinct(sends.hashes, waiting.hashes, nameless.hashes)
        self._carry_over(asked.of_news, before, enriched.open_sends, enriched.waiting)
        return enriched

    # -- what stays -------------------------------------------------------------------------------------

    def _carry_over(
        self, of_news: Hashes, before: Hashes, sends: pa.Table, reports: pa.Table
    ) -> None:
        """Write down whose facts are others now; of a send to thousands that is one, not thousands."""
        stays = open_of(sends, reports)
        is_same = are_among(before, _distinct(stays.hashes)) & ~are_among(before, of_news)
        changed, same = before[~is_same], before[is_same]
        if len(same):
            stays = stays.without(same)
        if len(changed) or len(stays.hashes):
            self._known.drop_open(changed)
            self._known.add_open(stays, self._spans)
            self._append_open(changed, stays.sends, stays.reports)

    def _append_open(self, changed: Hashes, sends: pa.Table, reports: pa.Table) -> None:
        chunk = encode(
            OpenChunk(
                self._numbered(),
                pack_hashes(changed),
                pack_open(sends, reports),
            )
        )
        self._bags.open.add(chunk)
        self._open_bytes += len(chunk)

    def _tidy(self) -> None:
        """Write the open log anew when half of it speaks of what was: each row is written twice or so."""
        open_rows = sum(len(rows) for rows in self._known.open)
        if open_rows and self._open_bytes <= max(_SHORT_LOG_BYTES, 2 * self._whole_bytes):
            return
        if self._open_bytes:
            self._bags.open.clear()
        self._open_bytes = 0
        sends, waiting, nameless = (rows.everything().rows for rows in self._known.open)
        for part in _chunks(sends):
            self._append_open(_NOTHING, part, waiting.slice(0, 0))
        for part in _chunks(pa.concat_tables([waiting, nameless])):
            self._append_open(_NOTHING, sends.slice(0, 0), part)
        self._whole_bytes = self._open_bytes

    def _remember(self, rows: Mapping[str, pa.Table], packed: Mapping[str, bytes]) -> None:
        if not rows:
            return
        remembered, hashes, groups = {}, [], []
        for name, leaving in rows.items():
            table = _MESSAGE_TABLES.get(name)
            if table is None:
                remembered[name] = packed[name]
                of_keys, of_groups = key_and_group_hashes(leaving)
                hashes.append(of_keys)
                groups.append(of_groups)
            else:
                remembered[name] = pack_rows(leaving.select(seen_schema(table).names))
                hashes.append(message_hashes(leaving, table))
                groups.append(np.zeros(leaving.num_rows, dtype=np.uint64))
        chunk = LeftChunk(
            self._numbered(),
            self._reached_ms,
            pack_hashes(np.concatenate(hashes)),
            pack_hashes(np.concatenate(groups)),
            pack_packed(remembered),
        )
        bag = left_bag(self._reached_ms, self._spans)
        self._bags.left[bag].add(encode(chunk))
        self._known.add_left(bag, [chunk], self._spans)

    def _forget(self, as_of_ms: int) -> None:
        if self._known.left.next_due_ms > as_of_ms:
            return
        forgotten = self._known.left.drop_due(as_of_ms).rows
        for number in forgotten.column("bag").unique().to_pylist():
            bag = self._bags.left[number]
            chunks = read_left(bag)
            bag.clear()
            # A late timer finds what came since; another memory, what is forgotten at another time.
            for chunk in chunks:
                if forgotten_at(chunk.moment_ms, self._spans) > as_of_ms:
                    bag.add(encode(chunk))
        self._is_changed = True

    def _numbered(self) -> int:
        self._is_changed = True
        self._next_number += 1
        return self._next_number - 1

    def _kept(
        self, rows: Mapping[str, bytes], counts: Counter[str], armed_ms: int | None
    ) -> Visited:
        """Close the books: the head says what the bags hold now, and when to look again."""
        known = self._known
        open_rows = sum(len(waiting) for waiting in known.open)
        if self._is_changed:
            self._tidy()
        if known.next_due_ms == NEVER:
            if self._head.token:
                self._bags.clear()
            return Visited(rows, counts, open_rows, None, is_over=True)
        wanted_ms = rounded_up(known.next_due_ms, self._spans.tick)
        # A timer that comes too early is set again; clearing it for that would cost more.
        is_armed = (
            armed_ms is not None and armed_ms <= wanted_ms and not self._may_be_lost(armed_ms)
        )
        timer_ms = None if is_armed else wanted_ms
        token = self._head.token
        if self._is_changed or timer_ms is not None or armed_ms != self._head.armed_ms:
            bucket_name = token[:BUCKET_NAME_BYTES] or token_bytes(BUCKET_NAME_BYTES)
            token = bucket_name + token_bytes(BUCKET_NAME_BYTES)
            self._bags.head.clear()
            self._bags.head.add(
                encode(
                    Head(
                        token,
                        self._next_number,
                        armed_ms if timer_ms is None else timer_ms,
                        self._open_bytes,
                        self._whole_bytes,
                        self._reached_ms,
                        self._bucket_count,
                    )
                )
            )
        self._buckets.put(token, known)
        return Visited(rows, counts, open_rows, timer_ms, is_over=False)

    def _may_be_lost(self, armed_ms: int) -> bool:
        """Whether a timer should have fired long ago, asked when a tick begins.

        News may also be ahead of the watermark: then a timer is set again once a tick, which costs little.
        """
        tick = self._spans.tick
        tick_before, tick_now = (
            rounded_up(reached_ms, tick) for reached_ms in (self._head.reached_ms, self._reached_ms)
        )
        return armed_ms < tick_before < tick_now


class _Asked(NamedTuple):
    """Whose facts are asked for; all ascending, each once.

    ``of_news`` and ``hashes`` are of keys; ``groups`` are those of which every key counts.
    """

    of_news: Hashes
    hashes: Hashes
    groups: Hashes


class _Messages(NamedTuple):
    """Records that pass through, told apart by their messages."""

    table: Table
    rows: pa.Table
    hashes: Hashes


class _Left:
    """Rows that have left, out of the chunks in which some are asked about."""

    def __init__(self, parts: Sequence[dict[str, pa.Table]], asked: _Asked) -> None:
        self._parts = parts
        self._asked = asked

    def rows_of(self, table: Table) -> pa.Table:
        """Whole rows of those who are asked about, and of no others: what is half known misleads."""
        found = [no_rows(table.contract)]
        for part in self._parts:
            rows = rows_of_contract(part, table.name, table.contract)
            hashes, groups = key_and_group_hashes(rows)
            is_asked = are_among(hashes, self._asked.hashes)
            is_asked |= are_among(groups, self._asked.groups)
            found.append(rows.filter(pa.array(is_asked)))
        return pa.concat_tables(found) if self._parts else found[0]

    def seen(self, table: Table) -> pa.Table:
        """The messages of which rows have left."""
        parts = [part[table.name] for part in self._parts if table.name in part]
        return pa.concat_tables([seen_schema(table).empty_table(), *parts])


def _messages(news: News) -> list[_Messages]:
    rows_by_table = zip(
        _MESSAGE_TABLES.values(), (news.inbound, news.answers, news.failed), strict=True
    )
    return [
        _Messages(table, rows, message_hashes(rows, table))
        for table, rows in rows_by_table
        if rows.num_rows
    ]


def _distinct(*hashes: Hashes) -> Hashes:
    return np.unique(np.concatenate([_NOTHING, *hashes]))


def _chunks(rows: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, rows.num_rows, _ROWS_PER_CHUNK):
        yield rows.slice(start, _ROWS_PER_CHUNK)
