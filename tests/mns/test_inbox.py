"""The inbox against a scripted queue: what is deleted, renewed, given back, and tried again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from pipeline.errors import OperatorError, QueueError
from pipeline.mns.settings import Until
from tests.mns.fake_mns import (
    DROPPED,
    Answer,
    Request,
    error,
    messages,
    renewed,
    undeleted,
)
from tests.mns.reading import Reading

pytestmark = pytest.mark.integration

_Read = Callable[..., Reading]


def test_what_is_acknowledged_is_deleted_once_and_nothing_else_is(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(1, 2), messages(3)]
    reading.inbox.start()
    first = reading.take().lease
    second = reading.take().lease
    assert reading.queue.asked("DELETE") == []
    reading.inbox.acknowledge([second])
    reading.inbox.acknowledge([second])
    assert [request.handles for request in reading.queue.asked("DELETE")] == [["handle-3"]]
    reading.inbox.acknowledge([first, second])
    assert reading.count("acknowledged") == 3


@pytest.mark.parametrize("date", ["soon", "Thu, 1 Jan 99999999999 00:00:00 GMT"])
def test_an_answer_whose_date_is_of_no_use_is_read_all_the_same(read: _Read, date: str) -> None:
    reading = read()
    reading.queue.receives.append(messages(1)._replace(date=date))
    reading.inbox.start()
    reading.take()
    reading.acknowledge()
    assert reading.count("acknowledged") == 1


@pytest.mark.parametrize("may_start", [0, 1])
def test_threads_that_cannot_be_started_for_deletes_end_the_read_with_a_sentence(
    read: _Read, monkeypatch: pytest.MonkeyPatch, may_start: int
) -> None:
    started: list[str] = []
    start = threading.Thread.start

    def start_few(thread: threading.Thread) -> None:
        if thread.name.startswith("delete"):
            started.append(thread.name)
            if len(started) > may_start:
                raise RuntimeError("can't start new thread")  # as at a limit of processes
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_few)
    reading = read()
    reading.queue.receives += [messages(*range(16)), messages(*range(16, 20))]
    reading.queue.deletes += [Answer(204, after_secs=0.3)]  # so that a second thread is wanted
    reading.inbox.start()
    for _ in range(2):
        reading.take()
    reading.acknowledge()
    assert isinstance(reading.inbox.failure, OperatorError)
    assert "no more threads" in str(reading.inbox.failure)
    assert reading.tally.failure is reading.inbox.failure
    deleted = 20 * may_start  # one thread does it all
    assert (reading.count("acknowledged"), reading.count("unacknowledged")) == (
        deleted,
        20 - deleted,
    )
    reading.wait_for(lambda: reading.inbox.is_finished)


def test_a_message_that_cannot_be_read_does_not_hide_those_that_came_with_it(
    read: _Read, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="pipeline")
    reading = read()
    sent = messages(1, 2, 3)
    body = sent.body.replace("<MessageBody>", "<MessageBody>\x01", 1)  # that of message 1
    reading.queue.receives += [
        sent._replace(body=body.replace("<ReceiptHandle>handle-2<", "<ReceiptHandle><"))
    ]
    reading.inbox.start()
    received = reading.take().messages
    assert [message.message_id for message in received] == ["id-1", "id-3"]
    assert received[0].body.startswith(b"<MessageBody>\x01")
    reading.acknowledge()
    assert [request.handles for request in reading.queue.asked("DELETE")] == [
        ["handle-1", "handle-3"]
    ]
    assert reading.count("receive_faults") == 1
    (told,) = [record.getMessage() for record in caplog.records if record.name[:8] == "pipeline"]
    assert "has no id, handle or time" in told


def test_a_delete_that_complains_of_another_message_is_tried_again(read: _Read) -> None:
    reading = read()
    reading.queue.receives.append(messages(1, 2))
    reading.queue.deletes.append(undeleted(handle_9="InternalError"))
    reading.inbox.start()
    reading.take()
    reading.acknowledge()
    handles = [request.handles for request in reading.queue.asked("DELETE")]
    assert handles == [["handle-1", "handle-2"]] * 2
    assert reading.count("acknowledged") == 2


def test_what_was_not_acknowledged_is_given_back_at_the_end(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(1), messages(2), messages(3)]
    reading.inbox.start()
    reading.take()
    reading.take()
    reading.wait_for(lambda: reading.count("received") == 3)
    reading.inbox.close()
    changes = [request.query for request in reading.queue.asked("PUT")]
    assert {change["receiptHandle"] for change in changes} == {"handle-1", "handle-2", "handle-3"}
    assert {change["visibilityTimeout"] for change in changes} == {"1"}
    assert reading.queue.asked("DELETE") == []
    assert reading.count("released") == 3


def test_what_is_handed_out_when_the_stop_comes_can_still_be_acknowledged(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(1)]
    reading.inbox.start()
    reading.take()
    reading.inbox.stop()
    # The bundle takes its time to end: meanwhile the threads that have nothing left to do leave.
    reading.wait_for(lambda: reading.inbox.is_finished)
    assert not reading.done.wait(0.6)
    reading.acknowledge()
    assert [request.handles for request in reading.queue.asked("DELETE")] == [["handle-1"]]
    assert reading.count("acknowledged") == 1
    assert reading.done.wait(5.0)


def test_a_stopped_inbox_still_settles_what_it_handed_out(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(1), messages(2)]
    reading.inbox.start()
    kept = reading.take().lease
    given_back = reading.take().lease
    reading.inbox.stop()
    reading.inbox.release([given_back, given_back])
    reading.wait_for(lambda: bool(reading.queue.asked("PUT")))
    reading.inbox.acknowledge([kept, given_back])
    changes = [request.query for request in reading.queue.asked("PUT")]
    assert [change["receiptHandle"] for change in changes] == ["handle-2"]
    assert [request.handles for request in reading.queue.asked("DELETE")] == [["handle-1"]]
    assert reading.done.wait(5.0)


def test_leases_that_are_lost_are_counted_when_the_reader_is_gone(read: _Read) -> None:
    reading = read()
    reading.queue.change = lambda _: error(404, "MessageNotExist")
    reading.queue.receives += [messages(1, visible_secs=0.6)]
    reading.inbox.start()
    reading.take()
    reading.inbox.stop()
    assert reading.done.wait(5.0)
    assert reading.count("unacknowledged") == 1


def test_a_renewed_lease_is_deleted_by_its_new_handle(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(1, 2, visible_secs=0.6), messages(3)]
    reading.inbox.start()
    reading.take()
    reading.wait_for(lambda: reading.count("renewals") == 1)
    reading.take()
    reading.acknowledge()
    (delete,) = reading.queue.asked("DELETE")
    assert delete.handles == ["new-handle-1", "new-handle-2", "handle-3"]
    assert reading.count("acknowledged") == 3


def test_a_lease_lost_at_renewal_is_a_redelivery_and_no_error(read: _Read) -> None:
    reading = read()
    reading.queue.change = lambda _: error(404, "MessageNotExist")
    reading.queue.receives += [messages(1, visible_secs=0.6)]
    reading.inbox.start()
    reading.take()
    reading.wait_for(lambda: reading.count("lost_leases") == 1)
    reading.acknowledge()
    assert reading.queue.asked("DELETE") == []
    assert reading.count("unacknowledged") == 1
    assert reading.inbox.failure is None


def test_a_backlog_of_leases_is_renewed_in_time(read: _Read) -> None:
    reading = read()
    reading.queue.change = lambda request: renewed(request)._replace(after_secs=0.03)
    # One after the other the renewals would take 4.8 s.
    reading.queue.receives += [
        messages(*range(first, first + 16), visible_secs=2.5) for first in range(0, 160, 16)
    ]
    reading.inbox.start()
    for _ in range(10):
        reading.take()
    reading.wait_for(lambda: reading.count("renewals") == 10)
    reading.acknowledge()
    deleted = [handle for request in reading.queue.asked("DELETE") for handle in request.handles]
    assert sorted(deleted) == sorted(f"new-handle-{number}" for number in range(160))
    assert (reading.count("lost_leases"), reading.count("acknowledged")) == (0, 160)


def test_a_slow_renewal_keeps_nobody_waiting_but_who_wants_that_lease(read: _Read) -> None:
    reading = read()
    asked, may_answer = threading.Event(), threading.Event()

    def change(request: Request) -> Answer:
        asked.set()
        assert may_answer.wait(5)
        return renewed(request)

    reading.queue.change = change
    reading.queue.receives += [messages(1, visible_secs=0.8)]
    reading.inbox.start()
    slow = reading.take().lease
    assert asked.wait(5)
    reading.queue.receives += [messages(2)]
    reading.inbox.acknowledge([reading.take().lease])
    assert reading.count("acknowledged") == 1
    threading.Timer(0.1, may_answer.set).start()
    reading.inbox.acknowledge([slow])
    handles = [request.handles for request in reading.queue.asked("DELETE")]
    assert handles == [["handle-2"], ["new-handle-1"]]


def test_a_renewal_whose_answer_was_lost_is_tried_again_with_the_old_handle(read: _Read) -> None:
    reading = read()
    answers = iter([DROPPED])
    reading.queue.change = lambda request: next(answers, renewed(request))
    reading.queue.receives += [messages(1, visible_secs=1.5)]
    reading.inbox.start()
    reading.take()
    reading.wait_for(lambda: reading.count("renewals") == 1)
    reading.acknowledge()
    assert [request.query["receiptHandle"] for request in reading.queue.asked("PUT")] == [
        "handle-1", "handle-1",
    ]  # fmt: skip
    assert [request.handles for request in reading.queue.asked("DELETE")] == [["new-handle-1"]]
    assert (reading.count("lost_leases"), reading.count("acknowledged")) == (0, 1)


def test_a_renewal_that_was_done_though_its_answer_was_lost_costs_a_redelivery(read: _Read) -> None:
    reading = read()
    answers = iter([DROPPED])
    reading.queue.change = lambda _: next(answers, error(400, "ReceiptHandleError"))
    reading.queue.receives += [messages(1, 2, visible_secs=1.5)]
    reading.inbox.start()
    reading.take()
    reading.wait_for(lambda: reading.count("lost_leases") == 2)
    reading.acknowledge()
    assert reading.queue.asked("DELETE") == []
    assert reading.count("unacknowledged") == 2
    assert reading.inbox.failure is None


def test_a_message_whose_renewal_is_in_doubt_is_deleted_by_the_handle_at_hand(read: _Read) -> None:
    reading = read()
    reading.queue.change = lambda _: DROPPED
    reading.queue.receives += [messages(1, visible_secs=1.5)]
    reading.queue.deletes += [undeleted(handle_1="ReceiptHandleError")]
    reading.inbox.start()
    reading.take()
    reading.wait_for(lambda: bool(reading.queue.asked("PUT")))
    reading.acknowledge()
    assert [request.handles for request in reading.queue.asked("DELETE")] == [["handle-1"]]
    assert (reading.count("unacknowledged"), reading.count("unconfirmed")) == (1, 0)


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_set_neither_ends_nor_prolongs_a_lease(read: _Read, hours: int) -> None:
    reading = read()
    reading.queue.receives += [messages(1, visible_secs=30), messages(2, visible_secs=1.0)]
    reading.inbox.start()
    reading.take()
    reading.take()
    reading.clock_is_off = timedelta(hours=hours)
    reading.wait_for(lambda: reading.count("renewals") == 1)
    reading.acknowledge()
    assert [request.query["receiptHandle"] for request in reading.queue.asked("PUT")] == [
        "handle-2"
    ]
    assert (reading.count("lost_leases"), reading.count("acknowledged")) == (0, 2)


def test_a_lease_that_seems_to_have_ended_is_still_tried(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(1, visible_secs=-60)]
    reading.inbox.start()
    reading.take()
    reading.wait_for(lambda: reading.count("lost_leases") == 1)
    reading.acknowledge()
    assert reading.count("acknowledged") == 1


def test_only_the_failed_entries_of_a_delete_are_tried_again(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(1, 2, 3)]
    reading.queue.deletes += [
        undeleted(handle_1="ReceiptHandleError", handle_3="InternalError"),
        error(400, "QpsLimitExceeded"),
    ]
    reading.inbox.start()
    reading.take()
    reading.acknowledge()
    assert [request.handles for request in reading.queue.asked("DELETE")] == [
        ["handle-1", "handle-2", "handle-3"], ["handle-3"], ["handle-3"],
    ]  # fmt: skip
    assert (reading.count("acknowledged"), reading.count("unacknowledged")) == (2, 1)


def test_a_delete_whose_answer_was_lost_is_neither_success_nor_failure(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(1)]
    reading.queue.deletes += [Answer(0), undeleted(handle_1="ReceiptHandleError")]
    reading.inbox.start()
    reading.take()
    reading.acknowledge()
    assert (reading.count("acknowledged"), reading.count("unconfirmed")) == (0, 1)


def test_a_delete_is_not_tried_for_longer_than_its_lease_can_last(read: _Read) -> None:
    reading = read(visibility_timeout_secs=1)
    reading.queue.receives += [messages(*range(16)), messages(16)]
    reading.queue.deletes += [error(500, "InternalError")] * 100
    reading.inbox.start()
    for _ in range(2):
        reading.take()
    began = time.monotonic()
    reading.acknowledge()
    # Five tries take 3.1 s at least, by the fixed half of their pauses.
    assert time.monotonic() - began < 3
    assert reading.count("unacknowledged") == 17


def test_an_outage_is_told_to_the_operator_once(
    read: _Read, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="pipeline")
    reading = read()
    outage = error(503, "ServiceUnavailable")
    reading.queue.receives += [messages(1), outage, messages(2), outage, messages(3)]
    reading.inbox.start()
    for _ in range(3):
        reading.take()
    assert reading.count("receive_faults") == 2
    told = [record.getMessage() for record in caplog.records if record.name.startswith("pipeline")]
    assert len(told) == 1
    assert told[0].endswith("; trying again")


def test_a_fault_is_waited_out_once_the_queue_has_answered(read: _Read) -> None:
    reading = read()
    faults = [
        error(500, "InternalError"),
        error(400, "QpsLimitExceeded"),
        Answer(0),
        Answer(502),
        Answer(200, "<html>"),
    ]
    for number, fault in enumerate(faults):
        reading.queue.receives += [messages(number), fault]
    reading.queue.receives += [messages(len(faults))]
    reading.inbox.start()
    reading.wait_for(lambda: reading.count("received") == len(faults) + 1)
    assert reading.count("receive_faults") == len(faults)
    assert reading.inbox.failure is None


def test_a_refusal_is_answered_with_a_fresh_token_once(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(1), error(403, "AccessDenied"), messages(2)]
    reading.inbox.start()
    reading.take()
    reading.take()
    tokens = [request.token for request in reading.queue.asked("GET")]
    assert tokens[:3] == ["token-1", "token-1", "token-2"]


def test_a_refusal_of_a_fresh_token_ends_the_read(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [error(403, "AccessDeniedByRamPolicy")] * 2
    reading.inbox.start()
    assert reading.inbox.take(5.0) is None
    assert isinstance(reading.inbox.failure, QueueError)
    assert "AccessDeniedByRamPolicy" in str(reading.inbox.failure)


def test_the_old_tokens_deletes_are_finished_with_the_new_one(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(1)]
    reading.queue.deletes += [error(403, "SecurityTokenExpired")]
    reading.inbox.start()
    reading.take()
    reading.acknowledge()
    assert [request.token for request in reading.queue.asked("DELETE")] == ["token-1", "token-2"]
    assert reading.count("acknowledged") == 1


def test_deletes_that_are_refused_while_no_token_can_be_had_are_not_lost(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(1)]
    reading.inbox.start()
    reading.take()
    answers = iter([Answer(503), DROPPED, Answer(200, "[]")])
    reading.queue.token = lambda: next(answers, None) or reading.queue.next_token()
    reading.queue.deletes += [error(403, "SecurityTokenExpired")]
    reading.acknowledge()
    assert [request.token for request in reading.queue.asked("DELETE")] == ["token-1", "token-2"]
    assert reading.count("acknowledged") == 1
    assert reading.inbox.failure is None


def test_a_token_that_ends_while_a_delete_is_under_way_does_no_harm(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(1)]
    reading.queue.deletes += [Answer(204, after_secs=0.3)]
    reading.inbox.start()
    reading.take()
    reading.queue.receives += [error(403, "AccessDenied"), messages(2)]
    reading.acknowledge()
    reading.take()
    assert reading.count("acknowledged") == 1
    assert reading.queue.asked("GET")[-1].token == "token-2"


def test_reading_until_empty_ends(read: _Read) -> None:
    reading = read(until=Until(empty=True))
    reading.queue.receives += [messages(1)]
    reading.inbox.start()
    reading.take()
    assert reading.inbox.take(5.0) is None
    assert reading.inbox.is_finished
