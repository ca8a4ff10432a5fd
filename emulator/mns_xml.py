"""The XML of MNS, both ways.

Written as strings, because answers to BatchReceiveMessage are the hot path. Answers carry the
namespace without the trailing slash and a prolog without encoding, as captured from the service;
requests are read by local name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from emulator.mns_errors import MnsError
from emulator.queues import Depths, Message, MessageQueue, Received, Sent, body_md5

_PROLOG = '<?xml version="1.0"?>'
_XMLNS = ' xmlns="http://mns.aliyuncs.com/doc/v1"'
# Newer clients send these with a message; the emulator keeps no properties and has no FIFO queues.
_PROPERTIES: Final = ("UserProperties", "SystemProperties")
_MESSAGE_ELEMENTS: Final = (
    "MessageBody",
    "DelaySeconds",
    "Priority",
    "MessageGroupId",
    *_PROPERTIES,
)
# All that GetQueueAttributes answers with, so that it may be written back; the last six have no effect.
_QUEUE_ELEMENTS: Final = (
    "DelaySeconds", "MaximumMessageSize", "MessageRetentionPeriod", "VisibilityTimeout",
    "PollingWaitSeconds", "LoggingEnabled",
    "QueueName", "CreateTime", "LastModifyTime",
    "ActiveMessages", "InactiveMessages", "DelayMessages",
)  # fmt: skip


class MessageEntry(NamedTuple):
    """One message as a client wants to send it; absent elements are None."""

    body: str | None
    delay_secs: str | None
    priority: str | None


class QueueMeta(NamedTuple):
    """One line of a queue listing; ``depths`` is None when only the address was asked for."""

    url: str
    queue: MessageQueue
    depths: Depths | None


def received_document(received: Received) -> bytes:
    """Answer to ReceiveMessage."""
    return f"{_PROLOG}{_message(received, _XMLNS)}".encode()


def received_batch_document(batch: Iterable[Received]) -> bytes:
    """Answer to BatchReceiveMessage."""
    messages = "".join([_message(received) for received in batch])
    return f"{_PROLOG}<Messages{_XMLNS}>{messages}</Messages>".encode()


def peeked_document(message: Message) -> bytes:
    """Answer to PeekMessage: no handle, no next visible time."""
    return f"{_PROLOG}{_peeked(message, _XMLNS)}".encode()


def peeked_batch_document(messages: Iterable[Message]) -> bytes:
    """Answer to BatchPeekMessage."""
    peeked = "".join([_peeked(message) for message in messages])
    return f"{_PROLOG}<Messages{_XMLNS}>{peeked}</Messages>".encode()


def sent_document(sent: Sent, body: str) -> bytes:
    """Answer to SendMessage."""
    return f"{_PROLOG}<Message{_XMLNS}>{_sent(sent, body)}</Message>".encode()


def sent_batch_document(entries: Sequence[tuple[Sent, str] | MnsError]) -> bytes:
    """Answer to BatchSendMessage: an entry that was refused has a code instead of an id."""
    rendered = "".join(
        f"<Message>{_refused(entry) if isinstance(entry, MnsError) else _sent(*entry)}</Message>"
        for entry in entries
    )
    return f"{_PROLOG}<Messages{_XMLNS}>{rendered}</Messages>".encode()


def visibility_document(received: Received) -> bytes:
    """Answer to ChangeMessageVisibility: the new handle."""
    message, handle = received
    return (
        f"{_PROLOG}<ChangeVisibility{_XMLNS}><ReceiptHandle>{handle}</ReceiptHandle>"
        f"<NextVisibleTime>{message.next_visible_at_ms}</NextVisibleTime></ChangeVisibility>"
    ).encode()


def handle_errors_document(refused: Iterable[tuple[str, str]]) -> bytes:
    """Answer to a BatchDeleteMessage of which these handles failed, each with its code."""
    errors = "".join(
        f"<Error>{_refused(MnsError(code))}<ReceiptHandle>{escape(handle)}</ReceiptHandle></Error>"
        for handle, code in refused
    )
    return f"{_PROLOG}<Errors{_XMLNS}>{errors}</Errors>".encode()


def error_document(error: MnsError, request_id: str, host_id: str) -> bytes:
    """Answer to a request that is refused as a whole."""
    return (
        f"{_PROLOG}<Error{_XMLNS}><Code>{error.code}</Code>"
        f"<Message>{escape(error.message)}</Message><RequestId>{request_id}</RequestId>"
        f"<HostId>{escape(host_id)}</HostId></Error>"
    ).encode()


def queue_document(queue: MessageQueue, depths: Depths) -> bytes:
    """Answer to GetQueueAttributes."""
    return f"{_PROLOG}<Queue{_XMLNS}>{_attributes(queue, depths)}</Queue>".encode()


def queue_list_document(queues: Iterable[QueueMeta], next_marker: str | None) -> bytes:
    """Answer to ListQueue."""
    rendered = "".join(
        f"<Queue><QueueURL>{escape(url)}</QueueURL>"
        f"{'' if depths is None else _attributes(queue, depths)}</Queue>"
        for url, queue, depths in queues
    )
    marker = "" if next_marker is None else f"<NextMarker>{escape(next_marker)}</NextMarker>"
    return f"{_PROLOG}<Queues{_XMLNS}>{rendered}{marker}</Queues>".encode()


def parse_sends(body: bytes) -> MessageEntry | list[MessageEntry]:
    """Read what is to be sent: a ``<Message>``, or the list of ``<Messages>``."""
    root = _root(body, "Message", "Messages")
    if _local_name(root) == "Message":
        return _entry(root)
    return [_entry(child) for child in _children(root, "Message")]


def parse_handles(body: bytes) -> list[str]:
    """Read ``<ReceiptHandles>`` to delete."""
    root = _root(body, "ReceiptHandles")
    return [child.text or "" for child in _children(root, "ReceiptHandle")]


def parse_attributes(body: bytes) -> Mapping[str, str]:
    """Read ``<Queue>``: the attributes that the client gives, by element name."""
    if not body:
        return {}
    return _texts(_root(body, "Queue"), _QUEUE_ELEMENTS)


def _root(body: bytes, *expected: str) -> ElementTree.Element:
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 (expat limits entity expansion itself)
    except ElementTree.ParseError:
        raise MnsError("MalformedXML") from None
    if _local_name(root) not in expected:
        raise MnsError("InvalidArgument", "the XML document's root element")
    return root


def _children(root: ElementTree.Element, expected: str) -> list[ElementTree.Element]:
    children = list(root)
    namespace = root.tag[: root.tag.rfind("}") + 1]
    tag = namespace + expected
    for child in children:
        if child.tag != tag:
            raise MnsError("InvalidArgument", "the XML document's elements")
    return children


def _local_name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _entry(element: ElementTree.Element) -> MessageEntry:
    found = _texts(element, _MESSAGE_ELEMENTS)
    return MessageEntry(found.get("MessageBody"), found.get("DelaySeconds"), found.get("Priority"))


def _texts(element: ElementTree.Element, known: Collection[str]) -> dict[str, str]:
    """Read an element that holds texts, each at most once; the schema knows no others."""
    texts: dict[str, str] = {}
    for child in element:
        name = _local_name(child)
        if name not in known or name in texts or (len(child) and name not in _PROPERTIES):
            raise MnsError("InvalidArgument", f"the element {name}")
        texts[name] = child.text or ""
    return texts


def _message(received: Received, xmlns: str = "") -> str:
    message, handle = received
    return (
        f"<Message{xmlns}><MessageId>{message.message_id}</MessageId>"
        f"<MessageBodyMD5>{body_md5(message.body)}</MessageBodyMD5><MessageBody>{message.xml_text}</MessageBody>"
        f"<ReceiptHandle>{handle}</ReceiptHandle><EnqueueTime>{message.enqueued_at_ms}</EnqueueTime>"
        f"<FirstDequeueTime>{message.first_dequeued_at_ms}</FirstDequeueTime>"
        f"<NextVisibleTime>{message.next_visible_at_ms}</NextVisibleTime>"
        f"<DequeueCount>{message.dequeue_count}</DequeueCount>"
        f"<Priority>{message.priority}</Priority></Message>"
    )


def _peeked(message: Message, xmlns: str = "") -> str:
    return (
        f"<Message{xmlns}><MessageId>{message.message_id}</MessageId>"
        f"<MessageBodyMD5>{body_md5(message.body)}</MessageBodyMD5><MessageBody>{message.xml_text}</MessageBody>"
        f"<EnqueueTime>{message.enqueued_at_ms}</EnqueueTime>"
        f"<FirstDequeueTime>{message.first_dequeued_at_ms}</FirstDequeueTime>"
        f"<DequeueCount>{message.dequeue_count}</DequeueCount>"
        f"<Priority>{message.priority}</Priority></Message>"
    )


def _sent(sent: Sent, body: str) -> str:
    handle = sent.receipt_handle
    delayed = "" if handle is None else f"<ReceiptHandle>{handle}</ReceiptHandle>"
    return (
        f"<MessageId>{sent.message.message_id}</MessageId>"
        f"<MessageBodyMD5>{body_md5(body)}</MessageBodyMD5>{delayed}"
    )


def _refused(error: MnsError) -> str:
    return (
        f"<ErrorCode>{error.code}</ErrorCode><ErrorMessage>{escape(error.message)}</ErrorMessage>"
    )


def _attributes(queue: MessageQueue, depths: Depths) -> str:
    attributes = queue.attributes
    return (
        f"<QueueName>{queue.name}</QueueName>"
        f"<CreateTime>{queue.created_at_ms // 1000}</CreateTime>"
        f"<LastModifyTime>{queue.modified_at_ms // 1000}</LastModifyTime>"
        f"<DelaySeconds>{attributes.delay_secs}</DelaySeconds>"
        f"<MaximumMessageSize>{attributes.maximum_message_bytes}</MaximumMessageSize>"
        f"<MessageRetentionPeriod>{attributes.retention_secs}</MessageRetentionPeriod>"
        f"<VisibilityTimeout>{attributes.visibility_timeout_secs}</VisibilityTimeout>"
        f"<PollingWaitSeconds>{attributes.polling_wait_secs}</PollingWaitSeconds>"
        f"<LoggingEnabled>{attributes.logging_enabled}</LoggingEnabled>"
        f"<ActiveMessages>{depths.active}</ActiveMessages>"
        f"<InactiveMessages>{depths.inactive}</InactiveMessages>"
        f"<DelayMessages>{depths.delayed}</DelayMessages>"
    )
