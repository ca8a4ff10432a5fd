"""What a stop leaves for the next start."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import pipeline.run
from pipeline.clock import utc_now
from pipeline.options import run_options
from pipeline.stopping import forget_stop, request_stop
from tests.emulator_process import EmulatorProcess
from tests.job.small_job import SmallJob, report

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _account(emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", emulator.key_id)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", emulator.key_secret)
    yield
    forget_stop()


def test_a_stop_does_not_begin_an_epoch_that_would_take_long(
    emulator: EmulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.run, "_WORTH_A_LINE", 1)
    job = SmallJob(tmp_path / "job")
    job.land(report("a"), report("b"))
    options = run_options(
        [
            "--until-empty",
            f"--mns_queues={emulator.reply_queue}",
            f"--mns_endpoint={emulator.url}",
            f"--dybaseapi_endpoint={emulator.url}",
            f"--archive={job.archive}",
            f"--dataset={job.dataset}",
            f"--send_log={job.send_log}",
        ]
    )
    said: list[str] = []

    def stop_at_once(line: str) -> None:
        said.append(line)
        request_stop()

    stopped = pipeline.run.run(options, utc_now, stop_at_once)
    assert "epoch: 2 archived messages are left for the next start" in said
    assert (stopped.epochs, stopped.pending_before, stopped.pending_after) == (0, 2, 2)

    job.epoch(utc_now())
    assert len(job.tables().enriched) == 2
