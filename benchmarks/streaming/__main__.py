"""The streaming graph on real engines: how fast, how late, how soon again after a kill, how large its state?

    python -m benchmarks.streaming --engine=all
    python -m benchmarks.streaming --engine=flink --only state --open-sends 1000000

Engines run on this machine, as the tests run them (``tests/engines``): Prism, and Flink with one worker
unless ``--parallelism`` is more than 2. Every job is ``sms-receipts stream`` on an emulator of its own, with
its default settings but for ``--poll_secs=0.1`` (how long a reader pauses when its buffer is empty); flags
that the benchmark does not know are handed to the job.

*throughput*: emulators are filled with the same traffic, for the job and for the landing as ``sms-receipts
run`` has it, Beam's local runner with ReadInboxes > LimitFailures > ArchiveRaw in one process; ``decode`` is
the same with DecodeMessages behind it. What counts is the middle of a run, from the first fifth of the
messages to nine tenths of them: by archive files, and by Parquet files for the rows; the slower one is the
figure. So the start of interpreters, Java and engines is in none of it, nor the last file. The jobs also
read, archive and join a line of the send log for each SMS, which the landing leaves alone.

*latency*: at a steady rate, from the moment at which the queue has taken a report to the moment at which
Pub/Sub has taken its row (publish time); without Pub/Sub's emulator to the time of its Parquet file. Reports
of the first seconds are not counted. How long messages stay on their queue is told beside: an
acknowledgement waits for checkpoints.

*recovery*, on Flink: kill -9 of the worker, then of its task manager while the other has free slots; until
rows leave again, and until all that was sent before that has left. The latter waits for what the killed
worker had received: the queue hides it for its own visibility timeout, 30 s here.

*state*, on Flink: sends that nobody reports. The state of the join is that of its tasks by Flink's account;
the job stands empty as long as it stands full, which tells how its checkpoints grow by themselves.

Exits with 1 if a message is missing in the archive or in the rows, or has two rows after their ids.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from benchmarks.streaming import engines
from benchmarks.streaming.books import Books
from benchmarks.streaming.jobs import ENVIRONMENT, Place
from benchmarks.streaming.latency import Latency, Recovery, Trial, latency, recovery
from benchmarks.streaming.sinks import Files, Sink, Subscription, pubsub_if_there
from benchmarks.streaming.state import State, state
from benchmarks.streaming.throughput import Throughput, landing, streaming
from tests.engines import fetch

_MEASURES: Final = ("throughput", "latency", "recovery", "state")
_POLL: Final = ("--poll_secs=0.1",)
_LANDING: Final = "landing"


@dataclass
class Figures:
    """All that was measured."""

    throughput: list[Throughput] = field(default_factory=list)
    latency: list[Latency] = field(default_factory=list)
    recovery: list[Recovery] = field(default_factory=list)
    state: list[State] = field(default_factory=list)

    @property
    def is_closed(self) -> bool:
        """Whether no job has lost or doubled a message."""
        runs: list[Throughput | Latency | Recovery] = []
        runs += [*self.throughput, *self.latency, *self.recovery]
        return all(run.closed.is_closed for run in runs) and not any(
            each.missing for each in self.state
        )

    def document(self, flags: argparse.Namespace) -> dict[str, object]:
        """Lay them out for JSON."""
        runs = {
            name: [_plain(run) for run in getattr(self, name)] for name in _MEASURES
        }  # fmt: skip
        return {"flags": {name: str(value) for name, value in vars(flags).items()}, **runs}


def _plain(run: Any) -> dict[str, object]:
    return {
        name: value._asdict() if isinstance(value, Books) else value
        for name, value in run._asdict().items()
    }


class _Bench(NamedTuple):
    """What every measurement needs."""

    flags: argparse.Namespace
    job_flags: Sequence[str]
    root: Path
    started: Sequence[engines.Engine]
    has_pubsub: bool

    def place(self, name: str) -> Path:
        """Name a directory that is not there yet."""
        return self.root / f"{name}-{time.monotonic_ns()}"

    def trial(self, per_sec: float) -> Trial:
        """Describe a job that an application sends to."""
        place = Place(self.place("job"))
        sink: Sink = Files(place.parquet, self.flags.file_sink_secs)
        if self.has_pubsub:
            sink = Subscription(f"bench-{time.monotonic_ns()}")
        return Trial(sink, place, per_sec, self.job_flags)

    @property
    def flinks(self) -> list[engines.Flink]:
        return [engine for engine in self.started if isinstance(engine, engines.Flink)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    flags, job_flags = _parser().parse_known_args(argv)
    os.environ.update(ENVIRONMENT)
    figures = Figures()
    with (
        tempfile.TemporaryDirectory(prefix="sms-receipts-streaming-") as temporary,
        ExitStack() as stack,
    ):
        root = Path(temporary)
        has_pubsub = stack.enter_context(pubsub_if_there(wanted=not flags.no_pubsub))
        try:
            started = list(_engines(flags, root, stack))
        except pytest.skip.Exception as missing:
            print(f"an engine is missing: {missing}")
            return 2
        bench = _Bench(flags, [*_POLL, *job_flags], root, started, has_pubsub)
        for name, measure in _MEASURE.items():
            if name in flags.only:
                measure(bench, figures)
    _summary(figures)
    flags.results.write_text(json.dumps(figures.document(flags), indent=1), "utf-8")
    print(f"\nall figures: {flags.results}")
    print("nothing missing, nothing doubled" if figures.is_closed else "MISSED: see the books")
    return 0 if figures.is_closed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.streaming",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--engine", choices=["prism", "flink", "all"], default="all")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(_MEASURES),
                        help="some of throughput,latency,recovery,state")  # fmt: skip
    parser.add_argument("--sms", type=int, default=100_000, help="for throughput")
    parser.add_argument("--rounds", type=int, default=2, help="for throughput")
    parser.add_argument("--per-sec", type=float, nargs="+", default=[200.0, 1000.0],
                        help="SMS a second, for latency; recovery takes the first")  # fmt: skip
    parser.add_argument("--secs", type=float, default=30.0, help="for latency, at each rate")
    parser.add_argument("--open-sends", type=int, default=100_000, help="for state")
    parser.add_argument("--hold-secs", type=float, default=25.0, help="for state, empty and full")
    parser.add_argument("--parallelism", type=int, default=1, help="tasks of Flink, 1-4")
    parser.add_argument("--checkpoint-secs", type=float, default=5.0, help="Flink's interval")
    parser.add_argument("--no-pubsub", action="store_true", help="catch rows in files")
    parser.add_argument("--file-sink-secs", type=float, default=1.0,
                        help="for latency into files")  # fmt: skip
    parser.add_argument(
        "--results", type=Path, default=Path(tempfile.gettempdir()) / "sms-receipts-streaming.json"
    )
    return parser


def _engines(flags: argparse.Namespace, root: Path, stack: ExitStack) -> Iterator[engines.Engine]:
    if flags.engine != "flink":
        yield engines.Prism(fetch.prism())
    if flags.engine != "prism":
        home = root / "flink"
        home.mkdir()
        print("starting Flink", flush=True)
        yield stack.enter_context(
            engines.flink(home, ENVIRONMENT, flags.parallelism, flags.checkpoint_secs)
        )


def _measure_throughput(bench: _Bench, figures: Figures) -> None:
    sms = bench.flags.sms
    print(f"\nthroughput: {sms:,} SMS")
    for number in range(bench.flags.rounds):
        runs = [
            partial(landing, _LANDING, sms, bench.place("landing")),
            partial(landing, "decode", sms, bench.place("decode"), ["--decode"]),
            *(
                partial(streaming, engine, sms, bench.place("job"), bench.job_flags)
                for engine in bench.started
            ),
        ]
        for run in runs:
            figure = run()
            figures.throughput.append(figure)
            print(f"  round {number + 1}: {_throughput_line(figure)}", flush=True)


def _measure_latency(bench: _Bench, figures: Figures) -> None:
    caught = "Pub/Sub" if bench.has_pubsub else f"files, one each {bench.flags.file_sink_secs:g} s"
    print(f"\nlatency: {bench.flags.secs:g} s at each rate, rows caught in {caught}")
    for engine in bench.started:
        for per_sec in bench.flags.per_sec:
            figure = latency(engine, bench.trial(per_sec), bench.flags.secs)
            figures.latency.append(figure)
            print(
                f"  {figure.name:<8} {per_sec:>6,.0f}/s: p50 {figure.p50:.2f} s, p99 {figure.p99:.2f} s, "
                f"at most {figure.most:.2f} s ({figure.rows:,} rows); acknowledged after "
                f"{figure.acknowledged_after:.1f} s; the worker used {figure.worker_cpu:.2f} cores"
                f"{_books(figure.closed)}",
                flush=True,
            )


def _measure_recovery(bench: _Bench, figures: Figures) -> None:
    per_sec = bench.flags.per_sec[0]
    for engine in bench.flinks:
        print(
            f"\nrecovery on {engine.name} at {per_sec:g}/s, a checkpoint every {engine.checkpoint_secs:g} s"
        )
        for victim in ("worker", "task manager"):
            figure = recovery(engine, bench.trial(per_sec), victim)
            figures.recovery.append(figure)
            print(
                f"  kill -9 of the {victim}: rows again after {figure.again:.1f} s, caught up after "
                f"{figure.caught_up:.1f} s, {figure.repeats:,} rows again{_books(figure.closed)}",
                flush=True,
            )


def _measure_state(bench: _Bench, figures: Figures) -> None:
    for engine in bench.flinks:
        flags = bench.flags
        print(f"\nstate on {engine.name}: {flags.open_sends:,} open sends")
        place = Place(bench.place("state"))
        figure = state(engine, place, flags.open_sends, flags.hold_secs, bench.job_flags)
        figures.state.append(figure)
        print(
            f"  {figure.bytes_per_open_send:.0f} bytes an open send; a checkpoint "
            f"{figure.checkpoint_bytes:,.0f} bytes (empty {figure.empty_bytes:,.0f}, growing by itself "
            f"{figure.empty_growth_per_sec:,.0f} a second), {figure.millis:.0f} ms, at most "
            f"{figure.most_millis} ms of {figure.checkpoints} (empty {figure.empty_millis:.0f}); sends read "
            f"in {figure.read_secs:.1f} s; the worker {figure.worker_mb:.0f} MB; "
            f"{figure.missing:,} sends missing",
            flush=True,
        )


_MEASURE: Final = dict(
    zip(
        _MEASURES,
        (_measure_throughput, _measure_latency, _measure_recovery, _measure_state),
        strict=True,
    )
)


def _throughput_line(run: Throughput) -> str:
    rows = "" if run.rows_per_sec is None else f", rows {run.rows_per_sec:,.0f}/s"
    remembered = ""
    if run.bytes_per_remembered is not None:
        remembered = f", {run.bytes_per_remembered:.0f} bytes of state a joined SMS"
    late = f", {run.late_rows:,} rows only at the stop" if run.late_rows else ""
    return (
        f"{run.name:<8} {run.messages:,} messages: archived {run.archived_per_sec:,.0f}/s{rows}; CPU a "
        f"message {run.worker_us:.0f} us worker, {run.engine_us:.0f} us engine, "
        f"{run.emulator_us:.0f} us emulator; worker {run.worker_mb:.0f} MB{remembered}; first archived "
        f"after {run.start_secs:.1f} s{late}{_books(run.closed)}"
    )


def _books(closed: Books) -> str:
    return "" if closed.is_closed else f"; NOT CLOSED: {closed}"


def _summary(figures: Figures) -> None:
    best: dict[str, Throughput] = {}
    for run in figures.throughput:
        # A run too short for a middle has no rate.
        if run.name not in best or not best[run.name].per_sec >= run.per_sec:
            best[run.name] = run
    if _LANDING not in best:
        return
    print("\nbest of the rounds, messages a second and worker's CPU a message")
    base = best[_LANDING]
    for name, run in best.items():
        ratio = run.per_sec / base.per_sec
        shown = "-" if math.isnan(ratio) else f"{ratio:.2f}"
        print(
            f"  {name:<8} {run.per_sec:>8,.0f}/s {run.worker_us:>6.0f} us   x {shown} of the landing's rate, "
            f"x {run.worker_us / base.worker_us:.2f} of its CPU"
        )


if __name__ == "__main__":
    sys.exit(main())
