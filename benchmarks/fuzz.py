"""Millions of inputs that nobody would think of: does every one end where it must?

    python -m benchmarks.fuzz --inputs 10000000 --seed 1
    python -m benchmarks.fuzz --inputs 1000000 --coverage-guided --corpus corpus
    python -m benchmarks.fuzz --inputs 50000 --coverage-guided --target sends records

Draws inputs near what Alibaba and senders write, and holds the readers to the properties of ``tests/fuzz``:
no crash, no hang, nothing unaccounted, nothing personal in a detail or a log line, the same verdict whatever
the neighbours. The first command draws at random, from a seed: a batch that fails is read again with
``--seed`` and ``--batch``. The second lets libFuzzer (atheris, Linux only: ``pip install -e '.[fuzz]'``)
mutate whatever reached a new branch; what fails is kept beside the corpus and read again with ``--replay``.
``--target`` names the readers (those of messages unless said otherwise), and each gets that many inputs.
"""

from __future__ import annotations

import argparse
import logging
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

from tests.fuzz.targets import TARGETS, Target

_HANG_SECS: Final = 120
_CORPUS: Final = Path(tempfile.gettempdir(), "sms-receipts-corpus")
_PROGRESS_SECS: Final = 10
_SHOWN: Final = 2000  # characters of an input that failed


def fuzz(name: str, inputs: int, seed: int, minutes: float) -> bool:
    """Draw inputs batch by batch and tell how it goes; True when nothing was found."""
    target = TARGETS[name]
    counts: Counter[str] = Counter()
    findings = done = 0
    slowest = 0.0
    started_at = told_at = time.monotonic()
    for number in range(-(-inputs // target.batch)):
        batch = target.draw_batch(seed, number)
        cpu_secs = time.process_time()
        findings += not _holds(
            target, batch, counts, f"--target {name} --seed {seed} --batch {number}"
        )
        slowest = max(slowest, time.process_time() - cpu_secs)
        done += len(batch)
        now = time.monotonic()
        if now - told_at > _PROGRESS_SECS:
            told_at = now
            print(
                f"{done:>12,} inputs {done / (now - started_at):>8,.0f}/s {findings} findings",
                flush=True,
            )
        if now - started_at > minutes * 60:
            break
    wall_secs = time.monotonic() - started_at
    print(f"\n{name}: {done:,} inputs in {wall_secs:,.0f} s, seed {seed}; of these")
    for outcome, number in counts.most_common():
        print(f"  {outcome:<32}{number:>14,}")
    print(f"slowest batch of {target.batch}: {slowest:.2f} s of CPU")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    print("reached: no findings" if not findings else f"MISSED: {findings} batches failed")
    return not findings


def fuzz_guided(name: str, inputs: int, seed: int, corpus: Path) -> NoReturn:
    """Let libFuzzer choose the inputs; ends the process, with 0 when nothing was found."""
    try:
        from benchmarks.fuzz_guided import GuidedRun  # noqa: PLC0415 - atheris is not for every platform
    except ModuleNotFoundError as error:
        sys.exit(f"{error}: pip install -e '.[fuzz]' (Linux on x86-64, CPython 3.10 to 3.13)")
    GuidedRun(name, TARGETS[name], inputs, corpus).fuzz(seed)


def _fuzz_guided_each(arguments: argparse.Namespace) -> bool:
    """Give each target a process, which libFuzzer ends; True when nothing was found."""
    runs = [
        subprocess.run(  # noqa: S603 - our own command
            [
                *(sys.executable, "-m", "benchmarks.fuzz", "--coverage-guided", f"--target={name}"),
                *(f"--inputs={arguments.inputs}", f"--seed={arguments.seed}"),
                # What one reader takes apart is nothing to another.
                f"--corpus={arguments.corpus}-{name}",
            ],
            check=False,
        )
        for name in arguments.target
    ]
    return not any(run.returncode for run in runs)


def _holds(target: Target, batch: Sequence[Any], counts: Counter[str], where: str) -> bool:
    try:
        with _no_hang():
            counts.update(target.check(batch))
    except Exception as error:
        logging.exception("FOUND %s", where)
        for one in [] if isinstance(error, TimeoutError) else target.failing(batch)[:3]:
            print(f"this one fails by itself: {repr(one)[:_SHOWN]}", flush=True)
        return False
    return True


@contextmanager
def _no_hang() -> Iterator[None]:
    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"a batch takes longer than {_HANG_SECS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(_HANG_SECS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the fuzzer; returns the exit code, 1 when something was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--target", choices=TARGETS, nargs="+", default=["messages"], help="whose inputs"
    )
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--batch", type=int, help="only this batch of the seed")
    parser.add_argument("--coverage-guided", action="store_true")
    parser.add_argument("--corpus", type=Path, default=_CORPUS)
    parser.add_argument("--replay", type=Path, help="only this file of a coverage-guided run")
    arguments = parser.parse_args(argv)
    first, *others = arguments.target
    target = TARGETS[first]
    if others and (arguments.replay is not None or arguments.batch is not None):
        parser.error("--replay and --batch are about one --target")
    if arguments.replay is not None:
        one = target.read(arguments.replay.read_bytes())
        reached = _holds(target, [one], Counter(), str(arguments.replay))
    elif arguments.batch is not None:
        batch = target.draw_batch(arguments.seed, arguments.batch)
        reached = _holds(target, batch, Counter(), f"batch {arguments.batch}")
    elif arguments.coverage_guided and others:
        reached = _fuzz_guided_each(arguments)
    elif arguments.coverage_guided:
        fuzz_guided(first, arguments.inputs, arguments.seed, arguments.corpus)
    else:
        reached = all(
            [
                fuzz(name, arguments.inputs, arguments.seed, arguments.minutes)
                for name in arguments.target
            ]
        )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
