"""``sms-receipts``, also ``python -m pipeline``: the command line.

What a command needs is imported when the command runs: an emulator does not wait for Beam, and a report
needs neither.
"""

import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Final

from pipeline.clock import utc_now
from pipeline.errors import OperatorError, SmsReceiptsError
from pipeline.memory import choose_allocator

# Of every line that a command says while it works: UTC.
_TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"
_USAGE: Final = """\
usage: sms-receipts COMMAND [FLAGS]     (COMMAND --help explains the flags)

  run        take messages off the queues and turn them into tables
  stream     the same without end on Flink, Prism or Dataflow, to files, topics or BigQuery
  report     answer questions from the tables
  reconcile  ask Alibaba about the sends that no report has come for
  audit      compare the tables with Alibaba's own totals of each day
  explain    tell everything that is known about one send
  backfill   recompute days from the archive and the send log
  replay     try failed events again
  compact    write days anew as few sorted files
  erase      remove people from the tables and the archive, and show that they are gone
  emulator   serve the queues and the SMS API on this machine, for trials and tests
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0 done; 1 a bug, or an audit that found gaps; 2 something that the operator can mend,
        as the printed sentence says; 130 stopped by hand.
    """
    command, *flags = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if command in {"-h", "--help"}:
        sys.stdout.write(_USAGE)
        return 0
    if command not in _COMMANDS:
        sys.stderr.write(f"sms-receipts: there is no command {command!r}.\n{_USAGE}")
        return 2
    try:
        return _COMMANDS[command](flags)
    except SmsReceiptsError as error:
        sys.stderr.write(f"sms-receipts {command}: {error}\n")
        return 2 if isinstance(error, OperatorError) else 1
    except KeyboardInterrupt:
        sys.stderr.write(
            f"sms-receipts {command}: stopped; what was not committed is done again.\n"
        )
        return 130


def _run(flags: Sequence[str]) -> int:
    _quiet_libraries()
    choose_allocator()
    from pipeline.options import run_options
    from pipeline.run import run
    from pipeline.summary import require_closed_ledger, run_summary

    options = run_options(flags)
    counts = run(options, utc_now, _say)
    sys.stdout.write(f"\n{run_summary(counts)}\n\n")
    sys.stdout.write(f"{require_closed_ledger(counts)}\n")
    sys.stdout.write(f"Next: sms-receipts report --dataset {options.job.dataset}\n")
    return 0


def _stream(flags: Sequence[str]) -> int:
    _quiet_libraries()
    choose_allocator()
    from pipeline.options_stream import stream_options
    from pipeline.stream import stream

    ended = stream(stream_options(flags), utc_now, _say)
    sys.stdout.write(f"\n{ended}\n")
    return 0


def _backfill(flags: Sequence[str]) -> int:
    _quiet_libraries()
    from pipeline.backfill import backfill
    from pipeline.catalog import Catalog
    from pipeline.options import backfill_options
    from pipeline.summary import graph_summary

    options = backfill_options(flags)
    signal.signal(signal.SIGINT, _stop_by_hand)
    with Catalog(options.job.dataset, utc_now) as catalog:
        counts = backfill(catalog, options.job, options.days, options.as_of or utc_now(), _say)
    sys.stdout.write(f"\n{graph_summary(counts)}\n\n")
    sys.stdout.write(
        f"{len(options.days)} days were replaced; every record is in exactly one place.\n"
    )
    sys.stdout.write(f"Next: sms-receipts report --dataset {options.job.dataset}\n")
    return 0


def _reconcile(flags: Sequence[str]) -> int:
    _quiet_libraries()
    from pipeline.options_reconcile import reconcile_options
    from pipeline.reconcile import next_step, plan, reconcile, summary

    options = reconcile_options(flags)
    if options.dry_run:
        sys.stdout.write(f"{plan(options, utc_now())}\n")
        return 0
    done = reconcile(options, utc_now, _say)
    sys.stdout.write(f"\n{summary(done)}\n")
    if done.counts and not done.is_processed:
        sys.stdout.write(
            "The answers are in the archive: the running job, or the next one, brings them into the tables.\n"
        )
    sys.stdout.write(f"Next: {next_step(options, done, utc_now())}\n")
    return 0


def _audit(flags: Sequence[str]) -> int:
    _quiet_libraries()
    from pipeline.audit import audit, document, text
    from pipeline.options_reconcile import audit_options

    options = audit_options(flags)
    audited = audit(options, utc_now)
    sys.stdout.write(f"{document(audited) if options.json else text(audited)}\n")
    return 1 if audited.gaps else 0


def _explain(flags: Sequence[str]) -> int:
    _quiet_libraries()
    from pipeline.explain.story import explain
    from pipeline.explain.text import document, text
    from pipeline.options_explain import explain_options

    options = explain_options(flags)
    explanation = explain(options, utc_now, _say)
    with _cut_short_by_its_reader() as answered:
        sys.stdout.write(f"{document(explanation) if options.json else text(explanation)}\n")
    return answered.exit_code


def _replay(flags: Sequence[str]) -> int:
    _quiet_libraries()
    from pipeline.catalog import Catalog
    from pipeline.options_replay import replay_options
    from pipeline.replay import dry_run, replay, replay_summary, require_dataset

    options = replay_options(flags)
    dataset, choice = options.job.dataset, options.choice
    if options.is_applied:
        require_dataset(dataset)
        with Catalog(dataset, utc_now) as catalog:
            counts = replay(catalog, options.job, choice, utc_now(), _say)
    else:
        counts = dry_run(dataset, choice, utc_now(), _say)
    sys.stdout.write(f"\n{replay_summary(counts, dataset, is_applied=options.is_applied)}\n")
    return 0


def _compact(flags: Sequence[str]) -> int:
    _quiet_libraries()
    choose_allocator()
    from pipeline.compact import compact, loose_days, plan, summary
    from pipeline.options_compact import compact_options

    options = compact_options(flags)
    if options.dry_run:
        sys.stdout.write(f"{plan(loose_days(options), options.dataset)}\n")
        return 0
    signal.signal(signal.SIGINT, _stop_by_hand)
    sys.stdout.write(f"\n{summary(compact(options, utc_now, _say))}\n")
    return 0


def _erase(flags: Sequence[str]) -> int:
    _quiet_libraries()
    from pipeline.erase import dry_run, erase, summary
    from pipeline.erase_proof import findings, next_step, prove, require_no_trace
    from pipeline.options_erase import erase_options

    options = erase_options(flags, sys.stdin)
    if not options.is_applied:
        sys.stdout.write(f"\n{summary(dry_run(options, _say), options)}\n")
        return 0
    signal.signal(signal.SIGINT, _stop_by_hand)
    changes = erase(options, utc_now, _say)
    sys.stdout.write(f"\n{summary(changes, options)}\n")
    sys.stdout.flush()
    proof = prove(options, _say)
    sys.stdout.write(findings(proof, options))
    sys.stdout.write(f"{require_no_trace(proof, options)}\nNext: {next_step(proof, options)}\n")
    return 0


def _report(flags: Sequence[str]) -> int:
    from analytics.report import main as report

    with _cut_short_by_its_reader() as answered:
        answered.exit_code = report(flags)
    return answered.exit_code


def _emulator(flags: Sequence[str]) -> int:
    from emulator.server import main as emulator

    return emulator(flags)


_COMMANDS: Final[Mapping[str, Callable[[Sequence[str]], int]]] = {
    "run": _run,
    "stream": _stream,
    "report": _report,
    "reconcile": _reconcile,
    "audit": _audit,
    "explain": _explain,
    "backfill": _backfill,
    "replay": _replay,
    "compact": _compact,
    "erase": _erase,
    "emulator": _emulator,
}


@dataclass
class _Answered:
    exit_code: int = 0


@contextmanager
def _cut_short_by_its_reader() -> Iterator[_Answered]:
    """End quietly when only the first lines of an answer are read (``| head``), as any such tool does."""
    answered = _Answered()
    try:
        yield answered
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end: to nowhere, then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        answered.exit_code = 128 + signal.SIGPIPE


def _stop_by_hand(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal calls it
    # With a text, as in pipeline.stopping.
    raise KeyboardInterrupt("stopped by hand")


def _say(line: str) -> None:
    with suppress(BrokenPipeError):  # nobody reads on: no reason to end a job
        sys.stderr.write(f"{utc_now():{_TIME_FORMAT}} {line}\n")
        sys.stderr.flush()


def _quiet_libraries() -> None:
    """Keep off the terminal what Beam and Google's clients tell their developers at import and later."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.")
    line = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", _TIME_FORMAT)
    line.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(line)
    logging.basicConfig(level=logging.ERROR, handlers=[handler])
    # Our own warnings are for the operator: that a queue does not answer, for one.
    logging.getLogger("pipeline").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
