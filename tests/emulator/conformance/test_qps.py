"""QpsLimitExceeded: what counts against the requests per second of a queue (``--queue_qps``)."""

from __future__ import annotations

import pytest

from emulator.open_questions import OpenQuestions
from tests.emulator.conformance.cloud import Cloud, LocalMns
from tests.emulator.conformance.sources import case, source
from tests.emulator.mns_caller import message_elements

EXCEEDED = (400, "QpsLimitExceeded")
QPS = 3
MESSAGES = "/queues/q/messages"
ONE = f"<Message>{message_elements('a')}</Message>"


@pytest.fixture
def limited() -> Cloud:
    """An account whose queues, ``q`` and ``r`` among them, take three requests per second."""
    cloud = Cloud(OpenQuestions(queue_qps=QPS))
    for name in "qr":
        cloud.mns.create(name)
    return cloud


def is_exceeded(local: LocalMns, name: str = "q") -> bool:
    reply = local.receive(name)
    return reply.status != 200 and reply.refusal == EXCEEDED


@pytest.mark.parametrize(
    ("method", "target", "body", "times"),
    [
        case("128343", "receive", "GET", MESSAGES, "", QPS),
        case("128343", "batch receive", "GET", f"{MESSAGES}?numOfMessages=16", "", QPS),
        case("128343", "peek", "GET", f"{MESSAGES}?peekonly=true", "", QPS),
        case("128343", "delete", "DELETE", f"{MESSAGES}?ReceiptHandle=8-x", "", QPS),
        case("128343", "batch delete", "DELETE", MESSAGES, "<ReceiptHandles/>", QPS),
        case("128343", "renew", "PUT", f"{MESSAGES}?receiptHandle=8-x&visibilityTimeout=5", "", QPS),
        case("128343", "send", "POST", MESSAGES, ONE, QPS),
        case("175586", "a batch of 1", "POST", MESSAGES, f"<Messages>{ONE}</Messages>", QPS),
        case("175586", "a batch of 2 counts twice", "POST", MESSAGES, f"<Messages>{ONE * 2}</Messages>", 1),
        case("175586", "a batch of 3 is all", "POST", MESSAGES, f"<Messages>{ONE * 3}</Messages>", 1),
        case("175586", "a batch of 4 is too much", "POST", MESSAGES, f"<Messages>{ONE * 4}</Messages>", 0),
    ],
)  # fmt: skip
def test_a_request_counts(limited: Cloud, method: str, target: str, body: str, times: int) -> None:
    for _ in range(times):
        reply = limited.mns.call(method, target, body)
        assert reply.status in (201, 204) or reply.refusal != EXCEEDED
    assert limited.mns.call(method, target, body).refusal == EXCEEDED
    limited.wait(1)
    assert not is_exceeded(limited.mns)


@source("128343")
def test_throttling_is_no_429_and_says_why(limited: Cloud) -> None:
    for _ in range(QPS):
        limited.mns.receive("q")
    reply = limited.mns.receive("q")
    assert (reply.status, reply.text("Message")) == (400, "The qps limit of the queue is exceeded")


@source("inferred")
def test_what_is_refused_does_nothing(limited: Cloud) -> None:
    reply = limited.mns.batch_send("q", [message_elements("a")] * (QPS + 1))
    assert reply.refusal == EXCEEDED
    assert limited.mns.attributes("q").text("ActiveMessages") == "0"
    # Nor does it count itself.
    assert limited.mns.batch_send("q", [message_elements("a")] * QPS).status == 201


@source("128343")
def test_each_queue_has_a_limit_of_its_own(limited: Cloud) -> None:
    for _ in range(QPS):
        limited.mns.receive("q")
    assert (is_exceeded(limited.mns), is_exceeded(limited.mns, "r")) == (True, False)
    assert limited.mns.attributes("q").status == 200


@source("128343")
def test_the_limit_is_soft_and_so_there_is_none_by_default(local: LocalMns) -> None:
    assert not any(is_exceeded(local) for _ in range(100))
