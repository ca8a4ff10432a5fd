"""A service that hands out messages, in memory, and an inbox that reads it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final

from pipeline.inboxes.inbox import Batch
from schemas.records import MnsMessage

EPOCH: Final = datetime(2026, 1, 1, tzinfo=timezone.utc)
_SERVICES: Final[dict[str, Post]] = {}


class Post:
    """The service: messages that wait, that are handed out, and that are acknowledged, by their ids."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.Lock()
        self.waiting: list[int] = []
        self.acknowledged: list[int] = []
        self.given_back: list[int] = []
        self.inboxes: list[PostInbox] = []
        self.failure: Exception | None = None
        self.timeouts_secs: list[float] = []
        self.token_expires_at: datetime | None = None
        _SERVICES[name] = self

    def bring(self, *numbers: int) -> None:
        """Let messages come."""
        with self.lock:
            self.waiting += numbers

    def open_inboxes(self) -> int:
        """How many inboxes receive."""
        return sum(not inbox.is_stopped for inbox in self.inboxes)

    def message(self, number: int) -> MnsMessage:
        """Return a message; a minute lies between each and the next."""
        at = EPOCH + timedelta(minutes=number)
        return MnsMessage(f"{self.name}-{number}", self.name, "SmsReport", at, 1, b"{}")


def service(name: str) -> Post:
    """Find a service of this process, from where Beam has pickled nothing but a name."""
    return _SERVICES[name]


class PostInbox:
    """Takes messages from the service when it is asked for some; ``size`` at a time."""

    def __init__(self, post: Post, size: int, on_done: Callable[[], None], *, ends: bool) -> None:
        self.is_stopped = False
        self._post = post
        self._size = size
        self._on_done = on_done
        self._ends = ends
        self._held: dict[int, list[int]] = {}
        self._leases = 0

    def start(self) -> None:
        self._post.inboxes.append(self)

    def take(self, timeout_secs: float) -> Batch | None:
        with self._post.lock:
            self._post.timeouts_secs.append(timeout_secs)
            if self.is_stopped or not self._post.waiting or self.failure:
                return None
            numbers = self._post.waiting[: self._size]
            del self._post.waiting[: self._size]
            self._leases += 1
            self._held[self._leases] = numbers
        messages = [self._post.message(number) for number in numbers]
        return Batch(messages, self._leases, messages[0].enqueued_at)

    @property
    def is_finished(self) -> bool:
        is_over = self._ends and not self._post.waiting
        return self.is_stopped or is_over or self.failure is not None

    @property
    def failure(self) -> Exception | None:
        return self._post.failure

    def watermark(self) -> datetime | None:
        return self.oldest_enqueued_at() or EPOCH

    def oldest_enqueued_at(self) -> datetime | None:
        numbers = [number for held in self._held.values() for number in held]
        return self._post.message(min(numbers)).enqueued_at if numbers else None

    def token_expires_at(self) -> datetime | None:
        return self._post.token_expires_at

    def acknowledge(self, leases: Sequence[int]) -> None:
        with self._post.lock:
            for lease in leases:
                self._post.acknowledged += self._held.pop(lease, [])

    def release(self, leases: Sequence[int]) -> None:
        with self._post.lock:
            for lease in leases:
                numbers = self._held.pop(lease, [])
                self._post.given_back += numbers
                self._post.waiting += numbers

    def stop(self) -> None:
        self.is_stopped = True

    def close(self) -> None:
        self.stop()
        self.release([*self._held])
        self._on_done()


@dataclass(frozen=True)
class PostSpec:
    """How to read a service of this process."""

    name: str
    batch_messages: int = 1
    readers: int = 1
    ends: bool = False

    def open(self, run_id: str, on_done: Callable[[], None]) -> PostInbox:  # noqa: ARG002 - counts nothing
        return PostInbox(service(self.name), self.batch_messages, on_done, ends=self.ends)
