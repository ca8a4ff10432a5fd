"""XML in and out, as captured from the service and as the documents show it."""

from __future__ import annotations

from datetime import datetime, timezone
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.mns import wire
from transforms.decode_body import open_body
from transforms.failures import UnusableError

_MESSAGE = (
    "<Message><MessageId>0909FF0D9C3A630C372B8A14BD2011B6</MessageId>"
    "<MessageBodyMD5>3AED23FB</MessageBodyMD5><MessageBody>{body}</MessageBody>"
    "<ReceiptHandle>{handle}</ReceiptHandle><EnqueueTime>1764000000123</EnqueueTime>"
    "<FirstDequeueTime>1764000000124</FirstDequeueTime>"
    "<NextVisibleTime>{visible}</NextVisibleTime><DequeueCount>2</DequeueCount>"
    "<Priority>8</Priority><MessageGroupId>new</MessageGroupId></Message>"
)


def _messages(
    *, namespace: str = ' xmlns="http://mns.aliyuncs.com/doc/v1"', body: str = "eyJ9"
) -> bytes:
    entries = "".join(
        _MESSAGE.format(body=body, handle=f"8-{number}==", visible=1764000030000 + number)
        for number in range(2)
    )
    return f'<?xml version="1.0" ?><Messages{namespace}>{entries}</Messages>'.encode()


@pytest.mark.parametrize(
    "namespace",
    [
        ' xmlns="http://mns.aliyuncs.com/doc/v1"',
        ' xmlns="http://mns.aliyuncs.com/doc/v1/"',
        "",
    ],
)
def test_messages_are_read_whatever_the_namespace(namespace: str) -> None:
    received = wire.parse_messages(_messages(namespace=namespace), "q-SmsReport", "SmsReport")
    assert received.receipt_handles == ["8-0==", "8-1=="]
    assert received.visible_again_at == datetime(2025, 11, 24, 16, 0, 30, tzinfo=timezone.utc)
    message = received.messages[0]
    assert message == (
        "0909FF0D9C3A630C372B8A14BD2011B6",
        "q-SmsReport",
        "SmsReport",
        datetime(2025, 11, 24, 16, 0, 0, 123000, tzinfo=timezone.utc),
        2,
        b"eyJ9",
    )


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        ("", b""),
        ("{&quot;a&quot;: &lt;1&gt; &amp;}", b'{"a": <1> &}'),
        ("\u77ed\u4fe1", "\u77ed\u4fe1".encode()),
        (" spaced ", b" spaced "),
    ],
)
def test_a_body_is_kept_as_it_was_sent(sent: str, body: bytes) -> None:
    assert wire.parse_messages(_messages(body=sent), "q", "q").messages[0].body == body


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html><body>gateway",
        b"\xff\xfe",
        b"<Messages/>",
        b"<Messages><Message><MessageId>1</MessageId></Message></Messages>",
        _messages().replace(b"1764000000123", b"soon"),
        _messages().replace(b"1764000000123", b"9" * 30),
        _messages().replace(b"1764000000123", b"-1"),
        _messages().replace(b"176400003000", b"25340230079999999"),
        _messages().replace(b"<DequeueCount>2<", b"<DequeueCount>2147483648<"),
        _messages().replace(b"<DequeueCount>2<", b"<DequeueCount><"),
        b'<!DOCTYPE m [<!ENTITY a "b">]>' + _messages(body="&a;"),
        '<!DOCTYPE m [<!ENTITY a "b">]><Messages/>'.encode("utf-16"),
    ],
)
def test_an_answer_that_is_not_mns_is_refused(answer: bytes) -> None:
    with pytest.raises(wire.MalformedResponseError):
        wire.parse_messages(answer, "q", "q")


def _three(body: str, *, handle: str = "<ReceiptHandle>8-1==</ReceiptHandle>") -> bytes:
    """Return three messages; the one in the middle is as given."""
    entries = [
        _MESSAGE.format(body="eyJ9", handle=f"8-{number}==", visible=1764000030000 - number)
        for number in range(3)
    ]
    entries[1] = entries[1].replace("<ReceiptHandle>8-1==</ReceiptHandle>", handle)
    entries[1] = entries[1].replace("eyJ9", body)
    namespace = "http://mns.aliyuncs.com/doc/v1"
    return (
        f'<?xml version="1.0"?><Messages xmlns="{namespace}">{"".join(entries)}</Messages>'.encode(
            errors="surrogateescape"
        )
    )


@pytest.mark.parametrize(
    "body",
    [
        "a&#1;b", "a\x01b", "&#xD800;", "\udcff", "a&b", "<b>x</b>", "</b>", "{}<b/>", "<![CDATA[", "&a;",
        "<!DOCTYPE html>", "<MessageBody>", "<ReceiptHandle>8-9==</ReceiptHandle>",
    ],
)  # fmt: skip
def test_a_body_that_is_no_text_is_kept_in_its_tags_and_harms_no_other(body: str) -> None:
    received = wire.parse_messages(_three(body), "q", "q")
    assert received.receipt_handles == ["8-0==", "8-1==", "8-2=="]
    assert received.visible_again_at == datetime(2025, 11, 24, 16, 0, 29, 998000, timezone.utc)
    raw = f"<MessageBody>{body}</MessageBody>".encode(errors="surrogateescape")
    assert [message.body for message in received.messages] == [b"eyJ9", raw, b"eyJ9"]
    assert received.unreadable_messages == 0
    with pytest.raises(UnusableError, match="base64"):
        open_body(raw)


@pytest.mark.parametrize("body", ["eyJ9", "a\x01b"])
@pytest.mark.parametrize("handle", ["", "<ReceiptHandle/>", "<ReceiptHandle>\x01</ReceiptHandle>"])
def test_a_message_that_cannot_be_deleted_is_left_and_harms_no_other(
    body: str, handle: str
) -> None:
    received = wire.parse_messages(_three(body, handle=handle), "q", "q")
    assert received.receipt_handles == ["8-0==", "8-2=="]
    assert [message.body for message in received.messages] == [b"eyJ9", b"eyJ9"]
    assert received.unreadable_messages == 1


def test_an_error_is_read_by_its_code() -> None:
    body = (
        b'<?xml version="1.0"?><Error xmlns="http://mns.aliyuncs.com/doc/v1"><Code>QueueNotExist'
        b"</Code><Message>m</Message><RequestId>R</RequestId><HostId>h</HostId></Error>"
    )
    assert wire.parse_error_code(body) == "QueueNotExist"
    assert not wire.parse_error_code(b"<html>")
    assert wire.parse_delete_errors(body, ["8-1"]) is None
    assert wire.parse_delete_errors(b"", ["8-1"]) is None


@pytest.mark.parametrize(
    "code", ["13800001111", "isv.BUSINESS_LIMIT 138", "\u9000\u8ba2", "A" * 200]
)
def test_what_is_no_code_of_mns_is_not_repeated(code: str) -> None:
    assert not wire.parse_error_code(f"<Error><Code>{code}</Code></Error>".encode())


def test_a_partly_failed_delete_names_its_failures() -> None:
    body = (
        b'<Errors xmlns="http://mns.aliyuncs.com/doc/v1"><Error><ErrorCode>ReceiptHandleError'
        b"</ErrorCode><ErrorMessage>m</ErrorMessage><ReceiptHandle>8-1==</ReceiptHandle></Error>"
        b"</Errors>"
    )
    handles = ["8-0==", "8-1=="]
    assert wire.parse_delete_errors(body, handles) == [("8-1==", "ReceiptHandleError")]


_DELETE_ERROR = "<Error><ErrorCode>E</ErrorCode><ReceiptHandle>{}</ReceiptHandle></Error>"


@pytest.mark.parametrize(
    "entries",
    [
        "",
        "<Error><ErrorCode>E</ErrorCode></Error>",
        _DELETE_ERROR.format("8-2"),
        _DELETE_ERROR.format("8-1") * 2,
    ],
)
def test_a_failed_delete_that_does_not_tell_what_is_left_is_refused(entries: str) -> None:
    with pytest.raises(wire.MalformedResponseError):
        wire.parse_delete_errors(f"<Errors>{entries}</Errors>".encode(), ["8-0", "8-1"])


def test_a_changed_visibility_brings_the_new_handle() -> None:
    body = (
        b"<ChangeVisibility><ReceiptHandle>8-2</ReceiptHandle>"
        b"<NextVisibleTime>1764000030000</NextVisibleTime></ChangeVisibility>"
    )
    changed = wire.parse_changed_visibility(body)
    assert changed.receipt_handle == "8-2"
    with pytest.raises(wire.MalformedResponseError):
        wire.parse_changed_visibility(b"<ChangeVisibility/>")


@given(
    st.lists(
        st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
        min_size=1,
        max_size=16,
    )
)
def test_a_delete_names_exactly_its_handles(handles: list[str]) -> None:
    root = ET.fromstring(wire.delete_body(handles))  # noqa: S314 - our own XML
    assert [entry.text for entry in root] == handles


def test_a_handle_is_escaped_in_a_target() -> None:
    target = wire.change_visibility_target("q", "1-a/b+c==", 30)
    assert target == "/queues/q/messages?receiptHandle=1-a%2Fb%2Bc%3D%3D&visibilityTimeout=30"
