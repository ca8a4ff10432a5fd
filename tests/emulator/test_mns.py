"""Long polls over real HTTP (what the operations do: conformance/)."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from tests.emulator.mns_caller import MnsCaller, finish

pytestmark = pytest.mark.integration


def test_a_long_poll_is_answered_when_a_message_comes(mns: MnsCaller, queue: str) -> None:
    target = f"/queues/{queue}/messages?waitseconds=30"
    with closing(mns.begin("GET", target)) as poll:
        mns.send(queue, "at last")
        assert finish(poll).text("MessageBody") == "at last"


def test_a_client_that_hangs_up_takes_no_message_with_it(mns: MnsCaller, queue: str) -> None:
    with closing(mns.begin("GET", f"/queues/{queue}/messages?waitseconds=30")) as poll:
        poll.sock.shutdown(socket.SHUT_WR)
        assert poll.sock.recv(1) == b""  # the server has noticed
    mns.send(queue, "still there")
    assert mns.receive(queue).text("DequeueCount") == "1"


def test_long_polls_are_answered_when_a_lease_ends_or_their_time_is_over(
    mns: MnsCaller, queue: str, another_queue: str
) -> None:
    mns.send(queue, "again")
    handle = mns.receive(queue).text("ReceiptHandle")
    mns.change_visibility(queue, handle, 1)
    with closing(mns.begin("GET", f"/queues/{another_queue}/messages?waitseconds=1")) as in_vain:
        assert mns.receive(queue, "waitseconds=10").text("DequeueCount") == "2"
        assert finish(in_vain).refusal == (404, "MessageNotExist")


def test_a_receive_waits_as_the_queue_says_unless_it_says_itself(mns: MnsCaller) -> None:
    mns.create("Test-Polling", PollingWaitSeconds=30)
    with closing(mns.begin("GET", "/queues/Test-Polling/messages")) as poll:
        assert mns.receive("Test-Polling", "waitseconds=0").refusal == (404, "MessageNotExist")
        mns.send("Test-Polling", "a")
        assert finish(poll).text("MessageBody") == "a"
    mns.call("DELETE", "/queues/Test-Polling")
