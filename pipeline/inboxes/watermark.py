"""How far event time has come: never past a message still held, and on when the queues are idle.

Pure: times are arguments. Event time is the enqueue time. While messages are held, the watermark
follows the oldest of them: the order within a queue says nothing, since storage is striped. With
nothing held it follows the last poll of each queue that waited and found nothing, less a margin for
the servers' clocks: what was enqueued before that poll began would have been found by it, or by
another poll that was under way; so it counts once those have ended too.
A redelivery may still come behind the watermark, up to the retention period (7 days); that is what
late means.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

_CLOCK_MARGIN: Final = timedelta(seconds=5)


@dataclass
class _QueuePolls:
    """The polls of one queue."""

    under_way: dict[int, datetime] = field(default_factory=dict)
    # An empty poll's beginning, and the polls that may still bring what it did not see.
    awaiting: list[tuple[datetime, set[int]]] = field(default_factory=list)
    found_empty_at: datetime | None = None


class Watermark:
    """The lower bound that a reader reports; it never moves back."""

    def __init__(self, queues: Iterable[str]) -> None:
        """Start with no bound for any of ``queues``."""
        self._queues = {queue_name: _QueuePolls() for queue_name in queues}
        self._polls = 0
        self._current: datetime | None = None

    def begin_poll(self, queue_name: str, now: datetime) -> int:
        """Note that a poll begins; return its number."""
        self._polls += 1
        self._queues[queue_name].under_way[self._polls] = now
        return self._polls

    def end_poll(self, queue_name: str, poll: int, *, found_nothing: bool) -> None:
        """Note that a poll ended and, unless it found nothing, that its messages are held."""
        polls = self._queues[queue_name]
        began_at = polls.under_way.pop(poll)
        if found_nothing:
            polls.awaiting.append((began_at, set(polls.under_way)))
        for _, others in polls.awaiting:
            others.discard(poll)
        for empty_at in [began for began, others in polls.awaiting if not others]:
            if polls.found_empty_at is None or polls.found_empty_at < empty_at:
                polls.found_empty_at = empty_at
        polls.awaiting = [waiting for waiting in polls.awaiting if waiting[1]]

    def advance(self, oldest_held: datetime | None) -> datetime | None:
        """Return the watermark, given the oldest message held; None as long as nothing is known."""
        candidate = oldest_held if oldest_held is not None else self._idle_bound()
        if candidate is not None and (self._current is None or candidate > self._current):
            self._current = candidate
        return self._current

    def _idle_bound(self) -> datetime | None:
        bounds = [polls.found_empty_at for polls in self._queues.values()]
        known = [bound for bound in bounds if bound is not None]
        return min(known) - _CLOCK_MARGIN if len(known) == len(bounds) else None
