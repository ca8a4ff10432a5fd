"""MNS over ASGI: reads requests, waits for long polls, writes answers.

Written on bare ASGI, without a framework's request and response objects: a reader that drains
the queues spends most of its time here. Faults are applied here too, and cost nothing without a plan.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from emulator import mns_xml
from emulator.clock import Skew
from emulator.mns import Answer, MnsService, Poll, operation_of
from emulator.mns_auth import VERSION, MnsRequest
from emulator.mns_errors import MnsError
from emulator.running_plan import Hit, RequestFaults
from emulator.wire import Exchange, Reply

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from emulator.clock import Clock
    from emulator.injector import FaultInjector
    from emulator.queues import MessageQueue

_CONSTANT_HEADERS: Final = [
    (b"content-type", b"text/xml;charset=utf-8"),
    (b"server", b"AliyunMNS"),
    (b"x-mns-version", VERSION.encode()),
]


class Pollers:
    """The long polls that wait, by queue name."""

    def __init__(self, clock: Clock) -> None:
        """Nobody waits yet; waiting is done by ``clock``."""
        self._clock = clock
        self._signals: dict[str, set[asyncio.Future[None]]] = {}
        self._closed = False

    def watch(self, queue: MessageQueue) -> None:
        """Wake the polls of this queue whenever something changes on it."""
        signals = self._signals.setdefault(queue.name, set())
        queue.on_change = lambda: _wake(signals)

    def close(self) -> None:
        """Answer every poll now, and every later one at once (the server stops)."""
        self._closed = True
        for signals in self._signals.values():
            _wake(signals)

    async def wait(self, poll: Poll, gone: asyncio.Future[None]) -> Answer | None:
        """Return the answer, or None when the time is over, the client gone or the server stops."""
        self.watch(poll.queue)
        signals = self._signals[poll.queue.name]
        gone.add_done_callback(lambda _: _wake(signals))
        while True:
            now_ms = self._clock.now_ms()
            if self._closed or gone.done():
                return None
            answer = poll.retry(now_ms)
            if answer is not None or now_ms >= poll.until_ms:
                return answer
            signal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            signals.add(signal)
            visible_at_ms = poll.queue.next_visible_at_ms()
            try:
                await self._clock.wait(signal, min(poll.until_ms, visible_at_ms or poll.until_ms))
            finally:
                signals.discard(signal)


class MnsEndpoint:
    """The ASGI application under ``/queues``."""

    def __init__(
        self,
        service: MnsService,
        clock: Clock,
        pollers: Pollers,
        injector: FaultInjector,
        seed: str,
    ) -> None:
        """Serve ``service``; request ids are a function of ``seed`` and of the order."""
        self._service = service
        self._clock = clock
        self._pollers = pollers
        self._injector = injector
        self._random = random.Random(f"{seed}/requests")  # noqa: S311 (ids, not secrets)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send)
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        request = MnsRequest(
            scope["method"],
            scope["raw_path"].decode("latin-1"),
            scope["query_string"].decode("latin-1"),
            headers,
            await exchange.body(),
        )
        request_id = f"{self._random.getrandbits(96):024X}"
        plan = self._injector.plan
        if plan is None:
            reply = await self._do(request, request_id, exchange)
            await exchange.answer(reply, self._clock.now_ms())
            return

        async def do(faults: RequestFaults) -> Reply:
            return await self._do(request, request_id, exchange, faults)

        def refuse(hit: Hit) -> Reply:
            return _refusal(MnsError(hit.code), request, request_id)

        faults = RequestFaults(plan, *operation_of(request))
        await self._injector.serve(exchange, faults, do, refuse)

    async def _do(
        self,
        request: MnsRequest,
        request_id: str,
        exchange: Exchange,
        faults: RequestFaults | None = None,
    ) -> Reply:
        skew = Skew(self._clock.advanced_ms, 0 if faults is None else faults.skew_ms)
        now_ms, host_url = self._clock.now_ms(), _host_url(request)
        try:
            answer = self._service.answer(request, now_ms, host_url, skew=skew, faults=faults)
            if isinstance(answer, Poll):
                answer = await self._poll(answer, exchange)
        except MnsError as error:
            return _refusal(error, request, request_id)
        return _reply(answer, request_id)

    async def _poll(self, poll: Poll, exchange: Exchange) -> Answer:
        # A client that hangs up must not take messages with it.
        gone = asyncio.ensure_future(exchange.disconnected())
        try:
            answer = await self._pollers.wait(poll, gone)
        finally:
            gone.cancel()
        if answer is None:
            raise MnsError("MessageNotExist")
        return answer


def _host_url(request: MnsRequest) -> str:
    return f"http://{request.headers.get('host', '')}"


def _refusal(error: MnsError, request: MnsRequest, request_id: str) -> Reply:
    document = mns_xml.error_document(error, request_id, _host_url(request))
    return _reply(Answer(error.status, document), request_id)


def _reply(answer: Answer, request_id: str) -> Reply:
    headers = [*_CONSTANT_HEADERS, (b"x-mns-request-id", request_id.encode())]
    headers += [(name.encode(), value.encode()) for name, value in answer.headers]
    return Reply(answer.status, headers, answer.body)


def _wake(signals: set[asyncio.Future[None]]) -> None:
    for signal in signals:
        _set(signal)


def _set(signal: asyncio.Future[None]) -> None:
    if not signal.done():
        signal.set_result(None)
