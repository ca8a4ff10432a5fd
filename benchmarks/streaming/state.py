"""What open sends cost on Flink: bytes of state, and size and duration of checkpoints."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from benchmarks.emulator_process import emulator_process
from benchmarks.streaming import books
from benchmarks.streaming.application import write_sends
from benchmarks.streaming.engines import Flink
from benchmarks.streaming.jobs import Place, peak_mb, progressing_until, running, stream_command
from tests.engines.streams import Streaming

_JOIN: Final = "JoinReports"
_JOB: Final = r"flink: job (\w{32})"
_START_SECS: Final = 120.0
_GIVE_UP_SECS: Final = 60.0


class Checkpoint(NamedTuple):
    """One that is complete; sizes in bytes."""

    at_secs: float
    size: int
    join_size: int
    """Of the tasks that keep the join's state."""
    millis: int
    """From its beginning to its end."""


class State(NamedTuple):
    """Bytes and seconds of Flink's checkpoints, by its own account."""

    open_sends: int
    read_secs: float
    """From the send log's lines to all of them archived."""
    bytes_per_open_send: float
    """Of the join's state, less what it was before."""
    checkpoint_bytes: float
    """Median of the whole, with all sends open."""
    empty_bytes: float
    """Median of the whole, before the first send."""
    empty_growth_per_sec: float
    """How a checkpoint grew while nothing came: Beam's Java runner before 2.76 adds to it with bundles."""
    millis: float
    most_millis: int
    empty_millis: float
    checkpoints: int
    """That the figures with open sends are of."""
    worker_mb: float
    missing: int
    """Sends that are not in the archive."""


def state(
    engine: Flink, place: Place, open_sends: int, hold_secs: float, flags: Sequence[str]
) -> State:
    """Let a job stand empty, give it sends that nobody reports, and let it stand again."""
    sink = [f"--parquet_sink={place.parquet}"]
    with emulator_process() as emulator:
        command = stream_command(engine, emulator.endpoint, place, [*sink, *flags])
        (place.send_log / "sends.jsonl").touch()
        with running(command, place) as job:
            job_id = job.wait_for(_JOB, _START_SECS)[1]
            empty = _held(engine, job_id, hold_secs)
            began = time.monotonic()
            write_sends(place.send_log / "sends.jsonl", range(open_sends))

            def archived() -> int:
                points = books.archive_points(place.archive, books.SEND_LOG)
                return points[-1].number if points else 0

            progressing_until(lambda: archived() >= open_sends, archived, _GIVE_UP_SECS)
            read_secs = time.monotonic() - began
            # What was archived is on its way to the join.
            time.sleep(engine.checkpoint_secs)
            full = _held(engine, job_id, hold_secs)
            worker_mb = peak_mb(engine.workers(job))
            job.stop()
    last = empty[-1]
    lines = books.archived_messages(place.archive, books.SEND_LOG)
    return State(
        open_sends=open_sends,
        read_secs=read_secs,
        bytes_per_open_send=(statistics.median(each.join_size for each in full) - last.join_size)
        / open_sends,
        checkpoint_bytes=statistics.median(each.size for each in full),
        empty_bytes=statistics.median(each.size for each in empty),
        empty_growth_per_sec=(last.size - empty[0].size)
        / max(1e-9, last.at_secs - empty[0].at_secs),
        millis=statistics.median(each.millis for each in full),
        most_millis=max(each.millis for each in full),
        empty_millis=statistics.median(each.millis for each in empty),
        checkpoints=len(full),
        worker_mb=worker_mb,
        missing=open_sends - len(lines),
    )


def join_bytes(engine: Flink, job: Streaming) -> int:
    """Bytes of the join's state in the latest checkpoint."""
    job_id = job.wait_for(_JOB, _START_SECS)[1]
    latest = max(each["id"] for each in _completed(engine, job_id))
    return _of_join(task_sizes(engine, job_id, latest))


def _of_join(sizes: Counter[str]) -> int:
    return sum(size for name, size in sizes.items() if _JOIN in name)


def _held(engine: Flink, job_id: str, secs: float) -> list[Checkpoint]:
    """Let the job stand; return the checkpoints that it completed meanwhile (the first three at least)."""
    seen: dict[int, Checkpoint] = {}
    before: set[int] | None = None
    deadline = time.monotonic() + secs
    give_up = deadline + _START_SECS
    while time.monotonic() < deadline or len(seen) < 3:  # noqa: PLR2004 - two make a slope, one more
        if time.monotonic() > give_up:
            raise RuntimeError(f"the job {job_id} completes no checkpoints")
        completed = {each["id"]: each for each in _completed(engine, job_id)}
        before = set(completed) if before is None else before
        for number in completed.keys() - before - seen.keys():
            seen[number] = _checkpoint(engine, job_id, completed[number])
        time.sleep(0.5)
    return [seen[number] for number in sorted(seen)]


def _completed(engine: Flink, job_id: str) -> list[Any]:
    try:
        history = engine.cluster.ask(f"/jobs/{job_id}/checkpoints")["history"]
    except OSError:  # a job that begins answers 500
        return []
    return [each for each in history if each["status"] == "COMPLETED" and not each["is_savepoint"]]


def _checkpoint(engine: Flink, job_id: str, told: Any) -> Checkpoint:
    sizes = task_sizes(engine, job_id, told["id"])
    return Checkpoint(
        at_secs=told["trigger_timestamp"] / 1000,
        size=told["state_size"],
        join_size=_of_join(sizes),
        millis=told["end_to_end_duration"],
    )


def task_sizes(engine: Flink, job_id: str, number: int) -> Counter[str]:
    """Bytes of a checkpoint by the name of the task."""
    tasks = engine.cluster.ask(f"/jobs/{job_id}/checkpoints/details/{number}")["tasks"]
    names = {each["id"]: each["name"] for each in engine.cluster.ask(f"/jobs/{job_id}")["vertices"]}
    sizes: Counter[str] = Counter()
    for vertex, told in tasks.items():
        sizes[names[vertex]] += told["state_size"]
    return sizes
