"""Look at messages before they are archived and acknowledged: a wrong version must not empty a queue."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import apache_beam as beam
from apache_beam.pvalue import PCollection
from typing_extensions import override

from schemas.records import MnsMessage
from transforms.breaker import Breaker, FailureLimit, FailureLimitError, breaker_of
from transforms.decode import decode_messages
from transforms.message_batch import message_batch
from transforms.tally import tally_of


class LimitFailures(beam.PTransform[PCollection[list[MnsMessage]], PCollection[list[MnsMessage]]]):
    """Pass messages on, and fail the bundle when too many cannot be decoded.

    An element is messages of one queue. Put directly behind a source that deletes at finalization,
    and before ``ArchiveRaw``: fused steps finish a bundle in their order, so of a bundle that fails
    here nothing is archived and nothing is deleted. What the decoder finds is only counted here; the
    records come from the archive, later.
    """

    def __init__(self, limit: FailureLimit, clock: Callable[[], datetime], *, run_id: str) -> None:
        """Describe the limit.

        Args:
            limit: how many may fail.
            clock: the time (aware); a function that pickles.
            run_id: name under which this process keeps the breaker (``transforms.breaker``), which may
                remember earlier runs, and the tally in which a failure is noted.
        """
        super().__init__()
        self._fn = _LimitFailuresFn(limit, clock, run_id)

    @override
    def expand(self, messages: PCollection[list[MnsMessage]]) -> PCollection[list[MnsMessage]]:
        passed: PCollection[list[MnsMessage]] = messages | "Decode" >> beam.ParDo(self._fn)
        return passed


class _LimitFailuresFn(beam.DoFn):
    _breaker: Breaker

    def __init__(self, limit: FailureLimit, clock: Callable[[], datetime], run_id: str) -> None:
        self._limit = limit
        self._clock = clock
        self._run_id = run_id
        self._messages: dict[str, list[MnsMessage]] = {}

    @override
    def setup(self) -> None:
        self._breaker = breaker_of(self._run_id, self._limit)

    @override
    def start_bundle(self) -> None:
        self._messages = {}

    @override
    def process(self, messages: list[MnsMessage]) -> Iterator[list[MnsMessage]]:
        self._messages.setdefault(messages[0].queue_name, []).extend(messages)
        yield messages

    @override
    def finish_bundle(self) -> None:
        # All of a bundle at once: the decoder costs 2 us a message in thousands, 60 in sixteens.
        for queue_name, messages in self._messages.items():
            try:
                self._breaker.note(queue_name, verdicts_on(messages, self._clock()))
            except FailureLimitError as failure:
                tally_of(self._run_id).fail(failure)
                raise
        self._messages = {}


def verdicts_on(messages: Sequence[MnsMessage], now: datetime) -> list[str | None]:
    """Return for each message why it cannot be decoded, or None."""
    failed = decode_messages(message_batch(messages), now).failed
    if not failed.num_rows:
        return [None] * len(messages)
    ids, reasons = (failed.column(name).to_pylist() for name in ("message_id", "reason"))
    reason_of = dict(zip(ids, reasons, strict=True))
    return [reason_of.get(message.message_id) for message in messages]
