"""The MNS API over real HTTP, case by case."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
from contextlib import closing
from email.utils import formatdate

import pytest

from tests.emulator.mns_caller import XMLNS, MnsCaller, Reply, finish
from tests.emulator_process import EmulatorProcess

pytestmark = pytest.mark.integration


def refusal(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.code


def test_an_answer_carries_the_services_headers(mns: MnsCaller, queue: str) -> None:
    reply = mns.receive(queue)
    # One client reads it case-sensitively, so the raw spelling counts.
    assert re.fullmatch("[0-9A-F]{24}", reply.headers["x-mns-request-id"])
    assert reply.headers["x-mns-version"] == "2015-06-06"
    assert reply.headers["content-type"] == "text/xml;charset=utf-8"
    assert reply.headers["server"] == "AliyunMNS"


def test_an_error_has_its_four_elements(mns: MnsCaller, queue: str) -> None:
    reply = mns.receive(queue)
    assert refusal(reply) == (404, "MessageNotExist")
    assert [e.tag for e in reply.root] == [
        "{http://mns.aliyuncs.com/doc/v1}" + name
        for name in ("Code", "Message", "RequestId", "HostId")
    ]
    assert reply.text("RequestId") == reply.headers["x-mns-request-id"]
    assert reply.body.startswith(b'<?xml version="1.0"?>')


def test_a_sent_message_is_received_as_it_was_sent(mns: MnsCaller, queue: str) -> None:
    sent = mns.send(queue, "a &lt;b&gt; &amp; 你好&#13;\n")
    assert sent.status == 201
    received = mns.receive(queue)
    body = "a <b> & 你好\r\n"
    assert received.text("MessageBody") == body
    assert received.text("MessageBodyMD5") == hashlib.md5(body.encode()).hexdigest().upper()
    assert received.text("MessageId") == sent.text("MessageId")
    assert [e.tag.rpartition("}")[2] for e in received.root] == [
        "MessageId",
        "MessageBodyMD5",
        "MessageBody",
        "ReceiptHandle",
        "EnqueueTime",
        "FirstDequeueTime",
        "NextVisibleTime",
        "DequeueCount",
        "Priority",
    ]


def test_a_batch_receive_takes_at_most_what_it_asks_for(mns: MnsCaller, queue: str) -> None:
    for number in range(4):
        mns.send(queue, str(number))
    first = mns.receive(queue, "numOfMessages=3")
    assert first.root.tag == "{http://mns.aliyuncs.com/doc/v1}Messages"
    assert first.texts("MessageBody") == ["0", "1", "2"]
    assert mns.receive(queue, "numOfMessages=16").texts("MessageBody") == ["3"]


@pytest.mark.parametrize(
    "query",
    [
        "numOfMessages=0",
        "numOfMessages=17",
        "numOfMessages=x",
        "numOfMessages=",
        "waitseconds=31",
        "waitseconds=-1",
        "numOfMessages=16&waitseconds=1.5",
    ],
)
def test_a_receive_outside_the_limits_is_refused(mns: MnsCaller, queue: str, query: str) -> None:
    assert refusal(mns.receive(queue, query)) == (400, "InvalidArgument")


@pytest.mark.parametrize("query", ["WaitSeconds=1", "waitSeconds=1", "numofmessages=2"])
def test_a_parameter_in_the_wrong_case_is_an_internal_error(
    mns: MnsCaller, queue: str, query: str
) -> None:
    assert refusal(mns.receive(queue, query)) == (500, "InternalServerError")


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


def test_a_long_poll_is_answered_when_a_lease_ends(mns: MnsCaller, queue: str) -> None:
    mns.send(queue, "again")
    handle = mns.receive(queue).text("ReceiptHandle")
    target = f"/queues/{queue}/messages?receiptHandle={handle}&visibilityTimeout=1"
    mns.call("PUT", target)
    assert mns.receive(queue, "waitseconds=10").text("DequeueCount") == "2"


def test_a_long_poll_ends_with_message_not_exist(mns: MnsCaller, queue: str) -> None:
    assert refusal(mns.receive(queue, "waitseconds=1")) == (404, "MessageNotExist")


def test_a_receive_waits_as_the_queue_says_unless_it_says_itself(mns: MnsCaller) -> None:
    mns.create("Test-Polling", PollingWaitSeconds=30)
    with closing(mns.begin("GET", "/queues/Test-Polling/messages")) as poll:
        assert refusal(mns.receive("Test-Polling", "waitseconds=0")) == (404, "MessageNotExist")
        mns.send("Test-Polling", "a")
        assert finish(poll).text("MessageBody") == "a"
    mns.call("DELETE", "/queues/Test-Polling")


def test_a_peek_shows_no_handle_and_changes_nothing(mns: MnsCaller, queue: str) -> None:
    assert refusal(mns.receive(queue, "peekonly=true")) == (404, "MessageNotExist")
    mns.send(queue, "a")
    peeked = mns.receive(queue, "peekonly=true")
    assert peeked.texts("ReceiptHandle") == peeked.texts("NextVisibleTime") == []
    assert peeked.text("FirstDequeueTime") == peeked.text("EnqueueTime")
    batch = mns.receive(queue, "peekonly=true&numOfMessages=16")
    assert batch.texts("MessageBody") == ["a"]
    assert mns.receive(queue).text("DequeueCount") == "1"


def test_a_delete_works_once(mns: MnsCaller, queue: str) -> None:
    mns.send(queue, "a")
    handle = mns.receive(queue).text("ReceiptHandle")
    assert (mns.delete(queue, handle).status, mns.delete(queue, handle).code) == (
        204,
        "ReceiptHandleError",
    )


def test_a_handle_may_be_escaped_as_long_as_that_is_what_is_signed(
    mns: MnsCaller, queue: str
) -> None:
    mns.send(queue, "a")
    handle = mns.receive(queue).text("ReceiptHandle")
    escaped = handle.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    assert escaped != handle
    raw, sent = (f"/queues/{queue}/messages?ReceiptHandle={each}" for each in (handle, escaped))
    assert refusal(mns.call("DELETE", raw, sent_target=sent)) == (403, "SignatureDoesNotMatch")
    assert mns.delete(queue, escaped).status == 204


def test_a_batch_delete_lists_only_the_dead_handles(mns: MnsCaller, queue: str) -> None:
    for body in "abc":
        mns.send(queue, body)
    handles = mns.receive(queue, "numOfMessages=16").texts("ReceiptHandle")
    assert mns.batch_delete(queue, handles[:1]).status == 204
    reply = mns.batch_delete(queue, handles)
    assert reply.status == 404
    assert reply.root.tag.endswith("}Errors")
    assert reply.texts("ErrorCode") == ["ReceiptHandleError"]
    assert reply.texts("ReceiptHandle") == handles[:1]
    # The others are gone.
    assert mns.batch_delete(queue, handles).texts("ReceiptHandle") == handles


@pytest.mark.parametrize("count", [0, 17])
def test_a_batch_delete_takes_1_to_16_handles(mns: MnsCaller, queue: str, count: int) -> None:
    assert refusal(mns.batch_delete(queue, ["8-x"] * count)) == (400, "InvalidArgument")


def test_a_delete_without_a_handle_is_refused(mns: MnsCaller, queue: str) -> None:
    reply = mns.call("DELETE", f"/queues/{queue}/messages")
    assert refusal(reply) == (400, "MissingReceiptHandle")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("visibilityTimeout=5", "MissingReceiptHandle"),
        ("receiptHandle=8-x", "MissingVisibilityTimeout"),
        ("receiptHandle=8-x&visibilityTimeout=0", "InvalidArgument"),
        ("receiptHandle=8-x&visibilityTimeout=43201", "InvalidArgument"),
        ("ReceiptHandle=8-x&VisibilityTimeout=5", "ReceiptHandleError"),
    ],
)
def test_a_wrong_visibility_change_is_refused(
    mns: MnsCaller, queue: str, query: str, code: str
) -> None:
    assert refusal(mns.call("PUT", f"/queues/{queue}/messages?{query}")) == (400, code)


def test_a_visibility_change_answers_with_a_new_handle(mns: MnsCaller, queue: str) -> None:
    mns.send(queue, "a")
    handle = mns.receive(queue).text("ReceiptHandle")
    target = f"/queues/{queue}/messages?ReceiptHandle={handle}&VisibilityTimeout=100"
    changed = mns.call("PUT", target)
    assert (changed.status, changed.root.tag.rpartition("}")[2]) == (200, "ChangeVisibility")
    assert mns.delete(queue, handle).code == "ReceiptHandleError"
    assert mns.delete(queue, changed.text("ReceiptHandle")).status == 204


def test_a_delayed_message_is_answered_with_a_handle(mns: MnsCaller, queue: str) -> None:
    assert len(mns.send(queue, "a", DelaySeconds=60).texts("ReceiptHandle")) == 1
    assert mns.send(queue, "b", Priority=1).texts("ReceiptHandle") == []
    assert mns.receive(queue, "numOfMessages=16").texts("MessageBody") == ["b"]


@pytest.mark.parametrize("elements", [{"DelaySeconds": 604_801}, {"Priority": 0}, {"Priority": 17}])
def test_a_send_outside_the_limits_is_refused(
    mns: MnsCaller, queue: str, elements: dict[str, int]
) -> None:
    assert refusal(mns.send(queue, "a", **elements)) == (400, "InvalidArgument")


def test_a_body_longer_than_the_queue_allows_is_refused(mns: MnsCaller, queue: str) -> None:
    assert mns.send(queue, "x" * 65_536).status == 201
    assert refusal(mns.send(queue, "x" * 65_537)) == (400, "InvalidArgument")
    assert refusal(mns.send(queue, "")) == (400, "InvalidArgument")


def batch(*bodies: str) -> str:
    messages = "".join(f"<Message><MessageBody>{body}</MessageBody></Message>" for body in bodies)
    return f'<Messages xmlns="{XMLNS}">{messages}</Messages>'


def test_a_batch_send_refuses_entries_one_by_one(mns: MnsCaller, queue: str) -> None:
    reply = mns.call("POST", f"/queues/{queue}/messages", batch("a", "", "b"))
    assert reply.status == 201
    assert [len(entry) for entry in reply.root] == [2, 2, 2]
    assert reply.texts("ErrorCode") == ["InvalidArgument"]
    assert mns.receive(queue, "numOfMessages=16").texts("MessageBody") == ["a", "b"]


@pytest.mark.parametrize(
    "document", [batch(*"abcdefghijklmnopq"), batch("x" * 40_000, "y" * 30_000)]
)
def test_a_batch_send_has_16_messages_and_64_kb_at_most(
    mns: MnsCaller, queue: str, document: str
) -> None:
    reply = mns.call("POST", f"/queues/{queue}/messages", document)
    assert refusal(reply) == (400, "InvalidArgument")


@pytest.mark.parametrize(
    ("document", "code"),
    [("<Message>", "MalformedXML"), ("", "MalformedXML"), ("<Queue/>", "InvalidArgument")],
)
def test_a_send_of_something_else_is_refused(
    mns: MnsCaller, queue: str, document: str, code: str
) -> None:
    assert refusal(mns.call("POST", f"/queues/{queue}/messages", document)) == (400, code)


def test_the_namespace_of_a_request_does_not_matter(mns: MnsCaller, queue: str) -> None:
    document = "<Message><MessageBody>a</MessageBody></Message>"
    assert mns.call("POST", f"/queues/{queue}/messages", document).status == 201


# Queues


def test_creating_a_queue_twice_is_fine_only_with_the_same_attributes(
    mns: MnsCaller, emulator: EmulatorProcess
) -> None:
    created = mns.create("Test-Twice", VisibilityTimeout=40)
    assert created.status == 201
    assert created.headers["location"] == f"http://127.0.0.1:{emulator.port}/queues/Test-Twice"
    assert mns.create("Test-Twice", VisibilityTimeout=40).status == 204
    assert refusal(mns.create("Test-Twice")) == (409, "QueueAlreadyExist")
    assert mns.call("DELETE", "/queues/Test-Twice").status == 204
    assert mns.call("DELETE", "/queues/Test-Twice").status == 204
    assert refusal(mns.receive("Test-Twice")) == (404, "QueueNotExist")


@pytest.mark.parametrize(
    ("attribute", "lowest", "highest"),
    [
        ("DelaySeconds", 0, 604_800),
        ("MaximumMessageSize", 1024, 65_536),
        ("MessageRetentionPeriod", 60, 604_800),
        ("VisibilityTimeout", 1, 43_200),
        ("PollingWaitSeconds", 0, 30),
    ],
)
def test_an_attribute_stays_within_its_range(
    mns: MnsCaller, queue: str, attribute: str, lowest: int, highest: int
) -> None:
    target = f"/queues/{queue}?metaoverride=true"
    for value, status in ((lowest - 1, 400), (lowest, 204), (highest, 204), (highest + 1, 400)):
        reply = mns.call("PUT", target, f"<Queue><{attribute}>{value}</{attribute}></Queue>")
        assert reply.status == status
    assert mns.call("GET", f"/queues/{queue}").text(attribute) == str(highest)


def test_the_attributes_of_a_queue_are_complete(mns: MnsCaller, queue: str) -> None:
    mns.send(queue, "a")
    mns.send(queue, "b")
    mns.send(queue, "c", DelaySeconds=60)
    mns.receive(queue)
    reply = mns.call("GET", f"/queues/{queue}")
    found = {e.tag.rpartition("}")[2]: e.text for e in reply.root}
    assert len(found.pop("CreateTime") or "") == len(found.pop("LastModifyTime") or "") == 10
    assert found == {
        "QueueName": queue,
        "DelaySeconds": "0",
        "MaximumMessageSize": "65536",
        "MessageRetentionPeriod": "345600",
        "VisibilityTimeout": "30",
        "PollingWaitSeconds": "0",
        "LoggingEnabled": "False",
        "ActiveMessages": "1",
        "InactiveMessages": "1",
        "DelayMessages": "1",
    }


@pytest.mark.parametrize(
    ("name", "code"),
    [("-x", "InvalidQueueName"), ("a_b", "InvalidQueueName"), ("q" * 121, "QueueNameLengthError")],
)
def test_a_queue_needs_a_proper_name(mns: MnsCaller, name: str, code: str) -> None:
    assert refusal(mns.create(name)) == (400, code)


def test_queues_are_listed_page_by_page(mns: MnsCaller) -> None:
    for number in range(3):
        mns.create(f"Test-List-{number}")
    headers: dict[str, str | None] = {"x-mns-prefix": "Test-List-", "x-mns-ret-number": "2"}
    first = mns.call("GET", "/queues", headers=headers)
    assert [url[-11:] for url in first.texts("QueueURL")] == ["Test-List-0", "Test-List-1"]
    assert first.texts("QueueName") == []
    rest: dict[str, str | None] = {
        "x-mns-marker": first.text("NextMarker"),
        "x-mns-with-meta": "true",
    }
    second = mns.call("GET", "/queues", headers=headers | rest)
    assert second.texts("QueueName") == ["Test-List-2"]
    assert second.texts("NextMarker") == []
    for number in range(3):
        mns.call("DELETE", f"/queues/Test-List-{number}")


def test_too_long_a_page_of_queues_is_refused(mns: MnsCaller) -> None:
    reply = mns.call("GET", "/queues", headers={"x-mns-ret-number": "1001"})
    assert refusal(reply) == (400, "InvalidArgument")


# Who asks


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"authorization": None}, 400, "MissingAuthorizationHeader"),
        ({"authorization": "MNS"}, 400, "InvalidAuthorizationHeader"),
        ({"authorization": "MQS a:b"}, 400, "InvalidAuthorizationHeader"),
        ({"authorization": "MNS nobody:b"}, 403, "InvalidAccessKeyId"),
        ({"authorization": "MNS emulator-key-id:b"}, 403, "SignatureDoesNotMatch"),
        ({"x-mns-version": None}, 400, "MissingVersionHeader"),
        ({"x-mns-version": "2014-07-08"}, 400, "InvalidVersionHeader"),
        ({"date": None}, 400, "MissingDateHeader"),
        ({"date": "yesterday"}, 400, "InvalidDateHeader"),
        ({"date": "Thu, 09 Jul 2015 03:01:34 GMT"}, 408, "TimeExpired"),
        ({"date": "Thu, 09 Jul 2099 03:01:34 GMT"}, 408, "TimeExpired"),
        ({"content-md5": "bm90IGFuIG1kNQ=="}, 400, "InvalidDigest"),
        ({"content-md5": "%"}, 400, "InvalidDigest"),
    ],
)
def test_a_request_that_does_not_say_properly_who_asks_is_refused(
    mns: MnsCaller, queue: str, headers: dict[str, str | None], status: int, code: str
) -> None:
    reply = mns.call("GET", f"/queues/{queue}/messages", headers=headers)
    assert refusal(reply) == (status, code)


def test_both_forms_of_content_md5_are_accepted(mns: MnsCaller, queue: str) -> None:
    body = b"<Message><MessageBody>a</MessageBody></Message>"
    md5 = hashlib.md5(body)
    for digest in (md5.digest(), md5.hexdigest().encode()):
        headers: dict[str, str | None] = {"content-md5": base64.b64encode(digest).decode()}
        assert mns.call("POST", f"/queues/{queue}/messages", body, headers).status == 201


def test_a_browsers_date_header_is_signed_instead_of_date(mns: MnsCaller, queue: str) -> None:
    # Both, as Node sends them: the DATE line is the date, and x-mns-date is signed as well.
    headers: dict[str, str | None] = {"x-mns-date": formatdate(usegmt=True)}
    reply = mns.call("GET", f"/queues/{queue}/messages", headers=headers)
    assert refusal(reply) == (404, "MessageNotExist")


def test_the_absolute_form_of_a_target_is_signed_as_the_path(
    mns: MnsCaller, queue: str, emulator: EmulatorProcess
) -> None:
    target = f"/queues/{queue}/messages?numOfMessages=16"
    reply = mns.call("GET", target, sent_target=f"{emulator.url}{target}")
    assert refusal(reply) == (404, "MessageNotExist")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/queues"), ("GET", "/queues/q/x"), ("PATCH", "/queues/q")]
)
def test_what_is_no_operation_is_refused(mns: MnsCaller, method: str, path: str) -> None:
    assert refusal(mns.call(method, path)) == (400, "InvalidRequestURL")
