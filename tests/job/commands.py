"""The command line as an operator uses it: real processes against a real emulator."""

import os
import re
import resource
import selectors
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from typing_extensions import Self

from tests.emulator_process import EmulatorProcess

_ROOT = Path(__file__).parents[2]
_SECS = 50.0
# What is promised of SIGTERM, whatever the job is at.
_STOP_SECS = 30.0
# An empty queue is found out sooner than in production, and archive files close sooner.
_QUICK = ("--mns_max_bundle_secs=0.5", "--mns_fetchers=2", "--mns_wait_secs=1")


class Ended(NamedTuple):
    """A command that has ended."""

    exit_code: int
    out: str
    err: str

    @property
    def counts(self) -> dict[str, int]:
        """The lines of the summary, by name; of a name that comes twice, the first."""
        lines = re.findall(
            r"^( {0,2}\S.{17,19}?)\s*([\d,]{1,12})(?:  .*)?$", self.out, re.MULTILINE
        )
        counts: dict[str, int] = {}
        for name, number in lines:
            counts.setdefault(name.strip(), int(number.replace(",", "")))
        return counts

    @property
    def sentence(self) -> str:
        """The last line on stderr; everything before it is progress."""
        *progress, sentence = self.err.splitlines()
        for line in progress:
            assert re.match(
                r"[-\d]{10}T[:\d]{8}Z (queues|archive|epoch|backfill|metrics|status): ", line
            ), line
        return sentence


@dataclass(frozen=True)
class Job:
    """The main job of one test: its queues, and its directories below ``root``."""

    emulator: EmulatorProcess
    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def archive(self) -> Path:
        return self.root / "archive"

    @property
    def dataset(self) -> Path:
        return self.root / "dataset"

    @property
    def send_log(self) -> Path:
        return self.root / "send_log"

    @property
    def send_log_files(self) -> list[Path]:
        return sorted(self.send_log.iterdir())

    def run(self, *flags: str, limit_bytes: int | None = None) -> Ended:
        """``run --until-empty``; later flags win over those that every run has."""
        return self.command("run", "--until-empty", *self.run_flags(), *flags, limit=limit_bytes)

    def backfill(self, *flags: str, limit_bytes: int | None = None) -> Ended:
        """``backfill``."""
        return self.command("backfill", *self._job_flags(), *flags, limit=limit_bytes)

    def follow(self, *flags: str) -> "Following":
        """Start ``run --follow``."""
        return Following(self._start("run", "--follow", *self.run_flags(), *flags))

    def command(self, *arguments: str, limit: int | None = None) -> Ended:
        """Run a command to its end; no file may grow beyond ``limit`` bytes, as on a full disk."""
        process = self._start(*arguments, limit=limit)
        try:
            out, err = process.communicate(timeout=_SECS)
        finally:
            process.kill()
            process.communicate()
        return Ended(process.returncode, out, err)

    def as_of(self) -> datetime:
        """The moment against which the last epoch measured patience."""
        catalog = sqlite3.connect(f"file:{self.dataset}/catalog.sqlite?mode=ro", uri=True)
        with closing(catalog):
            (as_of_ms,) = catalog.execute(
                "SELECT as_of_ms FROM epochs ORDER BY epoch DESC LIMIT 1"
            ).fetchone()
        return datetime.fromtimestamp(as_of_ms / 1000, timezone.utc)

    def run_flags(self) -> Sequence[str]:
        """The flags that every ``run`` has."""
        emulator = self.emulator
        return (
            f"--mns_queues={emulator.report_queue},{emulator.reply_queue}",
            f"--mns_endpoint={emulator.url}",
            f"--dybaseapi_endpoint={emulator.url}",
            *_QUICK,
            *self._job_flags(),
        )

    def _job_flags(self) -> Sequence[str]:
        return (
            f"--archive={self.archive}",
            f"--dataset={self.dataset}",
            f"--send_log={self.send_log}",
        )

    def _start(self, *arguments: str, limit: int | None = None) -> subprocess.Popen[str]:
        keys = {
            "ALIBABA_CLOUD_ACCESS_KEY_ID": self.emulator.key_id,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": self.emulator.key_secret,
            "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true",
        }
        return subprocess.Popen(  # noqa: S603 (our own command)
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(_ROOT), **keys, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_limiting(limit) if limit is not None else None,  # noqa: PLW1509 (no threads)
        )


def _limiting(limit: int) -> Callable[[], None]:
    def limit_files() -> None:
        # Without the signal, a write beyond the limit fails with EFBIG.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return limit_files


class Following:
    """A job that follows its queues; a context manager that leaves no process behind."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._shown = ""
        self._seen = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read on until a line that was not waited for before matches."""
        assert self.process.stderr is not None
        descriptor = self.process.stderr.fileno()
        deadline = time.monotonic() + _SECS
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while True:
                whole_lines = self._shown[: self._shown.rfind("\n") + 1]
                if match := re.compile(pattern).search(whole_lines, self._seen):
                    self._seen = match.end()
                    return match
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError(f"no line matched {pattern!r}: {self._shown}")
                text = os.read(descriptor, 65_536).decode()
                if not text:
                    raise RuntimeError(f"the job has ended: {self._shown}")
                self._shown += text

    def stop(self) -> Ended:
        """Send SIGTERM and wait for the end, no longer than is promised."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=_STOP_SECS)
        return Ended(self.process.returncode, out, self._shown + err)
