"""The emulator as its own process, for tests: started on a free port, stopped with SIGTERM."""

from __future__ import annotations

import re
import selectors
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).parents[1]
_READY = re.compile(
    r"emulator ready: (?P<url>http://127\.0\.0\.1:(?P<port>\d+)) "
    r"\(account key (?P<key_id>\S+), queues (?P<report_queue>\S+), (?P<reply_queue>\S+)\)"
)
_START_SECS = 60.0


class EmulatorProcess(NamedTuple):
    """A running emulator; the account is the default one unless the flags said otherwise."""

    process: subprocess.Popen[str]
    url: str
    port: int
    key_id: str
    key_secret: str
    uid: str
    report_queue: str
    reply_queue: str

    def stop(self) -> int:
        """Send SIGTERM and return the exit code; stopping twice is fine."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=10)
        finally:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()


def start_emulator_process(*flags: str) -> EmulatorProcess:
    """Start ``python -m emulator`` on a free port and wait for its ready line."""
    command = [sys.executable, "-m", "emulator", "--port=0", *flags]
    process = subprocess.Popen(  # noqa: S603 (our own command)
        command, cwd=_ROOT, stdout=subprocess.PIPE, text=True
    )
    line = _first_line(process)
    ready = _READY.fullmatch(line.strip())
    if ready is None:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        raise RuntimeError(f"the emulator did not start; it printed {line!r}")
    return EmulatorProcess(
        process=process,
        url=ready["url"],
        port=int(ready["port"]),
        key_id=ready["key_id"],
        key_secret="emulator-key-secret",
        uid=ready["report_queue"].split("-")[2],
        report_queue=ready["report_queue"],
        reply_queue=ready["reply_queue"],
    )


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + _START_SECS
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(max(0.0, deadline - time.monotonic())):
            process.kill()
    return process.stdout.readline()
