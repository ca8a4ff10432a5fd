"""One HTTP request and its answer, on bare ASGI: read, answered in full, or cut off."""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from emulator.one_write import CONNECTION, Connection

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

_NO_CONTENT: Final = 204


class Reply(NamedTuple):
    """An HTTP answer; Date and Content-Length are added when it is sent."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes = b""


class Exchange(NamedTuple):
    """What ASGI hands over for one request."""

    scope: Scope
    receive: Receive
    send: Send

    async def body(self) -> bytes:
        """Return the whole body of the request."""
        message = await self.receive()
        body: bytes = message.get("body", b"")
        while message.get("more_body"):
            message = await self.receive()
            body += message.get("body", b"")
        return body

    async def disconnected(self) -> None:
        """Return when the connection has ended; to be awaited after the body was read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def answer(self, reply: Reply, at_ms: int) -> None:
        """Send the answer, dated ``at_ms``."""
        await self.send(_head(reply, at_ms))
        await self.send({"type": "http.response.body", "body": reply.body})

    async def half_answer(self, reply: Reply, at_ms: int) -> None:
        """Send the first half of the body, or of the head if there is no body, and close."""
        await self.send(_head(reply, at_ms))
        if reply.body:
            half = reply.body[: len(reply.body) // 2]
            await self.send({"type": "http.response.body", "body": half, "more_body": True})
            self._connection.close()
        else:
            self._connection.close_amid_head()
        await self.disconnected()

    async def reset(self) -> None:
        """Answer with a TCP reset."""
        self._connection.reset()
        # Uvicorn complains when an application leaves a living client without an answer.
        await self.disconnected()

    @property
    def _connection(self) -> Connection:
        connection: Connection = self.scope["extensions"][CONNECTION]
        return connection


def _head(reply: Reply, at_ms: int) -> Message:
    status, given, body = reply
    headers = [*given, (b"date", _date(at_ms // 1000))]
    if status != _NO_CONTENT:
        headers.append((b"content-length", b"%d" % len(body)))
    return {"type": "http.response.start", "status": status, "headers": headers}


@lru_cache(maxsize=16)
def _date(at_secs: int) -> bytes:
    return formatdate(at_secs, usegmt=True).encode()
