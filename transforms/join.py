"""The join of the streaming graph: reports meet their sends in state that is keyed by bucket."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import apache_beam as beam
from apache_beam import coders
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp
from typing_extensions import override

from transforms.join_known import KnownBuckets, Spans
from transforms.join_log import LEFT_BAGS, Bags
from transforms.join_state import Visit, Visited
from transforms.news import unpack_news

_MILLISECOND: Final = timedelta(milliseconds=1)
# A thousandth of patience is no loss, and when a job is drained no bucket's timer fires more often than that.
_TICKS_PER_PATIENCE: Final = 1000
_SHORTEST_TICK: Final = timedelta(seconds=1)
# More than any job has that shares a process; what is given up is read from the engine's state again.
_MOST_BUCKETS: Final = 1024


@dataclass(frozen=True)
class Joining:
    """How reports and sends are joined.

    Attributes:
        bucket_count: how many buckets keys are spread over: the most parallelism, and the price of a bundle.
        patience: how long (event time) a report waits for its send and a send for its report.
        memory: how long what has left is remembered, to know repeats and corrections.
    """

    bucket_count: int
    patience: timedelta
    memory: timedelta

    def __post_init__(self) -> None:
        if self.bucket_count < 1:
            raise ValueError("There must be at least one bucket.")
        if self.patience < timedelta(0):
            raise ValueError("Patience cannot be negative.")
        if self.memory < self.patience:
            raise ValueError(
                "What has left must be remembered as long as patience lasts, or longer."
            )

    @property
    def spans(self) -> Spans:
        """The same in milliseconds, and what the moments of timers are rounded up to."""
        tick = max(self.patience // _TICKS_PER_PATIENCE, _SHORTEST_TICK)
        return Spans(
            patience=self.patience // _MILLISECOND,
            memory=self.memory // _MILLISECOND,
            tick=tick // _MILLISECOND,
        )


class JoinReports(beam.PTransform[PCollection[tuple[int, bytes]], PCollection[tuple[str, bytes]]]):
    """Join the news of buckets, as ``DecodeMessages`` gives them, with what is known of their keys.

    The output is ``(table name, packed rows)``: rows of ``enriched_reports``, ``unreported_sends``,
    ``inbound_sms``, ``query_answers`` and ``failed_events``. After a failure rows are repeated, with the same
    ids; within ``memory`` a redelivered message brings nothing. Open facts cost some hundred bytes of state.

    Time is the watermark. Late data is let in: a send that comes after its patience leaves at the next tick.
    When the watermark is moved to its end (a drain), every patience ends.
    """

    def __init__(self, joining: Joining) -> None:
        super().__init__()
        self._joining = joining

    @override
    def expand(self, news: PCollection[tuple[int, bytes]]) -> PCollection[tuple[str, bytes]]:
        rows: PCollection[tuple[str, bytes]] = news | "Join" >> beam.ParDo(
            _JoinFn(self._joining)
        ).with_output_types(tuple[str, bytes])
        return rows


# Of the process, because an engine may use another instance of the DoFn for each bundle.
_BUCKETS: Final = KnownBuckets(_MOST_BUCKETS)

_COUNTERS: Final = {
    "matched_reports": Metrics.counter("enrich", "matched"),
    "orphan_reports": Metrics.counter("enrich", "orphans"),
    "corrections": Metrics.counter("enrich", "corrections"),
    "duplicate_reports": Metrics.counter("enrich", "duplicates"),
    "duplicate_messages": Metrics.counter("enrich", "duplicate_messages"),
    "unreported_new": Metrics.counter("enrich", "unreported"),
}
_OPEN: Final = Metrics.distribution("enrich", "open")


class _JoinFn(beam.DoFn):
    # Beam reads from the signatures what state there is, each bag by itself.
    _HEAD: Final = BagStateSpec("head", coders.BytesCoder())
    _OPEN: Final = BagStateSpec("open", coders.BytesCoder())
    _LEFT: Final = [BagStateSpec(f"left_{bag}", coders.BytesCoder()) for bag in range(LEFT_BAGS)]
    _DUE: Final = TimerSpec("due", TimeDomain.WATERMARK)

    def __init__(self, joining: Joining) -> None:
        self._spans = joining.spans
        self._bucket_count = joining.bucket_count

    @override
    def process(
        self,
        element: tuple[int, bytes],
        timestamp: Any = beam.DoFn.TimestampParam,
        head: Any = beam.DoFn.StateParam(_HEAD),
        open_log: Any = beam.DoFn.StateParam(_OPEN),
        left_0: Any = beam.DoFn.StateParam(_LEFT[0]),
        left_1: Any = beam.DoFn.StateParam(_LEFT[1]),
        left_2: Any = beam.DoFn.StateParam(_LEFT[2]),
        left_3: Any = beam.DoFn.StateParam(_LEFT[3]),
        left_4: Any = beam.DoFn.StateParam(_LEFT[4]),
        left_5: Any = beam.DoFn.StateParam(_LEFT[5]),
        left_6: Any = beam.DoFn.StateParam(_LEFT[6]),
        left_7: Any = beam.DoFn.StateParam(_LEFT[7]),
        due: Any = beam.DoFn.TimerParam(_DUE),
    ) -> Iterator[tuple[str, bytes]]:
        left = (left_0, left_1, left_2, left_3, left_4, left_5, left_6, left_7)
        visit = self._visit(Bags(head, open_log, left))
        _, packed = element
        yield from _leaving(visit.arrive(unpack_news(packed), _ms(timestamp)), due)

    def _visit(self, bags: Bags) -> Visit:
        return Visit(bags, self._spans, _BUCKETS, self._bucket_count)

    @on_timer(_DUE)
    def fall_due(  # noqa: PLR0913, PLR0917 (each bag of the state is one)
        self,
        timestamp: Any = beam.DoFn.TimestampParam,
        head: Any = beam.DoFn.StateParam(_HEAD),
        open_log: Any = beam.DoFn.StateParam(_OPEN),
        left_0: Any = beam.DoFn.StateParam(_LEFT[0]),
        left_1: Any = beam.DoFn.StateParam(_LEFT[1]),
        left_2: Any = beam.DoFn.StateParam(_LEFT[2]),
        left_3: Any = beam.DoFn.StateParam(_LEFT[3]),
        left_4: Any = beam.DoFn.StateParam(_LEFT[4]),
        left_5: Any = beam.DoFn.StateParam(_LEFT[5]),
        left_6: Any = beam.DoFn.StateParam(_LEFT[6]),
        left_7: Any = beam.DoFn.StateParam(_LEFT[7]),
        due: Any = beam.DoFn.TimerParam(_DUE),
    ) -> Iterator[tuple[str, bytes]]:
        """Let those leave whose patience ends."""
        left = (left_0, left_1, left_2, left_3, left_4, left_5, left_6, left_7)
        visit = self._visit(Bags(head, open_log, left))
        yield from _leaving(visit.fall_due(_ms(timestamp)), due)


def _leaving(visited: Visited, due: Any) -> Iterator[tuple[str, bytes]]:
    if visited.timer_ms is not None:
        due.set(Timestamp(micros=visited.timer_ms * 1000))
    elif visited.is_over:
        due.clear()
    _count(visited.counts)
    _OPEN.update(visited.open_rows)
    yield from visited.rows.items()


def _count(counts: Counter[str]) -> None:
    for name, counter in _COUNTERS.items():
        if counts[name]:
            counter.inc(counts[name])


def _ms(timestamp: Timestamp) -> int:
    return int(timestamp.micros // 1000)
