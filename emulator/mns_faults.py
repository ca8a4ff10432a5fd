"""What the fault plan does to the messages of one request, between the queue and the answer."""

from __future__ import annotations

from typing import NamedTuple

from emulator.mns_errors import MnsError
from emulator.queues import MessageQueue, Received
from emulator.running_plan import RequestFaults


class Deleted(NamedTuple):
    """The outcome of a delete: the handles that were dead, and those refused with another code."""

    dead: list[str]
    refused: list[tuple[str, str]]


def receive(
    queue: MessageQueue, count: int, now_ms: int, faults: RequestFaults | None
) -> list[Received]:
    """Receive up to ``count`` messages; raises :class:`MnsError` to pretend that there are none."""
    if faults is None:
        return queue.receive(count, now_ms)
    if not queue.peek(1, now_ms):
        return []
    hits = faults.at_lease(now_ms)
    if "empty" in hits:
        raise MnsError("MessageNotExist")
    if "fewer" in hits:
        count = min(count, hits["fewer"].rule.most)
    if "shuffle" in hits:
        queue.shuffle(count, hits["shuffle"].random)
    received = queue.receive(count, now_ms)
    if "early_expiry" in hits:
        hit = hits["early_expiry"]
        for place in hit.choose(len(received)):
            queue.shorten_lease(received[place].receipt_handle, now_ms + int(hit.rule.secs * 1000))
    if "redeliver" in hits:
        # The last one first: each goes to the front of what is visible.
        for place in reversed(hits["redeliver"].choose(len(received))):
            queue.leave_visible(received[place])
    return received


def change_visibility(
    queue: MessageQueue,
    receipt_handle: str,
    timeout_secs: int,
    now_ms: int,
    faults: RequestFaults | None,
) -> Received | None:
    """Renew a lease; None if the handle is dead."""
    received = queue.change_visibility(receipt_handle, timeout_secs, now_ms)
    if faults is not None and received is not None:
        hit = faults.at_lease(now_ms).get("early_expiry")
        if hit is not None:
            queue.shorten_lease(received.receipt_handle, now_ms + int(hit.rule.secs * 1000))
    return received


def delete(
    queue: MessageQueue, handles: list[str], now_ms: int, faults: RequestFaults | None
) -> Deleted:
    """Delete what these handles lease, apart from what the plan lets stay."""
    if faults is None:
        return Deleted(queue.delete(handles, now_ms), [])
    fates = faults.at_delete(len(handles), now_ms)
    dead = queue.delete((h for place, h in enumerate(handles) if place not in fates), now_ms)
    return Deleted(dead, [(handles[place], code) for place, code in fates.items() if code])
