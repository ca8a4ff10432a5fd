"""MNS queues as an inbox: threads that receive ahead of whoever takes, and leases.

Fetchers receive into a bounded buffer; the pipeline takes batches out, and acknowledges or releases the
lease of each. The rest is given back at the end, or comes back by itself when its visibility timeout ends.

A stop (SIGTERM, in the end) takes ``stop_secs`` at most for what the service is to answer: what was not
handed out is given back at once, the last bundle is deleted. A long poll under way is waited for, since
messages that come for a poll whose caller has hung up may stay hidden until their visibility timeout:
nobody knows whether MNS notices. Only what takes longer is hung up on.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import datetime
from time import monotonic
from typing import Final, NamedTuple

from pipeline.errors import OperatorError, TransientError
from pipeline.inboxes.backoff import outage_pause_secs
from pipeline.inboxes.inbox import Batch
from pipeline.inboxes.watermark import Watermark
from pipeline.mns import faults
from pipeline.mns.client import Leased
from pipeline.mns.connection import MnsConnection
from pipeline.mns.drain import Drain
from pipeline.mns.lease_keeper import LeaseKeeper
from pipeline.mns.leases import Lease
from pipeline.mns.settings import BATCH_MESSAGES, MnsSettings, Until
from pipeline.mns.transport import Line
from pipeline.stopping import is_stop_requested
from transforms.tally import Tally

_LOGGER = logging.getLogger(__name__)
# How long a waiting thread may overlook that the read has ended, or that it should.
_TICK_SECS: Final = 0.25
# How long a thread may take to leave that can no longer do anything: it may be looking up an address.
_LEAVE_SECS: Final = 6.0


class _Poll(NamedTuple):
    """A receive under way."""

    queue_name: str
    number: int
    messages: int
    wait_secs: int
    began_secs: float
    is_needed: bool
    """Whether finding nothing is to prove something."""


class MnsInbox:
    """All queues of some settings, as one inbox (``pipeline.inboxes``); safe to share between threads.

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

        ``on_done`` is called once, when nothing is left to do: see ``InboxSpec.open``.
        """
        self._settings = settings
        self._until = until
        self._connection = connection
        self._line = Line()
        self._client = connection.client.on(self._line)
        self._tally = tally
        self._clock = connection.clock
        self._on_done: Callable[[], None] | None = on_done
        self._keeper = LeaseKeeper(settings, connection.client, tally, connection.draw, self._fail)
        lock = threading.Lock()  # guards everything down to what was handed out
        self._has_news = threading.Condition(lock)  # for who takes: a batch, or the end
        self._has_room = threading.Condition(lock)  # for fetchers: to ask for more, or the end
        self._buffer: deque[Batch] = deque()
        self._buffered_messages = 0
        self._budget = until.max_messages
        self._polls_under_way = Counter[str]()
        self._drains = {queue_name: Drain(settings.fetchers) for queue_name in settings.queues}
        self._watermark = Watermark(settings.queues)
        self._handed_out: set[int] = set()
        self._ending = threading.Event()
        self._stopped = threading.Event()
        self._closed = threading.Event()
        self._deadline_secs = math.inf
        self._stop_by_secs = math.inf
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
        self._watch = threading.Thread(target=self._run_watch, name="watch-inbox", daemon=True)

    def start(self) -> None:
        """Begin to receive; the time of ``until.max_secs`` starts now."""
        if self._until.max_secs is not None:
            self._deadline_secs = monotonic() + self._until.max_secs
        self._live_fetchers = len(self._fetchers)
        if is_stop_requested():
            self.stop()
        for thread in (*self._fetchers, self._watch):
            thread.start()

    def take(self, timeout_secs: float) -> Batch | None:
        """Hand out the next batch, waiting for one up to ``timeout_secs``."""
        with self._has_news:
            self._has_news.wait_for(lambda: self._buffer or self.is_finished, timeout_secs)
            if not self._buffer:
                return None
            batch = self._buffer.popleft()
            was_full = self._buffered_messages >= self._settings.prefetch_messages
            self._buffered_messages -= len(batch.messages)
            self._handed_out.add(batch.lease)
            if was_full:
                self._has_room.notify_all()
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
        with self._has_news:
            return self._watermark.advance(self._keeper.oldest_enqueued_at())

    def oldest_enqueued_at(self) -> datetime | None:
        """Return the event time of the oldest message held; None while nothing is."""
        return self._keeper.oldest_enqueued_at()

    def token_expires_at(self) -> datetime | None:
        """Return when the first of the queues' tokens ends; None while there is none."""
        return min(self._connection.token_expiries().values(), default=None)

    def acknowledge(self, leases: Sequence[int]) -> None:
        """Delete the messages of leases; a second call does nothing.

        Never raises, because Beam would swallow it: a message that could not be deleted comes back
        and is recognised downstream by its id, and what is no fault of the service ends the read.
        """
        numbers = self._take_back(leases)
        try:
            self._keeper.delete(numbers)
        except Exception as failure:  # noqa: BLE001 - see above
            self._fail(failure)

    def release(self, leases: Sequence[int]) -> None:
        """Begin to give the messages of leases back; a second call does nothing."""
        self._keeper.release(self._take_back(leases))

    def _take_back(self, leases: Sequence[int]) -> list[int]:
        with self._has_news:
            numbers = [number for number in leases if number in self._handed_out]
            self._handed_out.difference_update(numbers)
        return numbers

    def stop(self) -> None:
        """Stop receiving, hand out nothing more, and begin to give back what was not handed out.

        What was handed out is left alone: it may still be acknowledged.
        """
        with self._has_news:
            if self._stopped.is_set():
                return
            self._stopped.set()
            self._stop_by_secs = monotonic() + self._settings.stop_secs
            numbers = [batch.lease for batch in self._buffer]
            self._buffer.clear()
            self._buffered_messages = 0
        self._keeper.stop_by(self._stop_by_secs)
        self._end()
        self._keeper.release(numbers)

    def close(self) -> None:
        """Stop, give back all that was not acknowledged, and wait for the threads."""
        self.stop()
        self._join_fetchers()
        self.release([*self._handed_out])
        self._closed.set()
        if self._watch.ident is not None:
            self._watch.join()
        self._be_done()

    def _join_fetchers(self) -> None:
        started = [thread for thread in self._fetchers if thread.ident is not None]
        for thread in started:
            thread.join(max(0.0, self._stop_by_secs - monotonic()))
        self._line.close()
        for thread in started:
            thread.join(_LEAVE_SECS)

    # -- receiving ---------------------------------------------------------------------------------

    def _run_fetcher(self, queue_name: str) -> None:
        try:
            self._fetch(queue_name)
        except Exception as failure:  # noqa: BLE001 - a bug must end the read, not one thread of it
            self._fail(failure)
        with self._has_news:
            self._live_fetchers -= 1
            self._has_news.notify_all()

    def _fail(self, failure: Exception) -> None:
        failure = faults.in_a_sentence(failure)
        with self._has_news:
            self._failure = self._failure or failure
        self._tally.fail(failure)
        self._end()

    def _end(self) -> None:
        self._ending.set()
        with self._has_news:
            self._has_news.notify_all()
            self._has_room.notify_all()

    def _fetch(self, queue_name: str) -> None:
        failures = fast_answers = 0
        while messages := self._reserve(queue_name):
            poll = self._begin_poll(queue_name, messages)
            outcome: Leased | Exception | None
            try:
                outcome = self._client.receive(queue_name, messages, poll.wait_secs)
            except (TransientError, OperatorError) as fault:
                outcome = fault
            waited = self._settle_poll(poll, outcome)
            if isinstance(outcome, Exception):
                failures += 1
                self._note_fault(queue_name, outcome, failures)
                self._pause(failures, poll.began_secs)
                continue
            failures = 0
            self._connection.note_answer(queue_name)
            if outcome is not None and outcome.unreadable_messages:
                self._tally.add(receive_faults=1)
                self._warn_once(faults.unreadable(queue_name))
            # An answer that did not wait says that the server wants fewer polls.
            fast_answers = fast_answers + 1 if outcome is None and not waited else 0
            if fast_answers:
                self._pause(fast_answers, poll.began_secs)

    def _reserve(self, queue_name: str) -> int:
        """Wait for room in the buffer; return how many messages to ask for, 0 at the end."""
        with self._has_room:
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
                self._has_room.wait(_TICK_SECS)
        self._end()
        return 0

    def _begin_poll(self, queue_name: str, messages: int) -> _Poll:
        longest = self._settings.drain_wait_secs if self._until.empty else self._settings.wait_secs
        now_secs = monotonic()
        wait_secs = int(max(0, min(longest, self._deadline_secs - now_secs)))
        with self._has_room:
            others = self._polls_under_way[queue_name] - 1
            is_needed = not self._until.empty or self._drains[queue_name].needs_another(others)
            if not is_needed:
                wait_secs = (
                    0  # the end, which any other poll may bring, is not to wait for this one
                )
            number = self._watermark.begin_poll(queue_name, self._clock())
        return _Poll(queue_name, number, messages, wait_secs, now_secs, is_needed)

    def _settle_poll(self, poll: _Poll, outcome: Leased | Exception | None) -> bool:
        """Book what a poll brought; return whether an empty one waited as it was asked to."""
        received = outcome if isinstance(outcome, Leased) else None
        waited, late = False, 0
        with self._has_news:
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
            if received is not None:
                self._has_news.notify()
            if self._budget is not None:  # less may have come than this poll had reserved
                self._has_room.notify_all()
            drained = self._until.empty and all(d.is_empty for d in self._drains.values())
        if late:
            self._keeper.release([late])
        if drained:
            self._end()
        return waited and poll.wait_secs > 0

    def _hold(self, queue_name: str, received: Leased) -> int:
        """Take received messages in; return the lease's number when they come after the stop."""
        messages = received.messages
        oldest = min(message.enqueued_at for message in messages)
        now_secs = monotonic()
        number = self._keeper.hold(
            Lease(queue_name, received.receipt_handles, oldest, now_secs, now_secs + received.secs)
        )
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
        with self._has_news:
            is_news, self._has_warned = not self._has_warned, True
        if is_news:
            _LOGGER.warning("%s; trying again", fault)

    def _pause(self, failures: int, began_secs: float) -> None:
        """Pause after a poll that brought nothing; one that took long has had its pause."""
        pause_secs = outage_pause_secs(failures, self._connection.draw)
        self._ending.wait(max(0.0, pause_secs - (monotonic() - began_secs)))

    # -- watching ----------------------------------------------------------------------------------

    def _run_watch(self) -> None:
        try:
            while not self._closed.wait(_TICK_SECS):
                if is_stop_requested():
                    self.stop()
                self._keeper.tend()
                if self._is_abandoned():
                    self._abandon()
                    return
        except Exception as failure:  # noqa: BLE001 - a bug must end the read, not lose its leases
            self._fail(failure)

    def _is_abandoned(self) -> bool:
        """Whether it was stopped and nothing is held that could still be deleted or given back."""
        return self._stopped.is_set() and not self._live_fetchers and self._keeper.is_idle

    def _abandon(self) -> None:
        self._keeper.forget(self._take_back([*self._handed_out]))
        self._be_done()

    def _be_done(self) -> None:
        self._keeper.close()
        on_done, self._on_done = self._on_done, None
        if on_done is not None:
            on_done()
