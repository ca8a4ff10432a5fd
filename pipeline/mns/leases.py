"""The leases this process holds: which handles delete which messages, and until when.

Pure: the time is an argument, and nothing here talks to the queue. Times are seconds of a clock that
nobody sets, so that a clock that is set, forwards or back, neither ends a lease nor prolongs it. One
lease covers the messages of one receive, whose handles were given out together; a renewal replaces
its handles one by one, because MNS has no batch renewal and answers each with a new handle (doc 35142).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from heapq import heappop, heappush


class Lease:
    """The handles of one receive.

    Attributes:
        queue_name: where the messages are.
        oldest_enqueued_at: event time of its oldest message.
        held_since_secs: when they were received.
        receipt_handles: by position; None where the queue has said that it works no more.
        expires_secs: by position: when that message shows up in the queue again.
        soonest_secs: the first of those that can still be renewed; infinite when there is none.
        is_written_off: whether all of it has ended by our reckoning. That may be wrong, so its handles
            are still good for a try to delete.
        is_renewing: whether somebody is about to renew it.
        is_in_call: whether one of its handles is being replaced at this moment.
    """

    def __init__(
        self,
        queue_name: str,
        receipt_handles: Iterable[str],
        oldest_enqueued_at: datetime,
        now_secs: float,
        expires_secs: float,
    ) -> None:
        """Hold messages since ``now_secs``, and until ``expires_secs``."""
        self.queue_name = queue_name
        self.oldest_enqueued_at = oldest_enqueued_at
        self.held_since_secs = now_secs
        self.receipt_handles: list[str | None] = [*receipt_handles]
        self.expires_secs = [expires_secs] * len(self.receipt_handles)
        self.soonest_secs = expires_secs
        self.is_written_off = False
        self.is_renewing = False
        self.is_in_call = False
        self._half_secs = (now_secs + expires_secs) / 2

    def renew(self, position: int, receipt_handle: str, now_secs: float, lasts_secs: float) -> None:
        """Replace a handle by the one that works from ``now_secs`` on, for ``lasts_secs``."""
        self.receipt_handles[position] = receipt_handle
        self.expires_secs[position] = now_secs + lasts_secs
        before_secs = self.soonest_secs
        self._note_soonest()
        if self.soonest_secs > before_secs:  # all of them are renewed now
            self._half_secs = (now_secs + self.soonest_secs) / 2

    def lose(self, position: int) -> None:
        """Note that a handle works no more."""
        self.receipt_handles[position] = None
        self._note_soonest()

    def is_due(self, now_secs: float, lead_secs: float) -> bool:
        """Whether less than ``lead_secs``, and less than half of it, is left."""
        return now_secs >= max(self.soonest_secs - lead_secs, self._half_secs)

    def write_off_if_ended(self, now_secs: float) -> int:
        """Write the lease off when all of it has ended; return how many messages that loses."""
        if self.is_written_off or self.soonest_secs > now_secs:
            return 0
        ends = self._ends_secs()
        if max(ends) > now_secs:
            return 0
        self.is_written_off = True
        return len(ends)

    @property
    def is_alive(self) -> bool:
        """Whether any of its messages is still ours."""
        return not self.is_written_off and any(self.receipt_handles)

    def _note_soonest(self) -> None:
        self.soonest_secs = min(self._ends_secs(), default=float("inf"))

    def _ends_secs(self) -> list[float]:
        held = zip(self.receipt_handles, self.expires_secs, strict=True)
        return [ends for handle, ends in held if handle is not None]


class LeaseLedger:
    """All leases held, by number."""

    def __init__(self, max_hold_secs: float) -> None:
        """Renew nothing that was held for ``max_hold_secs``."""
        self._max_hold_secs = max_hold_secs
        self._leases: dict[int, Lease] = {}
        # Every lease by its oldest message; those no longer held are dropped when they surface.
        self._by_age: list[tuple[datetime, int]] = []
        self._received = 0
        self.messages = 0

    def hold(self, lease: Lease) -> int:
        """Take a lease into the ledger; return its number."""
        self._received += 1
        self._leases[self._received] = lease
        self.messages += len(lease.receipt_handles)
        heappush(self._by_age, (lease.oldest_enqueued_at, self._received))
        return self._received

    def get(self, number: int) -> Lease | None:
        """Return a lease that is still held."""
        return self._leases.get(number)

    def due(self, now_secs: float, lead_secs: float) -> list[int]:
        """Return the leases to renew, the most urgent first.

        Neither those that have ended (their handles are dead) nor those held for too long (what
        held them so long is stuck, and another reader should have a chance) nor those that
        somebody is renewing.
        """
        urgent = [
            (lease.soonest_secs, number)
            for number, lease in self._leases.items()
            if lease.is_due(now_secs, lead_secs)
            and lease.is_alive
            and not lease.is_renewing
            and now_secs - lease.held_since_secs < self._max_hold_secs
        ]
        return [number for _, number in sorted(urgent)]

    def write_off_ended(self, now_secs: float) -> int:
        """Write off the leases that have ended; return how many messages that loses."""
        return sum(lease.write_off_if_ended(now_secs) for lease in self._leases.values())

    def take(self, number: int) -> Lease | None:
        """Remove a lease, to delete or release its messages; None when it is not held."""
        lease = self._leases.pop(number, None)
        if lease is not None:
            self.messages -= len(lease.receipt_handles)
        return lease

    def oldest_enqueued_at(self) -> datetime | None:
        """Return the event time of the oldest message held; leases written off hold nothing."""
        while self._by_age:
            oldest, number = self._by_age[0]
            lease = self._leases.get(number)
            if lease is not None and lease.is_alive:
                return oldest
            heappop(self._by_age)
        return None
