from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.queues import MessageQueue, QueueAttributes, body_md5

NOW = 1_790_000_000_000
SECOND = 1000


def make_queue(**attributes: int) -> MessageQueue:
    return MessageQueue("q", QueueAttributes(**attributes), NOW, "seed")  # type: ignore[arg-type]


def bodies(queue: MessageQueue, now_ms: int, count: int = 16) -> list[str]:
    return [received.message.body for received in queue.receive(count, now_ms)]


def test_a_received_message_is_hidden_until_its_next_visible_time() -> None:
    queue = make_queue(visibility_timeout_secs=30)
    queue.send("a", NOW)
    ((message, handle),) = queue.receive(16, NOW)
    assert message.next_visible_at_ms == NOW + 30 * SECOND
    assert bodies(queue, NOW + 30 * SECOND - 1) == []
    ((again, other_handle),) = queue.receive(16, NOW + 30 * SECOND)
    assert again.message_id == message.message_id
    assert other_handle != handle
    assert again.dequeue_count == 2
    assert again.first_dequeued_at_ms == NOW


def test_a_handle_dies_with_its_lease() -> None:
    queue = make_queue(visibility_timeout_secs=30)
    queue.send("a", NOW)
    ((_, handle),) = queue.receive(1, NOW)
    assert queue.delete([handle], NOW + 30 * SECOND) == [handle]
    assert bodies(queue, NOW + 30 * SECOND) == ["a"]


def test_a_handle_works_until_the_last_millisecond_and_once() -> None:
    queue = make_queue(visibility_timeout_secs=30)
    queue.send("a", NOW)
    ((_, handle),) = queue.receive(1, NOW)
    assert queue.delete([handle], NOW + 30 * SECOND - 1) == []
    assert queue.delete([handle], NOW + 30 * SECOND - 1) == [handle]
    assert bodies(queue, NOW + 60 * SECOND) == []


def test_a_visibility_change_counts_from_the_call_and_replaces_the_handle() -> None:
    queue = make_queue(visibility_timeout_secs=30)
    queue.send("a", NOW)
    ((_, handle),) = queue.receive(1, NOW)
    changed = queue.change_visibility(handle, 60, NOW + 10 * SECOND)
    assert changed is not None
    assert changed.message.next_visible_at_ms == NOW + 70 * SECOND
    assert queue.change_visibility(handle, 60, NOW + 11 * SECOND) is None
    assert bodies(queue, NOW + 69 * SECOND) == []
    assert queue.delete([changed.receipt_handle], NOW + 69 * SECOND) == []


def test_a_release_lets_the_message_come_back_early() -> None:
    queue = make_queue(visibility_timeout_secs=30)
    queue.send("a", NOW)
    queue.send("b", NOW)
    (first, _) = queue.receive(2, NOW)
    queue.change_visibility(first.receipt_handle, 1, NOW)
    assert queue.next_visible_at_ms() == NOW + SECOND
    assert bodies(queue, NOW + SECOND) == ["a"]


def test_a_delayed_message_is_hidden_and_can_be_deleted_by_its_handle() -> None:
    queue = make_queue(delay_secs=5)
    sent = queue.send("a", NOW)
    assert sent.receipt_handle is not None
    assert queue.depths(NOW)._asdict() == {"active": 0, "inactive": 0, "delayed": 1}
    assert bodies(queue, NOW + 4 * SECOND) == []
    assert queue.delete([sent.receipt_handle], NOW + 4 * SECOND) == []
    assert bodies(queue, NOW + 5 * SECOND) == []


def test_a_messages_own_delay_overrides_the_queues() -> None:
    queue = make_queue(delay_secs=5)
    assert queue.send("a", NOW, delay_secs=0).receipt_handle is None
    assert bodies(queue, NOW) == ["a"]


def test_lower_numbers_have_priority() -> None:
    queue = make_queue()
    for priority in (8, 16, 1):
        queue.send(str(priority), NOW, priority=priority)
    assert bodies(queue, NOW) == ["1", "8", "16"]


def test_a_message_is_gone_after_its_retention_in_whatever_state() -> None:
    queue = make_queue(retention_secs=60, visibility_timeout_secs=100)
    queue.send("hidden", NOW)
    ((_, handle),) = queue.receive(1, NOW)
    queue.send("visible", NOW)
    queue.send("delayed", NOW, delay_secs=60)
    assert queue.peek(16, NOW + 59 * SECOND) != []
    later = NOW + 60 * SECOND
    assert queue.peek(16, later) == []
    assert bodies(queue, later) == []
    assert queue.delete([handle], later) == [handle]
    assert sum(queue.depths(later)) == 0


def test_peeking_changes_nothing() -> None:
    queue = make_queue()
    queue.send("a", NOW)
    (seen,) = queue.peek(16, NOW + 1)
    assert (seen.dequeue_count, seen.first_dequeued_at_ms) == (0, NOW)
    assert bodies(queue, NOW + 1) == ["a"]
    assert queue.peek(16, NOW + 1) == []


def test_ids_of_a_restarted_queue_are_new() -> None:
    first = make_queue().send("a", NOW).message.message_id
    restarted = MessageQueue("q", QueueAttributes(), NOW + 1, "seed")
    other = MessageQueue("p", QueueAttributes(), NOW, "seed")
    ids = {
        first,
        restarted.send("a", NOW).message.message_id,
        other.send("a", NOW).message.message_id,
    }
    assert len(ids) == 3
    assert all(len(message_id) == 32 for message_id in ids)


def test_the_md5_is_upper_case_hex_of_the_text_as_transmitted() -> None:
    assert body_md5("5L2g5aW9") == "E335DDD5BB19347E4166B748D8DE7C84"


ACTIONS = st.lists(
    st.tuples(st.sampled_from("srdctw"), st.integers(0, 20)), min_size=1, max_size=60
)


@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_no_message_is_ever_lost_doubled_or_leased_twice(actions: list[tuple[str, int]]) -> None:
    queue = make_queue(visibility_timeout_secs=7)
    now_ms, sent, deleted = NOW, 0, 0
    leases: dict[str, tuple[str, int]] = {}
    for action, number in actions:
        live = {h: lease for h, lease in leases.items() if lease[1] > now_ms}
        if action == "s":
            queue.send(str(sent), now_ms, delay_secs=number % 3)
            sent += 1
        elif action == "r":
            for message, handle in queue.receive(number, now_ms):
                assert message.body not in {body for body, _ in live.values()}
                leases[handle] = (message.body, message.next_visible_at_ms)
        elif action == "d" and leases:
            handle = sorted(leases)[number % len(leases)]
            dead = queue.delete([handle], now_ms)
            assert (dead == []) == (handle in live)
            deleted += not dead
            leases.pop(handle)
        elif action == "c" and live:
            handle = sorted(live)[number % len(live)]
            changed = queue.change_visibility(handle, number + 1, now_ms)
            assert changed is not None
            body = leases.pop(handle)[0]
            leases[changed.receipt_handle] = (body, changed.message.next_visible_at_ms)
        elif action in "tw":
            now_ms += number * SECOND
        assert sum(queue.depths(now_ms)) == sent - deleted
