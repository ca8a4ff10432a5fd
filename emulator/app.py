"""The emulator as one ASGI application, put together from its rooms.

MNS is reached by path and served on bare ASGI; everything else is a Starlette application: the
RPC gateway at ``/``, and ``/emulator``, where the emulator tells what it has done (not Alibaba's).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from emulator.access import Keyring
from emulator.carrier import Carrier
from emulator.mns import MnsService
from emulator.mns_auth import MnsAuthenticator
from emulator.mns_http import MnsEndpoint, Pollers
from emulator.outbox import Outbox
from emulator.queues import QueueStore
from emulator.rpc import RpcService
from emulator.rpc_auth import RpcAuthenticator, RpcError, RpcRequest
from emulator.sms_center import SmsCenter
from emulator.traffic import Traffic

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from emulator.clock import Clock
    from emulator.settings import EmulatorSettings

# Deliveries and live traffic are looked at no more often than this.
_TICK_MS: Final = 5
_TRAFFIC_TICK_MS: Final = 50
_IDLE_MS: Final = 3_600_000


class Emulator:
    """Alibaba's side of the wall. Call :meth:`preload` before serving to have traffic in it."""

    def __init__(self, settings: EmulatorSettings, clock: Clock) -> None:
        """Build all services; nothing runs until the lifespan starts."""
        now_ms = clock.now_ms()
        seed, prefix = settings.seed, settings.queue_prefix
        self._clock = clock
        self._store = QueueStore(seed)
        for name in settings.queue_names:
            self._store.create(name, settings.queue, now_ms)
        keyring = Keyring(
            settings.key_id, settings.key_secret, settings.token_lifetime_secs * 1000, seed
        )
        self._carrier = Carrier(settings.carrier, seed)
        self._outbox = Outbox(self._store)
        self._center = SmsCenter(self._carrier, self._outbox, prefix, now_ms, seed)
        self._traffic = Traffic(settings.traffic, self._center, self._outbox, prefix, seed)
        self._pollers = Pollers(clock)
        authenticator = MnsAuthenticator(keyring, settings.expired_token_code)
        service = MnsService(self._store, authenticator, settings.queue)
        self._mns = MnsEndpoint(service, clock, self._pollers, seed)
        self._rpc_authenticator = RpcAuthenticator(keyring)
        self._rpc = RpcService(keyring, self._center, prefix)
        self._starlette = Starlette(
            routes=[
                Route("/", self._call_rpc, methods=["GET", "POST"]),
                Route("/emulator", self._tell, methods=["GET"]),
            ],
            lifespan=self._lifespan,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http" and scope["path"].startswith("/queues"):
            await self._mns(scope, receive, send)
        else:
            await self._starlette(scope, receive, send)

    def preload(self) -> None:
        """Send the settings' traffic, as if it had happened before now."""
        self._traffic.preload(self._clock.now_ms())

    def stop_waiting(self) -> None:
        """Answer all long polls now: the server stops."""
        self._pollers.close()

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._deliver())]
        if self._traffic.is_live:
            tasks.append(asyncio.create_task(self._send_live()))
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._traffic.close()

    async def _deliver(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            signal: asyncio.Future[None] = loop.create_future()
            self._outbox.on_change = _Once(signal)
            now_ms = self._clock.now_ms()
            self._outbox.deliver_due(now_ms)
            due_ms = self._outbox.next_due_ms() or now_ms + _IDLE_MS
            await self._clock.wait(signal, max(due_ms, now_ms + _TICK_MS))

    async def _send_live(self) -> None:
        loop = asyncio.get_running_loop()
        self._traffic.start_live(self._clock.now_ms())
        while True:
            now_ms = self._clock.now_ms()
            self._traffic.send_due(now_ms)
            await self._clock.wait(loop.create_future(), now_ms + _TRAFFIC_TICK_MS)

    async def _call_rpc(self, request: Request) -> Response:
        request_id = self._center.request_id()
        now_ms = self._clock.now_ms()
        given = RpcRequest(
            request.method,
            request.url.path,
            request.scope["query_string"].decode("latin-1"),
            request.headers,
            await request.body(),
        )
        try:
            call = self._rpc_authenticator.authenticate(given, now_ms)
            return _json(200, self._rpc.answer(call, request_id, now_ms))
        except RpcError as error:
            return _json(
                error.status,
                {
                    "RequestId": request_id,
                    "HostId": request.headers.get("host", ""),
                    "Code": error.code,
                    "Message": error.message,
                },
            )

    async def _tell(self, _: Request) -> Response:
        now_ms = self._clock.now_ms()
        queues = {}
        for name in self._store.names():
            queue = self._store.get(name)
            if queue is not None:
                queues[name] = queue.depths(now_ms)._asdict()
        return _json(
            200,
            {
                "accepted_sms": self._center.accepted,
                "carrier": self._carrier.counts,
                "delivered": self._outbox.delivered,
                "waiting": len(self._outbox),
                "traffic": self._traffic.counts,
                "queues": queues,
            },
        )


class _Once:
    def __init__(self, signal: asyncio.Future[None]) -> None:
        self._signal = signal

    def __call__(self) -> None:
        if not self._signal.done():
            self._signal.set_result(None)


def _json(status: int, content: dict[str, object]) -> Response:
    body = json.dumps(content, ensure_ascii=False).encode()
    return Response(body, status, media_type="application/json;charset=utf-8")
