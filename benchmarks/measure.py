"""Run a command as a process of its own and account for everything that it and its children use."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

_SAMPLE_SECS: Final = 0.05
_ORPHANS_END_SECS: Final = 20.0
_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h


class Usage(NamedTuple):
    """What one run used. Memory is resident memory, sampled from Linux's ``/proc``.

    On macOS both peaks are that of the largest ended process.
    """

    cpu_secs: float  # user and system, of the process and all that it started
    wall_secs: float
    peak_process_mb: float  # the largest single process
    peak_tree_mb: float  # the most at one time, all processes together (shared pages count twice)


class FailedRunError(RuntimeError):
    """Raised when the command did not end with exit code 0."""


def run(command: Sequence[str], log: Path, *, except_child: int | None = None) -> Usage:
    """Run ``command`` to its end.

    Args:
        command: The program and its arguments.
        log: File for what it prints.
        except_child: Process id of a child of ours that is none of the command's business.

    Raises:
        FailedRunError: the command failed; the text holds the end of its log.
    """
    _adopt_orphans()
    with log.open("wb") as output:
        start = time.monotonic()
        process = subprocess.Popen(  # noqa: S603 - our own commands
            command, stdout=output, stderr=subprocess.STDOUT
        )
        memory = _MemorySampler(process.pid)
        memory.start()
        _, status, used = os.wait4(process.pid, 0)
        wall_secs = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu_secs = used.ru_utime + used.ru_stime + _reap_orphans(except_child)
        memory.stop()
    if process.returncode:
        tail = log.read_text("utf-8", "replace")[-3000:]
        raise FailedRunError(f"{' '.join(command)} ended with {process.returncode}:\n{tail}")
    largest_mb = used.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
    return Usage(cpu_secs, wall_secs, max(largest_mb, memory.peak_process_mb), memory.peak_tree_mb)


def cpu_of(pid: int) -> float:
    """CPU seconds that a running process has used so far, its ended children included (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def _adopt_orphans() -> None:
    """Have workers that outlive their parent handed to us, so that their CPU is counted."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap_orphans(except_child: int | None) -> float:
    """Wait for adopted processes to end; returns their CPU seconds."""
    cpu_secs = 0.0
    deadline = time.monotonic() + _ORPHANS_END_SECS
    while orphans := [pid for pid in _children(os.getpid()) if pid != except_child]:
        if time.monotonic() > deadline:
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
        for pid in orphans:
            ended, _, used = os.wait4(pid, os.WNOHANG)
            if ended:
                cpu_secs += used.ru_utime + used.ru_stime
        time.sleep(0.01)
    return cpu_secs


class _MemorySampler(threading.Thread):
    """Watches the resident memory of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._ended = threading.Event()
        self._peak_mb: dict[int, float] = {}
        self.peak_tree_mb = 0.0

    @property
    def peak_process_mb(self) -> float:
        return max(self._peak_mb.values(), default=0.0)

    def run(self) -> None:
        while not self._ended.wait(_SAMPLE_SECS):
            now_mb = 0.0
            for pid in process_tree(self._pid):
                sizes = memory_kb(pid)
                now_mb += sizes.get("VmRSS", 0) / 1024
                if peak_kb := sizes.get("VmHWM"):
                    # The last word counts: before its exec, a new process has its parent's peak.
                    self._peak_mb[pid] = peak_kb / 1024
            self.peak_tree_mb = max(self.peak_tree_mb, now_mb)

    def stop(self) -> None:
        self._ended.set()
        self.join()


def process_tree(pid: int) -> list[int]:
    """A process and its descendants (Linux)."""
    found = [pid]
    for parent in found:
        found.extend(_children(parent))
    return found


def _children(pid: int) -> list[int]:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        lists = [(thread / "children").read_text("ascii") for thread in threads]
    except OSError:  # it has ended, or this is not Linux
        return []
    return [int(child) for children in lists for child in children.split()]


def memory_kb(pid: int) -> dict[str, int]:
    """The kernel's own account of a process's memory, by its names (proc(5), status): ``VmRSS``, ``VmHWM``...

    Empty when the process has ended, or this is not Linux.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    sizes = (line.split() for line in lines if line.endswith(" kB"))
    return {name.removesuffix(":"): int(size) for name, size, _ in sizes}
