"""The streaming job on Flink: what is killed, stopped and cancelled goes on, and the books close."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.emulator_process import EmulatorProcess
from tests.engines import outputs
from tests.engines.fetch import FETCH_SECS
from tests.engines.flink_cluster import START_SECS, FlinkCluster, wait_until
from tests.engines.load import Load
from tests.engines.streams import Stream

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(FETCH_SECS + START_SECS + 400),
    # Alibaba's client, which the load uses.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

# Longer than a killed task manager takes, so that nobody's patience ends because of it.
PATIENCE_SECS = 45
# Four tasks bring what they receive at once to the join in any order.
AT_ONCE_SECS = 5.0


@pytest.fixture
def stream(
    flink: FlinkCluster, flink_emulator: EmulatorProcess, tmp_path: Path
) -> Iterator[Stream]:
    """A streaming job of four tasks; what a failed test leaves running is cancelled."""
    flags = [
        "--runner=FlinkRunner",
        f"--flink_master={flink.address}",
        f"--job_endpoint={flink.job_endpoint}",
        *(
            "--parallelism=4",
            "--checkpointing_interval=1000",
            "--min_pause_between_checkpoints=300",
        ),
        f"--join_patience_secs={PATIENCE_SECS}",
    ]
    yield Stream(flink_emulator, tmp_path, flags)
    for job in flink.ask("/jobs")["jobs"]:
        if job["status"] not in {"CANCELED", "FAILED", "FINISHED"}:
            flink.ask(f"/jobs/{job['id']}?mode=cancel", "PATCH")


@pytest.fixture
def load(stream: Stream) -> Iterator[Load]:
    """An application that sends while the test runs."""
    load = Load(stream.emulator, stream.send_log, per_sec=50)
    yield load
    load.stop()


def test_no_message_is_missing_or_doubled_whatever_is_killed_and_restarted(
    flink: FlinkCluster, stream: Stream, load: Load
) -> None:
    load.start()
    with stream.start() as streaming:
        job_id = streaming.wait_for(r"flink: job (\w{32})", START_SECS)[1]
        _wait_for_checkpoints(flink, job_id, 3)
        wait_until(lambda: bool(outputs.found(stream.parquet).outcomes), 60, "first rows")

        os.kill(flink.workers(1)[0], signal.SIGKILL)
        streaming.wait_for(r"flink: restarted \(1\)", 60)
        _wait_for_checkpoints(flink, job_id, 3)

        flink.kill_task_manager(2)
        flink.start_task_manager(2)
        streaming.wait_for(r"flink: restarted \([2-9]\)", 60)
        # None completes before the tasks that were there run again.
        _wait_for_checkpoints(flink, job_id, 3)
        # From here on nobody's patience is waited for.
        load.is_often_silent = False

        said = streaming.stop()
    savepoint = said.partition("--savepoint_path=")[2].split()[0]

    with stream.start(f"--savepoint_path={savepoint}", "--detach") as detached:
        job_id = detached.wait_for(r"The job (\w{32}) runs by itself", START_SECS)[1]
        assert detached.process.wait(30) == 0
    _wait_for_checkpoints(flink, job_id, 3)
    checkpoint = _cancel(flink, job_id)

    with stream.start(f"--savepoint_path={checkpoint}") as streaming:
        job_id = streaming.wait_for(r"flink: job (\w{32})", START_SECS)[1]
        _wait_for_checkpoints(flink, job_id, 3)
        books = load.stop()

        def differences() -> list[str]:
            rows = outputs.found(stream.parquet)
            return outputs.differences(books, rows, stream.archive, at_once_secs=AT_ONCE_SECS)

        with suppress(TimeoutError):  # what is missing then is told below
            wait_until(
                lambda: not stream.waiting() and not differences(),
                2 * PATIENCE_SECS + 30,
                "complete outputs",
            )
        streaming.stop()

    assert differences() == []
    assert outputs.archived_ids(stream.archive).keys() == books.message_ids
    assert stream.waiting() == 0
    assert outputs.archived_sends(stream.archive) >= books.logged


def _wait_for_checkpoints(flink: FlinkCluster, job_id: str, count: int) -> None:
    """Wait until a job runs and has completed more checkpoints: kills before the first prove little."""
    before: list[int] = []

    def are_complete() -> bool:
        with suppress(OSError):  # a job that begins answers 500
            is_running = flink.ask(f"/jobs/{job_id}")["state"] == "RUNNING"
            before.append(flink.ask(f"/jobs/{job_id}/checkpoints")["counts"]["completed"])
            return is_running and before[-1] - before[0] >= count
        return False

    wait_until(are_complete, START_SECS, f"{count} checkpoints of {job_id}")


def _cancel(flink: FlinkCluster, job_id: str) -> str:
    """Cancel a job; return the checkpoint that it leaves."""
    flink.ask(f"/jobs/{job_id}?mode=cancel", "PATCH")
    wait_until(
        lambda: flink.ask(f"/jobs/{job_id}")["state"] == "CANCELED", 60, "the end of the job"
    )
    latest = flink.ask(f"/jobs/{job_id}/checkpoints")["latest"]["completed"]
    return str(latest["external_path"])
