"""Carries the fault plan out on requests, MNS and RPC alike: refused, late, in part or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from emulator.running_plan import Hit, RequestFaults, RunningPlan
from emulator.wire import Reply

if TYPE_CHECKING:
    from emulator.clock import Clock
    from emulator.wire import Exchange

_NOISE_BYTES: Final = 64
_REDIRECT: Final = 300


class FaultInjector:
    """Holds the running plan; without one (None), nobody needs to ask it anything."""

    def __init__(self, clock: Clock) -> None:
        """Disturb nothing until ``plan`` is set."""
        self.plan: RunningPlan | None = None
        self._clock = clock
        self._delayed: set[asyncio.Future[None]] = set()
        self._closed = False

    def close(self) -> None:
        """Send all late answers now: the server stops."""
        self._closed = True
        for delayed in self._delayed:
            if not delayed.done():
                delayed.set_result(None)

    async def serve(
        self,
        exchange: Exchange,
        faults: RequestFaults,
        do: Callable[[RequestFaults], Awaitable[Reply]],
        refuse: Callable[[Hit], Reply],
    ) -> None:
        """Answer one request as the plan wants it.

        Args:
            exchange: the request; its body has been read.
            faults: what the plan does to it.
            do: does what the request asks.
            refuse: answers with the error of a fault instead.
        """
        ending = faults.at_arrival(self._clock.now_ms())
        if ending is None:
            reply = await do(faults)
            if reply.status < _REDIRECT:
                ending = faults.at_answer(self._clock.now_ms())
        else:
            reply = refuse(ending) if ending.code else Reply(200, ())
        if faults.delay_secs:
            await self._delay(faults.delay_secs, exchange)
        await _send(exchange, reply, self._clock.now_ms() + faults.skew_ms, ending)

    async def _delay(self, secs: float, exchange: Exchange) -> None:
        gone = asyncio.ensure_future(exchange.disconnected())
        delayed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._delayed.add(delayed)
        if not self._closed:
            await asyncio.wait({gone, delayed}, timeout=secs, return_when=asyncio.FIRST_COMPLETED)
        self._delayed.discard(delayed)
        gone.cancel()


async def _send(exchange: Exchange, reply: Reply, at_ms: int, ending: Hit | None) -> None:
    match ending.rule.fault if ending is not None else "":
        case "reset_before" | "reset_after":
            await exchange.reset()
        case "half_answer":
            await exchange.half_answer(reply, at_ms)
        case "garbage_answer" if ending is not None:
            # No document begins with a NUL, neither XML nor JSON.
            noise = b"\0" + ending.random.randbytes(_NOISE_BYTES)
            await exchange.answer(Reply(200, reply.headers, noise), at_ms)
        case _:
            await exchange.answer(reply, at_ms)
