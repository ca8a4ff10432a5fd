"""Queue tokens: how long they last, when to replace them, and when a refusal is the last word.

What happens to a token, and to whoever needs one:

* It is replaced two minutes before its end. While that fails it goes on being used, and the service is
  asked again after pauses of 1 to 2 s; asking takes 5 s at most, and one thread a queue asks for all.
* A queue that refuses it (403; no source names the code of an expired token) gets a fresh one at once,
  but not more than one a second: it may be refusing at random, and then the same one works again.
* A queue that refuses a fresh one, too, is misconfigured when none has worked yet: that ends the
  read. When one has worked before, access may come back: it gets eight fresh ones, over 45 to 90 s.
* That is counted for each operation by itself: a queue may let these keys receive, and not delete. One
  that is refused neither keeps the others waiting nor is forgiven because they go well.
* The same goes for a token service that refuses account keys with which it has given tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Final, NamedTuple

from pipeline.errors import OperatorError, TransientError
from pipeline.inboxes.backoff import Draw, backoff_secs, outage_pause_secs
from pipeline.mns import faults
from transforms.moments import BEIJING

# Alibaba's own Java client refreshes this long before the end.
_REFRESH_MARGIN: Final = timedelta(minutes=2)
# The Node client's assumption (10 min, refreshed at 8), for a time that cannot be read.
_ASSUMED_LIFETIME: Final = timedelta(minutes=10)
# A token that claims to last longer is asked for again anyway: the claim may be a time zone off.
_LONGEST_TRUST: Final = timedelta(hours=1)
_FIRST_REFUSED_PAUSE_SECS: Final = 2.0
_LONGEST_REFUSED_PAUSE_SECS: Final = 30.0
_REFUSALS_AT_THE_START: Final = 2
_REFUSALS_LATER: Final = 8
_LEAST_USE: Final = timedelta(seconds=1)


class TokenAnswer(NamedTuple):
    """What the token service says, unread; ``expire_time`` is Beijing time without offset."""

    access_key_id: str
    access_key_secret: str
    security_token: str
    expire_time: str

    def __repr__(self) -> str:
        """Keep the secrets out of logs."""
        return f"TokenAnswer(expire_time={self.expire_time!r})"


@dataclass(frozen=True)
class QueueToken:
    """The keys that sign requests to one queue, and when to replace them."""

    access_key_id: str = field(repr=False)
    access_key_secret: str = field(repr=False)
    security_token: str = field(repr=False)
    refresh_at: datetime
    expires_at: datetime


def read_token(answer: TokenAnswer, fetched_at: datetime) -> QueueToken:
    """Decide when to replace a token: 2 minutes before its end, a short one at half its life."""
    lifetime = _lifetime(answer.expire_time, fetched_at)
    margin = min(_REFRESH_MARGIN, lifetime / 2)
    return QueueToken(
        answer.access_key_id,
        answer.access_key_secret,
        answer.security_token,
        refresh_at=fetched_at + lifetime - margin,
        expires_at=fetched_at + lifetime,
    )


def _lifetime(expire_time: str, fetched_at: datetime) -> timedelta:
    try:
        expires_at = datetime.strptime(expire_time, "%Y-%m-%d %H:%M:%S").replace(tzinfo=BEIJING)
    except ValueError:
        return _ASSUMED_LIFETIME
    lifetime = expires_at - fetched_at
    # Born expired: one of the two clocks is wrong, and the token is probably good.
    return min(lifetime, _LONGEST_TRUST) if lifetime > timedelta() else _ASSUMED_LIFETIME


class Operation(Enum):
    """What is asked of a queue, by its HTTP method."""

    RECEIVE = "GET"
    DELETE = "DELETE"
    CHANGE_VISIBILITY = "PUT"


class _Trouble:
    """What goes wrong in a row with one kind of request, and when not to ask again."""

    def __init__(self) -> None:
        # What only the operator can mend: fresh tokens by the queue, keys by the service.
        self.refusals = 0
        self.fault: TransientError | OperatorError | None = None
        self._paused_at: datetime | None = None
        self._pause = timedelta()

    def pause(self, now: datetime, secs: float) -> None:
        """Begin a pause."""
        self._paused_at, self._pause = now, timedelta(seconds=secs)

    def is_paused(self, now: datetime) -> bool:
        """Whether a pause is on; one from the future was begun before the clock was set back."""
        return (
            self._paused_at is not None and self._paused_at <= now < self._paused_at + self._pause
        )

    def raise_if_paused(self, now: datetime) -> None:
        """Raise what the pause is for."""
        if self.fault is not None and self.is_paused(now):
            raise _again(self.fault)


class _Slot:
    """The token of one queue."""

    def __init__(self) -> None:
        self.refreshing = threading.Lock()
        self.token: QueueToken | None = None
        self.is_accepted = False
        self.is_rejected = False
        self.replaced_at: datetime | None = None
        # Whether the queue has ever accepted a token.
        self.has_worked = False
        self.with_queue = {operation: _Trouble() for operation in Operation}
        self.with_service = _Trouble()
        # In a row, of the token service to answer.
        self.failures = 0
        self.failed_fetches = 0

    def was_just_replaced(self, now: datetime) -> bool:
        """Whether the token took the place of a refused one less than a second ago."""
        return self.replaced_at is not None and (
            self.replaced_at <= now < self.replaced_at + _LEAST_USE
        )

    def is_refused_for_good(self, trouble: _Trouble) -> bool:
        if trouble is self.with_queue[Operation.CHANGE_VISIBILITY]:
            return False  # it costs redeliveries, and no source says that these queues allow it
        most = _REFUSALS_LATER if self.has_worked else _REFUSALS_AT_THE_START
        return trouble.refusals >= most

    def usable(self, now: datetime) -> QueueToken | None:
        """Return the token at hand if it still works, as far as is known."""
        token = self.token
        return token if token and not self.is_rejected and now < token.expires_at else None


class QueueTokens:
    """The tokens of several queues, each replaced in time; safe to share between threads.

    Requests signed with an old one may finish: nothing is closed when a token is replaced.
    """

    def __init__(
        self, fetch: Callable[[str], TokenAnswer], clock: Callable[[], datetime], draw: Draw
    ) -> None:
        """Take how to fetch a queue's token, what time it is (aware) and a source of jitter."""
        self._fetch = fetch
        self._clock = clock
        self._draw = draw
        self._slots: dict[str, _Slot] = {}
        self._growing = threading.Lock()

    def current(self, queue_name: str, operation: Operation) -> QueueToken:
        """Return a token for a queue, fetched anew when it is time.

        Raises ``TransientError`` when there is none and the service cannot give one now, or an
        ``OperatorError`` when it will not; the same after the queue has refused fresh ones.
        """
        slot = self._slots.get(queue_name) or self._new_slot(queue_name)
        now = self._clock()
        slot.with_queue[operation].raise_if_paused(now)
        token = slot.usable(now)
        if token is not None:
            # One thread refreshes, the others go on with what works.
            if now < token.refresh_at or not slot.refreshing.acquire(blocking=False):
                return token
            try:
                return self._refresh(queue_name, operation, slot, slot.failed_fetches)
            finally:
                slot.refreshing.release()
        failed_fetches = slot.failed_fetches
        with slot.refreshing:
            return self._refresh(queue_name, operation, slot, failed_fetches)

    def accept(self, queue_name: str, operation: Operation, token: QueueToken) -> None:
        """Note that a queue took a token."""
        slot = self._slots[queue_name]
        if slot.token is token:
            slot.is_accepted = slot.has_worked = True
            if slot.with_queue[operation].refusals:
                slot.with_queue[operation] = _Trouble()

    def reject(
        self, queue_name: str, operation: Operation, token: QueueToken, refusal: OperatorError
    ) -> None:
        """Note that a queue refused a token, so that another is fetched; ``refusal`` says what is wrong."""
        slot = self._slots[queue_name]
        with slot.refreshing:
            if slot.token is not token or slot.is_rejected:
                return
            now = self._clock()
            if not slot.is_accepted:
                trouble = slot.with_queue[operation]
                trouble.fault = self._note_refusal(slot, trouble, refusal, now)
            elif slot.was_just_replaced(now):
                return
            else:
                slot.replaced_at = now
            slot.is_rejected = True

    def is_refused_for_good(self, queue_name: str, operation: Operation) -> bool:
        """Whether fresh tokens have been refused often enough to give the queue up."""
        slot = self._slots[queue_name]
        return slot.is_refused_for_good(slot.with_queue[operation])

    def expiries(self) -> dict[str, datetime]:
        """Return when the token of each queue that has one ends."""
        tokens = {queue_name: slot.token for queue_name, slot in list(self._slots.items())}
        return {queue_name: token.expires_at for queue_name, token in tokens.items() if token}

    def _new_slot(self, queue_name: str) -> _Slot:
        with self._growing:
            return self._slots.setdefault(queue_name, _Slot())

    def _refresh(
        self, queue_name: str, operation: Operation, slot: _Slot, failed_fetches: int
    ) -> QueueToken:
        """Replace the token; ``failed_fetches`` is their number when the caller began to wait."""
        now = self._clock()
        usable = slot.usable(now)
        if usable is not None and now < usable.refresh_at:
            return usable  # another thread was faster
        slot.with_queue[operation].raise_if_paused(now)  # another thread was refused
        # Who waited while another thread asked in vain does not ask again: the waits would add up.
        is_told = slot.failed_fetches != failed_fetches
        trouble = slot.with_service
        if trouble.fault is not None and (is_told or trouble.is_paused(now)):
            if usable is not None:
                return usable
            raise _again(trouble.fault)
        try:
            answer = self._fetch(queue_name)
        except (TransientError, OperatorError) as fault:
            slot.failed_fetches += 1
            trouble.fault = self._note_failed_fetch(slot, fault, now)
            if usable is not None:
                return usable
            raise trouble.fault from None
        slot.token = read_token(answer, self._clock())
        slot.is_accepted = slot.is_rejected = False
        slot.failures, slot.with_service = 0, _Trouble()
        return slot.token

    def _note_failed_fetch(
        self, slot: _Slot, fault: TransientError | OperatorError, now: datetime
    ) -> TransientError | OperatorError:
        if isinstance(fault, OperatorError):
            may_pass = self._note_refusal(slot, slot.with_service, fault, now)
            return may_pass if slot.has_worked else fault
        slot.failures += 1
        slot.with_service.pause(now, outage_pause_secs(slot.failures, self._draw))
        return fault

    def _note_refusal(
        self, slot: _Slot, trouble: _Trouble, refusal: OperatorError, now: datetime
    ) -> TransientError | OperatorError:
        """Count a refusal; return it as what it is: a fault that may pass, or the last word."""
        trouble.refusals += 1
        # The first is followed by another try at once: a token may need a moment to be known.
        if trouble.refusals > 1:
            pause_secs = backoff_secs(
                trouble.refusals - 1,
                _FIRST_REFUSED_PAUSE_SECS,
                _LONGEST_REFUSED_PAUSE_SECS,
                self._draw,
            )
            trouble.pause(now, pause_secs)
        return refusal if slot.is_refused_for_good(trouble) else faults.may_pass(refusal)


def _again(fault: TransientError | OperatorError) -> TransientError | OperatorError:
    """Return the same sentence as an exception of its own: each thread raises one."""
    return type(fault)(str(fault))
