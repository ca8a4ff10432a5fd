"""One bucket of the keyed join, in memory: news in, rows out."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from tests.enrich.small_dataset import NOON
from transforms import tables
from transforms.enrich_rows import ENRICHED_SCHEMA, REPORT_SCHEMA, SEND_SCHEMA, UNREPORTED_SCHEMA
from transforms.join_known import KnownBuckets, Spans, known_of
from transforms.join_log import LEFT_BAGS, Bags, read_left, read_open
from transforms.join_state import Visit, Visited
from transforms.moments import to_ms
from transforms.news import News
from transforms.packed import unpack_rows

MINUTE = 60_000
SPANS = Spans(patience=10 * MINUTE, memory=1000 * MINUTE, tick=1000)
NOON_MS = to_ms(NOON)


class ListBag:
    """What an engine keeps; a bag has no order."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.reads = 0

    def read(self) -> Iterable[bytes]:
        self.reads += 1
        return self.parts[1::2] + self.parts[::2]

    def add(self, value: bytes) -> None:
        self.parts.append(value)

    def clear(self) -> None:
        self.parts = []


class Bucket:
    """A bucket that is visited again and again; ``forgetful`` if nothing is in memory between the visits."""

    def __init__(
        self,
        spans: Spans = SPANS,
        *,
        forgetful: bool = False,
        buckets: KnownBuckets | None = None,
    ) -> None:
        self.spans = spans
        self.bucket_count = 1
        self.head, self.open = ListBag(), ListBag()
        self.left = [ListBag() for _ in range(LEFT_BAGS)]
        self.rows: dict[str, list[pa.Table]] = {}
        self.timer_ms: int | None = None
        self._buckets = KnownBuckets(0 if forgetful else 1) if buckets is None else buckets

    def arrive(
        self,
        reports: Sequence[dict[str, Any]] = (),
        sends: Sequence[dict[str, Any]] = (),
        *,
        inbound: Sequence[dict[str, Any]] = (),
        moment_ms: int = NOON_MS,
    ) -> Visited:
        news = News(
            reports=pa.Table.from_pylist(list(reports), schema=REPORT_SCHEMA),
            sends=pa.Table.from_pylist(list(sends), schema=SEND_SCHEMA),
            inbound=pa.Table.from_pylist(list(inbound), schema=tables.INBOUND_SMS.schema),
            answers=tables.QUERY_ANSWERS.schema.empty_table(),
            failed=tables.FAILED_EVENTS.schema.empty_table(),
        )
        return self.arrive_news(news, moment_ms)

    def arrive_news(self, news: News, moment_ms: int = NOON_MS) -> Visited:
        return self._after(self._visit().arrive(news, moment_ms))

    def fall_due(self, as_of_ms: int) -> Visited:
        """Fire the timer, whenever it was set for."""
        self.timer_ms = None
        return self._after(self._visit().fall_due(as_of_ms))

    def pass_time(self, until_ms: int) -> int:
        """Fire the timer as an engine does; return how often."""
        fired = 0
        while self.timer_ms is not None and self.timer_ms <= until_ms:
            self.fall_due(self.timer_ms)
            fired += 1
        return fired

    def written(self, table: tables.Table) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pa.concat_tables(
            [table.schema.empty_table(), *self.rows.get(table.name, [])]
        ).to_pylist()
        return rows

    @property
    def enriched(self) -> pa.Table:
        parts = self.rows.get(tables.ENRICHED_REPORTS.name, [])
        return pa.concat_tables([ENRICHED_SCHEMA.empty_table(), *parts])

    @property
    def unreported(self) -> pa.Table:
        parts = self.rows.get(tables.UNREPORTED_SENDS.name, [])
        return pa.concat_tables([UNREPORTED_SCHEMA.empty_table(), *parts])

    def waiting(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The sends and the reports that wait, as the bags alone tell it."""
        known = known_of(read_open(self.open), map(read_left, self.left), self.spans)
        sends, *reports = (rows.everything().rows for rows in known.open)
        return sends.to_pylist(), pa.concat_tables(reports).to_pylist()

    @property
    def contents(self) -> list[list[bytes]]:
        """What the bags hold: assign it to go back to what was, as an engine does."""
        return [list(bag.parts) for bag in self._all_bags]

    @contents.setter
    def contents(self, parts: Sequence[Sequence[bytes]]) -> None:
        for bag, of_bag in zip(self._all_bags, parts, strict=True):
            bag.parts = list(of_bag)

    @property
    def open_bytes(self) -> int:
        return sum(map(len, self.open.parts))

    @property
    def state_bytes(self) -> int:
        return sum(len(part) for parts in self.contents for part in parts)

    @property
    def _all_bags(self) -> list[ListBag]:
        return [self.head, self.open, *self.left]

    def _visit(self) -> Visit:
        bags = Bags(self.head, self.open, self.left)
        return Visit(bags, self.spans, self._buckets, self.bucket_count)

    def _after(self, visited: Visited) -> Visited:
        if visited.timer_ms is not None:
            self.timer_ms = visited.timer_ms
        elif visited.is_over:
            self.timer_ms = None
        for name, rows in visited.rows.items():
            self.rows.setdefault(name, []).append(unpack_rows(rows))
        return visited
