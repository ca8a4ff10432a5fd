"""A streaming job that runs, and what it and everybody around it use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import measure
from benchmarks.emulator_process import EmulatorProcess
from benchmarks.streaming.engines import Engine
from tests.engines.streams import Streaming

ROOT: Final = Path(__file__).parents[2]
QUEUES: Final = tuple(
    f"Alicom-Queue-1000000000000001-{message_type}" for message_type in ("SmsReport", "SmsUp")
)
ENVIRONMENT: Final[Mapping[str, str]] = {
    "PYTHONPATH": str(ROOT),
    "ALIBABA_CLOUD_ACCESS_KEY_ID": "emulator-key-id",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "emulator-key-secret",
    "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true",
}
_LOOK_SECS: Final = 0.25


@dataclass(frozen=True)
class Place:
    """The directories of one job, below ``root``."""

    root: Path

    def __post_init__(self) -> None:
        """Make what the job expects to be there."""
        self.send_log.mkdir(parents=True)

    @property
    def archive(self) -> Path:
        """Raw messages."""
        return self.root / "archive"

    @property
    def parquet(self) -> Path:
        """Rows, if they go to files."""
        return self.root / "parquet"

    @property
    def send_log(self) -> Path:
        """Directory of .jsonl files."""
        return self.root / "send_log"


def stream_command(engine: Engine, endpoint: str, place: Place, flags: Sequence[str]) -> list[str]:
    """``sms-receipts stream`` with its defaults, but for ``flags``."""
    return [
        *(sys.executable, "-m", "pipeline", "stream"),
        f"--mns_queues={','.join(QUEUES)}",
        f"--mns_endpoint={endpoint}",
        f"--dybaseapi_endpoint={endpoint}",
        f"--archive={place.archive}",
        f"--send_log={place.send_log}/*.jsonl",
        *engine.flags,
        *flags,
    ]


@contextmanager
def running(command: Sequence[str], place: Place) -> Iterator[Streaming]:
    """Run a command that leads a group of its own; what it says goes to a file."""
    log = place.root / "job.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own commands
            command,
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    with Streaming(process, log) as streaming:
        yield streaming


class Cpu(NamedTuple):
    """CPU seconds so far."""

    worker: float
    engine: float
    """Everything else that we have started: Prism, or Java and the command that submits and follows."""
    emulator: float

    def since(self, before: Cpu) -> Cpu:
        """What was used since another moment."""
        return Cpu(*(max(0.0, now - then) for now, then in zip(self, before, strict=True)))


def cpu_now(workers: Sequence[int], emulator: EmulatorProcess) -> Cpu:
    """Ask the kernel; a process that has ended meanwhile counts no more."""
    tree = {pid: _cpu(pid) for pid in measure.process_tree(os.getpid())[1:]}
    worker = sum(tree.get(pid, 0.0) for pid in workers)
    emulators = tree.get(emulator.pid, 0.0)
    return Cpu(worker, sum(tree.values()) - worker - emulators, emulators)


def _cpu(pid: int) -> float:
    try:
        return measure.cpu_of(pid)
    except OSError:
        return 0.0


def peak_mb(pids: Sequence[int]) -> float:
    """The most resident memory that one of these processes ever had."""
    return max((measure.memory_kb(pid).get("VmHWM", 0) / 1024 for pid in pids), default=0.0)


def ask(endpoint: str, path: str = "") -> Any:
    """Ask the emulator about itself."""
    with urllib.request.urlopen(f"{endpoint}/emulator{path}", timeout=60) as answer:  # noqa: S310
        return json.load(answer)


def waiting(endpoint: str) -> int:
    """How many messages are on the queues, hidden ones included."""
    return sum(sum(depths.values()) for depths in ask(endpoint)["queues"].values())


def waiting_ids(endpoint: str) -> frozenset[str]:
    """The ids of the messages that are on the queues, hidden or not."""
    states = [ask(endpoint, f"/queues/{name}") for name in QUEUES]
    return frozenset(each for state in states for ids in state.values() for each in ids)


def progressing_until(
    is_done: Callable[[], bool], progress: Callable[[], int], secs: float
) -> bool:
    """Look until something is done; give up when nothing has moved for so many seconds."""
    last, moved_at = progress(), time.monotonic()
    while not is_done():
        time.sleep(_LOOK_SECS)
        now = progress()
        if now != last:
            last, moved_at = now, time.monotonic()
        elif time.monotonic() - moved_at > secs:
            return False
    return True
