"""The invalid-ratio breaker: tells when so many messages fail that something other than they is wrong.

A changed format or a wrong version makes every message a failed event. Each is right by itself, and
together they empty the queues for nothing; so whoever reads them asks here, and stops.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

# A sentence names this many reasons, the most frequent first.
_TOP_REASONS: Final = 3


class FailureLimitError(Exception):
    """Raised when too many messages fail; a sentence with cause and fix."""


@dataclass(frozen=True)
class FailureLimit:
    """How many messages of a queue may fail before it is no longer read.

    Attributes:
        share: the most that may fail, 0-1; 1 never stops.
        window_messages: the share is that of so many messages in a row.
    """

    share: float = 0.5
    window_messages: int = 1000

    def __post_init__(self) -> None:
        """Refuse what means nothing, with the flag's name and the fix."""
        if not 0 <= self.share <= 1:
            raise ValueError("--max_failed_share must be 0-1; 1 never stops")
        if self.window_messages < 1:
            raise ValueError("--failed_share_window_messages must be at least 1")

    def shared_by(self, readers: int) -> FailureLimit:
        """Return what each of several readers of the same queues may let pass: about this much together.

        They share a queue's messages about evenly, and none sees what the others see.
        """
        return replace(self, window_messages=max(1, self.window_messages // readers))

    @property
    def least_messages(self) -> int:
        """The fewest that a share is of: a handful of bad messages, and nothing else yet, proves nothing."""
        return (self.window_messages + 1) // 2


DEFAULT_LIMIT: Final = FailureLimit()


class FailureWindow:
    """What became of the last messages of one queue."""

    def __init__(self, limit: FailureLimit) -> None:
        """Begin with nothing seen."""
        self._limit = limit
        self._verdicts: deque[str | None] = deque(maxlen=limit.window_messages)
        self._failed = 0

    @property
    def messages(self) -> int:
        """How many messages are in the window."""
        return len(self._verdicts)

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return self._failed

    @property
    def share(self) -> float:
        """The share of them that failed, 0-1; what is missing to half a window counts as good."""
        return self._failed / max(self._limit.least_messages, len(self._verdicts))

    def note(self, verdicts: Sequence[str | None]) -> bool:
        """Take in what became of further messages: why each failed, or None.

        Returns:
            Whether one of the failed ones was one too many; what follows it is left out.
        """
        if not any(verdicts):  # nearly always, so at the speed of C
            self._verdicts.extend(verdicts)
            self._failed = sum(reason is not None for reason in self._verdicts)
            return False
        for reason in verdicts:
            if len(self._verdicts) == self._limit.window_messages:
                self._failed -= self._verdicts[0] is not None
            self._verdicts.append(reason)
            if reason is not None:
                self._failed += 1
                if self.share > self._limit.share:
                    return True
        return False

    def reasons(self) -> list[tuple[str, int]]:
        """Why messages in the window failed and how many, the most frequent first."""
        return Counter(reason for reason in self._verdicts if reason is not None).most_common()


class Breaker:
    """The windows of all queues that one process reads; it remembers from one read to the next.

    Safe to share between threads.
    """

    def __init__(self, limit: FailureLimit) -> None:
        """Begin with nothing seen."""
        self._limit = limit
        self._lock = threading.Lock()
        self._windows: dict[str, FailureWindow] = {}

    def note(self, queue_name: str, verdicts: Sequence[str | None]) -> None:
        """Take in what became of messages of a queue: why each failed, or None.

        Raises:
            FailureLimitError: too many failed.
        """
        with self._lock:
            window = self._windows.setdefault(queue_name, FailureWindow(self._limit))
            if window.note(verdicts):
                raise FailureLimitError(_sentence(queue_name, window, self._limit))

    def shares(self) -> dict[str, float]:
        """The share of failed messages by queue, 0-1; any thread may ask."""
        return {queue_name: window.share for queue_name, window in list(self._windows.items())}


def _sentence(queue_name: str, window: FailureWindow, limit: FailureLimit) -> str:
    why = ", ".join(f"{reason} {count:,}" for reason, count in window.reasons()[:_TOP_REASONS])
    return (
        f"Of the last {window.messages:,} messages of {queue_name} {window.failed:,} cannot be used ({why}), "
        f"more than --max_failed_share={limit.share:g} allows: run a version that knows their format, or "
        "--max_failed_share=1 to let them become failed events; what was held went back to the queue"
    )


_BREAKERS: Final[dict[str, Breaker]] = {}


def lend_breaker(run_id: str, breaker: Breaker) -> None:
    """Let a run's steps in this process use a breaker that outlives the run."""
    _BREAKERS[run_id] = breaker


def breaker_of(run_id: str, limit: FailureLimit) -> Breaker:
    """Return the breaker of a run in this process: the one that was lent to it, or else one of its own.

    All of the run's steps share it. Flink has another instance of a step for nearly every bundle: by itself
    none would see half a window.
    """
    return _BREAKERS.setdefault(run_id, Breaker(limit))


def take_breaker_back(run_id: str) -> None:
    """Forget the breaker of a run."""
    _BREAKERS.pop(run_id, None)
