"""``sms-receipts stream`` as an operator runs it: a real process, its queues, and its directories."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from typing_extensions import Self

from tests.emulator_process import EmulatorProcess
from tests.engines.flink_cluster import wait_until

ROOT: Final = Path(__file__).parents[2]
_STOP_SECS: Final = 90.0


@dataclass(frozen=True)
class Stream:
    """The streaming job of one test: its queues, and its directories below ``root``."""

    emulator: EmulatorProcess
    root: Path
    flags: Sequence[str] = field(default_factory=list)
    # Of Pub/Sub, in place of files.
    subscriptions: Sequence[str] = ()

    @property
    def archive(self) -> Path:
        return self.root / "archive"

    @property
    def parquet(self) -> Path:
        return self.root / "parquet"

    @property
    def avro(self) -> Path:
        return self.root / "avro"

    @property
    def send_log(self) -> Path:
        return self.root / "sends.jsonl"

    def start(self, *flags: str) -> "Streaming":
        """Start it; later flags win."""
        emulator = self.emulator
        command = [
            *(sys.executable, "-m", "pipeline", "stream"),
            f"--mns_queues={emulator.report_queue},{emulator.reply_queue}",
            f"--mns_endpoint={emulator.url}",
            f"--dybaseapi_endpoint={emulator.url}",
            # Leases that a killed worker leaves behind run out soon.
            *("--mns_visibility_timeout_secs=10", "--mns_renewal_margin_secs=4"),
            *(
                "--mns_max_bundle_secs=0.5",
                "--mns_fetchers=1",
                "--mns_wait_secs=1",
                "--poll_secs=0.2",
            ),
            f"--archive={self.archive}",
            *self._send_log_flags(),
            *(f"--parquet_sink={self.parquet}", "--file_sink_secs=1", "--join_buckets=8"),
            *self.flags,
            *flags,
        ]
        log = self.root / f"stream-{time.monotonic_ns()}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(  # noqa: S603 (our own command)
                command,
                cwd=self.root,
                env={**os.environ, **environment(emulator)},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        return Streaming(process, log)

    def _send_log_flags(self) -> list[str]:
        subscriptions = [f"--send_log_subscription={each}" for each in self.subscriptions]
        return subscriptions or [f"--send_log={self.send_log}"]

    def waiting(self) -> int:
        """How many messages are on the queues, hidden ones included."""
        with urllib.request.urlopen(f"{self.emulator.url}/emulator") as answer:  # noqa: S310 (our own)
            queues = json.load(answer)["queues"]
        names = (self.emulator.report_queue, self.emulator.reply_queue)
        return sum(sum(queues[name].values()) for name in names)


class Streaming:
    """A streaming command that runs; a context manager that leaves no process behind."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The engine that it has started is in its group.
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def said(self) -> str:
        """All that it has printed so far."""
        return self._log.read_text()

    def wait_for(self, pattern: str, secs: float = 60.0) -> re.Match[str]:
        """Wait for a line that matches."""
        found: list[re.Match[str]] = []

        def is_said() -> bool:
            found.extend(re.finditer(pattern, self.said))
            if not found and self.process.poll() is not None:
                raise RuntimeError(f"the stream has ended ({self.process.returncode}): {self.said}")
            return bool(found)

        wait_until(is_said, secs, f"{pattern!r} in {self._log}")
        return found[0]

    def stop(self) -> str:
        """Send SIGTERM, wait for a clean end, and return what it has printed."""
        self.process.send_signal(signal.SIGTERM)
        return self._ended()

    def interrupt(self) -> str:
        """The same by Ctrl-C, which a terminal sends to everything that the command has started, too."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self._ended()

    def _ended(self) -> str:
        code = self.process.wait(_STOP_SECS)
        assert code == 0, self.said
        return self.said


def environment(emulator: EmulatorProcess) -> dict[str, str]:
    """What commands and workers need to find the code and the account's keys."""
    return {
        "PYTHONPATH": str(ROOT),
        "ALIBABA_CLOUD_ACCESS_KEY_ID": emulator.key_id,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": emulator.key_secret,
        "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true",
    }
