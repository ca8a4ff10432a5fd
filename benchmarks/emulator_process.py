"""The emulator as a process of its own, for as long as a benchmark needs it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

_ROOT: Final = Path(__file__).parents[1]


class EmulatorProcess(NamedTuple):
    """A running emulator: its process id, and its address as a URL."""

    pid: int
    endpoint: str


@contextmanager
def emulator_process(*flags: str) -> Iterator[EmulatorProcess]:
    """Start an emulator on a free port with these flags, and stop it at the end."""
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "emulator", "--port=0", *flags],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        ready = process.stdout.readline()
        address = re.search(r"http://\S+", ready)
        if address is None:
            raise RuntimeError(f"the emulator did not start: {ready!r}")
        yield EmulatorProcess(process.pid, address.group())
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
