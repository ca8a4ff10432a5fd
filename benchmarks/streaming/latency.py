"""From SendMessage to the sink, at a steady rate; and what a kill does to it."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

from benchmarks.emulator_process import emulator_process
from benchmarks.streaming import books
from benchmarks.streaming.application import Application
from benchmarks.streaming.engines import Engine, Flink
from benchmarks.streaming.jobs import (
    Place,
    cpu_now,
    progressing_until,
    running,
    stream_command,
    waiting,
)
from benchmarks.streaming.sinks import Left, Sink
from tests.engines.streams import Streaming

_START_SECS: Final = 120.0
# Rows of the first seconds are not counted: the job has just begun.
WARM_UP_SECS: Final = 8.0
# After a kill: messages whose lease was lost come back, too.
_QUIET_SECS: Final = 90.0
# Silence begins soon after the kill: a second worker may finish what it has.
_GAP_BEGINS_WITHIN_SECS: Final = 8.0


class Latency(NamedTuple):
    """Seconds from SendMessage to the sink, and what else was seen at this rate."""

    name: str
    per_sec: float
    rows: int
    """Counted."""
    p50: float
    p99: float
    most: float
    acknowledged_after: float
    """Seconds that a message is on its queue, on average: how many are there, divided by the rate."""
    worker_cpu: float
    """Cores that the worker used."""
    closed: books.Books


class Recovery(NamedTuple):
    """Seconds since the kill."""

    name: str
    killed: str
    again: float
    """Until rows leave again."""
    caught_up: float
    """Until everything that was sent before that has left."""
    repeats: int
    closed: books.Books


class Trial(NamedTuple):
    """What an application does to a job, and where its rows are caught."""

    sink: Sink
    place: Place
    per_sec: float
    flags: Sequence[str]
    """More of them, for the job."""


class _Work(NamedTuple):
    application: Application
    job: Streaming


def latency(engine: Engine, trial: Trial, secs: float) -> Latency:
    """Send at a rate for some seconds, after a warm-up."""
    with emulator_process() as emulator:
        endpoint = emulator.endpoint
        with _working(engine, trial, endpoint) as work:
            time.sleep(WARM_UP_SECS)
            began, before = time.time(), cpu_now(engine.workers(work.job), emulator)
            on_queue = []
            while time.time() < began + secs:
                time.sleep(0.5)
                on_queue.append(waiting(endpoint))
            ended = time.time()
            cpu = cpu_now(engine.workers(work.job), emulator).since(before)
            rows = _finished(work, trial.sink, endpoint)
    once = _first(rows)
    waited = sorted(
        row.left_secs - row.enqueued_secs for row in once if began <= row.enqueued_secs < ended
    )
    return Latency(
        name=engine.name,
        per_sec=trial.per_sec,
        rows=len(waited),
        p50=_quantile(waited, 0.5),
        p99=_quantile(waited, 0.99),
        most=_quantile(waited, 1.0),
        acknowledged_after=statistics.mean(on_queue) / trial.per_sec,
        worker_cpu=cpu.worker / (ended - began),
        closed=_closed(work.application, rows, trial.place),
    )


def recovery(engine: Flink, trial: Trial, victim: str) -> Recovery:
    """Kill -9 ``victim`` (worker or task manager) while an application sends."""
    with ExitStack() as stack:
        emulator = stack.enter_context(emulator_process())
        work = stack.enter_context(_working(engine, trial, emulator.endpoint))
        # Several checkpoints, and messages that wait for one.
        time.sleep(WARM_UP_SECS + 2 * engine.checkpoint_secs)
        number = engine.busy_task_manager()
        killed = time.time()
        if victim == "worker":
            for pid in engine.workers(work.job):
                os.kill(pid, signal.SIGKILL)
        else:
            engine.cluster.kill_task_manager(number)
        time.sleep(30.0)
        if victim != "worker":
            engine.cluster.start_task_manager(number)
            engine.cluster.wait_for_slots(4)
        rows = _finished(work, trial.sink, emulator.endpoint)
    again = _again(sorted(row.left_secs for row in rows), killed)
    caught_up = max(
        (row.left_secs for row in _first(rows) if row.enqueued_secs <= again), default=killed
    )
    closed = _closed(work.application, rows, trial.place)
    return Recovery(engine.name, victim, again - killed, caught_up - killed, closed.repeats, closed)


def _again(moments: Sequence[float], killed: float) -> float:
    """The end of the longest silence that begins around the kill."""
    gaps = [
        (after - before, after)
        for before, after in zip(moments, moments[1:], strict=False)
        if after > killed and before < killed + _GAP_BEGINS_WITHIN_SECS
    ]
    return max(gaps)[1] if gaps else float("nan")


@contextmanager
def _working(engine: Engine, trial: Trial, endpoint: str) -> Iterator[_Work]:
    """A job that reads, and an application that sends."""
    place = trial.place
    application = Application(endpoint, place.send_log, trial.per_sec)
    command = stream_command(engine, endpoint, place, [*trial.sink.flags, *trial.flags])
    try:
        with running(command, place) as job:
            application.send(16)
            deadline = time.monotonic() + _START_SECS
            while not books.archive_points(place.archive):
                if job.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the job does not begin: {job.said[-3000:]}")
                time.sleep(0.1)
            application.start()
            yield _Work(application, job)
    finally:
        application.stop()


def _finished(work: _Work, sink: Sink, endpoint: str) -> list[Left]:
    """Let everything leave, stop the job, and return all rows."""
    work.application.stop()
    found: list[int] = [0]

    def is_done() -> bool:
        rows = {row.message_id for row in sink.rows()}
        found[0] = len(rows) - waiting(endpoint)
        return not waiting(endpoint) and rows >= work.application.message_ids

    progressing_until(is_done, lambda: found[0], _QUIET_SECS)
    work.job.stop()
    return sink.rows()


def _first(rows: Sequence[Left]) -> list[Left]:
    """Each row when it left first."""
    first: dict[str, Left] = {}
    for row in rows:
        if row.row_id not in first or row.left_secs < first[row.row_id].left_secs:
            first[row.row_id] = row
    return list(first.values())


def _closed(application: Application, rows: Sequence[Left], place: Place) -> books.Books:
    ids = frozenset(application.message_ids)
    archived = frozenset(books.archived_messages(place.archive))
    return books.closed(ids, ids, archived, [f"{row.row_id}/{row.message_id}" for row in rows])


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
