"""One request, one answer, over real sockets: how a server can misbehave, and what is made of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from pipeline.mns.transport import HttpTransport, Line, UnreachableError

_OK = b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nContent-Length: 2\r\n\r\nhi"


class _Server:
    """Answers each request with the next of its answers; None closes the connection instead."""

    def __init__(self, *answers: bytes | None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._answers = iter(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.asked = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                while request := connection.recv(65536):
                    self.requests.append(request)
                    self.asked.set()
                    answer = next(self._answers, None)
                    if answer is None:
                        break
                    connection.sendall(answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[_Server, HttpTransport]]]:
    with ExitStack() as stack:

        def start(*answers: bytes | None) -> tuple[_Server, HttpTransport]:
            server = _Server(*answers)
            stack.callback(server.close)
            transport = HttpTransport(server.endpoint)
            stack.callback(transport.close)
            return server, transport

        yield start


_Serve = Callable[..., tuple[_Server, HttpTransport]]


def test_a_connection_is_used_again(serve: _Serve) -> None:
    server, transport = serve(_OK, b"HTTP/1.1 204 No Content\r\n\r\n", _OK)
    answers = [transport.send("GET", "/a?b=c", {"x": "y"}, None, 5.0) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 204, 200]
    assert answers[0] == (200, b"hi", "Sun, 22 Nov 2026 12:00:00 GMT")
    assert server.connections == 1
    host = server.endpoint.removeprefix("http://").encode()
    assert server.requests[0] == b"GET /a?b=c HTTP/1.1\r\nHost: " + host + b"\r\nx: y\r\n\r\n"


def test_a_body_has_its_length(serve: _Serve) -> None:
    server, transport = serve(_OK, _OK)
    transport.send("DELETE", "/", {}, b"<x/>", 5.0)
    transport.send("PUT", "/", {}, None, 5.0)
    assert server.requests[0].endswith(b"Content-Length: 4\r\n\r\n<x/>")
    assert server.requests[1].endswith(b"Content-Length: 0\r\n\r\n")


def test_a_chunked_answer_is_put_together(serve: _Serve) -> None:
    _, transport = serve(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n"
    )
    assert transport.send("GET", "/", {}, None, 5.0).body == b"hi"


@pytest.mark.parametrize(
    "answer",
    [None, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", b"SSH-2.0-OpenSSH_9.6\r\n"],
    ids=["closed", "half an answer", "not HTTP"],
)
def test_a_broken_answer_is_not_asked_for_again(serve: _Serve, answer: bytes | None) -> None:
    server, transport = serve(answer, None)
    with pytest.raises(UnreachableError):
        transport.send("GET", "/", {}, None, 0.3)
    assert len(server.requests) == 1


def test_a_connection_that_the_server_closed_is_replaced(serve: _Serve) -> None:
    server, transport = serve(_OK.replace(b"Date", b"Connection: close\r\nDate"), _OK)
    assert [transport.send("GET", "/", {}, None, 5.0).status for _ in range(2)] == [200, 200]
    assert server.connections == 2


def test_a_proxy_of_the_environment_is_used(serve: _Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, _ = serve(_OK)
    monkeypatch.setenv("http_proxy", proxy.endpoint.replace("//", "//user:word@"))
    monkeypatch.setenv("no_proxy", "")
    transport = HttpTransport("http://mns.example:8080")
    assert transport.send("GET", "/a", {}, None, 5.0).status == 200
    transport.close()
    assert proxy.requests == [
        b"GET http://mns.example:8080/a HTTP/1.1\r\nHost: mns.example:8080\r\n"
        b"Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n\r\n"
    ]


def test_a_silent_server_times_out(serve: _Serve) -> None:
    _, transport = serve(b"")
    with pytest.raises(UnreachableError, match="No answer from http://"):
        transport.send("GET", "/", {}, None, 0.05)


def test_whoever_hangs_up_ends_the_calls_of_that_line_alone(serve: _Serve) -> None:
    server, transport = serve(b"", _OK)
    line, other = Line(), Line()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(transport.on(line).send, "GET", "/", {}, None, 30.0)
        assert server.asked.wait(5)
        other.hang_up()
        assert not call.done()
        line.hang_up()
        with pytest.raises(UnreachableError, match="No answer"):
            call.result(timeout=5)
    assert transport.on(line).send("GET", "/", {}, None, 5.0).status == 200


def test_a_closed_line_sends_nothing(serve: _Serve) -> None:
    server, transport = serve(_OK)
    line = Line()
    line.close()
    with pytest.raises(UnreachableError):
        transport.on(line).send("GET", "/", {}, None, 5.0)
    assert server.requests == []


def test_nobody_at_the_address_is_told_from_no_answer() -> None:
    with pytest.raises(UnreachableError, match="Nobody answers at http://127.0.0.1:9"):
        HttpTransport("http://127.0.0.1:9").send("GET", "/", {}, None, 0.1)


def test_a_line_break_cannot_smuggle_a_header() -> None:
    with pytest.raises(ValueError, match="line break"):
        HttpTransport("http://127.0.0.1:9").send("GET", "/", {"a": "b\r\nc: d"}, None, 0.1)
