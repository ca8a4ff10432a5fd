"""What keeps the tables from being brought up to date does not keep messages from being landed."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import pytest
import requests

from benchmarks.kills import Load
from pipeline.clock import utc_now
from pipeline.options import run_options
from pipeline.run import run
from pipeline.stopping import request_stop
from tests.emulator_process import EmulatorProcess
from tests.job.commands import Job
from tests.job.oracle import archived_messages, expected_tables, tables_of
from tests.test_metrics import samples

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

THREE_DAYS = timedelta(days=3)
CANNOT_BE_READ = (
    r"the tables cannot be brought up to date, landing goes on: .*half\.parquet cannot be"
)


StartLoad: TypeAlias = Callable[[EmulatorProcess, Path], Load]


@pytest.fixture
def start_load() -> Iterator[StartLoad]:
    """Makes applications that send when they are told to."""
    with ExitStack() as started:

        def start(emulator: EmulatorProcess, send_log: Path) -> Load:
            load = Load(emulator.url, send_log, per_sec=100, seed=7)
            started.callback(load.stop)
            return load

        yield start


def until(condition: Callable[[], bool]) -> None:
    """Look again and again until something is so."""
    deadline, pause = time.monotonic() + 40, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.1)


def test_what_stops_the_tables_does_not_stop_the_landing(
    start_emulator: Callable[..., EmulatorProcess], start_load: StartLoad, tmp_path: Path
) -> None:
    job = Job(start_emulator(), tmp_path)
    job.send_log.mkdir()
    load = start_load(job.emulator, job.send_log / "sends.jsonl")
    half_copied = job.send_log / "half.parquet"

    def has_landed() -> bool:
        return job.archive.is_dir() and len(archived_messages(job.archive)) >= load.reports

    with job.follow("--epoch_secs=1") as following:
        load.send(20)
        following.wait_for(r"epoch: [1-9]\d* messages")
        half_copied.write_bytes(b"PAR1")
        following.wait_for(rf"status: TROUBLE: {CANNOT_BE_READ}")
        load.send(20)
        until(has_landed)
        stopped = following.stop()

    assert stopped.exit_code == 2, stopped.err
    assert stopped.counts["pending after"] >= 20
    assert re.match(
        r"sms-receipts run: .*half\.parquet cannot be read", stopped.err.splitlines()[-1]
    )

    # A restart is no remedy, and no obstacle.
    with job.follow("--epoch_secs=1", "--metrics_port=0") as following:
        url = following.wait_for(r"metrics: (http://\S+)")[1]
        following.wait_for(rf"status: TROUBLE: .*{CANNOT_BE_READ}")
        before = samples(requests.get(url, timeout=10).text)
        load.send(20)
        until(has_landed)
        metrics = samples(requests.get(url, timeout=10).text)
        age = "oldest_unprocessed_message_age_seconds"
        assert 0 < before[age] < metrics[age]
        assert metrics["processing_failed"] == 1
        assert metrics["messages_unprocessed"] >= 20
        half_copied.unlink()
        following.wait_for("status: ok")
        assert samples(requests.get(url, timeout=10).text)["processing_failed"] == 0
        healed = following.stop()

    assert healed.exit_code == 0, healed.err
    assert "The ledger is closed" in healed.out
    assert "Traceback" not in healed.err
    assert tables_of(job.dataset) == expected_tables(
        job.archive, [job.send_log / "sends.jsonl"], job.as_of(), THREE_DAYS
    )


def test_a_dataset_that_never_had_a_commit_is_not_waited_for(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> None:
    job = Job(start_emulator("--traffic=20"), tmp_path)
    job.send_log.mkdir()
    (job.send_log / "half.parquet").write_bytes(b"PAR1")

    with job.follow("--epoch_secs=1") as following:
        _, err = following.process.communicate(timeout=40)

    assert following.process.returncode == 2
    assert re.match(r"sms-receipts run: .*half\.parquet cannot be read", err.splitlines()[-1])
    assert not job.archive.exists()


_ahead = [timedelta()]


def now() -> datetime:
    return utc_now() + _ahead[0]


def test_what_landed_days_ago_is_processed_when_processing_works_again(
    start_emulator: Callable[..., EmulatorProcess],
    start_load: StartLoad,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    emulator = start_emulator()
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", emulator.key_id)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", emulator.key_secret)
    monkeypatch.setattr(f"{__name__}._ahead", [timedelta()])
    load = start_load(emulator, tmp_path / "sends.jsonl")
    flags = [
        f"--mns_queues={emulator.report_queue}",
        f"--mns_endpoint={emulator.url}",
        f"--dybaseapi_endpoint={emulator.url}",
        "--mns_wait_secs=1",
        f"--archive={tmp_path}/archive",
        f"--dataset={tmp_path}/dataset",
    ]
    load.send(20)
    run(run_options(["--until-empty", *flags]), now, lambda _: None)
    (table,) = tmp_path.glob("dataset/enriched_reports/*/*.parquet")
    whole = table.read_bytes()
    table.write_bytes(b"damaged")
    before = load.reports
    load.send(20)
    said: list[str] = []

    def a_day_passes(line: str) -> None:
        """At every status line, be it of a failure or of its round: two failures in four days."""
        said.append(line)
        if "status: ok" in line:
            request_stop()
        elif "status: TROUBLE" in line:
            _ahead[0] += timedelta(days=1)
            requests.post(
                f"{emulator.url}/emulator/clock", json={"advance_secs": 86_400}, timeout=10
            )
            if sum("status: TROUBLE" in earlier for earlier in said) == 4:
                table.write_bytes(whole)

    counts = run(run_options(["--follow", "--epoch_secs=1", *flags]), now, a_day_passes)

    assert (counts.failure, counts.pending_after) == (None, 0), said
    assert counts.processed["messages"] == load.reports - before
