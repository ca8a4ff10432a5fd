"""MNS messages on the wire: XML to values and back. No I/O, and no clock.

Elements are found by local name: the documents give the namespace with a trailing slash, the real
service sends it without (captures published 2015-2024). A document type declaration is refused,
so that no entity can be declared, let alone expanded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final, NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from pipeline.mns.settings import BATCH_MESSAGES
from schemas.records import MnsMessage
from transforms.moments import LATEST, from_ms, to_ms

_DECLARATION: Final = b"<!DOCTYPE"
_REQUEST_NAMESPACE: Final = "http://mns.aliyuncs.com/doc/v1/"
# What the archive and the tables can hold.
_MAX_COUNT: Final = 2**31 - 1
_LAST_MS: Final = to_ms(LATEST) - 1
# Anything else in a Code is not Alibaba's, and could be anything: codes are repeated in sentences and logs.
_CODE: Final = re.compile(r"[A-Za-z][A-Za-z_.]{0,99}")


class MalformedResponseError(ValueError):
    """Raised when an answer is not what MNS sends; the text names the part, never its value."""


class Received(NamedTuple):
    """One answer to a receive: messages, and in the same order the handles to delete them by."""

    messages: list[MnsMessage]
    receipt_handles: list[str]
    visible_again_at: datetime
    """When the first of them shows up in the queue again, by the server's clock."""
    unreadable_messages: int = 0
    """How many more the answer holds, of which no id, handle or time can be read."""


class DeleteError(NamedTuple):
    """A message that a batch delete left in the queue."""

    receipt_handle: str
    code: str


class ChangedVisibility(NamedTuple):
    """The only handle that works from now on, and until when (server's clock)."""

    receipt_handle: str
    visible_again_at: datetime


def messages_target(queue_name: str) -> str:
    """Return the request target of a queue's messages."""
    return f"/queues/{queue_name}/messages"


def receive_target(queue_name: str, messages: int, wait_secs: int) -> str:
    """Return the request target of a batch receive of 1-16 messages with a 0-30 s long poll."""
    return f"{messages_target(queue_name)}?numOfMessages={messages}&waitseconds={wait_secs}"


def change_visibility_target(
    queue_name: str, receipt_handle: str, visibility_timeout_secs: int
) -> str:
    """Return the request target that hides a message for 1-43200 s from now."""
    return (
        f"{messages_target(queue_name)}?receiptHandle={quote(receipt_handle, safe='')}"
        f"&visibilityTimeout={visibility_timeout_secs}"
    )


def delete_body(receipt_handles: Iterable[str]) -> bytes:
    """Return the body of a batch delete of 1-16 handles."""
    entries = escape("\n".join(receipt_handles)).replace("\n", "</ReceiptHandle><ReceiptHandle>")
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><ReceiptHandles xmlns="{_REQUEST_NAMESPACE}">'
        f"<ReceiptHandle>{entries}</ReceiptHandle></ReceiptHandles>"
    ).encode()


def parse_messages(body: bytes, queue_name: str, message_type: str) -> Received:
    """Read the answer to a batch receive.

    A message's body is kept exactly as sent (UTF-8 bytes of the element's text). One that is no text
    of XML is kept as the element's own bytes, tags included: no decoder takes that for a report.

    Raises:
        MalformedResponseError: It is none, or holds no message that the archive could (``mns_message``).
    """
    try:
        return _read_messages(_parse(body), queue_name, message_type)
    except MalformedResponseError:
        received = _read_one_by_one(body, queue_name, message_type)
        if received is None:
            raise
        return received


def parse_changed_visibility(body: bytes) -> ChangedVisibility:
    """Read the answer to a change of visibility.

    Raises:
        MalformedResponseError: It is none.
    """
    texts = _texts(_parse(body))
    return ChangedVisibility(
        _required(texts.get("ReceiptHandle"), "ReceiptHandle"),
        from_ms(_whole_number(texts.get("NextVisibleTime"), _LAST_MS, "NextVisibleTime")),
    )


def parse_error_code(body: bytes) -> str:
    """Read the code of an ``Error``; empty for anything else (a proxy's page, nothing at all)."""
    try:
        return known_code(_texts(_parse(body)).get("Code", ""))
    except MalformedResponseError:
        return ""


def known_code(code: object) -> str:
    """Return an error code that looks like one of Alibaba's; empty for anything else."""
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


def parse_delete_errors(body: bytes, receipt_handles: Sequence[str]) -> list[DeleteError] | None:
    """Read which entries of a batch delete failed; None when the answer is no entry list.

    MNS answers 404 with only the failed entries; those it does not list are deleted (doc 35139).

    Args:
        body: The answer.
        receipt_handles: What was to be deleted.

    Raises:
        MalformedResponseError: The list names no handle, one twice, or one that was not asked for: it
            does not tell what is deleted.
    """
    try:
        root = _parse(body)
    except MalformedResponseError:
        return None
    if _local_name(root) != "Errors":
        return None
    entries = [_texts(entry) for entry in root]
    failed = {entry.get("ReceiptHandle", "") for entry in entries}
    if not failed or len(failed) != len(entries) or not failed.issubset(receipt_handles):
        raise MalformedResponseError("the answer to a delete does not list handles of that delete")
    return [DeleteError(entry["ReceiptHandle"], entry.get("ErrorCode", "")) for entry in entries]


def _read_messages(root: ET.Element, queue_name: str, message_type: str) -> Received:
    prefix = root.tag[: root.tag.rfind("}") + 1]
    message_id, text, handle, enqueued, visible, count = (
        prefix + name
        for name in (
            "MessageId", "MessageBody", "ReceiptHandle",
            "EnqueueTime", "NextVisibleTime", "DequeueCount",
        )
    )  # fmt: skip
    messages, handles, visible_again = [], [], []
    for element in root:
        find = element.findtext
        enqueued_ms = _whole_number(find(enqueued), _LAST_MS, "EnqueueTime")
        visible_again.append(_whole_number(find(visible), _LAST_MS, "NextVisibleTime"))
        messages.append(
            MnsMessage(
                _required(find(message_id), "MessageId"),
                queue_name,
                message_type,
                from_ms(enqueued_ms),
                _whole_number(find(count), _MAX_COUNT, "DequeueCount"),
                _whole_text(element.find(text), "MessageBody").encode(),
            )
        )
        handles.append(_required(find(handle), "ReceiptHandle"))
    if not messages:
        raise MalformedResponseError("the answer to a receive holds no Message")
    return Received(messages, handles, from_ms(min(visible_again)))


def _read_one_by_one(body: bytes, queue_name: str, message_type: str) -> Received | None:
    """Read what can be read of an answer that cannot as a whole: one bad message is to hide no other."""
    *parts, _ = body.split(b"</Message>", BATCH_MESSAGES)
    read = []
    for part in parts:
        before, _, message = part.partition(b"<Message>")
        if _DECLARATION in before:
            break
        with suppress(MalformedResponseError):
            read.append(_read_one(message, queue_name, message_type))
    if not read:
        return None
    return Received(
        [message for one in read for message in one.messages],
        [handle for one in read for handle in one.receipt_handles],
        min(one.visible_again_at for one in read),
        len(parts) - len(read),
    )


def _read_one(message: bytes, queue_name: str, message_type: str) -> Received:
    try:
        return _read_messages(_parse_one(message), queue_name, message_type)
    except MalformedResponseError:
        before, opening, rest = message.partition(b"<MessageBody>")
        text, closing, after = rest.rpartition(b"</MessageBody>")
        if not closing:
            raise
        # The rest of it says how to archive and how to delete it.
        one = _read_messages(_parse_one(before + after), queue_name, message_type)
        raw = one.messages[0]._replace(body=opening + text + closing)
        return one._replace(messages=[raw])


def _parse_one(message: bytes) -> ET.Element:
    return _parse(b"<Messages><Message>%b</Message></Messages>" % message)


def _parse(body: bytes) -> ET.Element:
    if _DECLARATION in body:
        raise MalformedResponseError("the answer declares a document type")
    try:
        # As text, so that no other encoding can carry a declaration past the check above.
        return ET.fromstring(body.decode())  # noqa: S314
    except (ET.ParseError, UnicodeDecodeError):
        raise MalformedResponseError("the answer is not well-formed XML in UTF-8") from None


def _texts(element: ET.Element) -> dict[str, str]:
    return {_local_name(child): child.text or "" for child in element}


def _local_name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _required(text: str | None, name: str) -> str:
    if not text:
        raise MalformedResponseError(f"an answer lacks {name}")
    return text


def _whole_text(element: ET.Element | None, name: str) -> str:
    if element is None:
        return ""
    if len(element):
        raise MalformedResponseError(f"an answer has elements inside {name}")
    return element.text or ""


def _whole_number(text: str | None, most: int, name: str) -> int:
    try:
        number = int(text or "")
    except ValueError:
        number = -1
    if 0 <= number <= most:
        return number
    raise MalformedResponseError(f"an answer has no whole number up to {most} in {name}")
