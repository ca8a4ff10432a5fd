"""The leases this process holds: which handles delete which messages, and until when.

Pure: the time is an argument, and nothing here talks to the queue. One lease covers the messages of
one receive, whose handles were given out together; a renewal replaces its handles one by one,
because MNS has no batch renewal and answers each with a new handle (doc 35142).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heappop, heappush


@dataclass
class Lease:
    """The handles of one receive.

    Attributes:
        queue_name: where the messages are.
        receipt_handles: by position; None where the lease on that message was lost.
        held_since: when they were received.
        expires_at: when the first of them shows up in the queue again.
        oldest_enqueued_at: event time of its oldest message.
    """

    queue_name: str
    receipt_handles: list[str | None]
    held_since: datetime
    expires_at: datetime
    oldest_enqueued_at: datetime

    @property
    def is_alive(self) -> bool:
        """Whether any of its handles still works."""
        return any(self.receipt_handles)


class LeaseLedger:
    """All leases held, by number."""

    def __init__(self, renewal_margin: timedelta, max_hold: timedelta) -> None:
        """Renew what has less than ``renewal_margin`` left, but hold nothing past ``max_hold``."""
        self._renewal_margin = renewal_margin
        self._max_hold = max_hold
        self._leases: dict[int, Lease] = {}
        # Every lease by its oldest message; those no longer held are dropped when they surface.
        self._by_age: list[tuple[datetime, int]] = []
        self._received = 0

    def hold(self, lease: Lease) -> int:
        """Take a lease into the ledger; return its number."""
        self._received += 1
        self._leases[self._received] = lease
        heappush(self._by_age, (lease.oldest_enqueued_at, self._received))
        return self._received

    def get(self, number: int) -> Lease | None:
        """Return a lease that is still held."""
        return self._leases.get(number)

    def due(self, now: datetime) -> list[int]:
        """Return the leases to renew at ``now``, the most urgent first.

        Neither those that have expired (their handles are dead) nor those held for too long (what
        held them so long is stuck, and another reader should have a chance).
        """
        urgent = [
            (lease.expires_at, number)
            for number, lease in self._leases.items()
            if lease.expires_at - self._renewal_margin <= now < lease.expires_at
            and now - lease.held_since < self._max_hold
        ]
        return [number for _, number in sorted(urgent)]

    def expire(self, now: datetime) -> int:
        """Write off the handles of leases that have ended; return how many messages they held."""
        lost = 0
        for lease in self._leases.values():
            if lease.expires_at <= now:
                lost += sum(handle is not None for handle in lease.receipt_handles)
                lease.receipt_handles = [None] * len(lease.receipt_handles)
        return lost

    def take(self, number: int) -> Lease | None:
        """Remove a lease, to delete or release its messages; None when it is not held."""
        return self._leases.pop(number, None)

    def oldest_enqueued_at(self) -> datetime | None:
        """Return the event time of the oldest message held; leases written off hold nothing."""
        while self._by_age:
            oldest, number = self._by_age[0]
            lease = self._leases.get(number)
            if lease is not None and lease.is_alive:
                return oldest
            heappop(self._by_age)
        return None

    def __len__(self) -> int:
        """Count the leases."""
        return len(self._leases)
