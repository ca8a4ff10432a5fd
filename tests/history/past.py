"""A past that the queues have forgotten, and Alibaba has not: an emulator, its send log, and a job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import requests

from pipeline.audit import Audit, audit
from pipeline.clock import utc_now
from pipeline.options_reconcile import ReconcileOptions, audit_options, reconcile_options
from pipeline.reconcile import Reconciled, reconcile
from tests.emulator_process import EmulatorProcess
from tests.job.commands import Following
from tests.job.oracle import Tables, tables_of
from transforms.archive import list_archive
from transforms.decode_query import QUERY_MESSAGE_TYPE
from transforms.moments import BEIJING

# Two days of SMS whose reports never come to a queue. Of this seed's sends none is missing in the send log.
SMS, DELIVERED, FAILED, AWAITING = 60, 41, 12, 7
FLAGS = (
    "--seed=5",
    f"--traffic={SMS}",
    "--traffic_days=2",
    "--carrier_lost_rate=1",
    "--carrier_silent_rate=0.1",
    "--carrier_failure_rate=0.2",
)


_SECS = 50.0


def wait_until(is_so: Callable[[], object]) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + _SECS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Past:
    """An emulator that has sent all these SMS; ``send_log`` is the directory where they are logged."""

    def __init__(self, emulator: EmulatorProcess, send_log: Path) -> None:
        self.emulator = emulator
        self.send_log = send_log

    def set_rules(self, *rules: dict[str, Any]) -> None:
        """Disturb the SMS API by these rules; count its calls from now on."""
        counting = {"fault": "slow", "share": 0}
        plan = {"rules": [{"operations": ["rpc"], **rule} for rule in (counting, *rules)]}
        answer = requests.put(f"{self.emulator.url}/emulator/faults", json=plan, timeout=10)
        assert answer.status_code == 200, answer.text

    def calls(self) -> int:
        """How often the SMS API was called since then."""
        told = requests.get(f"{self.emulator.url}/emulator/faults", timeout=10).json()
        return int(told["counts"][0]["matched"])

    def end_rules(self) -> None:
        requests.delete(f"{self.emulator.url}/emulator/faults", timeout=10)


class History:
    """A job below ``root`` whose queues are empty for ever, and what it has said."""

    def __init__(self, past: Past, root: Path) -> None:
        self.past = past
        self.archive, self.dataset, self.own_log = root / "archive", root / "dataset", root / "log"
        self.own_log.mkdir()
        for file in past.send_log.iterdir():
            (self.own_log / file.name).write_bytes(file.read_bytes())
        self.said: list[str] = []

    def log(self, biz_id: str, phone_number: str, requested_at: datetime) -> None:
        """Log a send that Alibaba never saw."""
        entry = {
            "biz_id": biz_id,
            "phone_number": phone_number,
            "requested_at": requested_at.isoformat(),
        }
        with (self.own_log / "own.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")

    def options(self, *flags: str) -> ReconcileOptions:
        return reconcile_options([*self._flags(), *flags])

    def reconcile(self, *flags: str) -> Reconciled:
        return reconcile(self.options(*flags), utc_now, self.said.append)

    def follow(self, *flags: str, until: Callable[[Sequence[str]], bool]) -> Reconciled:
        """``--follow`` until something was said, then SIGTERM."""

        def say(line: str) -> None:
            self.said.append(line)
            if until(self.said):
                os.kill(os.getpid(), signal.SIGTERM)

        options = self.options("--follow", "--every_secs=0.2", *flags)
        return reconcile(options, utc_now, say)

    def audit(self, *flags: str) -> Audit:
        today = utc_now().astimezone(BEIJING).date()
        return audit(
            audit_options(
                [
                    f"--from={today - timedelta(days=3)}",
                    f"--to={today}",
                    f"--dataset={self.dataset}",
                    f"--dysmsapi_endpoint={self.past.emulator.url}",
                    *flags,
                ]
            ),
            utc_now,
        )

    def archived_answers(self) -> int:
        """How many answers the archive has, by the names of its files."""
        files = list_archive(str(self.archive))
        return sum(file.messages for file in files if file.queue_name == QUERY_MESSAGE_TYPE)

    def tables(self) -> Tables:
        return tables_of(self.dataset)

    def start(self, *flags: str) -> Following:
        """Start ``sms-receipts reconcile`` as a process of its own."""
        return Following(
            subprocess.Popen(  # noqa: S603 (our own command)
                [sys.executable, "-m", "pipeline", "reconcile", *self._flags(), *flags],
                cwd=Path(__file__).parents[2],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    def _flags(self) -> list[str]:
        return [
            "--qps=1000",
            "--after_secs=0",
            f"--archive={self.archive}",
            f"--dataset={self.dataset}",
            f"--send_log={self.own_log}",
            f"--dysmsapi_endpoint={self.past.emulator.url}",
        ]
