"""The MNS queue API (version 2015-06-06): requests in, answers out. No I/O, no clock, no waiting.

An empty queue under long polling is answered with :class:`Poll`: the caller waits and asks again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import unquote

from emulator import mns_faults, mns_xml
from emulator.clock import NO_SKEW, Skew
from emulator.mns_auth import Caller, MnsAuthenticator, MnsRequest
from emulator.mns_errors import MnsError
from emulator.open_questions import OpenQuestions
from emulator.qps import QpsLimit
from emulator.queues import (
    DEFAULT_PRIORITY,
    LOWEST_PRIORITY,
    Depths,
    MessageQueue,
    QueueAttributes,
    QueueStore,
    Sent,
)
from emulator.running_plan import RequestFaults

MAX_BATCH: Final = 16
_MAX_BATCH_SEND_BYTES: Final = 65_536
_MAX_LISTED: Final = 1000
_MAX_QUEUES: Final = 1000  # of an account in a region (doc 128343)
# What a method on a queue's messages is called in a fault plan.
_OPERATIONS: Final = {"GET": "receive", "DELETE": "delete", "PUT": "renew", "POST": "send"}
_QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_MAX_QUEUE_NAME: Final = 120
_MAX_DIGITS: Final = 12
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
    faults: RequestFaults | None


class MnsService:
    """Answers MNS requests from the queues of a store."""

    def __init__(
        self,
        store: QueueStore,
        authenticator: MnsAuthenticator,
        defaults: QueueAttributes,
        open_questions: OpenQuestions,
    ) -> None:
        """Serve ``store``.

        Args:
            store: the queues.
            authenticator: says who asks.
            defaults: what CreateQueue leaves unsaid.
            open_questions: how to answer them.
        """
        self._store = store
        self._authenticator = authenticator
        self._defaults = defaults
        self._open = open_questions
        self._qps = QpsLimit(open_questions.queue_qps)

    def answer(
        self,
        request: MnsRequest,
        now_ms: int,
        host_url: str,
        *,
        skew: Skew = NO_SKEW,
        faults: RequestFaults | None = None,
    ) -> Answer | Poll:
        """Do what the request asks; raises :class:`MnsError` to refuse it."""
        caller = self._authenticator.authenticate(request, now_ms, skew=skew, faults=faults)
        asked = _Asked(request, _parse_query(request.query), caller, now_ms, host_url, faults)
        parts = request.path.split("/")  # ['', 'queues', name, 'messages']
        match parts:
            case ["", "queues", name, "messages"]:
                return self._messages(asked, name)
            case ["", "queues"] | ["", "queues", ""]:
                return self._list(asked)
            case ["", "queues", name]:
                return self._queue(asked, name)
            case _:
                raise MnsError("InvalidRequestURL")

    def _messages(self, asked: _Asked, name: str) -> Answer | Poll:
        request, query, caller, now_ms, _, faults = asked
        sends = request.method == "POST"
        # A token is for consuming one queue. What it may not do is refused before anything is
        # said about the queue, as observed for a queue name that did not exist.
        if not caller.may_consume(name) or (sends and caller.queue_name is not None):
            raise MnsError(self._open.ram_denial_code)
        queue = self._existing(name)
        if not sends:
            self._qps.take(name, 1, now_ms)
        match request.method:
            case "GET":
                return _receive(queue, query, now_ms, faults)
            case "DELETE" if request.body:
                return self._batch_delete(queue, request.body, now_ms, faults)
            case "DELETE":
                return self._delete(queue, query, now_ms, faults)
            case "PUT":
                return self._change_visibility(queue, query, now_ms, faults)
            case "POST":
                # The root element decides, as on the real service: one path serves both operations.
                entries = mns_xml.parse_sends(request.body)
                is_batch = isinstance(entries, list)
                self._qps.take(name, len(entries) if is_batch else 1, now_ms)
                return _send(queue, entries, now_ms)
            case _:
                raise MnsError("InvalidRequestURL")

    def _queue(self, asked: _Asked, name: str) -> Answer:
        request, query, caller, now_ms, _, _ = asked
        reads_its_own = request.method == "GET" and caller.may_consume(name)
        may_read = reads_its_own and self._open.allow_token_attributes
        if caller.queue_name is not None and not may_read:
            raise MnsError(self._open.ram_denial_code)
        match request.method:
            case "PUT" if _has_flag(query, "metaoverride"):
                queue = self._existing(name)
                given = mns_xml.parse_attributes(request.body)
                attributes = _attributes(given, queue.attributes)
                self._store.set_attributes(queue, attributes, now_ms)
                return Answer(204)
            case "PUT":
                return self._create(asked, name)
            case "GET":
                queue = self._existing(name)
                return Answer(200, mns_xml.queue_document(queue, self._depths(queue, now_ms)))
            case "DELETE":
                self._store.delete(name, now_ms)
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
            self._require_free_name(name, asked.now_ms)
            self._store.create(name, attributes, asked.now_ms)
            return Answer(201, headers=location)
        if queue.attributes != attributes:
            raise MnsError("QueueAlreadyExist")
        return Answer(204, headers=location)

    def _require_free_name(self, name: str, now_ms: int) -> None:
        deleted_at_ms = self._store.deleted_at_ms(name)
        rest_ms = self._open.deleted_queue_secs * 1000
        if deleted_at_ms is not None and now_ms < deleted_at_ms + rest_ms:
            raise MnsError("QueueDeletedRecently")
        if len(self._store) >= _MAX_QUEUES:
            # The limit is documented, the code is not: this one is for numbers beyond their limits.
            raise MnsError("InvalidArgument", "the number of queues")

    def _depths(self, queue: MessageQueue, now_ms: int) -> Depths:
        return Depths(0, 0, 0) if self._open.zero_depths else queue.depths(now_ms)

    def _list(self, asked: _Asked) -> Answer:
        request, _, caller, now_ms, host_url, _ = asked
        if request.method != "GET":
            raise MnsError("InvalidRequestURL")
        if caller.queue_name is not None:
            raise MnsError(self._open.ram_denial_code)
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
            depths = self._depths(queue, now_ms) if with_meta else None
            listed.append(mns_xml.QueueMeta(f"{host_url}/queues/{name}", queue, depths))
        next_marker = names[count] if len(names) > count else None
        return Answer(200, mns_xml.queue_list_document(listed, next_marker))

    def _existing(self, name: str) -> MessageQueue:
        queue = self._store.get(name)
        if queue is None:
            raise MnsError("QueueNotExist")
        return queue

    def _delete(
        self,
        queue: MessageQueue,
        query: Mapping[str, str],
        now_ms: int,
        faults: RequestFaults | None,
    ) -> Answer:
        handle = query.get("receiptHandle")
        if not handle:
            raise MnsError("MissingReceiptHandle")
        dead, refused = mns_faults.delete(queue, [handle], now_ms, faults)
        if dead:
            raise MnsError(self._open.dead_handle_code)
        for _, code in refused:
            raise MnsError(code)
        return Answer(204)

    def _batch_delete(
        self, queue: MessageQueue, body: bytes, now_ms: int, faults: RequestFaults | None
    ) -> Answer:
        handles = mns_xml.parse_handles(body)
        if not 1 <= len(handles) <= MAX_BATCH:
            raise MnsError("InvalidArgument", "the number of receipt handles")
        dead, refused = mns_faults.delete(queue, handles, now_ms, faults)
        if not (dead or refused):
            return Answer(204)
        errors = [*((handle, self._open.dead_handle_code) for handle in dead), *refused]
        return Answer(404, mns_xml.handle_errors_document(errors))

    def _change_visibility(
        self,
        queue: MessageQueue,
        query: Mapping[str, str],
        now_ms: int,
        faults: RequestFaults | None,
    ) -> Answer:
        handle = query.get("receiptHandle")
        if not handle:
            raise MnsError("MissingReceiptHandle")
        timeout = query.get("visibilityTimeout")
        if not timeout:
            raise MnsError("MissingVisibilityTimeout")
        least = 0 if self._open.allow_zero_visibility else 1
        timeout_secs = _number(timeout, "VisibilityTimeout", least, 43_200)
        received = mns_faults.change_visibility(queue, handle, timeout_secs, now_ms, faults)
        if received is None:
            raise MnsError(self._open.dead_handle_code)
        return Answer(200, mns_xml.visibility_document(received))


def operation_of(request: MnsRequest) -> tuple[str, str | None]:
    """Return what a request is to the fault plan, and its queue; '' if it is none of its business."""
    match request.path.split("/"):
        case ["", "queues", name, "messages"]:
            if request.method == "GET" and "peekonly=true" in request.query.lower():
                return "peek", name
            return _OPERATIONS.get(request.method, ""), name
        case _:
            return "", None


def _receive(
    queue: MessageQueue, query: Mapping[str, str], now_ms: int, faults: RequestFaults | None
) -> Answer | Poll:
    batch = query.get("numOfMessages")
    count = 1 if batch is None else _number(batch, "numOfMessages", 1, MAX_BATCH)
    wait_secs = queue.attributes.polling_wait_secs
    if "waitseconds" in query:
        wait_secs = _number(query["waitseconds"], "waitseconds", 0, 30)
    peek = _has_flag(query, "peekonly")

    def attempt(at_ms: int) -> Answer | None:
        if peek:
            seen = queue.peek(count, at_ms)
            if not seen:
                return None
            if batch is None:
                return Answer(200, mns_xml.peeked_document(seen[0]))
            return Answer(200, mns_xml.peeked_batch_document(seen))
        received = mns_faults.receive(queue, count, at_ms, faults)
        if not received:
            return None
        if batch is None:
            return Answer(200, mns_xml.received_document(received[0]))
        return Answer(200, mns_xml.received_batch_document(received))

    answer = attempt(now_ms)
    if answer is not None:
        return answer
    if peek or not wait_secs or (faults is not None and faults.cuts_poll(now_ms)):
        raise MnsError("MessageNotExist")
    return Poll(queue, now_ms + wait_secs * 1000, attempt)


def _send(
    queue: MessageQueue, entries: mns_xml.MessageEntry | list[mns_xml.MessageEntry], now_ms: int
) -> Answer:
    if isinstance(entries, mns_xml.MessageEntry):
        sent, text = _send_one(queue, entries, now_ms)
        return Answer(201, mns_xml.sent_document(sent, text))
    if not 1 <= len(entries) <= MAX_BATCH:
        raise MnsError("InvalidArgument", "the number of messages")
    if sum(len((entry.body or "").encode()) for entry in entries) > _MAX_BATCH_SEND_BYTES:
        raise MnsError("InvalidArgument", "the total size of the messages")
    results: list[tuple[Sent, str] | MnsError] = []
    # Alibaba's clients look for refused entries only where the status is none of success; which
    # one it is, no document says.
    status = 201
    for entry in entries:
        try:
            results.append(_send_one(queue, entry, now_ms))
        except MnsError as error:
            results.append(error)
            status = error.status
    return Answer(status, mns_xml.sent_batch_document(results))


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
        if name not in _QUERY_NAMES:
            if name.lower() in _LOWERED_QUERY_NAMES:
                # Observed: 'WaitSeconds' instead of 'waitseconds' is answered with a 500.
                raise MnsError("InternalServerError")
            raise MnsError("InvalidQueryString", name)
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


def _has_flag(query: Mapping[str, str], name: str) -> bool:
    """Whether the flag is there; its one value is "true" (doc 35141)."""
    value = query.get(name)
    if value not in (None, "true"):
        raise MnsError("InvalidArgument", name)
    return value is not None


def _number(text: str, name: str, lowest: int, highest: int) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    if not (is_number and lowest <= int(text) <= highest):
        raise MnsError("InvalidArgument", name)
    return int(text)
