"""MNS queues: what is visible, what is leased, what is gone. No I/O; the time is an argument.

A message is *active* (can be received), *inactive* (received, hidden until its next visible
time) or *delayed* (sent with a delay, hidden for the first time). Hidden messages are found by
their receipt handle, and every change of state kills the handle (doc 27477). Whatever its state,
a message is gone once its retention is over.
"""

from __future__ import annotations

import hashlib
import heapq
import random
import struct
from binascii import b2a_base64
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple
from xml.sax.saxutils import escape

DEFAULT_PRIORITY = 8
LOWEST_PRIORITY = 16
_SCATTER = 0x9E3779B97F4A7C15  # odd: neighbours end up far apart, and none collide
_PLACES = [f"{place:02X}==" for place in range(16)]
_MASK_32 = 0xFFFFFFFF
_MASK_64 = 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True)
class QueueAttributes:
    """What CreateQueue and SetQueueAttributes set; seconds and bytes (protocol: attribute table)."""

    delay_secs: int = 0
    maximum_message_bytes: int = 65_536
    retention_secs: int = 345_600
    visibility_timeout_secs: int = 30
    polling_wait_secs: int = 0
    logging_enabled: bool = False


class Message:
    """One message on a queue."""

    __slots__ = (
        "body",
        "dequeue_count",
        "enqueued_at_ms",
        "first_dequeued_at_ms",
        "message_id",
        "next_visible_at_ms",
        "priority",
        "xml_text",
    )

    def __init__(self, message_id: str, body: str, enqueued_at_ms: int, priority: int) -> None:
        self.message_id = message_id
        self.body = body
        # Escaped once, not at each receive; nearly always the very same object as the body.
        self.xml_text = _xml_text(body)
        self.enqueued_at_ms = enqueued_at_ms
        # A message that was only peeked at shows its enqueue time here (doc 27477).
        self.first_dequeued_at_ms = enqueued_at_ms
        self.next_visible_at_ms = enqueued_at_ms
        self.dequeue_count = 0
        self.priority = priority


class Received(NamedTuple):
    """One receive of a message: the handle is good for this receive only."""

    message: Message
    receipt_handle: str


class Sent(NamedTuple):
    """What SendMessage answers; only a delayed message has a handle yet."""

    message: Message
    receipt_handle: str | None


class Depths(NamedTuple):
    """How many messages stand in each state."""

    active: int
    inactive: int
    delayed: int


def _xml_text(body: str) -> str:
    text = escape(body)
    # An XML parser turns a bare carriage return into a line feed, and the MD5 would not fit.
    return text.replace("\r", "&#13;") if "\r" in text else text


def body_md5(body: str) -> str:
    """Return the upper-case hex MD5 of the body text as it is transmitted."""
    return hashlib.md5(body.encode()).hexdigest().upper()


class MessageQueue:
    """One queue. Deterministic for a seed, apart from the times that callers pass in."""

    def __init__(
        self, name: str, attributes: QueueAttributes, created_at_ms: int, seed: str
    ) -> None:
        """Make an empty queue; ``seed`` decides how ids and handles look."""
        self.name = name
        self.attributes = attributes
        self.created_at_ms = created_at_ms
        self.modified_at_ms = created_at_ms
        self.on_change: Callable[[], None] = lambda: None
        self._active: list[deque[Message]] = [deque() for _ in range(LOWEST_PRIORITY + 1)]
        self._hidden: dict[str, Message] = {}
        self._reappearing: list[tuple[int, int, list[str]]] = []
        # Leased and visible all the same, by a fault; with the handle that is good until a receive.
        self._still_visible: dict[Message, str] = {}
        scatter = random.Random(f"{seed}/{name}")  # noqa: S311 (ids, not secrets)
        # The creation time is in the id: a restarted emulator must not repeat itself, because
        # its readers rightly take a repeated message id for a redelivery.
        self._id_prefix = f"{scatter.getrandbits(24):06X}{created_at_ms & 0xFFFFFFFFFFF:011X}"
        self._handle_mask = scatter.getrandbits(64)
        self._sent = 0
        self._hidings = 0

    def send(
        self,
        body: str,
        now_ms: int,
        *,
        delay_secs: int | None = None,
        priority: int = DEFAULT_PRIORITY,
        enqueued_at_ms: int | None = None,
    ) -> Sent:
        """Put a message on the queue; ``enqueued_at_ms`` backdates it (simulated history only)."""
        self._sent += 1
        enqueued = now_ms if enqueued_at_ms is None else enqueued_at_ms
        message = Message(f"{self._id_prefix}{self._sent:015X}", body, enqueued, priority)
        delay = self.attributes.delay_secs if delay_secs is None else delay_secs
        if delay:
            (hidden,) = self._hide([message], now_ms + delay * 1000)
            self.on_change()
            return Sent(message, hidden.receipt_handle)
        self._active[priority].append(message)
        self.on_change()
        return Sent(message, None)

    def receive(self, count: int, now_ms: int) -> list[Received]:
        """Hide up to ``count`` visible messages and hand them out."""
        self._reveal(now_ms)
        visible_at_ms = now_ms + self.attributes.visibility_timeout_secs * 1000
        oldest_ms = now_ms - self.attributes.retention_secs * 1000
        received: list[Message] = []
        for active in self._active:
            while active and len(received) < count:
                message = active.popleft()
                if message.enqueued_at_ms <= oldest_ms:
                    continue
                if not message.dequeue_count:
                    message.first_dequeued_at_ms = now_ms
                message.dequeue_count += 1
                received.append(message)
        if self._still_visible:
            for message in received:
                self._hidden.pop(self._still_visible.pop(message, ""), None)
        return self._hide(received, visible_at_ms) if received else []

    def peek(self, count: int, now_ms: int) -> list[Message]:
        """Look at up to ``count`` visible messages; changes nothing."""
        self._reveal(now_ms)
        oldest_ms = now_ms - self.attributes.retention_secs * 1000
        seen: list[Message] = []
        for message in self._visible():
            if len(seen) == count:
                break
            if message.enqueued_at_ms > oldest_ms:
                seen.append(message)
        return seen

    def delete(self, receipt_handles: Iterable[str], now_ms: int) -> list[str]:
        """Delete the messages that these handles lease; return the handles that are dead."""
        self._reveal(now_ms)
        oldest_ms = now_ms - self.attributes.retention_secs * 1000
        take = self._hidden.pop
        dead: list[str] = []
        for handle in receipt_handles:
            message = take(handle, None)
            if message is None or message.enqueued_at_ms <= oldest_ms:
                dead.append(handle)
            elif self._still_visible.pop(message, ""):
                self._active[message.priority].remove(message)
        self._forget_dead_deadlines()
        return dead

    def change_visibility(
        self, receipt_handle: str, timeout_secs: int, now_ms: int
    ) -> Received | None:
        """Hide the message for ``timeout_secs`` from now, under a new handle; None if it is dead."""
        self._reveal(now_ms)
        message = self._hidden.pop(receipt_handle, None)
        if message is None or self._is_expired(message, now_ms):
            return None
        (received,) = self._hide([message], now_ms + timeout_secs * 1000)
        if message in self._still_visible:
            self._still_visible[message] = received.receipt_handle
        self._forget_dead_deadlines()
        self.on_change()
        return received

    def shuffle(self, count: int, chance: random.Random) -> None:
        """Bring any ``count`` visible messages of each priority to its front (a fault)."""
        for active in self._active:
            for place in range(min(count, len(active))):
                other = chance.randrange(place, len(active))
                active[place], active[other] = active[other], active[place]

    def leave_visible(self, received: Received) -> None:
        """Keep a message that was just received in sight, first of its priority (a fault)."""
        message, handle = received
        self._still_visible[message] = handle
        self._active[message.priority].appendleft(message)
        self.on_change()

    def shorten_lease(self, receipt_handle: str, until_ms: int) -> None:
        """Let a lease end earlier than its next visible time says (a fault)."""
        self._hidings += 1
        heapq.heappush(self._reappearing, (until_ms, self._hidings, [receipt_handle]))
        self.on_change()

    def next_visible_at_ms(self) -> int | None:
        """Return when the next hidden message comes (back) into sight, if any."""
        self._forget_dead_deadlines()
        return self._reappearing[0][0] if self._reappearing else None

    def depths(self, now_ms: int) -> Depths:
        """Count the messages in each state; expired ones are not counted."""
        self._reveal(now_ms)
        return Depths(*map(len, self.states(now_ms)))

    def states(self, now_ms: int) -> tuple[list[Message], list[Message], list[Message]]:
        """Return the active, the inactive and the delayed messages; expired ones are in none."""
        self._reveal(now_ms)
        active = [each for each in self._visible() if not self._is_expired(each, now_ms)]
        hidden = [
            each
            for each in self._hidden.values()
            if not self._is_expired(each, now_ms) and each not in self._still_visible
        ]
        return (
            active,
            [each for each in hidden if each.dequeue_count],
            [each for each in hidden if not each.dequeue_count],
        )

    def _is_expired(self, message: Message, now_ms: int) -> bool:
        return message.enqueued_at_ms + self.attributes.retention_secs * 1000 <= now_ms

    def _visible(self) -> Iterator[Message]:
        for active in self._active:
            yield from active

    def _hide(self, messages: list[Message], until_ms: int) -> list[Received]:
        """Hide messages that are in no other place; one deadline entry serves them all."""
        self._hidings += 1
        # Opaque, and with the characters that clients get wrong: '-', '=', and '/', '+' at times.
        scattered = (self._hidings * _SCATTER ^ self._handle_mask) & _MASK_64
        token = b2a_base64(struct.pack("<QI", scattered, until_ms & _MASK_32), newline=False)
        stem = token.decode()
        received: list[Received] = []
        handles: list[str] = []
        for place, message in enumerate(messages):
            handle = f"{message.priority}-{stem}{_PLACES[place]}"
            message.next_visible_at_ms = until_ms
            self._hidden[handle] = message
            handles.append(handle)
            received.append(Received(message, handle))
        heapq.heappush(self._reappearing, (until_ms, self._hidings, handles))
        return received

    def _reveal(self, now_ms: int) -> None:
        while self._reappearing and self._reappearing[0][0] <= now_ms:
            for handle in heapq.heappop(self._reappearing)[2]:
                message = self._hidden.pop(handle, None)
                if message is not None and not self._still_visible.pop(message, ""):
                    self._active[message.priority].append(message)

    def _forget_dead_deadlines(self) -> None:
        hidden = self._hidden
        while self._reappearing:
            if any(handle in hidden for handle in self._reappearing[0][2]):
                return
            heapq.heappop(self._reappearing)


class QueueStore:
    """All queues of the emulated account, by name."""

    def __init__(self, seed: str) -> None:
        """Make an account without queues."""
        self._queues: dict[str, MessageQueue] = {}
        self._deleted_at_ms: dict[str, int] = {}
        self._seed = seed

    def __len__(self) -> int:
        """Return how many queues there are."""
        return len(self._queues)

    def get(self, name: str) -> MessageQueue | None:
        """Return the queue of that name, or None."""
        return self._queues.get(name)

    def create(self, name: str, attributes: QueueAttributes, now_ms: int) -> MessageQueue:
        """Create the queue; the caller has made sure that it does not exist."""
        queue = MessageQueue(name, attributes, now_ms, self._seed)
        self._queues[name] = queue
        return queue

    def set_attributes(self, queue: MessageQueue, attributes: QueueAttributes, now_ms: int) -> None:
        """Replace the queue's attributes; leases that are out keep their deadlines."""
        queue.attributes = replace(attributes)
        queue.modified_at_ms = now_ms

    def delete(self, name: str, now_ms: int) -> None:
        """Delete the queue with everything on it; deleting what is not there is fine."""
        if self._queues.pop(name, None) is not None:
            self._deleted_at_ms[name] = now_ms

    def deleted_at_ms(self, name: str) -> int | None:
        """Return when a queue of that name was deleted last, or None."""
        return self._deleted_at_ms.get(name)

    def names(self) -> Iterable[str]:
        """Return all names in order."""
        return sorted(self._queues)
