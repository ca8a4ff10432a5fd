"""An inbox that readers come and go on, and the marks that they cut.

On Flink every bundle is read by another reader, and the old ones are closed a minute later or never
(measured, Beam 2.77). So a reader is a thin view; threads, connections, leases and marks live here, for each
split of a run in each process.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable
from datetime import datetime
from time import monotonic
from typing import Final

from pipeline.inboxes.inbox import Batch, Inbox, InboxSpec
from pipeline.inboxes.marks import Marks, StaleReaderError
from pipeline.inboxes.reading import Reading

# An engine that has not asked for so long reads this split elsewhere, or not at all.
_IDLE_SECS: Final = 60.0
_TICK_SECS: Final = 5.0


class SharedInbox:
    """What is read from one split in this process; safe to share between threads.

    It opens its inbox when it is wanted. The inbox is left when the last reader closes, when it has failed,
    or when no engine has asked for a while: what was not handed out is given back, and what was is held until
    it may be acknowledged. The marks stay: whoever asks again finds a new inbox, and the chain goes on.

    Attributes:
        inbox_id: names it among all of all processes.
    """

    def __init__(self, run_id: str, spec: InboxSpec, reading: Reading) -> None:
        self.inbox_id = uuid.uuid4().hex
        self._run_id = run_id
        self._spec = spec
        self._watches_for_idleness = reading.poll_secs > 0
        self._lock = threading.Lock()  # guards everything below
        self._marks: Marks[tuple[Inbox, int]] = Marks(acknowledges_late=reading.acknowledges_late)
        self._readers = 0
        self._inbox: Inbox | None = None
        self._left: list[Inbox] = []
        self._used_secs = monotonic()
        self._closed = threading.Event()
        self._watch: threading.Thread | None = None

    def enter(self) -> None:
        """Count a reader in."""
        with self._lock:
            self._readers += 1

    def leave(self, bundle: int | None) -> None:
        """Count a reader out, which may leave a bundle behind; the last one leaves the inbox."""
        with self._lock:
            released = [] if bundle is None else self._marks.give_up(bundle)
            self._readers -= 1
            left = None if self._readers else self._part()
        if left is not None:
            left.stop()
        _release(released)

    def begin_bundle(self, position: int) -> int:
        """Begin a bundle at a mark's number, 0 before the first; return the bundle's number."""
        with self._lock:
            self._used_secs = monotonic()
            bundle, released = self._marks.begin(position)
            if self._inbox is None:
                self._inbox = self._open()
        _release(released)
        return bundle

    def take(self, bundle: int, timeout_secs: float) -> Batch | None:
        """Hand out the next batch to a bundle, waiting for one up to ``timeout_secs``.

        Raises:
            StaleReaderError: Another bundle has begun since.
        """
        inbox = self._inbox
        batch = None if inbox is None else inbox.take(timeout_secs)
        if inbox is None or batch is None:
            return None
        try:
            with self._lock:
                self._marks.hand_out(bundle, (inbox, batch.lease))
        except StaleReaderError:
            inbox.release([batch.lease])
            raise
        return batch

    def cut_mark(self, bundle: int) -> int:
        """End a bundle; return its mark's number.

        Raises:
            StaleReaderError: Another bundle has begun since.
        """
        with self._lock:
            self._used_secs = monotonic()
            return self._marks.cut(bundle)

    def finalize(self, number: int) -> None:
        """Note that the engine has finalized a mark; acknowledge what may be, and wait for that."""
        with self._lock:
            leases = self._marks.finalize(number)
        for inbox, numbers in _by_inbox(leases):
            inbox.acknowledge(numbers)

    def stop(self) -> None:
        """Hand out nothing more, and give back what was not handed out."""
        inbox = self._inbox
        if inbox is not None:
            inbox.stop()

    @property
    def is_finished(self) -> bool:
        """Whether the inbox will hand out nothing more."""
        inbox = self._inbox
        return inbox is not None and inbox.is_finished

    def take_failure(self) -> Exception | None:
        """Tell what ended the inbox, if something did; it is left then, and the next bundle gets another."""
        with self._lock:
            failure = None if self._inbox is None else self._inbox.failure
            left = None if failure is None else self._part()
        if left is not None:
            left.stop()
        return failure

    def leave_if_idle(self, now_secs: float) -> None:
        """Leave the inbox if between bundles no engine has asked for a minute (monotonic clock)."""
        with self._lock:
            is_idle = not self._marks.is_open and now_secs >= self._used_secs + _IDLE_SECS
            left = self._part() if is_idle else None
        if left is not None:
            left.stop()

    def watermark(self) -> datetime | None:
        """Return the inbox's watermark (UTC); None as long as nothing is known."""
        inbox = self._inbox
        return None if inbox is None else inbox.watermark()

    def token_expires_at(self) -> datetime | None:
        """Return when the first of the tokens at hand ends (UTC); None if there is none."""
        inbox = self._inbox
        return None if inbox is None else inbox.token_expires_at()

    def oldest_enqueued_at(self) -> datetime | None:
        """Return the event time (UTC) of the oldest message held; None while nothing is."""
        with self._lock:
            inboxes = [*self._left, *([] if self._inbox is None else [self._inbox])]
        moments = [moment for inbox in inboxes if (moment := inbox.oldest_enqueued_at())]
        return min(moments, default=None)

    def close(self) -> None:
        """Give back everything that was not acknowledged, and wait for the threads."""
        with self._lock:
            self._part()
            left, self._left = self._left, []
        self._closed.set()
        for inbox in left:
            inbox.close()
        if self._watch is not None:
            self._watch.join()

    def _open(self) -> Inbox:
        inbox: Inbox = self._spec.open(self._run_id, lambda: self._forget(inbox))
        inbox.start()
        if self._watches_for_idleness and self._watch is None:
            self._watch = threading.Thread(
                target=self._run_watch, name="watch-readers", daemon=True
            )
            self._watch.start()
        return inbox

    def _part(self) -> Inbox | None:
        """Let the inbox go; return it, to be stopped."""
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            self._left.append(inbox)
        return inbox

    def _forget(self, inbox: Inbox) -> None:
        with self._lock:
            if inbox in self._left:
                self._left.remove(inbox)

    def _run_watch(self) -> None:
        while not self._closed.wait(_TICK_SECS):
            self.leave_if_idle(monotonic())


def _release(leases: Iterable[tuple[Inbox, int]]) -> None:
    for inbox, numbers in _by_inbox(leases):
        inbox.release(numbers)


def _by_inbox(leases: Iterable[tuple[Inbox, int]]) -> list[tuple[Inbox, list[int]]]:
    """Group leases by their inbox; there is one, or rarely a few."""
    groups: list[tuple[Inbox, list[int]]] = []
    for inbox, number in leases:
        if not groups or groups[-1][0] is not inbox:
            groups.append((inbox, []))
        groups[-1][1].append(number)
    return groups
