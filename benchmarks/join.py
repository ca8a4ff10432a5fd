"""What does the keyed join cost: CPU for a message, bytes for an open send and for what is remembered?

    python -m benchmarks.join --buckets 16 64 256 --open-sends 10000 100000 --bundle 1000

The state functions alone, in one process: no engine, no state over the network, no shuffle. Every bundle has
as many sends as reports, of which each ends the wait of a send that is some bundles old; one in a thousand
reports is a redelivery. News are spread and packed, unpacked, joined, and the rows packed, as in the graph.
CPU is that of the median bundle. ``--remembered`` keys have left before, evenly over all of memory. Bytes are
those in the bags, as an engine stores and checkpoints them. ``left read`` is how many bags with what has left
a visit reads: a bucket has eight.

Exits with 1 if an open send takes more than a kilobyte.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from statistics import median
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from schemas.contracts import contract
from transforms import tables
from transforms.join_known import KnownBuckets, Spans
from transforms.join_log import LEFT_BAGS, Bags
from transforms.join_state import Visit
from transforms.news import News, spread, unpack_news

_MOST_BYTES_PER_SEND: Final = 1024
_NOON: Final = datetime(2026, 11, 1, 4, tzinfo=timezone.utc)
_NOON_MS: Final = int(_NOON.timestamp() * 1000)
_DAY_MS: Final = 24 * 3600 * 1000
_SPANS: Final = Spans(patience=3 * _DAY_MS, memory=7 * _DAY_MS, tick=60_000)
_RATE: Final = 1000  # sends a second, in event time
_REDELIVERED: Final = 0.001


class _ListBag:
    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.reads = 0

    def read(self) -> Iterable[bytes]:
        self.reads += 1
        return list(self.parts)

    def add(self, value: bytes) -> None:
        self.parts.append(value)

    def clear(self) -> None:
        self.parts = []

    @property
    def size(self) -> int:
        return sum(map(len, self.parts))


class _Figures(NamedTuple):
    buckets: int
    open_sends: int
    remembered: int
    spread_us: float
    join_us: float
    slowest_ms: float
    read_back: float
    bytes_per_send: float
    bytes_per_remembered: float
    cold_ms: float


class _Job:
    """All buckets of a job, and what they are sent."""

    def __init__(self, bucket_count: int, spans: Spans) -> None:
        self.bucket_count = bucket_count
        self.spans = spans
        self.heads = [_ListBag() for _ in range(bucket_count)]
        self.open = [_ListBag() for _ in range(bucket_count)]
        self.left = [_ListBag() for _ in range(bucket_count * LEFT_BAGS)]
        self.bags = [
            Bags(head, waiting, self.left[bucket::bucket_count])
            for bucket, (head, waiting) in enumerate(zip(self.heads, self.open, strict=True))
        ]
        self.known = KnownBuckets(bucket_count)
        self.spread_secs: list[float] = []
        self.join_secs: list[float] = []
        self.rows = 0

    def bundle(self, sends: range, reports: np.ndarray) -> None:
        news = _news(sends, reports)
        begun = time.process_time()
        parts = list(spread(news, self.bucket_count))
        self.spread_secs.append(time.process_time() - begun)
        moment_ms = _NOON_MS + sends.stop * 1000 // _RATE
        begun = time.process_time()
        for bucket, packed in parts:
            visit = Visit(self.bags[bucket], self.spans, self.known, len(self.bags))
            left = visit.arrive(unpack_news(packed), moment_ms)
            self.rows += left.counts["matched_reports"]
        self.join_secs.append(time.process_time() - begun)

    def cold_visits(self) -> float:
        """Seconds to read every bucket, as after a failure."""
        self.known = KnownBuckets(self.bucket_count)
        begun = time.process_time()
        empty = _news(range(0), np.empty(0, dtype=np.int64))
        for bags in self.bags:
            Visit(bags, self.spans, self.known, len(self.bags)).arrive(empty, _NOON_MS)
        return time.process_time() - begun


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--buckets", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--open-sends", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--remembered", type=int, default=100_000)
    parser.add_argument("--bundle", type=int, default=1000, help="messages")
    parser.add_argument("--bundles", type=int, default=100)
    options = parser.parse_args(argv)
    print(
        "buckets  open sends  remembered | spread, join: us/message  messages/s  slowest bundle | "
        "left read | bytes/open send  bytes/remembered | all cold"
    )
    dearest = 0.0
    for open_sends in options.open_sends:
        for buckets in options.buckets:
            figures = _measured(buckets, open_sends, options.remembered, options)
            dearest = max(dearest, figures.bytes_per_send)
            each = figures.spread_us + figures.join_us
            print(
                f"{figures.buckets:7}  {figures.open_sends:10,}  {figures.remembered:10,} | "
                f"{figures.spread_us:6.1f} {figures.join_us:6.1f}  {1e6 / each:18,.0f}  "
                f"{figures.slowest_ms:11.0f} ms | {figures.read_back:9.3f} | "
                f"{figures.bytes_per_send:15.0f}  {figures.bytes_per_remembered:16.0f} | "
                f"{figures.cold_ms:5.0f} ms",
                flush=True,
            )
    return 1 if dearest > _MOST_BYTES_PER_SEND else 0


def _measured(
    buckets: int, open_sends: int, remembered: int, options: argparse.Namespace
) -> _Figures:
    # What is remembered is spread over all of memory, as it is in a job that has run for long.
    memory_ms = (open_sends + remembered) * 1000 // _RATE
    job = _Job(buckets, _SPANS._replace(memory=memory_ms))
    half = options.bundle // 2
    at = _preloaded(job, open_sends, remembered)
    job.spread_secs.clear()
    job.join_secs.clear()
    visits, reads = _reads(job.heads), _reads(job.left)
    chance = np.random.default_rng(4)
    for _ in range(options.bundles):
        sends = range(at, at + half)
        reports = np.arange(at - open_sends, at - open_sends + half)
        again = chance.random(half) < _REDELIVERED
        reports[again] = chance.integers(0, max(at - open_sends, 1), int(again.sum()))
        job.bundle(sends, reports)
        at += half
    return _Figures(
        buckets,
        open_sends,
        remembered,
        median(job.spread_secs) / (2 * half) * 1e6,
        median(job.join_secs) / (2 * half) * 1e6,
        max(job.join_secs) * 1e3,
        (_reads(job.left) - reads) / (_reads(job.heads) - visits),
        _bytes(job.open) / open_sends,
        _bytes(job.left) / max(job.rows, 1),
        job.cold_visits() * 1e3,
    )


def _reads(bags: Iterable[_ListBag]) -> int:
    return sum(bag.reads for bag in bags)


def _bytes(bags: Iterable[_ListBag]) -> int:
    return sum(bag.size for bag in bags)


def _preloaded(job: _Job, open_sends: int, remembered: int) -> int:
    """Let sends come, and their reports when as many sends are open as there should be."""
    at = 0
    for start, stop in _steps(open_sends + remembered, 2000):
        reports = np.arange(max(start - open_sends, 0), max(stop - open_sends, 0))
        job.bundle(range(start, stop), reports)
        at = stop
    return at


def _steps(total: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, total, size):
        yield start, min(start + size, total)


def _news(sends: range, reports: np.ndarray) -> News:
    """The sends and reports of some SMS by number; what differs between SMS does not compress."""
    numbers = np.arange(sends.start, sends.stop)
    schema = contract("send_log_entry").arrow
    columns: dict[str, object] = {
        name: pa.nulls(len(numbers), schema.field(name).type) for name in schema.names
    }
    columns |= _ids(numbers) | {
        "out_id": [f"order-{_scrambled(n) % 10**9}" for n in numbers.tolist()],
        "sign_name": ["阿里云通信"] * len(numbers),
        "template_code": [f"SMS_{15305000 + n % 7}" for n in numbers.tolist()],
        "template_param": [f'{{"code":"{_scrambled(n) % 10**6:06}"}}' for n in numbers.tolist()],
        "campaign": ["login"] * len(numbers),
        "tags": [[("team", "growth")]] * len(numbers),
        "requested_at": _times(numbers, 0),
        "request_id": [f"{_scrambled(n):016X}{_scrambled(n + 1):016X}" for n in numbers.tolist()],
    }
    logged = pa.table(
        {name: pa.array(columns[name], schema.field(name).type) for name in schema.names},
        schema=schema,
    )
    schema = contract("delivery_report").arrow
    columns = {name: pa.nulls(len(reports), schema.field(name).type) for name in schema.names}
    columns |= _ids(reports) | {
        "success": [True] * len(reports),
        "err_code": ["DELIVERED"] * len(reports),
        "err_msg": ["用户接收成功"] * len(reports),
        "sms_size": [1] * len(reports),
        "send_time": _times(reports, 1000),
        "report_time": _times(reports, 6000),
        "unknown_fields": [[]] * len(reports),
        "message_id": [
            f"{_scrambled(n + 7):016X}-1-{_scrambled(n + 8):016X}" for n in reports.tolist()
        ],
        "enqueued_at": _times(reports, 6500),
        "origin": ["mns"] * len(reports),
    }
    told = pa.table(
        {name: pa.array(columns[name], schema.field(name).type) for name in schema.names},
        schema=schema,
    )
    nothing = (
        table.schema.empty_table()
        for table in (tables.INBOUND_SMS, tables.QUERY_ANSWERS, tables.FAILED_EVENTS)
    )
    return News(told, logged, *nothing)


def _ids(numbers: np.ndarray) -> dict[str, object]:
    return {
        "biz_id": [f"{_scrambled(n + 3) % 10**18:018}^0" for n in numbers.tolist()],
        "phone_number": [f"1{_scrambled(n + 4) % 10**10:010}" for n in numbers.tolist()],
    }


def _scrambled(number: int) -> int:
    return (number * 0x9E3779B97F4A7C15 ^ (number << 17) ^ 0x5DEECE66D) * 0xBF58476D1CE4E5B9 % 2**64


def _times(numbers: np.ndarray, after_ms: int) -> pa.Array:
    return pa.array(_NOON_MS + numbers * 1000 // _RATE + after_ms).cast(
        pa.timestamp("ms", tz="UTC")
    )


if __name__ == "__main__":
    raise SystemExit(main())
