"""The threads between the queues and the pipeline: they receive, keep leases alive, and delete.

Fetchers receive ahead of the pipeline into a bounded buffer; the pipeline takes batches out and
cuts marks; a finalized mark deletes exactly the messages emitted since the mark before. Whatever is
never finalized is given back, or comes back by itself when its visibility timeout ends.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from time import monotonic
from typing import Final, NamedTuple

from pipeline.errors import OperatorError, TransientError
from pipeline.mns import faults
from pipeline.mns.backoff import backoff_secs
from pipeline.mns.connection import MnsConnection
from pipeline.mns.drain import Drain
from pipeline.mns.leases import Lease, LeaseLedger
from pipeline.mns.settings import BATCH_MESSAGES, MnsSettings, Until
from pipeline.mns.transport import UnreachableError
from pipeline.mns.watermark import Watermark
from pipeline.mns.wire import Received
from schemas.records import MnsMessage
from transforms.tally import Tally

_LOGGER = logging.getLogger(__name__)
# How long a waiting thread may overlook that the read has ended.
_TICK_SECS: Final = 0.25
_FIRST_PAUSE_SECS: Final = 0.2
_LONGEST_PAUSE_SECS: Final = 4.0
_DELETE_TRIES: Final = 5
# What MNS allows at least (doc 35142): as good as visible at once.
_RELEASE_SECS: Final = 1


class Batch(NamedTuple):
    """The messages of one receive, and the lease that holds them."""

    messages: list[MnsMessage]
    lease: int
    oldest_enqueued_at: datetime


class _Poll(NamedTuple):
    """A receive under way."""

    queue_name: str
    number: int
    messages: int
    wait_secs: int
    began_secs: float
    is_needed: bool
    """Whether finding nothing is to prove something."""


class Inbox:
    """Reads all queues of some settings for one reader; safe to share between threads.

    It ends by itself when ``until`` comes true: fetchers stop, and what they have received is still
    handed out. ``stop`` ends it at once: what is not handed out is given back to its queue.
    """

    def __init__(
        self,
        settings: MnsSettings,
        until: Until,
        connection: MnsConnection,
        tally: Tally,
        on_done: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to read through ``connection`` (owned by the caller), counting into ``tally``.

        ``on_done`` is called when the inbox was stopped, not closed, and nothing is left to do.
        """
        self._settings = settings
        self._until = until
        self._connection = connection
        self._client = connection.client
        self._tally = tally
        self._clock = connection.clock
        self._on_done = on_done
        self._changed = threading.Condition()  # guards everything down to the marks
        self._buffer: deque[Batch] = deque()
        self._buffered_messages = 0
        self._budget = until.max_messages
        self._polls_under_way = Counter[str]()
        self._drains = {queue_name: Drain(settings.fetchers) for queue_name in settings.queues}
        self._watermark = Watermark(settings.queues)
        self._ledger = LeaseLedger(
            timedelta(seconds=settings.renewal_margin_secs),
            timedelta(seconds=settings.max_hold_secs),
        )
        self._emitted: list[int] = []
        self._marks: dict[int, list[int]] = {}
        self._cut_marks = 0
        # Held over one renewal call, so that nothing is deleted by a handle about to be replaced, and
        # until handles taken out of the ledger are with the workers, so that these do not leave before.
        self._renewing = threading.Lock()
        self._ending = threading.Event()
        self._stopped = threading.Event()
        self._closed = threading.Event()
        self._deadline_secs = math.inf
        self._failure: Exception | None = None
        self._has_warned = False
        self._fetchers = [
            threading.Thread(
                target=self._run_fetcher, args=(name,), name=f"fetch-{name}", daemon=True
            )
            for name in settings.queues
            for _ in range(settings.fetchers)
        ]
        self._live_fetchers = 0
        self._keeper = threading.Thread(target=self._run_keeper, name="keep-leases", daemon=True)
        self._workers = ThreadPoolExecutor(settings.ack_threads, thread_name_prefix="ack")

    def start(self) -> None:
        """Begin to receive; the time of ``until.max_secs`` starts now."""
        if self._until.max_secs is not None:
            self._deadline_secs = monotonic() + self._until.max_secs
        self._live_fetchers = len(self._fetchers)
        for thread in (*self._fetchers, self._keeper):
            thread.start()

    def take(self, timeout_secs: float) -> Batch | None:
        """Hand out the next batch, waiting for one up to ``timeout_secs``."""
        with self._changed:
            self._changed.wait_for(lambda: self._buffer or self.is_finished, timeout_secs)
            if not self._buffer:
                return None
            batch = self._buffer.popleft()
            self._buffered_messages -= len(batch.messages)
            self._emitted.append(batch.lease)
            self._changed.notify_all()
            return batch

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be handed out."""
        if self._stopped.is_set():
            return True
        return not self._buffer and not self._live_fetchers

    @property
    def failure(self) -> Exception | None:
        """What ended the read, if something did."""
        return self._failure

    def watermark(self) -> datetime | None:
        """Return the watermark (UTC); None as long as nothing is known."""
        with self._changed:
            return self._watermark.advance(self._ledger.oldest_enqueued_at())

    def cut_mark(self) -> int:
        """Close the span of batches handed out since the last mark; return the mark's number."""
        with self._changed:
            self._cut_marks += 1
            self._marks[self._cut_marks], self._emitted = self._emitted, []
            return self._cut_marks

    def acknowledge(self, mark: int) -> None:
        """Delete the messages of a mark's span; a second call does nothing.

        Never raises for what the service does: a message that could not be deleted comes back and
        is recognised downstream by its id.
        """
        with self._changed:
            numbers = self._marks.pop(mark, [])
        chunks: list[tuple[str, list[str]]] = []
        # What is not renewed any more is not ours any longer than this: no use in trying, and an outage
        # would otherwise keep a bundle of many deletes waiting for hours.
        deadline_secs = monotonic() + self._settings.visibility_timeout_secs
        with self._renewing:
            for queue_name, handles in self._take_handles(numbers, "unacknowledged").items():
                for first in range(0, len(handles), BATCH_MESSAGES):
                    chunks.append((queue_name, handles[first : first + BATCH_MESSAGES]))
            # A share for each thread: a hand-over per request would cost more than its signature.
            threads = self._settings.ack_threads
            shares = [chunks[first::threads] for first in range(min(threads, len(chunks)))]
            deletions = [
                self._workers.submit(self._delete_all, share, deadline_secs) for share in shares
            ]
        for deletion in deletions:
            deletion.result()

    def stop(self) -> None:
        """Stop receiving, hand out nothing more, and give back what was not handed out.

        What was handed out is left alone: it may still be marked and finalized.
        """
        self._ending.set()
        with self._changed:
            self._stopped.set()
            numbers = [batch.lease for batch in self._buffer]
            self._buffer.clear()
            self._buffered_messages = 0
            self._changed.notify_all()
        self._release(numbers)

    def leave(self) -> None:
        """Stop, and give back what was handed out after the last mark: no mark will hold it now."""
        self.stop()
        with self._changed:
            numbers, self._emitted = self._emitted, []
        self._release(numbers)

    def close(self) -> None:
        """Stop, wait for the threads, and give back all that was not acknowledged."""
        self.stop()
        for thread in self._fetchers:
            if thread.ident is not None:
                thread.join()
        with self._changed:
            numbers = [
                *self._emitted,
                *(number for span in self._marks.values() for number in span),
            ]
            self._emitted, self._marks = [], {}
        self._release(numbers)
        self._closed.set()
        if self._keeper.ident is not None:
            self._keeper.join()
        self._workers.shutdown()

    # -- receiving ---------------------------------------------------------------------------------

    def _run_fetcher(self, queue_name: str) -> None:
        try:
            self._fetch(queue_name)
        except Exception as failure:  # noqa: BLE001 - a bug must end the read, not one thread of it
            self._fail(failure)
        with self._changed:
            self._live_fetchers -= 1
            self._changed.notify_all()

    def _fail(self, failure: Exception) -> None:
        with self._changed:
            self._failure = self._failure or failure
        self._tally.fail(failure)
        self._end()

    def _end(self) -> None:
        self._ending.set()
        with self._changed:
            self._changed.notify_all()

    def _fetch(self, queue_name: str) -> None:
        failures = fast_answers = 0
        while messages := self._reserve(queue_name):
            poll = self._begin_poll(queue_name, messages)
            outcome: Received | Exception | None
            try:
                outcome = self._client.receive(queue_name, messages, poll.wait_secs)
            except (TransientError, OperatorError) as fault:
                outcome = fault
            waited = self._settle_poll(poll, outcome)
            if isinstance(outcome, Exception):
                failures += 1
                self._note_fault(queue_name, outcome, failures)
                self._pause(failures)
                continue
            failures = 0
            self._connection.note_answer(queue_name)
            # An answer that did not wait says that the server wants fewer polls.
            fast_answers = fast_answers + 1 if outcome is None and not waited else 0
            if fast_answers:
                self._pause(fast_answers)

    def _reserve(self, queue_name: str) -> int:
        """Wait for room in the buffer; return how many messages to ask for, 0 at the end."""
        with self._changed:
            while not self._ending.is_set():
                if monotonic() >= self._deadline_secs:
                    break
                if self._budget is not None and self._budget == 0:
                    if not self._polls_under_way.total():
                        break
                elif self._buffered_messages < self._settings.prefetch_messages:
                    messages = min(BATCH_MESSAGES, self._budget or BATCH_MESSAGES)
                    if self._budget is not None:
                        self._budget -= messages
                    self._polls_under_way[queue_name] += 1
                    return messages
                self._changed.wait(_TICK_SECS)
        self._end()
        return 0

    def _begin_poll(self, queue_name: str, messages: int) -> _Poll:
        longest = self._settings.drain_wait_secs if self._until.empty else self._settings.wait_secs
        now_secs = monotonic()
        wait_secs = int(max(0, min(longest, self._deadline_secs - now_secs)))
        with self._changed:
            others = self._polls_under_way[queue_name] - 1
            is_needed = not self._until.empty or self._drains[queue_name].needs_another(others)
            if not is_needed:
                wait_secs = (
                    0  # the end, which any other poll may bring, is not to wait for this one
                )
            number = self._watermark.begin_poll(queue_name, self._clock())
        return _Poll(queue_name, number, messages, wait_secs, now_secs, is_needed)

    def _settle_poll(self, poll: _Poll, outcome: Received | Exception | None) -> bool:
        """Book what a poll brought; return whether an empty one waited as it was asked to."""
        received = outcome if isinstance(outcome, Received) else None
        waited, late = False, 0
        with self._changed:
            self._polls_under_way[poll.queue_name] -= 1
            if self._budget is not None:
                self._budget += poll.messages - (len(received.messages) if received else 0)
            drain = self._drains[poll.queue_name]
            if received is not None:
                drain.found_messages(monotonic())
                late = self._hold(poll.queue_name, received)
            elif outcome is None and poll.is_needed:
                waited = drain.found_nothing(poll.began_secs, monotonic(), poll.wait_secs)
            self._watermark.end_poll(poll.queue_name, poll.number, found_nothing=waited)
            self._changed.notify_all()
            drained = self._until.empty and all(d.is_empty for d in self._drains.values())
        if late:
            self._release([late])
        if drained:
            self._end()
        return waited and poll.wait_secs > 0

    def _hold(self, queue_name: str, received: Received) -> int:
        """Take received messages in; return the lease's number when they come after the stop."""
        messages = received.messages
        oldest = min(message.enqueued_at for message in messages)
        handles: list[str | None] = [*received.receipt_handles]
        lease = Lease(queue_name, handles, self._clock(), received.visible_again_at, oldest)
        number = self._ledger.hold(lease)
        self._tally.add(
            received=len(messages),
            redelivered=sum(message.dequeue_count > 1 for message in messages),
        )
        if self._stopped.is_set():
            return number
        self._buffer.append(Batch(messages, number, oldest))
        self._buffered_messages += len(messages)
        return 0

    def _note_fault(self, queue_name: str, fault: Exception, failures: int) -> None:
        if not isinstance(fault, TransientError):
            raise fault
        self._tally.add(receive_faults=1)
        if self._connection.has_answered(queue_name):
            self._warn_once(fault)
        elif failures >= self._settings.start_tries:
            raise faults.surrender(fault) from None

    def _warn_once(self, fault: TransientError) -> None:
        """Say it once a read: all fetchers meet the same outage, and each meets it again and again."""
        with self._changed:
            is_news, self._has_warned = not self._has_warned, True
        if is_news:
            _LOGGER.warning("%s; trying again", fault)

    def _pause(self, failures: int) -> None:
        self._ending.wait(
            backoff_secs(failures, _FIRST_PAUSE_SECS, _LONGEST_PAUSE_SECS, self._connection.draw)
        )

    # -- leases ------------------------------------------------------------------------------------

    def _run_keeper(self) -> None:
        try:
            self._keep_leases()
        except Exception as failure:  # noqa: BLE001 - a bug must end the read, not lose its leases
            self._fail(failure)

    def _keep_leases(self) -> None:
        tick_secs = min(1.0, self._settings.renewal_margin_secs / 4)
        while not self._closed.wait(tick_secs):
            with self._changed:
                due = self._ledger.due(self._clock())
                lost = self._ledger.expire(self._clock())
            self._tally.add(lost_leases=lost)
            for number in due:
                self._renew(number)
            with self._renewing:
                if self._is_abandoned():
                    numbers = [number for span in self._marks.values() for number in span]
                    self._take_handles(numbers, "unacknowledged")
                    self._workers.shutdown(wait=False)
                    self._on_done()
                    return

    def _is_abandoned(self) -> bool:
        """Whether the reader is gone and nothing is held that could still be deleted or given back."""
        with self._changed:
            is_gone = self._stopped.is_set() and not self._live_fetchers
            return is_gone and self._ledger.oldest_enqueued_at() is None

    def _renew(self, number: int) -> None:
        position, soonest = 0, None
        while True:
            with self._renewing:
                with self._changed:
                    lease = self._ledger.get(number)
                if lease is None or position == len(lease.receipt_handles):
                    break
                handle = lease.receipt_handles[position]
                if handle is not None:
                    try:
                        changed = self._client.change_visibility(
                            lease.queue_name, handle, self._settings.visibility_timeout_secs
                        )
                    except TransientError:
                        return  # the next tick tries again
                    lease.receipt_handles[position] = changed.receipt_handle if changed else None
                    if changed is None:
                        self._tally.add(lost_leases=1)
                    elif soonest is None or changed.visible_again_at < soonest:
                        soonest = changed.visible_again_at
            position += 1
        if lease is not None and soonest is not None:
            lease.expires_at = soonest
            self._tally.add(renewals=1)

    def _take_handles(self, numbers: Iterable[int], lost_count: str) -> dict[str, list[str]]:
        """Take leases out of the ledger; return their handles by queue, and count the lost ones.

        To be called while no lease is being renewed.
        """
        handles: dict[str, list[str]] = {}
        with self._changed:
            for number in numbers:
                lease = self._ledger.take(number)
                if lease is not None:
                    held = [handle for handle in lease.receipt_handles if handle is not None]
                    handles.setdefault(lease.queue_name, []).extend(held)
                    lost = len(lease.receipt_handles) - len(held)
                    if lost:
                        self._tally.add(**{lost_count: lost})
        return handles

    def _delete_all(self, chunks: Iterable[tuple[str, list[str]]], deadline_secs: float) -> None:
        for queue_name, handles in chunks:
            self._delete(queue_name, handles, deadline_secs)

    def _delete(self, queue_name: str, handles: list[str], deadline_secs: float) -> None:
        """Delete a chunk, as often as it takes; give up on what stays."""
        unsure = False
        for attempt in range(1, _DELETE_TRIES + 1):
            if monotonic() >= deadline_secs:
                break
            try:
                errors = self._client.delete(queue_name, handles)
            except UnreachableError:
                unsure = True  # the messages may be gone: their handles will be refused next time
            except TransientError:
                pass
            except OperatorError as failure:
                self._fail(failure)
                break
            else:
                lost = sum(error.code in faults.LOST_LEASE for error in errors)
                kept = [e.receipt_handle for e in errors if e.code not in faults.LOST_LEASE]
                self._tally.add(acknowledged=len(handles) - len(errors))
                if lost:
                    self._tally.add(**{"unconfirmed" if unsure else "unacknowledged": lost})
                if not kept:
                    return
                handles = kept
            self._closed.wait(
                backoff_secs(attempt, _FIRST_PAUSE_SECS, _LONGEST_PAUSE_SECS, self._connection.draw)
            )
        self._tally.add(unacknowledged=len(handles))

    def _release(self, numbers: Iterable[int]) -> None:
        """Give messages back to their queue; what cannot be, comes back by its timeout."""
        deadline_secs = monotonic() + self._settings.visibility_timeout_secs
        with self._renewing:
            given_back = [
                self._workers.submit(self._release_one, queue_name, handle, deadline_secs)
                for queue_name, handles in self._take_handles(numbers, "released").items()
                for handle in handles
            ]
        for release in given_back:
            release.result()

    def _release_one(self, queue_name: str, handle: str, deadline_secs: float) -> None:
        self._tally.add(released=1)
        if monotonic() >= deadline_secs:  # it has come back by itself, or will at once
            self._tally.add(failed_releases=1)
            return
        try:
            self._client.change_visibility(queue_name, handle, _RELEASE_SECS)
        except (TransientError, OperatorError):
            self._tally.add(failed_releases=1)
