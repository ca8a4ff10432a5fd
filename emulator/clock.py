"""Time as the emulator sees it: one object, so that a test can own it."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Protocol

# Everything Alibaba prints for people is in Beijing time, without an offset.
BEIJING = timezone(timedelta(hours=8))
_BEIJING_OFFSET_SECS = 8 * 3600


class Clock(Protocol):
    """Milliseconds since the epoch, and a way to wait for them."""

    def now_ms(self) -> int:
        """Return the current time in milliseconds since the epoch."""
        ...

    async def wait(self, signal: asyncio.Future[None], until_ms: int) -> None:
        """Return when ``signal`` is done or when ``until_ms`` is reached, whichever is first."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Return the current time in milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    async def wait(self, signal: asyncio.Future[None], until_ms: int) -> None:
        """Return when ``signal`` is done or when ``until_ms`` is reached, whichever is first."""
        # 1 ms more than asked: a timer that fires early would only spin.
        await asyncio.wait({signal}, timeout=max(0, until_ms - self.now_ms() + 1) / 1000)


def beijing_text(at_ms: int) -> str:
    """Write a time as Alibaba does: ``2017-09-01 00:00:00``, Beijing time, no offset."""
    minute, second = divmod(at_ms // 1000, 60)
    return f"{_beijing_minute(minute)}:{second:02d}"


@lru_cache(maxsize=1024)  # most reports of one moment are written within a few minutes
def _beijing_minute(minute: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(minute * 60 + _BEIJING_OFFSET_SECS))


def beijing_compact(at_ms: int) -> str:
    """Write a time in the other form that SmsUp knows: ``20170901000000``, Beijing time."""
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(at_ms // 1000 + _BEIJING_OFFSET_SECS))


def beijing_day(at_ms: int) -> str:
    """Return the Beijing calendar day as ``20170901``, the form QuerySendDetails asks for."""
    return beijing_compact(at_ms)[:8]


def utc_text(at_ms: int) -> str:
    """Write a time as ISO-8601 in UTC with milliseconds and a Z."""
    at = datetime.fromtimestamp(at_ms // 1000, timezone.utc)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"
