"""The emulator as one ASGI application, put together from its rooms.

MNS and the RPC gateway are reached by path and served on bare ASGI; ``/emulator``, where the emulator
is watched and governed (not Alibaba's), is a Starlette application.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette

from emulator.access import Keyring
from emulator.admin import Admin
from emulator.carrier import Carrier
from emulator.injector import FaultInjector
from emulator.mns import MnsService
from emulator.mns_auth import MnsAuthenticator
from emulator.mns_http import MnsEndpoint, Pollers
from emulator.outbox import Outbox
from emulator.queues import QueueStore
from emulator.rpc import RpcService
from emulator.rpc_auth import RpcAuthenticator
from emulator.rpc_http import RpcEndpoint
from emulator.running_plan import RunningPlan
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
        self._injector = FaultInjector(clock)
        if settings.faults is not None:
            self._injector.plan = RunningPlan(settings.faults, now_ms)
        open_questions = settings.open_questions
        authenticator = MnsAuthenticator(keyring, settings.uid, open_questions)
        service = MnsService(self._store, authenticator, settings.queue, open_questions)
        self._mns = MnsEndpoint(service, clock, self._pollers, self._injector, seed)
        self._rpc = RpcEndpoint(
            RpcAuthenticator(keyring),
            RpcService(keyring, self._center, prefix, open_questions),
            clock,
            self._injector,
        )
        admin = Admin(clock, self._store, self._injector, self._tell, self._catch_up)
        self._starlette = Starlette(routes=admin.routes, lifespan=self._lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        path = scope.get("path", "") if scope["type"] == "http" else "/emulator"
        if path == "/":
            await self._rpc(scope, receive, send)
        elif path == "/emulator" or path.startswith("/emulator/"):
            await self._starlette(scope, receive, send)
        else:
            await self._mns(scope, receive, send)

    def preload(self) -> None:
        """Send the settings' traffic, as if it had happened before now."""
        self._traffic.preload(self._clock.now_ms())

    def stop_waiting(self) -> None:
        """Send all answers that wait for something: the server stops."""
        self._pollers.close()
        self._injector.close()

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

    def _catch_up(self) -> None:
        now_ms = self._clock.now_ms()
        if self._traffic.is_live:
            self._traffic.send_due(now_ms)
        self._outbox.deliver_due(now_ms)

    def _tell(self) -> dict[str, object]:
        now_ms = self._clock.now_ms()
        queues = {}
        for name in self._store.names():
            queue = self._store.get(name)
            if queue is not None:
                queues[name] = queue.depths(now_ms)._asdict()
        return {
            "accepted_sms": self._center.accepted,
            "carrier": self._carrier.counts,
            "delivered": self._outbox.delivered,
            "waiting": len(self._outbox),
            "traffic": self._traffic.counts,
            "queues": queues,
        }


class _Once:
    def __init__(self, signal: asyncio.Future[None]) -> None:
        self._signal = signal

    def __call__(self) -> None:
        if not self._signal.done():
            self._signal.set_result(None)
