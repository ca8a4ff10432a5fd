"""What faults do to a queue: messages that stay visible, leases that end early, any order."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.queues import MessageQueue, QueueAttributes, Received

NOW = 1_790_000_000_000
SECOND = 1000
LEASE = 30 * SECOND


def make_queue(*bodies: str) -> MessageQueue:
    queue = MessageQueue("q", QueueAttributes(retention_secs=600), NOW, "seed")
    for body in bodies:
        queue.send(body, NOW)
    return queue


def bodies(received: list[Received]) -> list[str]:
    return [each.message.body for each in received]


def depths(queue: MessageQueue, now_ms: int) -> tuple[int, int]:
    return queue.depths(now_ms)[:2]


def leave_visible(queue: MessageQueue) -> Received:
    (received,) = queue.receive(1, NOW)
    queue.leave_visible(received)
    return received


def test_a_message_left_visible_is_received_again_first_and_under_a_new_handle() -> None:
    queue = make_queue("a", "b")
    first = leave_visible(queue)
    assert depths(queue, NOW) == (2, 0)
    again, other = queue.receive(2, NOW)
    assert bodies([again, other]) == ["a", "b"]
    assert again.message is first.message
    assert again.message.dequeue_count == 2
    assert queue.delete([first.receipt_handle], NOW) == [first.receipt_handle]
    assert queue.delete([again.receipt_handle], NOW) == []


def test_a_message_left_visible_is_gone_once_it_is_deleted() -> None:
    queue = make_queue("a")
    first = leave_visible(queue)
    assert queue.delete([first.receipt_handle], NOW) == []
    assert queue.receive(1, NOW + LEASE) == []


def test_a_message_left_visible_is_there_once_when_its_lease_ends() -> None:
    queue = make_queue("a")
    first = leave_visible(queue)
    assert bodies(queue.receive(16, NOW + LEASE)) == ["a"]
    assert queue.delete([first.receipt_handle], NOW + LEASE) == [first.receipt_handle]


def test_a_renewed_message_stays_visible() -> None:
    queue = make_queue("a")
    renewed = queue.change_visibility(leave_visible(queue).receipt_handle, 60, NOW)
    assert renewed is not None
    assert bodies(queue.receive(16, NOW + 1)) == ["a"]
    assert queue.delete([renewed.receipt_handle], NOW + 1) == [renewed.receipt_handle]


def test_a_shortened_lease_ends_early_and_says_nothing_about_it() -> None:
    queue = make_queue("a")
    ((message, handle),) = queue.receive(1, NOW)
    queue.shorten_lease(handle, NOW + SECOND)
    assert message.next_visible_at_ms == NOW + LEASE
    assert queue.next_visible_at_ms() == NOW + SECOND
    assert depths(queue, NOW + SECOND - 1) == (0, 1)
    assert queue.delete([handle], NOW + SECOND) == [handle]
    assert bodies(queue.receive(16, NOW + SECOND)) == ["a"]
    assert bodies(queue.receive(16, NOW + LEASE)) == []


@pytest.mark.parametrize("seed", range(3))
def test_shuffling_changes_the_order_and_nothing_else(seed: int) -> None:
    sent = [str(number) for number in range(40)]
    queue = make_queue(*sent)
    received: list[str] = []
    while batch := queue.receive(16, NOW):
        received += bodies(batch)
        queue.shuffle(16, Random(seed))  # noqa: S311
    assert received[:16] == sent[:16]
    assert received[16:] != sent[16:]
    assert sorted(received, key=int) == sent


class Consumer:
    """Takes, renews and deletes messages at random, and remembers every handle it ever had."""

    def __init__(self) -> None:
        self.queue = make_queue()
        self.now_ms = NOW
        self.sent = 0
        self.deleted: set[str] = set()
        self._handles: dict[str, str] = {}

    def send(self, _: int) -> None:
        self.queue.send(str(self.sent), self.now_ms)
        self.sent += 1

    def receive(self, number: int) -> list[Received]:
        received = self.queue.receive(number % 4 + 1, self.now_ms)
        assert self.deleted.isdisjoint(bodies(received))
        self._handles.update((each.receipt_handle, each.message.body) for each in received)
        return received

    def receive_twice(self, number: int) -> None:
        for received in self.receive(number):
            self.queue.leave_visible(received)

    def receive_for_short(self, number: int) -> None:
        for received in self.receive(number):
            self.queue.shorten_lease(received.receipt_handle, self.now_ms + number * SECOND)

    def delete(self, number: int) -> None:
        for handle in self._any(number):
            if not self.queue.delete([handle], self.now_ms):
                assert self._handles[handle] not in self.deleted
                self.deleted.add(self._handles[handle])

    def renew(self, number: int) -> None:
        for handle in self._any(number):
            changed = self.queue.change_visibility(handle, number + 1, self.now_ms)
            if changed is not None:
                self._handles[changed.receipt_handle] = self._handles[handle]

    def wait(self, number: int) -> None:
        self.now_ms += number * SECOND // 2

    def _any(self, number: int) -> list[str]:
        return sorted(self._handles)[number : number + 1]


ACTIONS = st.sampled_from(
    [
        Consumer.send,
        Consumer.receive,
        Consumer.receive_twice,
        Consumer.receive_for_short,
        Consumer.delete,
        Consumer.renew,
        Consumer.wait,
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ACTIONS, st.integers(0, 20)), max_size=50))
def test_faults_neither_lose_nor_double_a_message(
    actions: list[tuple[Callable[[Consumer, int], object], int]],
) -> None:
    consumer = Consumer()
    for action, number in actions:
        action(consumer, number)
        states = consumer.queue.states(consumer.now_ms)
        there = [message.body for state in states for message in state]
        assert len(there) == len(set(there)) == consumer.sent - len(consumer.deleted)
        assert consumer.deleted.isdisjoint(there)
