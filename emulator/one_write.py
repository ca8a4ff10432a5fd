"""Uvicorn's HTTP protocol, with the head and the body of an answer in one write.

Uvicorn hands them to the transport one by one, and asyncio makes a system call of each. That call
is the dearest part of answering a batch receive.

An application finds the connection of a request in ``scope["extensions"][CONNECTION]``, so that it
can break it (emulator/faults.py).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTION: Final = "emulator.connection"
# Closing such a socket sends RST at once, and drops what was not sent yet.
_NO_LINGER: Final = struct.pack("ii", 1, 0)
# The head of a final answer; "100 Continue" must go out at once.
_HEAD, _INTERIM = b"HTTP/1.1 ", b"HTTP/1.1 1"


class Connection(asyncio.Transport):
    """A transport that holds the head back until the body, or the end, comes."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._head = b""
        # What uvicorn uses besides writing and closing.
        self.get_extra_info = transport.get_extra_info  # type: ignore[method-assign]
        self.is_closing = transport.is_closing  # type: ignore[method-assign]
        self.pause_reading = transport.pause_reading  # type: ignore[method-assign]
        self.resume_reading = transport.resume_reading  # type: ignore[method-assign]

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._head and bytes(data[:10]) != _INTERIM and bytes(data[:9]) == _HEAD:
            self._head = bytes(data)
            return
        head, self._head = self._head, b""
        self._transport.write(head + data if head else data)

    @override
    def close(self) -> None:
        if self._head:
            self.write(b"")
        self._transport.close()

    def close_amid_head(self) -> None:
        """Send the first half of the head that is held back, and close."""
        self._head = self._head[: len(self._head) // 2]
        self.close()

    def reset(self) -> None:
        """Break the connection with a TCP reset, unless the client has ended it already."""
        if self.is_closing():
            return
        linger: socket.socket = self._transport.get_extra_info("socket")
        linger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._transport.abort()


class OneWriteProtocol(HttpToolsProtocol):
    """Serves HTTP as uvicorn does, with fewer system calls."""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Connection(transport))

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: self.transport}  # type: ignore[dict-item]
