"""Killed again and again: is every report in the tables, and no report twice?

    python -m benchmarks.kills --kills 30

While an application sends SMS and the carrier reports them, some twice, some with another outcome later, the
job follows the queue and is killed with SIGKILL at random moments. At the end the queue is drained, and the
tables are compared with what was sent: the application keeps its own books. What is put on the queue goes
there by Alibaba's own client.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from hashlib import md5
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from mns.account import Account
from mns.queue import Message

from benchmarks.emulator_process import emulator_process

_ROOT: Final = Path(__file__).parents[1]
_QUEUE: Final = "Alicom-Queue-1000000000000001-SmsReport"
_BEIJING: Final = timezone(timedelta(hours=8))
# How often an SMS is delivered, a report comes twice, another outcome follows, a send is logged late.
_DELIVERED, _DUPLICATES, _CORRECTIONS, _LATE = 0.9, 0.15, 0.05, 0.05
# The resolution of enqueue times is a millisecond.
_ENQUEUE_CLOCK_SECS: Final = 0.002
_BATCH: Final = 16
# Leases that a killed job leaves behind run out soon enough to be met again.
_VISIBILITY_SECS: Final = 6
# When a job is killed, counted from its start: while it imports, at its first landing, amid later epochs.
_FIRST_SECS, _LAST_SECS = 1.0, 8.0
_ENVIRONMENT: Final = {
    **os.environ,
    "ALIBABA_CLOUD_ACCESS_KEY_ID": "emulator-key-id",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "emulator-key-secret",
}

Outcome: TypeAlias = tuple[str, str]
"""Event id and err_code."""


class KillFigures(NamedTuple):
    """What became of the reports; all but the first three must be 0."""

    kills: int
    reports: int
    """Put on the queue, repeats included."""
    outcomes: int
    """Distinct ones, which is what the tables must hold."""
    missing: int
    """Outcomes that are in no table."""
    doubled: int
    """Rows that repeat another one."""
    strange: int
    """Rows that nobody has reported."""
    outdated: int
    """SMS of which a reader sees another outcome than the last one reported."""
    unmatched: int
    """SMS that did not find their send."""

    @property
    def is_exact(self) -> bool:
        """Whether nothing is missing, doubled or wrong."""
        return not any(self[3:])


class Load(threading.Thread):
    """The application and its carrier: logs sends, puts reports on the queue, remembers both.

    Args:
        endpoint: of the emulator.
        send_log: the JSON lines file to append to.
        per_sec: SMS per second.
        seed: the same seed, the same SMS.
    """

    def __init__(self, endpoint: str, send_log: Path, per_sec: int, seed: int) -> None:
        super().__init__(name="load", daemon=True)
        self.reports = 0
        self.last_outcome: dict[str, str] = {}
        self.outcomes: set[Outcome] = set()
        self._send_log = send_log
        self._per_sec = per_sec
        self._random = random.Random(seed)  # noqa: S311 - a simulation
        self._stopping = threading.Event()
        account = Account(
            endpoint,
            _ENVIRONMENT["ALIBABA_CLOUD_ACCESS_KEY_ID"],
            _ENVIRONMENT["ALIBABA_CLOUD_ACCESS_KEY_SECRET"],
        )
        self._client = account.get_client()
        self._queue = account.get_queue(_QUEUE)
        self._sms = 0

    def run(self) -> None:
        """Send until told to stop, a tenth of a second's worth at a time."""
        while not self._stopping.wait(0.1):
            self.send(max(1, self._per_sec // 10))

    def stop(self) -> None:
        """Finish what was begun, then end; a load that was never started may be stopped, too."""
        self._stopping.set()
        if self.is_alive():
            self.join()
        self._client.close_connection()

    def send(self, count: int) -> None:
        """Send SMS, log them and have them reported."""
        draw = self._random.random
        bodies: list[str] = []
        corrections: list[str] = []
        on_time: list[str] = []
        late: list[str] = []
        for _ in range(count):
            self._sms += 1
            biz_id, phone = f"{900_000_000_000 + self._sms}^0", f"138{self._sms:08d}"
            line = _log_line(biz_id, phone)
            (late if draw() < _LATE else on_time).append(line)
            bodies += self._reports(
                biz_id, phone, "DELIVERED" if draw() < _DELIVERED else "EXPIRED"
            )
            if draw() < _CORRECTIONS:
                corrections += self._reports(biz_id, phone, "MK:0001")
        self._log(on_time)
        # A correction comes in a later call: messages of one call share their enqueue time.
        for part in (bodies, corrections):
            for start in range(0, len(part), _BATCH):
                messages = [Message(body) for body in part[start : start + _BATCH]]
                self._queue.batch_send_message(messages)
            self.reports += len(part)
            time.sleep(_ENQUEUE_CLOCK_SECS)
        self._log(late)

    def _reports(self, biz_id: str, phone: str, code: str) -> list[str]:
        event_id = md5(f"{biz_id}|{phone}".encode(), usedforsecurity=False).hexdigest()
        self.outcomes.add((event_id, code))
        self.last_outcome[event_id] = code
        return [_report(biz_id, phone, code)] * (2 if self._random.random() < _DUPLICATES else 1)

    def _log(self, lines: Sequence[str]) -> None:
        with self._send_log.open("a", encoding="utf-8") as log:
            log.write("".join(lines))


def _log_line(biz_id: str, phone: str) -> str:
    requested_at = datetime.now(timezone.utc).isoformat()
    entry = {"biz_id": biz_id, "phone_number": phone, "requested_at": requested_at}
    return json.dumps(entry) + "\n"


def _report(biz_id: str, phone: str, code: str) -> str:
    now = datetime.now(_BEIJING).strftime("%Y-%m-%d %H:%M:%S")
    fields = {
        "send_time": now,
        "report_time": now,
        "success": code == "DELIVERED",
        "err_code": code,
        "phone_number": phone,
        "sms_size": "1",
        "biz_id": biz_id,
    }
    return json.dumps(fields)


@dataclass(frozen=True)
class Place:
    """Where one benchmark works: its emulator, archive, dataset and send log."""

    endpoint: str
    root: Path

    @property
    def dataset(self) -> Path:
        """Root of the tables."""
        return self.root / "dataset"

    @property
    def send_log(self) -> Path:
        """The send log's only file."""
        return self.root / "sends.jsonl"

    def start_job(self, mode: str) -> subprocess.Popen[bytes]:
        """Start the job; its output goes to a file."""
        command = [
            *(sys.executable, "-m", "pipeline", "run", mode, "--epoch_secs=1"),
            *(f"--mns_queues={_QUEUE}", f"--mns_endpoint={self.endpoint}"),
            *(f"--dybaseapi_endpoint={self.endpoint}", f"--send_log={self.send_log}"),
            *(f"--archive={self.root / 'archive'}", f"--dataset={self.dataset}"),
            *("--mns_max_bundle_secs=0.5", f"--mns_visibility_timeout_secs={_VISIBILITY_SECS}"),
            *("--mns_renewal_margin_secs=2", "--mns_fetchers=2"),
        ]
        with (self.root / "job.log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own command
                command, cwd=_ROOT, env=_ENVIRONMENT, stdout=log, stderr=log
            )

    def drain(self) -> None:
        """Run the job until nothing is left, leases of killed jobs included."""
        while True:
            exit_code = self.start_job("--until-empty").wait()
            if exit_code:
                log = (self.root / "job.log").read_text("utf-8")
                raise RuntimeError(f"the job ended with exit code {exit_code}: {log[-2000:]}")
            with urllib.request.urlopen(f"{self.endpoint}/emulator") as answer:  # noqa: S310
                if not sum(json.load(answer)["queues"][_QUEUE].values()):
                    return


def kill_and_count(root: Path, kills: int, per_sec: int = 200, seed: int = 0) -> KillFigures:
    """Kill the job so many times under load, drain the queue, and compare.

    Args:
        root: an empty directory to work in.
        kills: how often.
        per_sec: SMS per second.
        seed: decides about the SMS and the moments; what the machine does in them, nobody decides.
    """
    moments = random.Random(f"{seed}/moments")  # noqa: S311 - a simulation
    with emulator_process(f"--visibility_timeout_secs={_VISIBILITY_SECS}") as (_, endpoint):
        place = Place(endpoint, root)
        place.send_log.touch()
        load = Load(endpoint, place.send_log, per_sec, seed)
        load.start()
        try:
            for number in range(kills):
                secs = moments.uniform(_FIRST_SECS, _LAST_SECS)
                _kill_after(place.start_job("--follow"), secs)
                print(f"  kill {number + 1}/{kills} after {secs:.1f} s", flush=True)
        finally:
            load.stop()
        place.drain()
    return _figures(kills, load, place.dataset)


def _kill_after(job: subprocess.Popen[bytes], secs: float) -> None:
    try:
        exit_code = job.wait(secs)
    except subprocess.TimeoutExpired:
        job.send_signal(signal.SIGKILL)
        job.wait()
    else:
        raise RuntimeError(f"the job was not there to be killed: it ended with {exit_code}")


def _figures(kills: int, load: Load, dataset: Path) -> KillFigures:
    rows = _current_rows(dataset, "enriched_reports").to_pylist()
    found = {(row["event_id"], row["err_code"]) for row in rows}
    identities = Counter(
        (row["event_id"], row["message_id"], row["revision"], row["match"]) for row in rows
    )
    # As readers do: the highest revision counts.
    last = {
        row["event_id"]: row["err_code"] for row in sorted(rows, key=lambda row: row["revision"])
    }
    matched = {row["event_id"] for row in rows if row["match"] == "matched"}
    left = sum(
        _current_rows(dataset, table).num_rows for table in ("open_sends", "waiting_reports")
    )
    return KillFigures(
        kills=kills,
        reports=load.reports,
        outcomes=len(load.outcomes),
        missing=len(load.outcomes - found),
        doubled=sum(identities.values()) - len(identities),
        strange=len(found - load.outcomes),
        outdated=sum(last.get(event_id) != code for event_id, code in load.last_outcome.items()),
        unmatched=left + len(load.last_outcome.keys() - matched),
    )


def _current_rows(dataset: Path, table: str) -> pa.Table:
    catalog = sqlite3.connect(f"{(dataset / 'catalog.sqlite').as_uri()}?mode=ro", uri=True)
    with closing(catalog):
        paths = catalog.execute(
            "SELECT path FROM data_files WHERE table_name = ? AND removed_by IS NULL", (table,)
        ).fetchall()
    files = [pq.read_table(dataset / path, partitioning=None) for (path,) in paths]
    return pa.concat_tables(files) if files else pa.table({})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code, 1 when the tables are not exact."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--per_sec", type=int, default=200, help="SMS per second")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    started_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sms-receipts-kills-") as root:
        figures = kill_and_count(Path(root), arguments.kills, arguments.per_sec, arguments.seed)
    print(f"\n{figures.kills} kills in {time.monotonic() - started_at:.0f} s")
    for name, number in figures._asdict().items():
        print(f"  {name:<10}{number:>10,}")
    print("\nreached: nothing missing, nothing twice" if figures.is_exact else "\nMISSED")
    return 0 if figures.is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
