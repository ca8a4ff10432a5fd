"""The inbox against a scripted queue: what is deleted, renewed, given back, and tried again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timezone

import pytest

from pipeline.errors import QueueError
from pipeline.mns.connection import MnsConnection
from pipeline.mns.inbox import Batch, Inbox
from pipeline.mns.settings import MnsSettings, Until
from tests.mns.fake_mns import Answer, FakeMns, error, messages, undeleted
from transforms.tally import Tally

pytestmark = pytest.mark.integration

_FOR_EVER = Until()
_QUEUE = "Alicom-Queue-1000000000000001-SmsReport"


def _now() -> datetime:
    return datetime.now(timezone.utc)


class _Reading(ExitStack):
    """A queue, an inbox that reads it, and the inbox's counts."""

    def __init__(self, until: Until, visibility_timeout_secs: int) -> None:
        super().__init__()
        self.queue = FakeMns()
        settings = MnsSettings(
            queues=(_QUEUE,),
            mns_endpoint=self.queue.endpoint,
            dybaseapi_endpoint=self.queue.endpoint,
            fetchers=1,
            wait_secs=0,
            drain_wait_secs=0,
            max_bundle_secs=0.3,
            visibility_timeout_secs=visibility_timeout_secs,
            renewal_margin_secs=min(1, visibility_timeout_secs / 2),
        )
        self.callback(self.queue.close)
        connection = MnsConnection(settings, _now)
        self.callback(connection.close)
        self.tally = Tally()
        self.done = threading.Event()
        self.inbox = Inbox(settings, until, connection, self.tally, self.done.set)
        self.callback(self.inbox.close)

    def count(self, name: str) -> int:
        return self.tally.counts()[name]

    def take(self) -> Batch:
        batch = self.inbox.take(5.0)
        assert batch is not None, self.inbox.failure
        return batch

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until the inbox's threads have brought something about."""
        deadline = time.monotonic() + 5
        pause = threading.Event()
        while not condition():
            assert time.monotonic() < deadline
            pause.wait(0.01)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., _Reading]]:
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "secret")
    with ExitStack() as stack:
        yield lambda until=_FOR_EVER, visibility_timeout_secs=60: stack.enter_context(
            _Reading(until, visibility_timeout_secs)
        )


_Read = Callable[..., _Reading]


def test_a_mark_deletes_its_own_span_and_nothing_else(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(1, 2), messages(3)]
    reading.inbox.start()
    reading.take()
    first = reading.inbox.cut_mark()
    reading.take()
    second = reading.inbox.cut_mark()
    assert reading.queue.asked("DELETE") == []
    reading.inbox.acknowledge(second)
    reading.inbox.acknowledge(second)
    assert [request.handles for request in reading.queue.asked("DELETE")] == [["handle-3"]]
    reading.inbox.acknowledge(first)
    assert reading.count("acknowledged") == 3


def test_what_no_mark_was_finalized_for_is_given_back(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(1), messages(2), messages(3)]
    reading.inbox.start()
    reading.take()
    reading.inbox.cut_mark()
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
    reading.inbox.acknowledge(reading.inbox.cut_mark())
    assert [request.handles for request in reading.queue.asked("DELETE")] == [["handle-1"]]
    assert reading.count("acknowledged") == 1
    assert reading.done.wait(5.0)


def test_a_reader_that_leaves_gives_back_what_no_mark_holds(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(1), messages(2)]
    reading.inbox.start()
    reading.take()
    mark = reading.inbox.cut_mark()
    reading.take()
    reading.inbox.leave()
    changes = [request.query for request in reading.queue.asked("PUT")]
    assert [change["receiptHandle"] for change in changes] == ["handle-2"]
    reading.inbox.acknowledge(mark)
    assert [request.handles for request in reading.queue.asked("DELETE")] == [["handle-1"]]
    assert reading.done.wait(5.0)


def test_a_mark_whose_leases_are_lost_is_told_when_the_reader_is_gone(read: _Read) -> None:
    reading = read()
    reading.queue.change = lambda _: error(404, "MessageNotExist")
    reading.queue.receives += [messages(1, visible_secs=0.6)]
    reading.inbox.start()
    reading.take()
    reading.inbox.cut_mark()
    reading.inbox.leave()
    assert reading.done.wait(5.0)
    assert reading.count("unacknowledged") == 1


def test_a_renewed_lease_is_deleted_by_its_new_handle(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(1, 2, visible_secs=0.6), messages(3)]
    reading.inbox.start()
    reading.take()
    reading.wait_for(lambda: reading.count("renewals") == 1)
    reading.take()
    reading.inbox.acknowledge(reading.inbox.cut_mark())
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
    reading.inbox.acknowledge(reading.inbox.cut_mark())
    assert reading.queue.asked("DELETE") == []
    assert reading.count("unacknowledged") == 1
    assert reading.inbox.failure is None


def test_only_the_failed_entries_of_a_delete_are_tried_again(read: _Read) -> None:
    reading = read()
    reading.queue.receives += [messages(1, 2, 3)]
    reading.queue.deletes += [
        undeleted(handle_1="ReceiptHandleError", handle_3="InternalError"),
        error(400, "QpsLimitExceeded"),
    ]
    reading.inbox.start()
    reading.take()
    reading.inbox.acknowledge(reading.inbox.cut_mark())
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
    reading.inbox.acknowledge(reading.inbox.cut_mark())
    assert (reading.count("acknowledged"), reading.count("unconfirmed")) == (0, 1)


def test_a_delete_is_not_tried_for_longer_than_its_lease_can_last(read: _Read) -> None:
    reading = read(visibility_timeout_secs=1)
    reading.queue.receives += [messages(*range(16)), messages(16)]
    reading.queue.deletes += [error(500, "InternalError")] * 100
    reading.inbox.start()
    for _ in range(2):
        reading.take()
    began = time.monotonic()
    reading.inbox.acknowledge(reading.inbox.cut_mark())
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
    reading.inbox.acknowledge(reading.inbox.cut_mark())
    assert [request.token for request in reading.queue.asked("DELETE")] == ["token-1", "token-2"]
    assert reading.count("acknowledged") == 1


def test_reading_until_empty_ends(read: _Read) -> None:
    reading = read(Until(empty=True))
    reading.queue.receives += [messages(1)]
    reading.inbox.start()
    reading.take()
    assert reading.inbox.take(5.0) is None
    assert reading.inbox.is_finished
