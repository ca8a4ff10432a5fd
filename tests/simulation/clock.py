"""A clock that emulator and job share: the machine's, plus what the test has let pass."""

from __future__ import annotations

import fcntl
import json
import mmap
import urllib.request
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Final

_BYTES: Final = 8


@dataclass(frozen=True)
class SharedClock:
    """Tells the time to every process that has the file; pickles.

    Attributes:
        path: holds how many milliseconds have been let pass.
        emulator: base URL of the emulator whose clock moves along.
    """

    path: str
    emulator: str

    def __call__(self) -> datetime:
        """The time, aware."""
        return datetime.now(timezone.utc) + timedelta(milliseconds=self._passed_ms())

    def advance(self, secs: float) -> None:
        """Let time pass at once, for everybody; of processes that do so at a time, one after the other."""
        with open(self.path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._advance(secs)

    def _advance(self, secs: float) -> None:
        body = json.dumps({"advance_secs": secs}).encode()
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.emulator}/emulator/clock", body, method="POST"
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            answer.read()
        # As the emulator counts, so that the two never drift apart.
        passed_ms = self._passed_ms() + int(secs * 1000)
        _mapped(self.path)[:_BYTES] = passed_ms.to_bytes(_BYTES, "little")

    def _passed_ms(self) -> int:
        return int.from_bytes(_mapped(self.path)[:_BYTES], "little")


def shared_clock(path: Path, emulator: str) -> SharedClock:
    """Make the file of a clock that shows the machine's time."""
    path.write_bytes(bytes(_BYTES))
    return SharedClock(str(path), emulator)


@cache
def _mapped(path: str) -> mmap.mmap:
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), _BYTES)
