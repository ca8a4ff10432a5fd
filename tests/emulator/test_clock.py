"""The emulator's clock: the machine's, plus what it was advanced by."""

from __future__ import annotations

import asyncio
import time

import pytest

from emulator.clock import Clock, Skew

HOUR_MS = 3_600_000


def test_it_is_the_machines_until_it_is_advanced() -> None:
    clock = Clock()
    assert abs(clock.now_ms() - time.time() * 1000) < 1000
    clock.advance(HOUR_MS)
    clock.advance(5)
    assert clock.advanced_ms == HOUR_MS + 5
    assert abs(clock.now_ms() - time.time() * 1000 - HOUR_MS - 5) < 1000


def test_whoever_waits_is_woken_when_time_is_advanced() -> None:
    async def wait() -> None:
        clock, loop = Clock(), asyncio.get_running_loop()
        waits = [
            asyncio.ensure_future(clock.wait(loop.create_future(), clock.now_ms() + HOUR_MS))
            for _ in range(2)
        ]
        await asyncio.sleep(0)
        clock.advance(1)
        await asyncio.wait_for(asyncio.gather(*waits), timeout=10)

    asyncio.run(wait())


def test_a_wait_ends_with_its_signal_or_at_its_time() -> None:
    async def wait() -> None:
        clock, loop = Clock(), asyncio.get_running_loop()
        signal: asyncio.Future[None] = loop.create_future()
        loop.call_soon(signal.set_result, None)
        await clock.wait(signal, clock.now_ms() + HOUR_MS)
        until_ms = clock.now_ms() + 2
        await clock.wait(loop.create_future(), until_ms)
        assert clock.now_ms() >= until_ms

    asyncio.run(wait())


@pytest.mark.parametrize(
    ("skew", "dated_ms", "late_ms"),
    [
        (Skew(), -7, 7),
        (Skew(advanced_ms=HOUR_MS), 0, 0),
        (Skew(advanced_ms=HOUR_MS), -HOUR_MS, 0),
        (Skew(advanced_ms=HOUR_MS), -HOUR_MS - 7, 7),
        (Skew(believed_ms=-5), 0, -5),
        # A client of either clock is late by what the server believes, and by no more.
        (Skew(advanced_ms=HOUR_MS, believed_ms=HOUR_MS), 0, HOUR_MS),
        (Skew(advanced_ms=HOUR_MS, believed_ms=HOUR_MS), -HOUR_MS, HOUR_MS),
    ],
)
def test_lateness_is_counted_from_the_clock_that_the_client_goes_by(
    skew: Skew, dated_ms: int, late_ms: int
) -> None:
    now_ms = 1_790_000_000_000
    assert skew.lateness_ms(now_ms + dated_ms, now_ms) == late_ms
