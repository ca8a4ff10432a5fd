"""A bare MNS client for the tests: signs what it is told to send, also when that is wrong."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
from contextlib import closing
from email.utils import formatdate
from typing import NamedTuple
from xml.etree import ElementTree

from tests.emulator_process import EmulatorProcess

XMLNS = "http://mns.aliyuncs.com/doc/v1/"


class Reply(NamedTuple):
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def root(self) -> ElementTree.Element:
        return ElementTree.fromstring(self.body)  # noqa: S314 (our own server)

    @property
    def code(self) -> str:
        return self.text("Code")

    def text(self, name: str) -> str:
        (found,) = self.texts(name)
        return found

    def texts(self, name: str) -> list[str]:
        return [e.text or "" for e in self.root.iter() if e.tag.rpartition("}")[2] == name]


def finish(connection: http.client.HTTPConnection) -> Reply:
    """Read the answer to what :meth:`MnsCaller.begin` has sent."""
    response = connection.getresponse()
    return Reply(response.status, dict(response.getheaders()), response.read())


class MnsCaller:
    """Calls one emulator with one key."""

    def __init__(
        self, emulator: EmulatorProcess, key_id: str = "", secret: str = "", token: str = ""
    ) -> None:
        self._emulator = emulator
        self._key_id = key_id or emulator.key_id
        self._secret = secret or emulator.key_secret
        self._token = token

    def call(
        self,
        method: str,
        target: str,
        body: str | bytes = b"",
        headers: dict[str, str | None] | None = None,
        *,
        sent_target: str | None = None,
    ) -> Reply:
        """Send a signed request. A header set to None is left out; ``authorization`` overrides."""
        with closing(self.begin(method, target, body, headers, sent_target=sent_target)) as open_:
            return finish(open_)

    def begin(
        self,
        method: str,
        target: str,
        body: str | bytes = b"",
        headers: dict[str, str | None] | None = None,
        *,
        sent_target: str | None = None,
    ) -> http.client.HTTPConnection:
        """Send a signed request and leave the answer to :func:`finish`."""
        data = body.encode() if isinstance(body, str) else body
        given: dict[str, str | None] = {
            "date": formatdate(usegmt=True),
            "x-mns-version": "2015-06-06",
            "content-type": "text/xml" if data else None,
            "security-token": self._token or None,
        }
        given.update(headers or {})
        signed = {name: value for name, value in given.items() if value is not None}
        if "authorization" not in given:
            signed["authorization"] = f"MNS {self._key_id}:{self._sign(method, target, signed)}"
        connection = http.client.HTTPConnection("127.0.0.1", self._emulator.port, timeout=40)
        connection.putrequest(method, sent_target or target)
        for name, value in signed.items():
            connection.putheader(name, value)
        if data:
            connection.putheader("content-length", str(len(data)))
        connection.endheaders(data or None)
        return connection

    def _sign(self, method: str, target: str, headers: dict[str, str]) -> str:
        lines = [method, headers.get("content-md5", ""), headers.get("content-type", "")]
        lines.append(headers.get("date", ""))
        lines += [
            f"{name}:{headers[name]}" for name in sorted(headers) if name.startswith("x-mns-")
        ]
        digest = hmac.new(self._secret.encode(), "\n".join([*lines, target]).encode(), hashlib.sha1)
        return base64.b64encode(digest.digest()).decode()

    def create(self, name: str, **attributes: int) -> Reply:
        elements = "".join(f"<{key}>{value}</{key}>" for key, value in attributes.items())
        return self.call("PUT", f"/queues/{name}", f'<Queue xmlns="{XMLNS}">{elements}</Queue>')

    def send(self, name: str, body: str, **elements: int) -> Reply:
        more = "".join(f"<{key}>{value}</{key}>" for key, value in elements.items())
        document = f'<Message xmlns="{XMLNS}"><MessageBody>{body}</MessageBody>{more}</Message>'
        return self.call("POST", f"/queues/{name}/messages", document)

    def receive(self, name: str, query: str = "") -> Reply:
        return self.call("GET", f"/queues/{name}/messages{query and '?'}{query}")

    def delete(self, name: str, handle: str) -> Reply:
        return self.call("DELETE", f"/queues/{name}/messages?ReceiptHandle={handle}")

    def batch_delete(self, name: str, handles: list[str]) -> Reply:
        inside = "".join(f"<ReceiptHandle>{handle}</ReceiptHandle>" for handle in handles)
        document = f'<ReceiptHandles xmlns="{XMLNS}">{inside}</ReceiptHandles>'
        return self.call("DELETE", f"/queues/{name}/messages", document)
