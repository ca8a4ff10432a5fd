"""SIGTERM ends the job within 30 s whatever it is at, and the next start goes on where it was."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import requests

from pipeline.catalog import Catalog
from pipeline.clock import utc_now
from pipeline.options import run_options
from pipeline.run import run
from pipeline.summary import require_closed_ledger
from tests.emulator_process import EmulatorProcess
from tests.job.commands import Following, Job
from tests.job.hanging_disk import HANGS, hanging_at
from tests.job.oracle import archived_messages, expected_tables, tables_of
from tests.job.small_job import NOON, report
from tests.job.test_compaction import commit_rows
from transforms.archive import write_archive_file

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

THREE_DAYS = timedelta(days=3)
BACKLOG, SMALL_FILES = 20, 16
# So long a stop waits, for the queues and for what is processed.
STOP = "--mns_stop_secs=1"


@contextmanager
def in_an_epoch(job: Job) -> Iterator[Following]:
    """What an earlier run has archived takes longer than anybody waits."""
    with hanging(job, attempt=1).follow(STOP) as following:
        following.wait_for(HANGS)
        yield following


@contextmanager
def in_a_compaction(job: Job) -> Iterator[Following]:
    """The epoch is committed; to merge its small files takes longer than anybody waits."""
    with Catalog(str(job.dataset), utc_now) as catalog:
        for number in range(SMALL_FILES):
            commit_rows(catalog, f"epoch{number}", 1)
    with hanging(job, attempt=2).follow(STOP) as following:
        following.wait_for(f"epoch: {BACKLOG} messages")
        following.wait_for(HANGS)
        yield following


@contextmanager
def without_tokens(job: Job) -> Iterator[Following]:
    """The token service is down, and the tokens at hand have ended."""
    faults = f"{job.emulator.url}/emulator/faults"
    down = {"seed": "stop", "rules": [{"fault": "unavailable", "operations": ["token"]}]}
    with job.follow("--epoch_secs=1", STOP) as following:
        following.wait_for("queues: reading")
        following.wait_for(r"epoch: [1-9]\d* messages")
        requests.put(faults, json=down, timeout=10).raise_for_status()
        following.wait_for("WARNING .*trying again")
        yield following
    requests.delete(faults, timeout=10).raise_for_status()


def hanging(job: Job, attempt: int) -> Job:
    directory = job.root / "site"
    directory.mkdir()
    return replace(job, environment=hanging_at(attempt, directory))


@pytest.mark.parametrize(
    ("state", "last_words"),
    [
        (in_an_epoch, f"given up to stop in time; {BACKLOG} archived messages and new sends are left"),
        (in_a_compaction, "given up to stop in time; 0 archived messages are left"),
        (without_tokens, "stopping: what was received is archived"),
    ],
)  # fmt: skip
def test_a_stop_takes_less_than_half_a_minute_and_costs_nothing(
    state: Callable[[Job], AbstractContextManager[Following]],
    last_words: str,
    start_emulator: Callable[..., EmulatorProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    emulator = start_emulator(
        "--traffic=60",
        "--carrier_reply_rate=0",
        "--token_lifetime_secs=4",
        f"--traffic_send_log={tmp_path / 'send_log'}",
    )
    job = Job(emulator, tmp_path)
    backlog = [report(f"{number}^0") for number in range(BACKLOG)]
    write_archive_file(str(job.archive), backlog, NOON)

    with state(job) as following:
        stopped = following.stop()

    assert stopped.exit_code == 0, stopped.err
    assert last_words in stopped.err
    assert "Traceback" not in stopped.err
    assert "The ledger is closed" in stopped.out

    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", emulator.key_id)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", emulator.key_secret)
    restarted = run(run_options(["--until-empty", *job.run_flags()]), utc_now, lambda _: None)

    assert "The ledger is closed" in require_closed_ledger(restarted)
    told = requests.get(f"{emulator.url}/emulator", timeout=10).json()
    assert [sum(depths.values()) for depths in told["queues"].values()] == [0, 0]
    assert len(archived_messages(job.archive)) == sum(told["delivered"].values()) + BACKLOG
    tables = tables_of(job.dataset)
    assert len(tables.inbound) == (SMALL_FILES if state is in_a_compaction else 0)
    assert replace(tables, inbound={}) == expected_tables(
        job.archive, job.send_log_files, job.as_of(), THREE_DAYS
    )
    assert list(Path(job.dataset, "_staging").iterdir()) == []
