"""Read MNS queues with Beam: the only file of this room that knows Beam.

Written for ``UnboundedSource`` of Beam 2.77, which is experimental; what it does on which runner was
measured (DECISIONS.md).
"""

import uuid
from copy import copy
from time import monotonic
from typing import Any

import apache_beam as beam
from apache_beam.coders.coders import Coder
from apache_beam.io.unbounded_source import (
    CheckpointMark,
    ReadFromUnboundedSource,
    UnboundedReader,
    UnboundedSource,
)
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PBegin, PCollection
from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP, Timestamp
from typing_extensions import override

from pipeline.clock import utc_now
from pipeline.mns import registry
from pipeline.mns.connection import MnsConnection
from pipeline.mns.inbox import Batch, Inbox
from pipeline.mns.settings import BATCH_MESSAGES, MnsSettings, Until
from schemas.records import MnsMessage
from transforms.tally import tally_of

# Messages, as attempts: a bundle that is tried again counts again. Redelivered ones are among the received.
_received_messages = Metrics.counter("mns", "received_messages")
_redelivered_messages = Metrics.counter("mns", "redelivered_messages")


class ReadFromMns(beam.PTransform[PBegin, PCollection[list[MnsMessage]]]):
    """Read messages from MNS queues, at least once; an element is the messages of one receive.

    *Guarantee.* A message is deleted from its queue only when Beam finalizes the bundle that emitted
    it: after every step fused behind this one has finished the bundle, and before anything behind a
    shuffle has begun. So whatever must not be lost is written by a fused step (``ArchiveRaw``).
    After a crash, or when a delete fails, messages come back once their visibility timeout ends:
    steps behind must tolerate repeats, which have the same ``message_id``. A runner that does not
    finalize bundles never deletes anything. A message of which the bundle failed is never deleted.

    *Parallelism.* A reader; each reads all the queues with ``settings.fetchers`` threads a queue.
    One suffices for a machine; ask for as many ``readers`` as there are workers.

    *Event time and watermark.* An element has the oldest enqueue time of its messages. The watermark
    never passes the oldest message held, and moves on while the queues are idle. A redelivery may
    be late by up to the queue's retention period.

    *What blocks.* Receiving and renewing leases happen in threads. ``advance`` waits up to
    ``advance_wait_secs`` while nothing has come, and for the rest of ``max_bundle_secs`` to fill a
    bundle that has begun. Finalization waits for the deletes.

    *What to size.* ``visibility_timeout_secs`` must outlast reading, archiving and acknowledging one bundle;
    ``prefetch_messages`` bounds what a crash leaves hidden and what a clean stop has to give back;
    ``fetchers`` times 16 messages per round trip bounds the rate of a queue.

    Reading ends when ``until`` comes true or ``stopping.request_stop`` was called in the worker's
    process: the last bundle is committed and acknowledged, and messages received but not emitted are
    given back to their queue. What only the operator can mend (``OperatorError``) fails the bundle
    after all earlier ones were committed; passing faults are waited out.
    """

    def __init__(
        self,
        settings: MnsSettings,
        until: Until | None = None,
        *,
        run_id: str | None = None,
        readers: int = 1,
        advance_wait_secs: float = 0.5,
    ) -> None:
        """Describe the read.

        Args:
            settings: which queues, and how.
            until: when to end; None reads for ever.
            run_id: name under which this process keeps the tally (``transforms.tally``) and the
                inboxes of this read; None makes one up.
            readers: how many readers share the queues; each applies ``until`` for itself.
            advance_wait_secs: how long a reader may wait while nothing has come. FnApiRunner needs
                it, since it asks again at once; keep it near 0 where the runner waits by itself.
        """
        super().__init__()
        self._settings = settings
        self._run_id = run_id or uuid.uuid4().hex
        self._readers = readers
        self._until = until or Until()
        self._advance_wait_secs = advance_wait_secs

    @override
    def expand(self, pbegin: PBegin) -> PCollection[list[MnsMessage]]:
        source = MnsSource(
            self._settings, self._until, self._run_id, self._readers, self._advance_wait_secs
        )
        messages: PCollection[list[MnsMessage]] = pbegin | ReadFromUnboundedSource(
            source,
            poll_interval=0.0 if self._advance_wait_secs else 1.0,
            max_records_per_bundle=max(1, self._settings.max_bundle_messages // BATCH_MESSAGES),
            max_read_time_seconds=self._settings.max_bundle_secs,
        )
        return messages


class MnsSource(UnboundedSource):
    """The queues, as one source: Beam's local runner cannot flatten several unbounded ones."""

    def __init__(
        self,
        settings: MnsSettings,
        until: Until,
        run_id: str,
        readers: int,
        advance_wait_secs: float,
    ) -> None:
        self.settings = settings
        self.until = until
        self.run_id = run_id
        self.readers = readers
        self.advance_wait_secs = advance_wait_secs
        self.number: int | None = None

    @override
    def split(self, desired_num_splits: int, options: Any = None) -> list[UnboundedSource]:
        # Beam always asks for 20 and runs them one after another; their number is ours to choose.
        # Each has a number, since Beam keeps readers by what their source pickles to.
        return [self._numbered(number) for number in range(min(self.readers, desired_num_splits))]

    @override
    def create_reader(
        self, options: Any, checkpoint_mark: CheckpointMark | None
    ) -> UnboundedReader:
        # A mark holds no position: whatever its reader did not acknowledge comes from the queue.
        return _MnsReader(self)

    @override
    def get_checkpoint_mark_coder(self) -> Coder:
        return _MnsMarkCoder()

    def _numbered(self, number: int) -> "MnsSource":
        source = copy(self)
        source.number = number
        return source


class MnsMark(CheckpointMark):
    """The end of a span of emitted messages: a name, under which their leases are found."""

    def __init__(self, run_id: str, reader_id: str, number: int) -> None:
        self.run_id = run_id
        self.reader_id = reader_id
        self.number = number

    @override
    def finalize_checkpoint(self) -> None:
        inbox = registry.find_inbox(self.run_id, self.reader_id)
        if inbox is not None:  # otherwise its process has ended, and the messages come back
            inbox.acknowledge(self.number)


class _MnsMarkCoder(Coder):
    @override
    def encode(self, value: MnsMark) -> bytes:
        return f"{value.run_id}/{value.reader_id}/{value.number}".encode("ascii")

    @override
    def decode(self, encoded: bytes) -> MnsMark:
        run_id, reader_id, number = encoded.decode("ascii").split("/")
        return MnsMark(run_id, reader_id, int(number))

    @override
    def is_deterministic(self) -> bool:
        return True


class _MnsReader(UnboundedReader):
    def __init__(self, source: MnsSource) -> None:
        self._source = source
        self._reader_id = uuid.uuid4().hex
        lent = registry.lent_connection(source.run_id)
        self._connection = lent or MnsConnection(source.settings, utc_now)
        self._is_own_connection = lent is None
        self._inbox = Inbox(
            source.settings,
            source.until,
            self._connection,
            tally_of(source.run_id),
            self._forget,
        )
        registry.add_inbox(source.run_id, self._reader_id, self._inbox)
        self._current: Batch | None = None
        self._bundle_began_secs: float | None = None
        self._is_done = False

    @override
    def start(self) -> bool:
        self._inbox.start()
        return self.advance()

    @override
    def advance(self) -> bool:
        batch = self._inbox.take(max(0.0, self._deadline_secs() - monotonic()))
        if batch is None:
            return self._finish() if self._inbox.is_finished else False
        self._emit(batch)
        return True

    @override
    def get_current(self) -> list[MnsMessage]:
        assert self._current is not None  # noqa: S101 - Beam asks only after an advance
        return self._current.messages

    @override
    def get_current_timestamp(self) -> Timestamp:
        assert self._current is not None  # noqa: S101 - Beam asks only after an advance
        return Timestamp.of(self._current.oldest_enqueued_at.timestamp())

    @override
    def get_watermark(self) -> Timestamp:
        if self._is_done:
            return MAX_TIMESTAMP
        watermark = self._inbox.watermark()
        return MIN_TIMESTAMP if watermark is None else Timestamp.of(watermark.timestamp())

    @override
    def get_checkpoint_mark(self) -> MnsMark:
        self._bundle_began_secs = None
        return MnsMark(self._source.run_id, self._reader_id, self._inbox.cut_mark())

    @override
    def close(self) -> None:
        self._inbox.leave()

    def _forget(self) -> None:
        registry.remove_inbox(self._source.run_id, self._reader_id)
        if self._is_own_connection:
            self._connection.close()

    def _deadline_secs(self) -> float:
        """Until when to wait: for a first message a little, for more while the bundle is young."""
        if self._bundle_began_secs is None:
            return monotonic() + self._source.advance_wait_secs
        return self._bundle_began_secs + self._source.settings.max_bundle_secs

    def _emit(self, batch: Batch) -> None:
        if self._bundle_began_secs is None:
            self._bundle_began_secs = monotonic()
        self._current = batch
        _received_messages.inc(len(batch.messages))
        redelivered = sum(message.dequeue_count > 1 for message in batch.messages)
        if redelivered:
            _redelivered_messages.inc(redelivered)

    def _finish(self) -> bool:
        """End the read; a failure is raised only after the bundle before it was committed."""
        if self._bundle_began_secs is not None:
            return False
        if self._inbox.failure is not None:
            raise self._inbox.failure
        self._is_done = True
        return False
