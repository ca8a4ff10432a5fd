"""Messages that will be put on a queue later: one heap, no task per message."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Final

from emulator.queues import QueueStore

# A backdated message lives at least this share of the retention on, or nobody could read it.
_LEAST_REMAINING_SHARE: Final = 0.25


class Outbox:
    """What the carrier has told or will tell, on its way to the queues."""

    def __init__(self, store: QueueStore) -> None:
        """Deliver into the queues of ``store``; a body for a queue that is gone is dropped."""
        self._store = store
        self._waiting: list[tuple[int, int, str, str]] = []
        self._order = itertools.count()
        self.on_change: Callable[[], None] = lambda: None
        self.delivered: dict[str, int] = {}

    def post(self, queue_name: str, body: str, due_ms: int, now_ms: int) -> None:
        """Put ``body`` on the queue at ``due_ms``; at once, and backdated, if that is past."""
        if due_ms <= now_ms:
            self._deliver(queue_name, body, due_ms, now_ms)
            return
        heapq.heappush(self._waiting, (due_ms, next(self._order), queue_name, body))
        if self._waiting[0][0] == due_ms:
            self.on_change()

    def deliver_due(self, now_ms: int) -> None:
        """Put everything on its queue whose time has come."""
        while self._waiting and self._waiting[0][0] <= now_ms:
            due_ms, _, queue_name, body = heapq.heappop(self._waiting)
            self._deliver(queue_name, body, due_ms, now_ms)

    def next_due_ms(self) -> int | None:
        """Return when :meth:`deliver_due` has something to do next."""
        return self._waiting[0][0] if self._waiting else None

    def __len__(self) -> int:
        """Return how many bodies wait."""
        return len(self._waiting)

    def _deliver(self, queue_name: str, body: str, due_ms: int, now_ms: int) -> None:
        queue = self._store.get(queue_name)
        if queue is None:
            return
        retention_ms = queue.attributes.retention_secs * 1000
        oldest_ms = now_ms - int(retention_ms * (1 - _LEAST_REMAINING_SHARE))
        queue.send(body, now_ms, enqueued_at_ms=max(due_ms, oldest_ms))
        self.delivered[queue_name] = self.delivered.get(queue_name, 0) + 1
