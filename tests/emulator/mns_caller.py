"""A bare MNS client for the tests: signs what it is told to send, also when that is wrong."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import closing
from email.utils import formatdate
from typing import NamedTuple
from xml.etree import ElementTree

from tests.emulator_process import EmulatorProcess

XMLNS = "http://mns.aliyuncs.com/doc/v1/"

Headers = Mapping[str, str | None]


class Key(NamedTuple):
    """Who signs: the account, or a token of QueryTokenForMnsQueue."""

    key_id: str
    secret: str
    token: str = ""


class Reply(NamedTuple):
    """An answer as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def root(self) -> ElementTree.Element:
        return ElementTree.fromstring(self.body)  # noqa: S314 (our own server)

    @property
    def code(self) -> str:
        return self.text("Code")

    @property
    def refusal(self) -> tuple[int, str]:
        return self.status, self.code

    def text(self, name: str) -> str:
        (found,) = self.texts(name)
        return found

    def texts(self, name: str) -> list[str]:
        return [e.text or "" for e in self.root.iter() if local_name(e) == name]


def local_name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def signed_headers(
    method: str, target: str, body: bytes, headers: Headers, key: Key
) -> dict[str, str]:
    """Return a request's headers with those that every request needs, signed.

    A header set to None is left out; ``authorization`` is taken as it is; the date is now.
    """
    given: dict[str, str | None] = {
        "date": formatdate(usegmt=True),
        "x-mns-version": "2015-06-06",
        "content-type": "text/xml" if body else None,
        "security-token": key.token or None,
        **headers,
    }
    signed = {name: value for name, value in given.items() if value is not None}
    if "authorization" not in given:
        signature = sign(key.secret, method, target, signed)
        signed["authorization"] = f"MNS {key.key_id}:{signature}"
    return signed


def sign(secret: str, method: str, target: str, headers: Mapping[str, str]) -> str:
    """Return the signature v2 of a request (doc 27487)."""
    lines = [method, headers.get("content-md5", ""), headers.get("content-type", "")]
    lines.append(headers.get("date") or headers.get("x-mns-date", ""))
    lines += [f"{name}:{headers[name]}" for name in sorted(headers) if name.startswith("x-mns-")]
    digest = hmac.new(secret.encode(), "\n".join([*lines, target]).encode(), hashlib.sha1)
    return base64.b64encode(digest.digest()).decode()


class MnsOperations(ABC):
    """The operations of MNS, however the requests travel."""

    @abstractmethod
    def call(
        self, method: str, target: str, body: str | bytes = b"", headers: Headers | None = None
    ) -> Reply:
        """Send a signed request; ``headers`` as of :func:`signed_headers`."""

    def create(self, name: str, **attributes: object) -> Reply:
        return self.call("PUT", f"/queues/{name}", queue_document(**attributes))

    def set_attributes(self, name: str, **attributes: object) -> Reply:
        target = f"/queues/{name}?metaoverride=true"
        return self.call("PUT", target, queue_document(**attributes))

    def attributes(self, name: str) -> Reply:
        return self.call("GET", f"/queues/{name}")

    def drop(self, name: str) -> Reply:
        return self.call("DELETE", f"/queues/{name}")

    def list_queues(self, **headers: str) -> Reply:
        given = {f"x-mns-{name.replace('_', '-')}": value for name, value in headers.items()}
        return self.call("GET", "/queues", headers=given)

    def send(self, name: str, body: str, **elements: object) -> Reply:
        document = f'<Message xmlns="{XMLNS}">{message_elements(body, **elements)}</Message>'
        return self.call("POST", f"/queues/{name}/messages", document)

    def batch_send(self, name: str, messages: Iterable[str]) -> Reply:
        """Send messages, each given by its elements (:func:`message_elements`)."""
        inside = "".join(f"<Message>{message}</Message>" for message in messages)
        document = f'<Messages xmlns="{XMLNS}">{inside}</Messages>'
        return self.call("POST", f"/queues/{name}/messages", document)

    def receive(self, name: str, query: str = "") -> Reply:
        return self.call("GET", f"/queues/{name}/messages{query and '?'}{query}")

    def delete(self, name: str, handle: str) -> Reply:
        return self.call("DELETE", f"/queues/{name}/messages?ReceiptHandle={handle}")

    def batch_delete(self, name: str, handles: Iterable[str]) -> Reply:
        inside = "".join(f"<ReceiptHandle>{handle}</ReceiptHandle>" for handle in handles)
        document = f'<ReceiptHandles xmlns="{XMLNS}">{inside}</ReceiptHandles>'
        return self.call("DELETE", f"/queues/{name}/messages", document)

    def change_visibility(self, name: str, handle: str, timeout: object) -> Reply:
        query = f"receiptHandle={handle}&visibilityTimeout={timeout}"
        return self.call("PUT", f"/queues/{name}/messages?{query}")


def queue_document(**attributes: object) -> str:
    elements = "".join(f"<{key}>{value}</{key}>" for key, value in attributes.items())
    return f'<Queue xmlns="{XMLNS}">{elements}</Queue>'


def message_elements(body: str, **elements: object) -> str:
    more = "".join(f"<{key}>{value}</{key}>" for key, value in elements.items())
    return f"<MessageBody>{body}</MessageBody>{more}"


def finish(connection: http.client.HTTPConnection) -> Reply:
    """Read the answer to what :meth:`MnsCaller.begin` has sent."""
    response = connection.getresponse()
    return Reply(response.status, dict(response.getheaders()), response.read())


class MnsCaller(MnsOperations):
    """Calls one emulator process with one key."""

    def __init__(self, emulator: EmulatorProcess, key: Key | None = None) -> None:
        self._port = emulator.port
        self._key = key or Key(emulator.key_id, emulator.key_secret)

    def call(
        self,
        method: str,
        target: str,
        body: str | bytes = b"",
        headers: Headers | None = None,
        *,
        sent_target: str | None = None,
    ) -> Reply:
        """Send a signed request; ``sent_target`` where that is not what is signed."""
        with closing(self.begin(method, target, body, headers, sent_target=sent_target)) as open_:
            return finish(open_)

    def begin(
        self,
        method: str,
        target: str,
        body: str | bytes = b"",
        headers: Headers | None = None,
        *,
        sent_target: str | None = None,
    ) -> http.client.HTTPConnection:
        """Send a signed request and leave the answer to :func:`finish`."""
        data = body.encode() if isinstance(body, str) else body
        signed = signed_headers(method, target, data, headers or {}, self._key)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=40)
        connection.putrequest(method, sent_target or target, skip_host="host" in signed)
        for name, value in signed.items():
            connection.putheader(name, value)
        if data:
            connection.putheader("content-length", str(len(data)))
        connection.endheaders(data or None)
        return connection
