"""SendMessage and BatchSendMessage: limits, delays, priorities, and the XML of what is sent."""

from __future__ import annotations

import base64
import hashlib
from xml.sax.saxutils import escape

import pytest

from tests.emulator.conformance.cloud import Cloud, LocalMns
from tests.emulator.conformance.sources import case, source
from tests.emulator.mns_caller import XMLNS, local_name, message_elements

INVALID = (400, "InvalidArgument")
MALFORMED = (400, "MalformedXML")
EMPTY = (404, "MessageNotExist")
KB_64 = 65_536


@pytest.mark.parametrize(
    "elements",
    [
        case("35134", "priority 0", {"Priority": 0}),
        case("35134", "priority 17", {"Priority": 17}),
        case("35134", "priority -1", {"Priority": -1}),
        case("35134", "no number", {"Priority": "high"}),
        case("35134", "an empty priority", {"Priority": ""}),
        case("35134", "a delay of more than seven days", {"DelaySeconds": 604_801}),
        case("35134", "a delay into the past", {"DelaySeconds": -1}),
        case("35134", "half seconds", {"DelaySeconds": "0.5"}),
        case("27501", "an element of no schema", {"Colour": "red"}),
        case("27501", "a second body", {"MessageBody": "b"}),
    ],
)
def test_a_send_is_refused(local: LocalMns, elements: dict[str, object]) -> None:
    assert local.send("q", "a", **elements).refusal == INVALID
    assert local.receive("q").refusal == EMPTY


@pytest.mark.parametrize(
    "elements",
    [
        case("35134", "priority 1 is the highest", {"Priority": 1}),
        case("35134", "priority 16 is the lowest", {"Priority": 16}),
        case("35134", "a delay of seven days", {"DelaySeconds": 604_800}),
        case("35134", "a delay of 0", {"DelaySeconds": 0}),
        case(
            "SDK", "newer elements", {"MessageGroupId": "g", "UserProperties": "<PropertyValue/>"}
        ),
        case("SDK", "system properties", {"SystemProperties": "<SystemPropertyValue/>"}),
    ],
)
def test_a_send_is_accepted(local: LocalMns, elements: dict[str, object]) -> None:
    assert local.send("q", "a", **elements).status == 201


@source("35134")
def test_the_answer_is_the_id_and_the_md5(local: LocalMns) -> None:
    reply = local.send("q", "5L2g5aW9")
    assert reply.status == 201
    assert [local_name(e) for e in reply.root] == ["MessageId", "MessageBodyMD5"]
    assert reply.text("MessageBodyMD5") == "E335DDD5BB19347E4166B748D8DE7C84"
    assert reply.text("MessageId") == local.receive("q").text("MessageId")


@source("35134")
def test_priority_is_8_unless_said_otherwise(local: LocalMns) -> None:
    local.send("q", "a")
    assert local.receive("q").text("Priority") == "8"


# Delays


@pytest.mark.parametrize(
    ("queue_secs", "elements", "delay_secs"),
    [
        case("35134", "the message's", 0, {"DelaySeconds": 5}, 5),
        case("protocol 1.7", "the queue's", 7, {}, 7),
        case("35134", "the message's wins", 7, {"DelaySeconds": 5}, 5),
        case("35134", "seven days", 0, {"DelaySeconds": 604_799}, 604_799),
    ],
)
def test_a_delayed_message_is_hidden_and_has_a_handle(
    local: LocalMns, cloud: Cloud, queue_secs: int, elements: dict[str, int], delay_secs: int
) -> None:
    local.set_attributes("q", DelaySeconds=queue_secs, MessageRetentionPeriod=604_800)
    reply = local.send("q", "a", **elements)
    assert [local_name(e) for e in reply.root] == ["MessageId", "MessageBodyMD5", "ReceiptHandle"]
    cloud.wait(delay_secs - 0.001)
    assert local.receive("q").refusal == EMPTY
    cloud.wait(0.001)
    assert local.receive("q").text("DequeueCount") == "1"


@source("35134")
def test_a_message_that_wants_no_delay_has_none_whatever_the_queue_says(local: LocalMns) -> None:
    local.set_attributes("q", DelaySeconds=7)
    assert local.send("q", "a", DelaySeconds=0).texts("ReceiptHandle") == []
    assert local.receive("q").status == 200


@source("35134")
def test_a_delayed_message_can_be_deleted_before_anybody_sees_it(
    local: LocalMns, cloud: Cloud
) -> None:
    handle = local.send("q", "a", DelaySeconds=5).text("ReceiptHandle")
    assert local.delete("q", handle).status == 204
    cloud.wait(5)
    assert local.receive("q").refusal == EMPTY


# Sizes


@pytest.mark.parametrize(
    ("maximum", "body", "accepted"),
    [
        case("128343", "64 KB", KB_64, "x" * KB_64, True),
        case("128343", "one byte more", KB_64, "x" * (KB_64 + 1), False),
        case("128343", "64 KB are bytes", KB_64, "你" * 21_845 + "x", True),
        case("128343", "and not characters", KB_64, "你" * 21_845 + "xx", False),
        case("protocol 1.7", "as much as the queue allows", 1024, "x" * 1024, True),
        case("protocol 1.7", "and no more", 1024, "x" * 1025, False),
        case("175586", "base64 of 48 KB", KB_64, base64.b64encode(b"x" * 49_152).decode(), True),
        case("175586", "and a byte", KB_64, base64.b64encode(b"x" * 49_153).decode(), False),
        case("128343", "escapes count as what they are", 1024, "&lt;" * 1024, True),
        case("27501", "an empty body", KB_64, "", False),
    ],
)
def test_a_body_has_a_limit(local: LocalMns, maximum: int, body: str, accepted: bool) -> None:
    local.set_attributes("q", MaximumMessageSize=maximum)
    reply = local.send("q", body)
    assert reply.status == 201 if accepted else reply.refusal == INVALID


# Bodies


@pytest.mark.parametrize(
    "body",
    [
        case("protocol 1.11", "base64", base64.b64encode(b'{"success":true}?>').decode()),
        case("protocol 1.11", "plain JSON", '{"success":true}'),
        case("protocol 1.11", "no base64 at all", "==="),
        case("inferred", "markup", "<a href='x'>&amp;</a> ]]>"),
        case("inferred", "white space", " \t a\n\nb "),
        case("inferred", "carriage returns", "a\r\nb\r"),
        case("inferred", "Chinese and beyond", "你好 👍 \U0002070e"),
        case("inferred", "a space alone", " "),
    ],
)
def test_a_body_comes_out_as_it_went_in(local: LocalMns, body: str) -> None:
    sent = local.send("q", escape(body, {"\r": "&#13;"}))
    received = local.receive("q")
    assert received.text("MessageBody") == body
    md5 = hashlib.md5(body.encode()).hexdigest().upper()
    assert sent.text("MessageBodyMD5") == received.text("MessageBodyMD5") == md5


@pytest.mark.parametrize(
    "document",
    [
        case("35134", "with the slash", f'<Message xmlns="{XMLNS}">{{}}</Message>'),
        case("observed", "without it", f'<Message xmlns="{XMLNS[:-1]}">{{}}</Message>'),
        case("inferred", "no namespace", "<Message>{}</Message>"),
        case("35134", "a prolog", '<?xml version="1.0" encoding="UTF-8"?><Message>{}</Message>'),
        case("SDK", "one in small letters", '<?xml version="1.0" encoding="utf-8"?><Message>{}</Message>'),
        case("inferred", "white space between", "<Message>\n  {}\n</Message>\n"),
        case("inferred", "a comment", "<!-- <Messages> --><Message>{}</Message>"),
    ],
)  # fmt: skip
def test_a_message_may_be_written_in_many_ways(local: LocalMns, document: str) -> None:
    document = document.format("<MessageBody>a</MessageBody>")
    assert local.call("POST", "/queues/q/messages", document).status == 201
    assert local.receive("q").text("MessageBody") == "a"


@pytest.mark.parametrize(
    "document",
    [
        case(
            "inferred",
            "a prefix",
            f'<m:Message xmlns:m="{XMLNS}"><m:MessageBody>&lt;Messages</m:MessageBody></m:Message>',
        ),
        case(
            "inferred",
            "CDATA",
            "<Message><MessageBody><![CDATA[<Messages]]></MessageBody></Message>",
        ),
        case(
            "inferred",
            "a batch with a prefix",
            f'<m:Messages xmlns:m="{XMLNS}"><m:Message><m:MessageBody>&lt;Messages</m:MessageBody>'
            "</m:Message></m:Messages>",
        ),
    ],
)
def test_the_root_element_decides_and_no_text_that_looks_like_it(
    local: LocalMns, document: str
) -> None:
    assert local.call("POST", "/queues/q/messages", document).status == 201
    assert local.receive("q").text("MessageBody") == "<Messages"


@pytest.mark.parametrize(
    ("document", "refusal"),
    [
        case("27501", "nothing", "", MALFORMED),
        case("27501", "no XML", '{"MessageBody": "a"}', MALFORMED),
        case("27501", "half a document", "<Message><MessageBody>a", MALFORMED),
        case("27501", "a bare ampersand", "<Message><MessageBody>&</MessageBody></Message>", MALFORMED),
        case("27501", "another root", "<Queue/>", INVALID),
        case("27501", "a root in lower case", "<message/>", INVALID),
        case("27501", "markup in a body", "<Message><MessageBody>a<b/></MessageBody></Message>", INVALID),
        case("35134", "no body", "<Message><Priority>8</Priority></Message>", INVALID),
        case("35135", "an empty batch", "<Messages/>", INVALID),
        case("27501", "a batch of no message", "<Messages><MessageBody>a</MessageBody></Messages>", INVALID),
    ],
)  # fmt: skip
def test_a_document_is_refused(local: LocalMns, document: str, refusal: tuple[int, str]) -> None:
    assert local.call("POST", "/queues/q/messages", document).refusal == refusal


# Batches


@pytest.mark.parametrize(
    ("bodies", "accepted"),
    [
        case("35135", "one message", ["a"], True),
        case("35135", "16 messages", ["a"] * 16, True),
        case("35135", "17 messages", ["a"] * 17, False),
        case("35135", "64 KB together", ["x" * 4096] * 16, True),
        case("35135", "one byte more", ["x" * 4096] * 15 + ["x" * 4097], False),
    ],
)
def test_a_batch_has_16_messages_and_64_kb_at_most(
    local: LocalMns, bodies: list[str], accepted: bool
) -> None:
    reply = local.batch_send("q", [message_elements(body) for body in bodies])
    received = local.receive("q", "numOfMessages=16")
    if accepted:
        assert reply.status == 201
        assert received.texts("MessageBody") == bodies
    else:
        assert reply.refusal == INVALID
        assert received.refusal == EMPTY


@source("35135")
def test_a_batch_is_answered_message_by_message(local: LocalMns) -> None:
    reply = local.batch_send("q", [message_elements("a"), message_elements("b", DelaySeconds=5)])
    assert local_name(reply.root) == "Messages"
    assert [[local_name(e) for e in message] for message in reply.root] == [
        ["MessageId", "MessageBodyMD5"],
        ["MessageId", "MessageBodyMD5", "ReceiptHandle"],
    ]


@source("SDK")
def test_a_batch_that_is_refused_in_part_is_no_success_but_sends_the_rest(local: LocalMns) -> None:
    messages = [message_elements("a"), message_elements("b", Priority=17), message_elements("c")]
    reply = local.batch_send("q", messages)
    assert reply.status == 400
    assert [[local_name(e) for e in message] for message in reply.root] == [
        ["MessageId", "MessageBodyMD5"],
        ["ErrorCode", "ErrorMessage"],
        ["MessageId", "MessageBodyMD5"],
    ]
    assert local.receive("q", "numOfMessages=16").texts("MessageBody") == ["a", "c"]
