"""From archived messages to news for the keyed join, a bundle at a time."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final

import apache_beam as beam
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue
from typing_extensions import override

from schemas.records import MnsMessage
from transforms.decode import decode_messages
from transforms.message_batch import message_batch
from transforms.news import news_of, spread

# Beam's namespace for the decoder's counts, under their own names: messages and records, as attempts.
METRICS: Final = "decode"


class DecodeMessages(
    beam.PTransform[PCollection[list[MnsMessage]], PCollection[tuple[int, bytes]]]
):
    """Decode messages and spread what they say over buckets.

    The output is ``(bucket, packed news)`` (see :func:`transforms.news.unpack_news`): one element per
    bucket and bundle, because state that is keyed by record, or read once for each, costs a hundred times
    more than the join itself. Its timestamp is the oldest of the bundle. What cannot be decoded is news too.
    """

    def __init__(self, bucket_count: int, clock: Callable[[], datetime]) -> None:
        """Describe the step.

        Args:
            bucket_count: how many buckets; the keyed join has the same.
            clock: the time to note on failed events (aware); a function that pickles.
        """
        super().__init__()
        self._fn = _DecodeMessagesFn(bucket_count, clock)

    @override
    def expand(self, messages: PCollection[list[MnsMessage]]) -> PCollection[tuple[int, bytes]]:
        news: PCollection[tuple[int, bytes]] = messages | "DecodeBundle" >> beam.ParDo(
            self._fn
        ).with_output_types(tuple[int, bytes])
        return news


class _DecodeMessagesFn(beam.DoFn):
    def __init__(self, bucket_count: int, clock: Callable[[], datetime]) -> None:
        self._bucket_count = bucket_count
        self._clock = clock
        self._messages: list[MnsMessage] = []
        self._oldest: Timestamp | None = None

    @override
    def start_bundle(self) -> None:
        self._messages = []
        self._oldest = None

    @override
    def process(
        self, messages: list[MnsMessage], timestamp: Any = beam.DoFn.TimestampParam
    ) -> None:
        self._messages.extend(messages)
        self._oldest = timestamp if self._oldest is None else min(self._oldest, timestamp)

    @override
    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._oldest is None:
            return
        decoded = decode_messages(message_batch(self._messages), self._clock())
        self._messages = []
        for name, count in decoded.counts.items():
            Metrics.counter(METRICS, name).inc(count)
        for bucket, news in spread(news_of(decoded), self._bucket_count):
            yield WindowedValue((bucket, news), self._oldest, (GlobalWindow(),))
