"""Following the queues: live traffic, a growing send log, and a stop in good order."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from benchmarks.kills import Load
from pipeline.clock import utc_now
from pipeline.options import run_options
from pipeline.run import run
from tests.emulator_process import EmulatorProcess
from tests.job.commands import Job
from tests.job.oracle import archived_messages, expected_tables, tables_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

THREE_DAYS = timedelta(days=3)


def test_live_traffic_is_followed_until_sigterm(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> None:
    job = Job(start_emulator(), tmp_path)
    job.send_log.mkdir()
    load = Load(job.emulator.url, job.send_log / "sends.jsonl", per_sec=100, seed=7)
    with job.follow("--epoch_secs=1") as following:
        following.wait_for("queues: reading")
        load.send(200)
        following.wait_for(r"epoch: .* [1-9]\d* matched")
        # Reports and log lines of later sends are met by later epochs.
        load.send(200)
        following.wait_for(r"epoch: .* [1-9]\d* matched")
        load.start()
        following.wait_for(r"epoch: .* [1-9]\d* matched")
        stopped = following.stop()
    load.stop()

    assert stopped.exit_code == 0, stopped.err
    assert "The ledger is closed" in stopped.out
    assert "Traceback" not in stopped.err
    counts = stopped.counts
    assert counts["received"] == counts["archived"] + counts.get("released", 0)
    assert counts["archived"] == counts["acknowledged"] == len(archived_messages(job.archive))

    drained = job.run()

    assert drained.exit_code == 0, drained.err
    assert len(archived_messages(job.archive)) == load.reports
    tables = tables_of(job.dataset)
    assert tables == expected_tables(job.archive, job.send_log_files, job.as_of(), THREE_DAYS)
    found = {(row["event_id"], row["err_code"]) for row in tables.enriched.values()}
    assert found == load.outcomes
    assert (tables.open_sends, tables.waiting) == ({}, {})


def test_a_stop_while_nothing_happens_is_a_stop(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> None:
    job = Job(start_emulator(), tmp_path)
    job.send_log.mkdir()
    with job.follow("--epoch_secs=30") as following:
        following.wait_for("queues: reading")
        stopped = following.stop()

    assert stopped.exit_code == 0, stopped.err
    assert re.search("The ledger is closed: 0 messages", stopped.out)


def test_an_outage_is_told_and_waited_out(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> None:
    emulator = start_emulator("--traffic=10")
    job = Job(emulator, tmp_path)
    job.send_log.mkdir()
    with job.follow("--epoch_secs=1") as following:
        following.wait_for(r"epoch: [1-9]\d* messages")
        emulator.stop()
        following.wait_for("Nobody answers at .*; trying again")
        stopped = following.stop()
    assert stopped.exit_code == 0, stopped.err
    assert "The ledger is closed" in stopped.out


_ahead = [timedelta()]


def now() -> datetime:
    return utc_now() + _ahead[0]


def test_a_long_drain_tells_its_status_every_minute(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = start_emulator("--traffic=30", "--carrier_reply_rate=0")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", emulator.key_id)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", emulator.key_secret)
    monkeypatch.setattr(f"{__name__}._ahead", [timedelta()])
    flags = [
        f"--mns_queues={emulator.report_queue}",
        f"--mns_endpoint={emulator.url}",
        f"--dybaseapi_endpoint={emulator.url}",
        "--mns_visibility_timeout_secs=600",
        f"--archive={tmp_path}/archive",
        f"--dataset={tmp_path}/dataset",
    ]
    said: list[str] = []

    def a_minute_passes(line: str) -> None:
        """At the first line of progress."""
        said.append(line)
        if sum("received, " in earlier for earlier in said) == 1:
            _ahead[0] += timedelta(minutes=1)

    run(run_options(["--until-empty", *flags]), now, a_minute_passes)

    (status,) = [line for line in said if line.startswith("status: ")]
    received = len(archived_messages(tmp_path / "archive"))
    assert status.startswith(f"status: ok | queues: {received} received, ")
    assert said.index(status) < len(said) - 1, "before its epoch"
