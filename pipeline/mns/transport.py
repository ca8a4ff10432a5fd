"""One HTTP request to one endpoint, and nothing that knows MNS.

requests says how to get there (proxies, certificates: from the environment, as everywhere) and its
urllib3 connects and does TLS. The exchange itself is ours, over httptools (uvicorn's and aiohttp's
kind of parser): a request in one write, an answer in as few reads as it comes in. Through urllib3
the two requests for 16 messages cost 25 us a message, through requests 59, and this way about 5.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from time import monotonic
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import httptools
import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, NewConnectionError

from pipeline.errors import TransientError

_CONNECT_TIMEOUT_SECS: Final = 5.0
_READ_BYTES: Final = 256 * 1024
# 16 messages of 64 KB, escaped at worst, are well below this; more is no answer of MNS.
_LONGEST_ANSWER_BYTES: Final = 16 * 1024 * 1024


class UnreachableError(TransientError):
    """Raised when no answer came; whether the server acted on the request is unknown."""


class HttpAnswer(NamedTuple):
    """An HTTP response, read to its end."""

    status: int
    body: bytes
    date: str
    """The server's Date header; empty when it sent none."""


class Line:
    """The calls of somebody who may have to leave before they are answered.

    Safe to share between threads. What takes a name or a connection is not interrupted.
    """

    def __init__(self) -> None:
        self._sockets: set[socket.socket] = set()
        self._changing = threading.Lock()
        self._is_closed = False

    def hang_up(self) -> None:
        """End the calls under way: each raises ``UnreachableError``."""
        with self._changing:
            for under_way in self._sockets:
                # The plain method of TLS sockets, too: their own would talk, in the wrong thread.
                with suppress(OSError):
                    socket.socket.shutdown(under_way, socket.SHUT_RDWR)

    def close(self) -> None:
        """End the calls under way, and refuse later ones."""
        with self._changing:
            self._is_closed = True
        self.hang_up()

    @contextmanager
    def call(self, under_way: socket.socket) -> Iterator[None]:
        """Hold a socket for a call."""
        with self._changing:
            if self._is_closed:
                raise _BrokenAnswerError
            self._sockets.add(under_way)
        try:
            yield
        finally:
            with self._changing:
                self._sockets.discard(under_way)


class HttpTransport:
    """Kept-alive connections to one endpoint; safe to share between threads.

    Each thread that sends uses a connection of its own while it does; there are never more than
    threads that send at once.
    """

    def __init__(self, endpoint: str) -> None:
        """Prepare to connect to ``endpoint`` (``http(s)://host[:port]``); opens nothing yet."""
        self._endpoint = endpoint.rstrip("/")
        parts = urlsplit(self._endpoint)
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._is_tls else 80)
        self._host_header = parts.netloc
        with requests.Session() as session:
            environment = session.merge_environment_settings(
                self._endpoint, {}, stream=None, verify=None, cert=None
            )
        proxy = environment["proxies"].get(parts.scheme) or environment["proxies"].get("all")
        self._proxy = urlsplit(proxy) if proxy else None
        self._proxy_headers = HTTPAdapter().proxy_headers(proxy) if proxy else {}
        verify = environment["verify"]
        self._certificates = verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
        # A plain HTTP proxy wants the absolute address on the request line.
        self._target_prefix = self._endpoint if self._proxy and not self._is_tls else ""
        self._idle: deque[HTTPConnection] = deque()
        self._line = Line()

    def on(self, line: Line) -> HttpTransport:
        """Return these connections with a line, by which the calls that it sends can be ended."""
        view = copy(self)
        view._line = line  # noqa: SLF001 - of its own kind
        return view

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        read_timeout_secs: float,
    ) -> HttpAnswer:
        """Send one request once and read the whole answer.

        Never sends twice on its own: a repeated receive hides a batch of messages, and a repeated
        delete reports false failures. ``UnreachableError`` is a sentence without request details.
        """
        request = self._compose(method, target, headers, body)
        try:
            connection = self._connect()
        except (HTTPError, OSError) as error:
            refused = isinstance(error, NewConnectionError)
            raise UnreachableError(
                f"Nobody answers at {self._endpoint}"
                if refused
                else f"No connection to {self._endpoint} ({type(error).__name__})"
            ) from None
        answer = _Answer()
        try:
            with self._line.call(connection.sock):
                answer.exchange(connection.sock, request, read_timeout_secs)
        except (OSError, httptools.HttpParserError, _BrokenAnswerError) as error:
            connection.close()
            raise UnreachableError(
                f"No answer from {self._endpoint} ({type(error).__name__})"
            ) from None
        except BaseException:
            connection.close()
            raise
        if answer.keep_alive:
            self._idle.append(connection)
        else:
            connection.close()
        return HttpAnswer(answer.status, b"".join(answer.body), answer.date)

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def _compose(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> bytes:
        lines = [f"{method} {self._target_prefix}{target} HTTP/1.1", f"Host: {self._host_header}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if self._target_prefix:
            lines += [f"{name}: {value}" for name, value in self._proxy_headers.items()]
        if body is not None or method == "PUT":
            lines.append(f"Content-Length: {len(body or b'')}")
        head = "\r\n".join([*lines, "", ""])
        if head.count("\n") != len(lines) + 1 or head.count("\r") != len(lines) + 1:
            raise ValueError("a request target or header contains a line break")
        return head.encode("latin-1") + (body or b"")

    def _connect(self) -> HTTPConnection:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            if connection.is_connected:
                return connection
            connection.close()  # the server closed it meanwhile
        connection = self._new_connection()
        connection.connect()
        return connection

    def _new_connection(self) -> HTTPConnection:
        via = self._proxy
        host = (via.hostname or "") if via else self._host
        port = (via.port or 80) if via else self._port
        if not self._is_tls:
            return HTTPConnection(host, port, timeout=_CONNECT_TIMEOUT_SECS)
        directory = os.path.isdir(self._certificates)
        connection = HTTPSConnection(
            host,
            port,
            timeout=_CONNECT_TIMEOUT_SECS,
            cert_reqs="CERT_REQUIRED",
            ca_certs=None if directory else self._certificates,
            ca_cert_dir=self._certificates if directory else None,
        )
        if via:
            connection.set_tunnel(self._host, self._port, self._proxy_headers)
        return connection


class _BrokenAnswerError(Exception):
    """Raised when an answer ends early, takes too long, does not end or is not waited for."""


class _Answer:
    """Reads one answer; the ``on_`` methods are httptools' names for what it has found."""

    def __init__(self) -> None:
        self.status = 0
        self.date = ""
        self.body: list[bytes] = []
        self.keep_alive = False
        self._is_complete = False
        self._parser = httptools.HttpResponseParser(self)

    def exchange(self, connected: socket.socket, request: bytes, read_timeout_secs: float) -> None:
        """Write the request and read until the answer is complete."""
        deadline_secs = monotonic() + read_timeout_secs
        connected.settimeout(read_timeout_secs)
        connected.sendall(request)
        length = 0
        while not self._is_complete:
            received = connected.recv(_READ_BYTES)
            length += len(received)
            if not received or length > _LONGEST_ANSWER_BYTES or monotonic() > deadline_secs:
                raise _BrokenAnswerError
            self._parser.feed_data(received)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the one header that matters here."""
        if name.lower() == b"date":
            self.date = value.decode("latin-1")

    def on_body(self, chunk: bytes) -> None:
        """Keep a part of the body."""
        self.body.append(chunk)

    def on_message_complete(self) -> None:
        """Note the end of the answer; an interim one (1xx) is followed by the real one."""
        self.status = self._parser.get_status_code()
        self.keep_alive = self._parser.should_keep_alive()
        self._is_complete = self.status >= 200  # noqa: PLR2004 - the first final status
