"""Messages a second: the local runner's fused landing, and the streaming graph on an engine."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.emulator_process import emulator_process
from benchmarks.streaming import books
from benchmarks.streaming.engines import Engine, Flink
from benchmarks.streaming.jobs import (
    Place,
    cpu_now,
    peak_mb,
    progressing_until,
    running,
    stream_command,
    waiting,
    waiting_ids,
)
from benchmarks.streaming.state import join_bytes
from tests.engines.streams import Streaming

FILE_SECS: Final = 2.0
_GIVE_UP_SECS: Final = 90.0
# All is read, and no file has come for so long: what is left comes at the stop, or never.
_QUIET_SECS: Final = 5 * FILE_SECS
# Every message has one row, so that the books are plain.
_CARRIER: Final = (
    "--carrier_duplicate_rate=0",
    "--carrier_correction_rate=0",
    "--carrier_missing_phone_rate=0",
)


class Throughput(NamedTuple):
    """One run. CPU is in microseconds a message of the queues, from the first archive file to the end."""

    name: str
    messages: int
    logged: int
    """Lines of the send log that were read, archived and joined besides."""
    archived_per_sec: float
    rows_per_sec: float | None
    start_secs: float
    """From the start of the command to the first archive file, in no other figure."""
    worker_us: float
    engine_us: float
    emulator_us: float
    worker_mb: float
    """The most resident memory of a Python worker."""
    late_rows: int
    """Rows that were in no file before the job was stopped, long after all was read."""
    bytes_per_remembered: float | None
    """Of the join's state at the end, on Flink, where all but a few SMS are joined and remembered."""
    closed: books.Books

    @property
    def per_sec(self) -> float:
        """What went all the way: the slower of reading and writing."""
        rates = [self.archived_per_sec] + ([] if self.rows_per_sec is None else [self.rows_per_sec])
        return math.nan if any(map(math.isnan, rates)) else min(rates)


def landing(name: str, sms: int, root: Path, flags: Sequence[str] = ()) -> Throughput:
    """Run ``benchmarks.streaming.local`` on a fresh emulator, filled with ``sms`` SMS."""
    place = Place(root)
    with emulator_process(*_filled(sms, place)) as emulator:
        delivered = waiting_ids(emulator.endpoint)
        command = [
            *(sys.executable, "-m", "benchmarks.streaming.local"),
            *(emulator.endpoint, str(place.archive), *flags),
        ]
        with running(command, place) as job:
            workers = [job.process.pid]
            began = time.time()
            _wait_for_archive(place, job)
            used = before = cpu_now(workers, emulator)
            peak = 0.0
            while job.process.poll() is None:
                used, peak = cpu_now(workers, emulator), max(peak, peak_mb(workers))
                time.sleep(0.05)
            if job.process.returncode:
                raise RuntimeError(f"the landing has failed: {job.said[-3000:]}")
    points = books.archive_points(place.archive)
    archived = frozenset(books.archived_messages(place.archive))
    cpu = used.since(before)
    us = [1e6 * secs / (points[-1].number - points[0].number) for secs in cpu]
    return Throughput(
        name=name,
        messages=len(archived),
        logged=0,
        archived_per_sec=books.steady_rate(points),
        rows_per_sec=None,
        start_secs=points[0].at_secs - began,
        worker_us=us[0],
        engine_us=us[1],
        emulator_us=us[2],
        worker_mb=peak,
        late_rows=0,
        bytes_per_remembered=None,
        # It writes no rows.
        closed=books.closed(delivered, frozenset(), archived, []),
    )


def streaming(engine: Engine, sms: int, root: Path, flags: Sequence[str]) -> Throughput:
    """Run the stream with a Parquet sink on a fresh emulator, filled with ``sms`` SMS."""
    place = Place(root)
    sink = [f"--parquet_sink={place.parquet}", f"--file_sink_secs={FILE_SECS:g}"]
    with emulator_process(*_filled(sms, place)) as emulator:
        delivered = waiting_ids(emulator.endpoint)
        logged = books.logged_sms(place.send_log)
        watch = books.SinkWatch(place.parquet)
        command = stream_command(engine, emulator.endpoint, place, [*sink, *flags])
        with running(command, place) as job:
            began = time.time()
            _wait_for_archive(place, job)
            before = cpu_now(engine.workers(job), emulator)

            def progress() -> int:
                points = watch.points()
                return (points[-1].number if points else 0) - waiting(emulator.endpoint)

            def rows() -> int:
                points = watch.points()
                return points[-1].number if points else 0

            progressing_until(lambda: not waiting(emulator.endpoint), progress, _GIVE_UP_SECS)
            expected = _expected(place, logged)
            progressing_until(lambda: rows() >= len(expected), rows, _QUIET_SECS)
            workers = engine.workers(job)
            cpu, peak = cpu_now(workers, emulator).since(before), peak_mb(workers)
            points = watch.points()
            late = max(0, len(expected) - rows())
            remembered = join_bytes(engine, job) if isinstance(engine, Flink) else None
            job.stop()
    archived = books.archive_points(place.archive)
    us = [1e6 * secs / max(1, archived[-1].number - archived[0].number) for secs in cpu]
    return Throughput(
        name=engine.name,
        messages=len(delivered),
        logged=len(logged),
        archived_per_sec=books.steady_rate(archived),
        rows_per_sec=books.steady_rate(points),
        start_secs=archived[0].at_secs - began,
        worker_us=us[0],
        engine_us=us[1],
        emulator_us=us[2],
        worker_mb=peak,
        late_rows=late,
        bytes_per_remembered=None if remembered is None else remembered / len(delivered),
        closed=books.closed(
            delivered,
            expected,
            frozenset(books.archived_messages(place.archive)),
            books.parquet_rows(place.parquet),
        ),
    )


def _wait_for_archive(place: Place, job: Streaming) -> None:
    while not books.archive_points(place.archive):
        if job.process.poll() is not None:
            raise RuntimeError(f"the job has ended: {job.said[-3000:]}")
        time.sleep(0.05)


def _expected(place: Place, logged: frozenset[tuple[str, str]]) -> frozenset[str]:
    """What must have a row: a report without its send goes on waiting."""
    messages = books.archived_messages(place.archive)
    return frozenset(key for key, body in messages.items() if books.is_of(body, logged))


def _filled(sms: int, place: Place) -> list[str]:
    traffic = [f"--traffic={sms}", f"--traffic_send_log={place.send_log}"]
    return ["--seed=benchmark", *traffic, *_CARRIER]
