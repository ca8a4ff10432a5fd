"""The inbox of a subscription: threads that pull ahead of the pipeline, and one that keeps the leases.

A lease is what one pull brought. Pub/Sub's ack ids stay the same when their deadline is moved, so that
keeping leases is one call for a thousand messages, and nobody waits for it.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from math import inf
from time import monotonic
from typing import Final

from pipeline.clock import utc_now
from pipeline.errors import OperatorError, TransientError
from pipeline.inboxes.backoff import outage_pause_secs
from pipeline.inboxes.inbox import Batch
from pipeline.inboxes.watermark import Watermark
from pipeline.pubsub.client import LostIdsError, PubSubClient, Pulled
from pipeline.pubsub.settings import LEAST_DEADLINE_SECS, MOST_MESSAGES, PubSubSettings
from transforms.tally import Tally

_LOGGER = logging.getLogger(__name__)
_TICK_SECS: Final = 0.25
# How long a thread may take to leave that can no longer do anything.
_LEAVE_SECS: Final = 6.0
# An empty answer that came sooner than this share of the wait proves nothing.
_WAITED_SHARE: Final = 0.5
# So many refusals in a row are final where the subscription could be read before: some 15 s.
_MOST_REFUSALS: Final = 8


class _Lease:
    """The messages of one pull, held until their deadline.

    Attributes:
        ack_ids: what they are acknowledged by.
        oldest_enqueued_at: the oldest enqueue time among them.
        held_since_secs: when they came, on the monotonic clock.
        due_secs: when to move their deadline.
        expires_secs: when that is.
        is_lost: whether it has passed: their messages may be with somebody else.
    """

    def __init__(self, pulled: Pulled, now_secs: float) -> None:
        self.ack_ids = pulled.ack_ids
        self.oldest_enqueued_at = min(message.enqueued_at for message in pulled.messages)
        self.held_since_secs = now_secs
        self.is_lost = False
        # The subscription's own deadline is not asked for: that takes another permission.
        self.last(now_secs, LEAST_DEADLINE_SECS)

    def last(self, now_secs: float, secs: float) -> None:
        """Note that the deadline is so far away."""
        self.due_secs = now_secs + secs / 2
        self.expires_secs = now_secs + secs


class PubSubInbox:
    """Reads a subscription for one reader, for ever; see ``pipeline.inboxes.inbox.Inbox``.

    The watermark follows the oldest message held; with none held, the last pull that waited in vain. A
    connection that has died without a word is noticed within 50 s (keepalive): until then such a pull proves
    nothing.
    """

    def __init__(
        self, settings: PubSubSettings, tally: Tally, on_done: Callable[[], None] = lambda: None
    ) -> None:
        """Prepare to read, counting into ``tally``; ``on_done`` as ``InboxSpec.open`` has it."""
        self._settings = settings
        self._tally = tally
        self._on_done = on_done
        self._client = PubSubClient(settings)
        self._draw = random.SystemRandom().random
        self._changed = threading.Condition()  # guards everything down to the failure
        self._buffer: deque[Batch] = deque()
        self._buffered_messages = 0
        self._requested_messages = 0
        self._leases: dict[int, _Lease] = {}
        self._held_leases = 0
        self._given_back: list[_Lease] = []
        self._ends_under_way = 0
        self._watermark = Watermark([settings.subscription])
        self._live_fetchers = 0
        self._has_answered = False
        self._has_warned = False
        self._failure: Exception | None = None
        self._ending = threading.Event()
        self._stopped = threading.Event()
        self._closed = threading.Event()
        self._stop_by_secs = inf
        self._fetchers = [
            threading.Thread(target=self._run_fetcher, name=f"pull-{number}", daemon=True)
            for number in range(settings.fetchers)
        ]
        self._keeper = threading.Thread(target=self._run_keeper, name="keep-leases", daemon=True)

    def start(self) -> None:
        """Begin to receive."""
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
            self._changed.notify_all()
            return batch

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be handed out."""
        return self._stopped.is_set() or (not self._buffer and not self._live_fetchers)

    @property
    def failure(self) -> Exception | None:
        """What ended the read, if something did."""
        return self._failure

    def watermark(self) -> datetime | None:
        """Return the watermark (UTC); None as long as nothing is known."""
        with self._changed:
            return self._watermark.advance(self._oldest_enqueued_at())

    def oldest_enqueued_at(self) -> datetime | None:
        """Return the event time of the oldest message held; None while none is."""
        with self._changed:
            return self._oldest_enqueued_at()

    def token_expires_at(self) -> datetime | None:
        """Return None: Google's client sees to that."""
        return None

    def acknowledge(self, leases: Sequence[int]) -> None:
        """Acknowledge the messages of leases, as often as it takes while they last; never raises."""
        began_secs = monotonic()
        with self._changed:
            held = self._taken(leases)
            self._ends_under_way += 1
        try:
            for ack_ids in _chunks(held):
                self._acknowledge(ack_ids, began_secs)
        except Exception as failure:  # noqa: BLE001 - the engine would swallow it
            self._fail(failure)
        finally:
            with self._changed:
                self._ends_under_way -= 1

    def release(self, leases: Sequence[int]) -> None:
        """Begin to give the messages of leases back."""
        with self._changed:
            self._give_back(self._taken(leases))

    def stop(self) -> None:
        """Receive and hand out nothing more, and give back what was not handed out."""
        with self._changed:
            if self._stopped.is_set():
                return
            self._stopped.set()
            self._stop_by_secs = monotonic() + self._settings.stop_secs
            self._give_back(self._taken([batch.lease for batch in self._buffer]))
            self._buffer.clear()
            self._buffered_messages = 0
        self._end()

    def close(self) -> None:
        """Stop, give back all that was not acknowledged, and wait for the threads."""
        self.stop()
        for thread in self._fetchers:
            if thread.ident is not None:
                thread.join(max(0.0, self._stop_by_secs - monotonic()) + _LEAVE_SECS)
        with self._changed:
            self._give_back(self._taken(list(self._leases)))
        self._closed.set()
        if self._keeper.ident is not None:
            self._keeper.join()
        self._client.close()

    # -- pulling -----------------------------------------------------------------------------------

    def _run_fetcher(self) -> None:
        try:
            self._fetch()
        except Exception as failure:  # noqa: BLE001 - a bug must end the read, not one thread of it
            self._fail(failure)
        with self._changed:
            self._live_fetchers -= 1
            self._changed.notify_all()

    def _fetch(self) -> None:
        faults = fast_answers = 0
        while most := self._reserve():
            with self._changed:
                poll = self._watermark.begin_poll(self._settings.subscription, utc_now())
            began_secs = monotonic()
            pulled: Pulled | None = None
            fault: Exception | None = None
            try:
                pulled = self._pull(most)
            except (TransientError, OperatorError) as error:
                fault = error
            waited = monotonic() - began_secs >= self._settings.wait_secs * _WAITED_SHARE
            is_empty = pulled is not None and not pulled.messages
            self._settle(poll, most, pulled, found_nothing=is_empty and waited)
            faults = 0 if fault is None else faults + 1
            fast_answers = fast_answers + 1 if is_empty and not waited else 0
            if fault is None:
                self._has_answered = True
            else:
                self._note_fault(fault, faults)
            if faults or fast_answers:
                self._ending.wait(outage_pause_secs(faults or fast_answers, self._draw))

    def _pull(self, most: int) -> Pulled:
        received = self._client.pull(most)
        try:
            return self._client.read(received)
        except (TransientError, OperatorError) as fault:
            if isinstance(fault, TransientError):
                # The subscription has: what may come is the schema of its messages.
                self._has_answered = True
            self._hold([each.ack_id for each in received], 0)
            raise

    def _reserve(self) -> int:
        """Wait for room in the buffer; return how many messages to ask for, 0 at the end."""
        with self._changed:
            while not self._ending.is_set():
                room = self._settings.prefetch_messages - self._buffered_messages
                most = min(self._settings.pull_messages, room - self._requested_messages)
                if most > 0:
                    self._requested_messages += most
                    return most
                self._changed.wait(_TICK_SECS)
        return 0

    def _settle(self, poll: int, most: int, pulled: Pulled | None, *, found_nothing: bool) -> None:
        """Book what a pull brought."""
        with self._changed:
            self._requested_messages -= most
            if pulled is not None and pulled.messages:
                self._take_in(pulled, monotonic())
            self._watermark.end_poll(self._settings.subscription, poll, found_nothing=found_nothing)
            self._changed.notify_all()

    def _take_in(self, pulled: Pulled, now_secs: float) -> None:
        messages = pulled.messages
        self._tally.add(
            received=len(messages),
            redelivered=sum(message.dequeue_count > 1 for message in messages),
        )
        lease = _Lease(pulled, now_secs)
        if self._stopped.is_set():
            self._give_back([lease])
            return
        self._held_leases += 1
        self._leases[self._held_leases] = lease
        self._buffer.append(Batch(messages, self._held_leases, lease.oldest_enqueued_at))
        self._buffered_messages += len(messages)

    def _note_fault(self, fault: Exception, faults: int) -> None:
        """Tell of a fault once; raise what does not pass."""
        self._tally.add(receive_faults=1)
        if isinstance(fault, OperatorError):
            if not self._has_answered or faults >= _MOST_REFUSALS:
                raise fault
        elif not self._has_answered and faults >= self._settings.start_tries:
            raise OperatorError(f"{fault}: check the network, and --send_log_subscription")
        with self._changed:
            is_news, self._has_warned = not self._has_warned, True
        if is_news:
            _LOGGER.warning("%s; trying again", fault)

    def _fail(self, failure: Exception) -> None:
        with self._changed:
            self._failure = self._failure or failure
        self._tally.fail(failure)
        self._end()

    def _end(self) -> None:
        self._ending.set()
        with self._changed:
            self._changed.notify_all()

    # -- leases ------------------------------------------------------------------------------------

    def _oldest_enqueued_at(self) -> datetime | None:
        held = [lease.oldest_enqueued_at for lease in self._leases.values() if not lease.is_lost]
        return min(held, default=None)

    def _taken(self, numbers: Iterable[int]) -> list[_Lease]:
        return [lease for number in numbers if (lease := self._leases.pop(number, None))]

    def _give_back(self, leases: Sequence[_Lease]) -> None:
        self._given_back += leases
        self._changed.notify_all()

    def _run_keeper(self) -> None:
        faults = 0
        try:
            while True:
                is_closed = self._closed.is_set()  # before the look at what is left
                faults = 0 if self._tend() else faults + 1
                if is_closed:
                    return
                if self._abandon():
                    self._client.close()
                    self._on_done()
                    return
                if faults:
                    self._closed.wait(outage_pause_secs(faults, self._draw))
                with self._changed:
                    self._changed.wait_for(self._has_work, _TICK_SECS)
        except Exception as failure:  # noqa: BLE001 - a bug must end the read, not lose its leases
            self._fail(failure)

    def _has_work(self) -> bool:
        return bool(self._given_back and self._may_give_back()) or self._closed.is_set()

    def _may_give_back(self) -> bool:
        """Whether what is given back goes to others: at a stop, a pull under way would take it again."""
        return not self._stopped.is_set() or not self._live_fetchers or self._closed.is_set()

    def _abandon(self) -> bool:
        """Forget what is lost, if the reader is gone and nothing else is held; tell whether that is so."""
        with self._changed:
            is_busy = self._live_fetchers or self._ends_under_way or self._given_back
            is_holding = any(not lease.is_lost for lease in self._leases.values())
            if not self._stopped.is_set() or is_busy or is_holding:
                return False
            lost = self._taken(list(self._leases))
        self._tally.add(unacknowledged=sum(len(lease.ack_ids) for lease in lost))
        return True

    def _tend(self) -> bool:
        """Give back what is to be, and move the deadlines that are due; tell whether that worked."""
        now_secs = monotonic()
        with self._changed:
            given_back: list[_Lease] = []
            if self._may_give_back():
                given_back, self._given_back = self._given_back, []
            lost = [
                lease
                for lease in self._leases.values()
                if lease.expires_secs <= now_secs and not lease.is_lost
            ]
            for lease in lost:
                lease.is_lost = True
            due = [
                lease
                for lease in self._leases.values()
                if lease.due_secs <= now_secs
                and not lease.is_lost
                and now_secs - lease.held_since_secs < self._settings.max_hold_secs
            ]
        if lost:
            self._tally.add(lost_leases=sum(len(lease.ack_ids) for lease in lost))
        for ack_ids in _chunks(given_back):
            self._hold(ack_ids, 0)  # what cannot be given back comes again by its deadline
            self._tally.add(released=len(ack_ids))
        secs = self._settings.ack_deadline_secs
        held = all([self._hold(ack_ids, secs) for ack_ids in _chunks(due)])
        if held:
            for lease in due:
                lease.last(now_secs, secs)
            if due:
                self._tally.add(renewals=len(due))
        return held

    def _hold(self, ack_ids: Sequence[str], secs: int) -> bool:
        try:
            self._client.hold(ack_ids, secs)
        except (TransientError, OperatorError):
            return False  # whoever pulls will say what it is
        return True

    def _acknowledge(self, ack_ids: list[str], began_secs: float) -> None:
        """Acknowledge, until it works or the leases have ended, which nobody renews any more."""
        faults = 0
        left = ack_ids
        fault: Exception | None = None
        # Who stops waits for this, but not for ever; at least one attempt is made.
        while left and (not faults or monotonic() < self._acknowledge_by_secs(began_secs)):
            try:
                self._client.acknowledge(left)
            except LostIdsError as error:
                self._tally.add(
                    unacknowledged=error.lost, acknowledged=len(left) - error.lost - len(error.left)
                )
                left = list(error.left)
            except (TransientError, OperatorError) as error:
                fault = error
            else:
                self._tally.add(acknowledged=len(left))
                return
            faults += 1
            if left:
                self._closed.wait(outage_pause_secs(faults, self._draw))
        if left:
            self._tally.add(unacknowledged=len(left))
            if isinstance(fault, OperatorError):
                raise fault

    def _acknowledge_by_secs(self, began_secs: float) -> float:
        lasts_secs = began_secs + self._settings.ack_deadline_secs / 2
        return min(lasts_secs, max(self._stop_by_secs, began_secs + self._settings.stop_secs / 3))


def _chunks(leases: Iterable[_Lease]) -> list[list[str]]:
    """The ack ids of leases, as many to a request as there may be."""
    ack_ids = [ack_id for lease in leases for ack_id in lease.ack_ids]
    return [
        ack_ids[first : first + MOST_MESSAGES] for first in range(0, len(ack_ids), MOST_MESSAGES)
    ]
