"""Read inboxes with Beam: only this file of the room, and ``metrics``, know Beam.

Written for ``UnboundedSource`` of Beam 2.77, which is experimental; what it does on which runner was
measured (DECISIONS.md).
"""

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from time import monotonic
from typing import Any

import apache_beam as beam
from apache_beam.coders.coders import Coder
from apache_beam.io.unbounded_source import (
    CheckpointMark,
    UnboundedReader,
    UnboundedSource,
    _ReadFromUnboundedSourceDoFn,
)
from apache_beam.pvalue import PBegin, PCollection
from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP, Timestamp
from typing_extensions import override

from pipeline.clock import utc_now
from pipeline.inboxes import registry
from pipeline.inboxes.inbox import Batch, InboxSpec
from pipeline.inboxes.metrics import tell_engine
from pipeline.inboxes.reading import Reading
from pipeline.stopping import is_stop_requested
from schemas.records import MnsMessage


class ReadInboxes(beam.PTransform[PBegin, PCollection[list[MnsMessage]]]):
    """Read messages from inboxes, at least once; an element is the messages of one receive, of one queue.

    *Guarantee.* A message is acknowledged only when Beam finalizes the bundle that emitted it: after
    every step fused behind this one has finished the bundle, and before anything behind a shuffle has
    begun. So whatever must not be lost is written by a fused step (``ArchiveRaw``). Where the engine
    finalizes more than its checkpoint contains, ``reading.acknowledges_late`` waits for the next one, so
    that what is acknowledged is in the state that a crash goes back to. After a crash, or when
    acknowledging fails, messages come back once their lease ends: steps behind must tolerate repeats, which
    have the same ``message_id``. A runner that does not finalize bundles never acknowledges anything. A
    message of which the bundle failed is never acknowledged.

    *Parallelism.* A reader; each spec says how many share its messages. One does for a machine; ask for as
    many as there are workers.

    *Event time and watermark.* An element has the oldest enqueue time of its messages. The watermark
    never passes the oldest message held, and moves on while the services are idle. A redelivery may
    be late by as much as the service keeps messages.

    *What blocks.* Receiving and renewing leases happen in threads. ``advance`` waits up to
    ``advance_wait_secs`` while nothing has come and, if ``poll_secs`` is 0, for the rest of
    ``max_bundle_secs`` to fill a bundle that has begun. Finalization waits for the acknowledgements.

    *What to size.* Leases must outlast reading, archiving and acknowledging one bundle; with
    ``acknowledges_late`` they are renewed over two checkpoints, and the next start after a crash.

    Reading ends when every inbox has finished, or ``request_stop`` was called in the worker's process: the
    last bundle is committed and acknowledged, and messages received but not emitted are given back. What
    only the operator can mend (``OperatorError``) fails the bundle after all earlier ones were committed;
    passing faults are waited out.

    What a spec says is stored in the engine's state with every position: a job that goes on from a
    savepoint reads what was asked for at its first start.
    """

    def __init__(
        self,
        inboxes: Sequence[InboxSpec],
        reading: Reading,
        *,
        run_id: str | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Describe the read.

        Args:
            inboxes: what to read.
            reading: how bundles are cut and acknowledged.
            run_id: name under which a process keeps the tally (``transforms.tally``) and the inboxes of
                this read; None makes one up.
            clock: the time (aware), for the ages among the metrics; a function that pickles.
        """
        super().__init__()
        if not inboxes:
            raise ValueError("there are no inboxes to read")
        self._inboxes = tuple(inboxes)
        self._reading = reading
        self._run_id = run_id or uuid.uuid4().hex
        self._clock = clock

    def sources(self) -> list[UnboundedSource]:
        """Return what Beam reads: a source for each reader, each with an identity of its own."""
        shares = [spec for spec in self._inboxes for _ in range(spec.readers)]
        return [
            _InboxSource(self._run_id, number, spec, self._reading)
            for number, spec in enumerate(shares)
        ]

    @override
    def expand(self, pbegin: PBegin) -> PCollection[list[MnsMessage]]:
        # ReadFromUnboundedSource has one element, the source before it is split; and Flink deals work out by
        # element: all readers would share one task (measured). So here each reader is an element.
        read = _ReadFn(self._run_id, self._reading, self._clock)
        readers = pbegin | "Readers" >> beam.Create(self.sources(), reshuffle=False)
        messages: PCollection[list[MnsMessage]] = readers | "Read" >> beam.ParDo(read)
        return messages


class _ReadFn(_ReadFromUnboundedSourceDoFn):
    """Beam's, which at the end of each bundle tells the engine of the inboxes."""

    def __init__(self, run_id: str, reading: Reading, clock: Callable[[], datetime]) -> None:
        super().__init__(
            reading.poll_secs,
            # In elements, of which none is empty: the reader ends a bundle before that.
            reading.max_bundle_messages,
            reading.max_bundle_secs,
        )
        self._run_id = run_id
        self._clock = clock

    @override
    def finish_bundle(self) -> None:
        tell_engine(self._run_id, self._clock())


class _InboxSource(UnboundedSource):
    """What one reader at a time reads. Pickled into every position, so it is small."""

    def __init__(self, run_id: str, number: int, spec: InboxSpec, reading: Reading) -> None:
        self.run_id = run_id
        self.number = number
        self.spec = spec
        self.reading = reading

    @override
    def split(self, desired_num_splits: int, options: Any = None) -> list[UnboundedSource]:
        return [self]

    @override
    def get_checkpoint_mark_coder(self) -> Coder:
        return _InboxMarkCoder()

    @override
    def create_reader(
        self, options: Any, checkpoint_mark: CheckpointMark | None
    ) -> UnboundedReader:
        return _InboxReader(self, checkpoint_mark)


class _InboxMark(CheckpointMark):
    """The end of a bundle: a name, under which what it handed out is found."""

    def __init__(self, inbox_id: str, number: int) -> None:
        self.inbox_id = inbox_id
        self.number = number

    @override
    def finalize_checkpoint(self) -> None:
        inbox = registry.find_inbox(self.inbox_id)
        if inbox is not None:  # otherwise its process has ended, and the messages come back
            inbox.finalize(self.number)


class _InboxMarkCoder(Coder):
    @override
    def encode(self, value: _InboxMark) -> bytes:
        return f"{value.inbox_id}/{value.number}".encode("ascii")

    @override
    def decode(self, encoded: bytes) -> _InboxMark:
        inbox_id, number = encoded.decode("ascii").split("/")
        return _InboxMark(inbox_id, int(number))

    @override
    def is_deterministic(self) -> bool:
        return True


class _InboxReader(UnboundedReader):
    """A view on a shared inbox, at a position."""

    def __init__(self, source: _InboxSource, mark: CheckpointMark | None) -> None:
        self._reading = source.reading
        self._batch_messages = source.spec.batch_messages
        self._inbox = registry.shared_inbox(
            source.run_id, source.number, source.spec, source.reading
        )
        # The mark of another process says nothing here: what that one held comes back to everybody.
        self._position = 0
        if isinstance(mark, _InboxMark) and mark.inbox_id == self._inbox.inbox_id:
            self._position = mark.number
        self._bundle: int | None = None
        self._bundle_messages = 0
        self._first_secs: float | None = None
        self._current: Batch | None = None
        self._is_done = False
        self._inbox.enter()

    @override
    def start(self) -> bool:
        return self.advance()

    @override
    def advance(self) -> bool:
        bundle = self._begun_bundle()
        if is_stop_requested():
            self._inbox.stop()
        if self._is_full():
            return False
        batch = self._inbox.take(bundle, self._patience_secs())
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
    def get_checkpoint_mark(self) -> _InboxMark:
        self._position = self._inbox.cut_mark(self._begun_bundle())
        self._bundle = self._first_secs = None
        self._bundle_messages = 0
        return _InboxMark(self._inbox.inbox_id, self._position)

    @override
    def close(self) -> None:
        self._inbox.leave(self._bundle)

    def _begun_bundle(self) -> int:
        if self._bundle is None:
            self._bundle = self._inbox.begin_bundle(self._position)
        return self._bundle

    def _is_full(self) -> bool:
        """Whether the bundle might get too large with another batch; the first is always taken."""
        most = self._bundle_messages + self._batch_messages
        return self._bundle_messages > 0 and most > self._reading.max_bundle_messages

    def _patience_secs(self) -> float:
        """How long to wait: for a first message a little, for more while the bundle is young."""
        if self._first_secs is None:
            return self._reading.advance_wait_secs
        if self._reading.poll_secs:
            return 0.0
        return max(0.0, self._first_secs + self._reading.max_bundle_secs - monotonic())

    def _emit(self, batch: Batch) -> None:
        if self._first_secs is None:
            self._first_secs = monotonic()
        self._current = batch
        self._bundle_messages += len(batch.messages)

    def _finish(self) -> bool:
        """End the read; a failure is raised only after the bundle before it was committed."""
        if self._first_secs is not None:
            return False
        failure = self._inbox.take_failure()
        if failure is not None:
            raise failure
        self._is_done = True
        return False
