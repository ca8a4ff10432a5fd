"""ReceiveMessage, BatchReceiveMessage, PeekMessage, BatchPeekMessage."""

from __future__ import annotations

import hashlib
import re

import pytest

from emulator.mns import Answer
from tests.emulator.conformance.cloud import START_MS, Cloud, LocalMns
from tests.emulator.conformance.sources import case, source
from tests.emulator.mns_caller import local_name

INVALID = (400, "InvalidArgument")
INTERNAL = (500, "InternalServerError")
RECEIVED = [
    "MessageId", "MessageBodyMD5", "MessageBody", "ReceiptHandle", "EnqueueTime",
    "FirstDequeueTime", "NextVisibleTime", "DequeueCount", "Priority",
]  # fmt: skip


def fill(local: LocalMns, count: int) -> None:
    for number in range(count):
        assert local.send("q", str(number)).status == 201


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        case("protocol 1.7", "numOfMessages 0 is too few", "numOfMessages=0", INVALID),
        case("protocol 1.7", "numOfMessages 17 is too many", "numOfMessages=17", INVALID),
        case("protocol 1.7", "numOfMessages is not negative", "numOfMessages=-1", INVALID),
        case("protocol 1.7", "numOfMessages is a number", "numOfMessages=x", INVALID),
        case("protocol 1.7", "numOfMessages is not empty", "numOfMessages=", INVALID),
        case("protocol 1.7", "numOfMessages has a value", "numOfMessages", INVALID),
        case("protocol 1.7", "numOfMessages is whole", "numOfMessages=1.0", INVALID),
        case("protocol 1.7", "numOfMessages has no sign", "numOfMessages=%2B1", INVALID),
        case("protocol 1.7", "numOfMessages has no space", "numOfMessages=%201", INVALID),
        case("protocol 1.7", "its digits are ASCII", "numOfMessages=%EF%BC%91", INVALID),
        case("protocol 1.7", "zeros hide no 17", "numOfMessages=" + "0" * 30 + "17", INVALID),
        case("protocol 1.7", "it has some end", "numOfMessages=" + "9" * 5000, INVALID),
        case("protocol 1.7", "waitseconds 31 is too long", "waitseconds=31", INVALID),
        case("protocol 1.7", "waitseconds is not negative", "waitseconds=-1", INVALID),
        case("protocol 1.7", "waitseconds is whole", "waitseconds=1.5", INVALID),
        case("protocol 1.7", "waitseconds is a number", "waitseconds=soon", INVALID),
        case("protocol 1.7", "waitseconds is not empty", "waitseconds=", INVALID),
        case("protocol 1.7", "a batch's wait, too", "numOfMessages=16&waitseconds=31", INVALID),
        case("protocol 1.7", "a peek's count, too", "peekonly=true&numOfMessages=17", INVALID),
        case("35141", "peekonly is true", "peekonly=yes", INVALID),
        case("35141", "peekonly is never false", "peekonly=false", INVALID),
        case("observed", "WaitSeconds is no waitseconds", "WaitSeconds=1", INTERNAL),
        case("observed", "waitSeconds is none either", "waitSeconds=1", INTERNAL),
        case("observed", "nor WAITSECONDS", "WAITSECONDS=1", INTERNAL),
        case("observed", "numofmessages is no numOfMessages", "numofmessages=1", INTERNAL),
        case("observed", "NumOfMessages is none either", "NumOfMessages=1", INTERNAL),
        case("observed", "peekOnly is no peekonly", "peekOnly=true", INTERNAL),
        case("27501", "unknown parameters are refused", "limit=1", (400, "InvalidQueryString")),
    ],
)
def test_a_receive_is_refused(local: LocalMns, query: str, refusal: tuple[int, str]) -> None:
    fill(local, 1)
    assert local.receive("q", query).refusal == refusal
    # And nothing was taken off the queue.
    assert local.receive("q").text("DequeueCount") == "1"


@pytest.mark.parametrize(
    ("query", "root", "count"),
    [
        case("35136", "a plain receive brings one", "", "Message", 1),
        case("35137", "numOfMessages 1 is a batch of one", "numOfMessages=1", "Messages", 1),
        case("35137", "numOfMessages 16 is the most", "numOfMessages=16", "Messages", 16),
        case("35136", "who need not wait does not", "waitseconds=30", "Message", 1),
        case("protocol 1.7", "any order", "waitseconds=0&numOfMessages=3", "Messages", 3),
        case("35140", "peek brings one", "peekonly=true", "Message", 1),
        case("35141", "batch peek", "peekonly=true&numOfMessages=16", "Messages", 16),
    ],
)
def test_a_receive_brings_messages(local: LocalMns, query: str, root: str, count: int) -> None:
    fill(local, 17)
    reply = local.receive("q", query)
    assert reply.status == 200
    assert local_name(reply.root) == root
    assert len(reply.texts("MessageId")) == count


# Waiting


@pytest.mark.parametrize(
    "query",
    [
        case("protocol 1.7", "no wait by default", ""),
        case("protocol 1.7", "waitseconds 0 does not wait", "waitseconds=0"),
        case("35137", "a batch", "numOfMessages=16"),
        case("35140", "a peek", "peekonly=true"),
        case("35141", "a batch peek", "peekonly=true&numOfMessages=16"),
        case("inferred", "a peek never waits", "peekonly=true&waitseconds=30"),
    ],
)
def test_an_empty_queue_is_a_404_of_its_own(local: LocalMns, query: str) -> None:
    reply = local.receive("q", query)
    assert reply.refusal == (404, "MessageNotExist")
    assert reply.text("Message") == "Message not exist."


@pytest.mark.parametrize(
    ("polling_wait_secs", "query", "waits_secs"),
    [
        case("34478", "the queue's wait where the request has none", 20, "", 20),
        case("34478", "a request's wait wins", 20, "waitseconds=3", 3),
        case("34478", "also when it is longer", 1, "waitseconds=30", 30),
        case("protocol 1.7", "30 seconds at most", 0, "waitseconds=30", 30),
        case("protocol 1.7", "a batch waits, too", 0, "numOfMessages=16&waitseconds=1", 1),
    ],
)
def test_a_receive_waits(
    local: LocalMns, cloud: Cloud, polling_wait_secs: int, query: str, waits_secs: int
) -> None:
    local.set_attributes("q", PollingWaitSeconds=polling_wait_secs)
    poll = local.poll("q", query)
    assert poll.until_ms == cloud.now_ms + waits_secs * 1000
    assert poll.retry(poll.until_ms) is None


@source("34478")
def test_a_request_that_says_0_does_not_wait_whatever_the_queue_says(local: LocalMns) -> None:
    local.set_attributes("q", PollingWaitSeconds=30)
    assert local.receive("q", "waitseconds=0").refusal == (404, "MessageNotExist")


@source("35136")
def test_a_wait_ends_with_the_first_message(local: LocalMns, cloud: Cloud) -> None:
    poll = local.poll("q", "waitseconds=30")
    cloud.wait(10)
    local.send("q", "at last")
    answer = poll.retry(cloud.now_ms)
    assert isinstance(answer, Answer)
    assert b"<MessageBody>at last</MessageBody>" in answer.body


@source("27477")
def test_a_wait_ends_when_a_hidden_message_comes_back(local: LocalMns, cloud: Cloud) -> None:
    local.send("q", "a")
    local.receive("q")
    poll = local.poll("q", "waitseconds=30")
    assert poll.queue.next_visible_at_ms() == cloud.now_ms + 30_000
    assert poll.retry(cloud.now_ms + 29_999) is None
    assert poll.retry(cloud.now_ms + 30_000) is not None


@source("27477")
def test_a_wait_ends_when_a_delay_is_over(local: LocalMns, cloud: Cloud) -> None:
    local.send("q", "a", DelaySeconds=5)
    poll = local.poll("q", "waitseconds=10")
    assert poll.retry(cloud.now_ms + 4_999) is None
    assert poll.retry(cloud.now_ms + 5_000) is not None


# What a message says about itself


@source("observed")
def test_the_elements_of_a_message_have_their_order(local: LocalMns) -> None:
    fill(local, 2)
    single, batch = local.receive("q"), local.receive("q", "numOfMessages=16")
    assert [local_name(e) for e in single.root] == RECEIVED
    assert [[local_name(e) for e in message] for message in batch.root] == [RECEIVED]


@source("observed")
def test_answers_have_the_namespace_without_a_slash_and_a_prolog_without_encoding(
    local: LocalMns,
) -> None:
    fill(local, 1)
    reply = local.receive("q", "numOfMessages=1")
    assert reply.body.startswith(
        b'<?xml version="1.0"?><Messages xmlns="http://mns.aliyuncs.com/doc/v1"><Message><MessageId>'
    )


@source("27477")
def test_times_are_milliseconds_of_the_epoch(local: LocalMns, cloud: Cloud) -> None:
    cloud.wait(0.123)
    fill(local, 1)
    cloud.wait(5)
    first = local.receive("q")
    cloud.wait(30)
    second = local.receive("q")
    times = ("EnqueueTime", "FirstDequeueTime", "NextVisibleTime", "DequeueCount")
    sent, received = START_MS + 123, START_MS + 5_123
    assert [int(first.text(t)) for t in times] == [sent, received, received + 30_000, 1]
    assert [int(second.text(t)) for t in times] == [sent, received, received + 60_000, 2]


@source("35136")
def test_a_receive_hides_the_message_for_the_visibility_timeout(
    local: LocalMns, cloud: Cloud
) -> None:
    local.set_attributes("q", VisibilityTimeout=7)
    fill(local, 1)
    local.receive("q")
    cloud.wait(6.999)
    assert local.receive("q").refusal == (404, "MessageNotExist")
    cloud.wait(0.001)
    assert local.receive("q").status == 200


@source("observed")
def test_a_message_id_is_32_upper_case_hex_digits(local: LocalMns) -> None:
    fill(local, 16)
    ids = local.receive("q", "numOfMessages=16").texts("MessageId")
    assert all(re.fullmatch("[0-9A-F]{32}", message_id) for message_id in ids)
    assert len(set(ids)) == 16


@source("observed")
def test_the_md5_is_upper_case_hex_of_the_text_as_transmitted(local: LocalMns) -> None:
    local.send("q", "5L2g5aW9")
    assert local.receive("q").text("MessageBodyMD5") == "E335DDD5BB19347E4166B748D8DE7C84"
    local.send("q", "你好")
    md5 = hashlib.md5("你好".encode()).hexdigest().upper()
    assert local.receive("q").text("MessageBodyMD5") == md5


@source("protocol 1.9")
def test_lower_numbers_come_first(local: LocalMns) -> None:
    for priority in (16, 8, 1, 9):
        local.send("q", "x", Priority=priority)
    batch = local.receive("q", "numOfMessages=16")
    assert batch.texts("Priority") == ["1", "8", "9", "16"]


@source("35137")
def test_a_batch_never_holds_what_is_hidden(local: LocalMns) -> None:
    fill(local, 17)
    assert len(local.receive("q", "numOfMessages=16").texts("MessageId")) == 16
    assert local.receive("q", "numOfMessages=16").texts("MessageBody") == ["16"]


# Peeking


@source("27477")
def test_a_peek_shows_neither_handle_nor_next_visible_time(local: LocalMns) -> None:
    fill(local, 2)
    expected = [name for name in RECEIVED if name not in ("ReceiptHandle", "NextVisibleTime")]
    single = local.receive("q", "peekonly=true")
    batch = local.receive("q", "peekonly=true&numOfMessages=16")
    assert [local_name(e) for e in single.root] == expected
    assert [[local_name(e) for e in m] for m in batch.root] == [expected, expected]


@source("27477")
def test_a_message_that_was_only_peeked_at_shows_its_enqueue_time_twice(
    local: LocalMns, cloud: Cloud
) -> None:
    fill(local, 1)
    cloud.wait(5)
    peeked = local.receive("q", "peekonly=true")
    assert peeked.text("FirstDequeueTime") == peeked.text("EnqueueTime")
    assert peeked.text("DequeueCount") == "0"


@source("protocol 1.7")
def test_a_peek_changes_nothing(local: LocalMns) -> None:
    fill(local, 1)
    for _ in range(3):
        local.receive("q", "peekonly=true")
    assert local.receive("q").text("DequeueCount") == "1"


@source("protocol 1.7")
def test_a_peek_sees_visible_messages_only(local: LocalMns, cloud: Cloud) -> None:
    fill(local, 1)
    local.send("q", "delayed", DelaySeconds=30)
    local.receive("q")
    assert local.receive("q", "peekonly=true").refusal == (404, "MessageNotExist")
    cloud.wait(30)
    seen = local.receive("q", "peekonly=true&numOfMessages=16")
    assert sorted(seen.texts("MessageBody")) == ["0", "delayed"]
