"""Time as the emulator sees it: one object, so that a test can own it."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Final, NamedTuple

# Everything Alibaba prints for people is in Beijing time, without an offset.
BEIJING = timezone(timedelta(hours=8))
_BEIJING_OFFSET_SECS = 8 * 3600


class Clock:
    """The machine's clock, plus all the time by which it was ever advanced. It never goes back."""

    def __init__(self) -> None:
        """Begin with the machine's time."""
        self.advanced_ms = 0
        self._wakings: set[asyncio.Future[None]] = set()

    def now_ms(self) -> int:
        """Return the current time in milliseconds since the epoch."""
        return time.time_ns() // 1_000_000 + self.advanced_ms

    def advance(self, by_ms: int) -> None:
        """Let that much time pass at once, and wake everybody who waits."""
        self.advanced_ms += by_ms
        for waking in self._wakings:
            if not waking.done():
                waking.set_result(None)

    async def wait(self, signal: asyncio.Future[None], until_ms: int) -> None:
        """Return when ``signal`` is done, at ``until_ms``, or earlier if the clock is advanced."""
        advanced: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wakings.add(advanced)
        try:
            # 1 ms more than asked: a timer that fires early would only spin.
            await asyncio.wait(
                {signal, advanced},
                timeout=max(0, until_ms - self.now_ms() + 1) / 1000,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            self._wakings.discard(advanced)


class Skew(NamedTuple):
    """Why the server's idea of the time may differ from a client's, in milliseconds.

    An official client cannot be told that the emulator's clock was advanced: it goes on with the
    machine's, and that must not count against it.
    """

    advanced_ms: int = 0
    believed_ms: int = 0  # a fault: the server believes it to be so much later

    def lateness_ms(self, dated_ms: int, now_ms: int) -> int:
        """Return how much later than a request's date the server believes it to be."""
        late_ms = now_ms - dated_ms
        if self.advanced_ms:
            late_ms = min(late_ms, late_ms - self.advanced_ms, key=abs)
        return late_ms + self.believed_ms


NO_SKEW: Final = Skew()


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
