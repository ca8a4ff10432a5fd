"""A scripted MNS and token service at the wire, for what the emulator would not do on request."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit


class Answer(NamedTuple):
    """What to answer, and after how long; status 0 drops the connection instead."""

    status: int
    body: str = ""
    after_secs: float = 0.0
    date: str | None = None
    """In place of the present time."""


class Request(NamedTuple):
    """What was asked, with the names that matter here already read."""

    method: str
    query: dict[str, str]
    handles: list[str]
    token: str


def error(status: int, code: str) -> Answer:
    """Return an MNS error."""
    return Answer(status, f"<Error><Code>{code}</Code><RequestId>R</RequestId></Error>")


# A report that every reader understands.
_REPORT = json.dumps(
    {
        "biz_id": "1^0",
        "phone_number": "13800000001",
        "success": True,
        "err_code": "DELIVERED",
        "send_time": "2026-11-01 12:00:00",
        "report_time": "2026-11-01 12:00:05",
        "sms_size": "1",
    }
)
EMPTY = error(404, "MessageNotExist")
DELETED = Answer(204)
DROPPED = Answer(0)
# Not before the fake is closed: packets are swallowed.
SILENCE = Answer(0, after_secs=3600)


def messages(*numbers: int, visible_secs: float = 30.0, body: str = _REPORT) -> Answer:
    """Return messages id-<n> with handles handle-<n>, hidden for so long; the body is JSON text."""
    encoded = base64.b64encode(body.encode()).decode()
    now_ms = int(datetime.now(timezone.utc).timestamp() * 1000)
    entries = "".join(
        f"<Message><MessageId>id-{number}</MessageId><MessageBody>{encoded}</MessageBody>"
        f"<ReceiptHandle>handle-{number}</ReceiptHandle><EnqueueTime>{now_ms}</EnqueueTime>"
        f"<NextVisibleTime>{now_ms + int(visible_secs * 1000)}</NextVisibleTime>"
        f"<DequeueCount>1</DequeueCount></Message>"
        for number in numbers
    )
    return Answer(200, f"<Messages>{entries}</Messages>")


def undeleted(**codes: str) -> Answer:
    """Return a batch delete's failures by handle (underscores for hyphens)."""
    entries = "".join(
        f"<Error><ErrorCode>{code}</ErrorCode><ReceiptHandle>{handle.replace('_', '-')}"
        "</ReceiptHandle></Error>"
        for handle, code in codes.items()
    )
    return Answer(404, f"<Errors>{entries}</Errors>")


class FakeMns:
    """Answers receives, deletes and changes from scripts, and remembers what it was asked."""

    def __init__(self) -> None:
        self.receives: deque[Answer] = deque()
        self.deletes: deque[Answer] = deque()
        self.change: Callable[[Request], Answer] = renewed
        self.token: Callable[[], Answer] = self.next_token
        self.requests: list[Request] = []
        self.tokens = 0
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, request: Request) -> Answer:
        """Answer one request; an empty script means an empty queue, and deletes that succeed."""
        self.requests.append(request)
        if request.method == "GET":
            return self.receives.popleft() if self.receives else EMPTY
        if request.method == "PUT":
            return self.change(request)
        return self.deletes.popleft() if self.deletes else DELETED

    def asked(self, method: str) -> list[Request]:
        """Return the requests of one method, in order."""
        return [request for request in self.requests if request.method == method]

    def next_token(self) -> Answer:
        """Return a token that no other answer held."""
        self.tokens += 1
        keys = {"AccessKeyId": "id", "AccessKeySecret": "secret"}
        token = {**keys, "SecurityToken": f"token-{self.tokens}", "ExpireTime": "soon"}
        return Answer(200, json.dumps({"Code": "OK", "MessageTokenDTO": token}))

    def close(self) -> None:
        """Stop; open connections are the client's to close first."""
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def renewed(request: Request) -> Answer:
    """Return a new handle, good for as long as was asked."""
    now_ms = int(datetime.now(timezone.utc).timestamp() * 1000)
    visible_ms = now_ms + 1000 * int(request.query["visibilityTimeout"])
    return Answer(
        200,
        f"<ChangeVisibility><ReceiptHandle>new-{request.query['receiptHandle']}</ReceiptHandle>"
        f"<NextVisibleTime>{visible_ms}</NextVisibleTime></ChangeVisibility>",
    )


def _handler(fake: FakeMns) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _exchange(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length).decode()
            if self.command == "POST":
                self._reply(fake.token(), "application/json")
                # Alibaba's client would keep the connection until the process ends.
                self.close_connection = True
                return
            query = {name: value[0] for name, value in parse_qs(urlsplit(self.path).query).items()}
            handles = re.findall(r"<ReceiptHandle>([^<]+)", body)
            answer = fake.answer(
                Request(self.command, query, handles, self.headers["security-token"])
            )
            self._reply(answer, "text/xml")

        do_GET = do_PUT = do_DELETE = do_POST = _exchange  # noqa: N815 - http.server's names

        def _reply(self, answer: Answer, content_type: str) -> None:
            fake.closing.wait(answer.after_secs)
            if not answer.status:
                self.close_connection = True
                return
            with suppress(ConnectionError):  # whoever asked has hung up
                self.send_response_only(answer.status)
                self.send_header("Date", answer.date or self.date_time_string())
                self.send_header("Content-Type", content_type)
                if answer.status != 204:
                    self.send_header("Content-Length", str(len(answer.body.encode())))
                self.end_headers()
                self.wfile.write(answer.body.encode())

        def log_message(self, *_: object) -> None:
            pass

    return Handler
