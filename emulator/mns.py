"""The MNS queue API (version 2015-06-06): requests in, answers out. No I/O, no clock, no waiting.

An empty queue under long polling is answered with :class:`Poll`: the caller waits and asks again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import unquote

from emulator import mns_xml
from emulator.mns_auth import Caller, MnsAuthenticator, MnsRequest
from emulator.mns_errors import MnsError
from emulator.queues import (
    DEFAULT_PRIORITY,
    LOWEST_PRIORITY,
    MessageQueue,
    QueueAttributes,
    QueueStore,
    Sent,
)

MAX_BATCH: Final = 16
_MAX_BATCH_SEND_BYTES: Final = 65_536
_MAX_LISTED: Final = 1000
_QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_MAX_QUEUE_NAME: Final = 120
# The names that are also written with a capital, by Python, Java and Go (docs use lower case).
_EITHER_CASE: Final = {
    "ReceiptHandle": "receiptHandle",
    "VisibilityTimeout": "visibilityTimeout",
    "metaOverride": "metaoverride",
}
_QUERY_NAMES: Final = frozenset(
    ("numOfMessages", "waitseconds", "peekonly", *_EITHER_CASE, *_EITHER_CASE.values())
)
_LOWERED_QUERY_NAMES: Final = frozenset(name.lower() for name in _QUERY_NAMES)
# Element -> (attribute of QueueAttributes, lowest, highest), as the documents of CreateQueue give them.
_ATTRIBUTE_RANGES: Final = {
    "DelaySeconds": ("delay_secs", 0, 604_800),
    "MaximumMessageSize": ("maximum_message_bytes", 1024, 65_536),
    "MessageRetentionPeriod": ("retention_secs", 60, 604_800),
    "VisibilityTimeout": ("visibility_timeout_secs", 1, 43_200),
    "PollingWaitSeconds": ("polling_wait_secs", 0, 30),
}


class Answer(NamedTuple):
    """An HTTP answer; ``headers`` beyond those that every answer has."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class Poll:
    """A receive or peek that found nothing yet and may be asked again until ``until_ms``."""

    queue: MessageQueue
    until_ms: int
    retry: Callable[[int], Answer | None] = field(repr=False)


class _Asked(NamedTuple):
    """A request with everything that is known about it once it is authenticated."""

    request: MnsRequest
    query: Mapping[str, str]
    caller: Caller
    now_ms: int
    host_url: str


class MnsService:
    """Answers MNS requests from the queues of a store."""

    def __init__(
        self, store: QueueStore, authenticator: MnsAuthenticator, defaults: QueueAttributes
    ) -> None:
        """Serve ``store``; ``defaults`` are what CreateQueue leaves unsaid."""
        self._store = store
        self._authenticator = authenticator
        self._defaults = defaults

    def answer(self, request: MnsRequest, now_ms: int, host_url: str) -> Answer | Poll:
        """Do what the request asks; raises :class:`MnsError` to refuse it."""
        caller = self._authenticator.authenticate(request, now_ms)
        asked = _Asked(request, _parse_query(request.query), caller, now_ms, host_url)
        parts = request.path.split("/")  # ['', 'queues', name, 'messages']
        match len(parts), parts[-1]:
            case (2, _) | (3, ""):
                return self._list(asked)
            case 3, name:
                return self._queue(asked, name)
            case 4, "messages":
                return self._messages(asked, parts[2])
            case _:
                raise MnsError("InvalidRequestURL")

    def _messages(self, asked: _Asked, name: str) -> Answer | Poll:
        request, query, caller, now_ms, _ = asked
        sends = request.method == "POST"
        # A token is for consuming one queue. What it may not do is refused before anything is
        # said about the queue, as observed for a queue name that did not exist.
        if not caller.may_consume(name) or (sends and caller.queue_name is not None):
            raise MnsError("AccessDeniedByRamPolicy")
        queue = self._existing(name)
        match request.method:
            case "GET":
                return _receive(queue, query, now_ms)
            case "DELETE" if request.body:
                return _batch_delete(queue, request.body, now_ms)
            case "DELETE":
                return _delete(queue, query, now_ms)
            case "PUT":
                return _change_visibility(queue, query, now_ms)
            case "POST":
                return _send(queue, request.body, now_ms)
            case _:
                raise MnsError("InvalidRequestURL")

    def _queue(self, asked: _Asked, name: str) -> Answer:
        request, query, caller, now_ms, _ = asked
        if caller.queue_name is not None:
            raise MnsError("AccessDeniedByRamPolicy")
        match request.method:
            case "PUT" if query.get("metaoverride") == "true":
                queue = self._existing(name)
                given = mns_xml.parse_attributes(request.body)
                attributes = _attributes(given, queue.attributes)
                self._store.set_attributes(queue, attributes, now_ms)
                return Answer(204)
            case "PUT":
                return self._create(asked, name)
            case "GET":
                queue = self._existing(name)
                return Answer(200, mns_xml.queue_document(queue, queue.depths(now_ms)))
            case "DELETE":
                self._store.delete(name)
                return Answer(204)
            case _:
                raise MnsError("InvalidRequestURL")

    def _create(self, asked: _Asked, name: str) -> Answer:
        if len(name) > _MAX_QUEUE_NAME:
            raise MnsError("QueueNameLengthError")
        if not _QUEUE_NAME.fullmatch(name):
            raise MnsError("InvalidQueueName")
        attributes = _attributes(mns_xml.parse_attributes(asked.request.body), self._defaults)
        location = (("location", f"{asked.host_url}/queues/{name}"),)
        queue = self._store.get(name)
        if queue is None:
            self._store.create(name, attributes, asked.now_ms)
            return Answer(201, headers=location)
        if queue.attributes != attributes:
            raise MnsError("QueueAlreadyExist")
        return Answer(204, headers=location)

    def _list(self, asked: _Asked) -> Answer:
        request, _, caller, now_ms, host_url = asked
        if request.method != "GET":
            raise MnsError("InvalidRequestURL")
        if caller.queue_name is not None:
            raise MnsError("AccessDeniedByRamPolicy")
        headers = request.headers
        wanted = headers.get("x-mns-ret-number", str(_MAX_LISTED))
        count = _number(wanted, "x-mns-ret-number", 1, _MAX_LISTED)
        prefix = headers.get("x-mns-prefix", "")
        marker = headers.get("x-mns-marker", "")
        names = [name for name in self._store.names() if name.startswith(prefix) and name >= marker]
        with_meta = headers.get("x-mns-with-meta", "").lower() == "true"
        listed: list[mns_xml.QueueMeta] = []
        for name in names[:count]:
            queue = self._existing(name)
            depths = queue.depths(now_ms) if with_meta else None
            listed.append(mns_xml.QueueMeta(f"{host_url}/queues/{name}", queue, depths))
        next_marker = names[count] if len(names) > count else None
        return Answer(200, mns_xml.queue_list_document(listed, next_marker))

    def _existing(self, name: str) -> MessageQueue:
        queue = self._store.get(name)
        if queue is None:
            raise MnsError("QueueNotExist")
        return queue


def _receive(queue: MessageQueue, query: Mapping[str, str], now_ms: int) -> Answer | Poll:
    batch = query.get("numOfMessages")
    count = 1 if batch is None else _number(batch, "numOfMessages", 1, MAX_BATCH)
    wait_secs = queue.attributes.polling_wait_secs
    if "waitseconds" in query:
        wait_secs = _number(query["waitseconds"], "waitseconds", 0, 30)
    peek = query.get("peekonly") == "true"

    def attempt(at_ms: int) -> Answer | None:
        if peek:
            seen = queue.peek(count, at_ms)
            if not seen:
                return None
            if batch is None:
                return Answer(200, mns_xml.peeked_document(seen[0]))
            return Answer(200, mns_xml.peeked_batch_document(seen))
        received = queue.receive(count, at_ms)
        if not received:
            return None
        if batch is None:
            return Answer(200, mns_xml.received_document(received[0]))
        return Answer(200, mns_xml.received_batch_document(received))

    answer = attempt(now_ms)
    if answer is not None:
        return answer
    if peek or not wait_secs:
        raise MnsError("MessageNotExist")
    return Poll(queue, now_ms + wait_secs * 1000, attempt)


def _delete(queue: MessageQueue, query: Mapping[str, str], now_ms: int) -> Answer:
    handle = query.get("receiptHandle")
    if not handle:
        raise MnsError("MissingReceiptHandle")
    if queue.delete([handle], now_ms):
        raise MnsError("ReceiptHandleError")
    return Answer(204)


def _batch_delete(queue: MessageQueue, body: bytes, now_ms: int) -> Answer:
    handles = mns_xml.parse_handles(body)
    if not 1 <= len(handles) <= MAX_BATCH:
        raise MnsError("InvalidArgument", "the number of receipt handles")
    dead = queue.delete(handles, now_ms)
    return Answer(404, mns_xml.handle_errors_document(dead)) if dead else Answer(204)


def _change_visibility(queue: MessageQueue, query: Mapping[str, str], now_ms: int) -> Answer:
    handle = query.get("receiptHandle")
    if not handle:
        raise MnsError("MissingReceiptHandle")
    timeout = query.get("visibilityTimeout")
    if not timeout:
        raise MnsError("MissingVisibilityTimeout")
    timeout_secs = _number(timeout, "VisibilityTimeout", 1, 43_200)
    received = queue.change_visibility(handle, timeout_secs, now_ms)
    if received is None:
        raise MnsError("ReceiptHandleError")
    return Answer(200, mns_xml.visibility_document(received))


def _send(queue: MessageQueue, body: bytes, now_ms: int) -> Answer:
    # The root element decides, as on the real service: one path serves both operations.
    if b"<Messages" not in body:
        entry = mns_xml.parse_message(body)
        sent, text = _send_one(queue, entry, now_ms)
        return Answer(201, mns_xml.sent_document(sent, text))
    entries = mns_xml.parse_messages(body)
    if not 1 <= len(entries) <= MAX_BATCH:
        raise MnsError("InvalidArgument", "the number of messages")
    if sum(len((entry.body or "").encode()) for entry in entries) > _MAX_BATCH_SEND_BYTES:
        raise MnsError("InvalidArgument", "the total size of the messages")
    results: list[tuple[Sent, str] | MnsError] = []
    for entry in entries:
        try:
            results.append(_send_one(queue, entry, now_ms))
        except MnsError as error:
            results.append(error)
    return Answer(201, mns_xml.sent_batch_document(results))


def _send_one(queue: MessageQueue, entry: mns_xml.MessageEntry, now_ms: int) -> tuple[Sent, str]:
    body = entry.body
    if not body or len(body.encode()) > queue.attributes.maximum_message_bytes:
        raise MnsError("InvalidArgument", "MessageBody")
    delay_secs = None
    if entry.delay_secs is not None:
        delay_secs = _number(entry.delay_secs, "DelaySeconds", 0, 604_800)
    priority = DEFAULT_PRIORITY
    if entry.priority is not None:
        priority = _number(entry.priority, "Priority", 1, LOWEST_PRIORITY)
    return queue.send(body, now_ms, delay_secs=delay_secs, priority=priority), body


def _parse_query(query: str) -> dict[str, str]:
    """Split the raw query; '+' stays a plus, because SDKs send handles unescaped."""
    parsed: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        if name not in _QUERY_NAMES and name.lower() in _LOWERED_QUERY_NAMES:
            # Observed: 'WaitSeconds' instead of 'waitseconds' is answered with a 500.
            raise MnsError("InternalServerError")
        parsed[_EITHER_CASE.get(name, name)] = unquote(value)
    return parsed


def _attributes(given: Mapping[str, str], base: QueueAttributes) -> QueueAttributes:
    changes: dict[str, int] = {}
    for element, (attribute, lowest, highest) in _ATTRIBUTE_RANGES.items():
        if element in given:
            changes[attribute] = _number(given[element], element, lowest, highest)
    logging = given.get("LoggingEnabled", str(base.logging_enabled))
    if logging not in ("True", "False"):
        raise MnsError("InvalidArgument", "LoggingEnabled")
    return QueueAttributes(
        delay_secs=changes.get("delay_secs", base.delay_secs),
        maximum_message_bytes=changes.get("maximum_message_bytes", base.maximum_message_bytes),
        retention_secs=changes.get("retention_secs", base.retention_secs),
        visibility_timeout_secs=changes.get(
            "visibility_timeout_secs", base.visibility_timeout_secs
        ),
        polling_wait_secs=changes.get("polling_wait_secs", base.polling_wait_secs),
        logging_enabled=logging == "True",
    )


def _number(text: str, name: str, lowest: int, highest: int) -> int:
    if not (text.isascii() and text.isdigit() and lowest <= int(text[:12]) <= highest):
        raise MnsError("InvalidArgument", name)
    return int(text)
