"""Reconcile: ask Alibaba about the sends that no report has come for.

Receipts get lost: in the network, in an outage longer than the queue's retention, to another consumer. For
30 days QuerySendDetails knows what became of an SMS (419277). Its answers land in the archive as messages do,
and become rows by the same epochs; so this works beside ``sms-receipts run --follow``, which picks them up.
"""

import fcntl
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date, datetime, timedelta
from typing import Final, NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from analytics.catalog import DatasetError
from analytics.completeness import KEYS, silent_sends
from pipeline.asking import (
    LEFT,
    UNANSWERED,
    UNREADABLE,
    AskAlibaba,
    Asking,
    archived_answers,
    archived_bodies,
    days_to_ask,
    write_lanes,
)
from pipeline.catalog import Catalog
from pipeline.compaction import compact
from pipeline.epochs import JobSettings, epochs_of, find_new_input, is_due, run_epoch
from pipeline.errors import AlreadyRunningError, EndpointError, OperatorError, OutputError
from pipeline.graph_faults import operators_sentences
from pipeline.ledger import LedgerError
from pipeline.options_reconcile import ReconcileOptions
from pipeline.sms_api import QUERY_DAYS
from pipeline.stopping import is_stop_requested, stopping_on_signals
from transforms.archive import ArchiveError, require_writable_archive
from transforms.decode_query import Question, asked_key
from transforms.manifest import WriteManifest, read_manifest
from transforms.moments import BEIJING, from_ms, to_ms

# Below the dataset, where every worker can read: the questions of a run, while it runs. The lock stays.
_DIRECTORY: Final = "_reconcile"
_LOCK_NAME: Final = "_reconcile_lock"
_QUESTIONS_AT_ONCE: Final = 10_000
_TICK_SECS: Final = 0.2
_PROGRESS_SECS: Final = 5.0
_STOPPING: Final = (
    b"stopping: the questions under way are finished, the rest is left for next time\n"
)
# What may become of a question, in the order of the summary.
_OUTCOMES: Final = {
    "delivered": "now reports",
    "failed": "now reports",
    "awaiting": "Alibaba has no verdict yet; they stay open and are asked about again",
    "unknown": "Alibaba knows no such SMS; asked about again",
    "refused": "Alibaba will not say; sms-receipts report --sql=query_answers",
    UNREADABLE: "answers that cannot be decoded; sms-receipts report --sql=failed_events",
    UNANSWERED: "asked about by the next reconcile",
    LEFT: "not asked; left for the next reconcile",
}
_ALWAYS_SHOWN: Final = frozenset(
    ("delivered", "failed", "awaiting", "unknown", "refused", UNANSWERED)
)


class Reconciled(NamedTuple):
    """What a reconcile did.

    ``counts`` are ``questions``, ``calls`` and what became of the questions; ``is_processed`` tells whether
    the answers are in the tables: if not, the running job brings them in, or the next run.
    """

    counts: Counter[str]
    is_processed: bool


def reconcile(
    options: ReconcileOptions, clock: Callable[[], datetime], say: Callable[[str], None]
) -> Reconciled:
    """Ask about every open question, once or again and again, and bring the tables up to date.

    Args:
        options: the flags.
        clock: the time, aware; a function that pickles.
        say: prints a line of progress.

    Raises:
        OperatorError: only the operator can help; what was answered stays in the archive.
    """
    forgotten = _forgotten(options, clock())
    if forgotten:
        say(f"reconcile: {forgotten}")
    counts: Counter[str] = Counter()
    with (
        stopping_on_signals(_STOPPING),
        alone(options.job.archive, options.job.dataset) as directory,
    ):
        # What is new first: sends that were just logged are asked about, too.
        is_processed = _process(options.job, clock, say)
        while True:
            next_at = clock() + (options.every or timedelta())
            try:
                asked = _ask(options, directory, clock, say)
            except EndpointError as outage:
                # Who follows has seen it answer, and waits for it to come back.
                if options.every is None or not counts["calls"]:
                    raise
                say(f"reconcile: {outage}")
                asked = Counter()
            counts.update(asked)
            if not is_stop_requested():
                is_processed = _process(options.job, clock, say)
            elif asked:
                is_processed = False
            if options.every is None or not _wait(next_at, clock):
                return Reconciled(counts, is_processed)


def open_questions(options: ReconcileOptions, as_of: datetime) -> pa.Table:
    """Find the sends to ask about, oldest first: biz_id, phone_number, requested_at.

    Left out are those that were asked about lately, whether or not the answer is in the tables already.

    Raises:
        OperatorError: there is no dataset, or a file of it or of the archive is damaged.
    """
    lately = as_of - options.again_after
    with operators_sentences(options.job.dataset):
        asked = set(map(asked_key, archived_bodies(options.job.archive, lately))) - {None}
    left_out = pa.table(list(zip(*asked, strict=True)) or [[], []], schema=KEYS)
    since, until = as_of - timedelta(days=QUERY_DAYS), as_of - options.after
    if options.first is not None:
        since = max(since, _midnight(options.first))
    if options.last is not None:
        until = min(until, _midnight(options.last + timedelta(days=1)))
    try:
        return silent_sends(options.job.dataset, since, until, left_out)
    except DatasetError as error:
        raise OperatorError(str(error)) from None


def plan(options: ReconcileOptions, as_of: datetime) -> str:
    """Say how many calls it would take, and how long.

    Raises:
        OperatorError: as :func:`open_questions`.
    """
    forgotten = _forgotten(options, as_of)
    questions = open_questions(options, as_of)
    most = sum(
        len(days_to_ask(Question(**row), as_of))
        for part in questions.to_batches(_QUESTIONS_AT_ONCE)
        for row in part.to_pylist()
    )
    more = f" (near midnight a second one may be needed: {most:,} at most)" * (
        most > len(questions)
    )
    duration = timedelta(seconds=round(len(questions) / options.questions_per_sec))
    return (
        f"{forgotten}{' ' * bool(forgotten)}{len(questions):,} sends have no report: reconcile would make "
        f"{len(questions):,} calls of QuerySendDetails{more}, which take {duration} (h:mm:ss) at "
        f"--qps={options.questions_per_sec:g}."
    )


def summary(done: Reconciled) -> str:
    """Lay out what became of the questions, and check that every one is accounted for.

    Raises:
        LedgerError: one is not.
    """
    counts = done.counts
    shown = [word for word in _OUTCOMES if counts[word] or word in _ALWAYS_SHOWN]
    lines = [
        ("questions", counts["questions"], "sends without a report"),
        *((f"  {word}", counts[word], _OUTCOMES[word]) for word in shown),
        ("calls", counts["calls"], "of QuerySendDetails"),
    ]
    settled = sum(counts[word] for word in _OUTCOMES)
    if settled != counts["questions"]:
        raise LedgerError(
            f"Of {counts['questions']} questions {settled} are accounted for; nothing is lost, but please "
            "report this as a bug of sms-receipts."
        )
    total = " + ".join(f"{counts[word]:,} {word}" for word in shown)
    table = "\n".join(f"{name:<20}{number:>12,}  {remark}" for name, number, remark in lines)
    return f"{table}\n\nEvery question is accounted for: {settled:,} = {total}."


def next_step(options: ReconcileOptions, done: Reconciled, as_of: datetime) -> str:
    """Say what asks about the rest, or tells whether anything is still missing."""
    rest = done.counts[LEFT] + done.counts[UNANSWERED]
    if rest:
        return f"sms-receipts reconcile with the same flags, which asks about the other {rest:,}"
    first = options.first or _beijing_day(as_of - timedelta(days=QUERY_DAYS))
    last = options.last or _beijing_day(as_of)
    return f"sms-receipts audit --from={first} --to={last} --dataset={options.job.dataset}"


def _forgotten(options: ReconcileOptions, as_of: datetime) -> str:
    """Say which of the days asked for Alibaba does not remember.

    Raises:
        OperatorError: none of them is left.
    """
    oldest = _beijing_day(as_of - timedelta(days=QUERY_DAYS))
    since = f"Alibaba answers about the last {QUERY_DAYS} days, since {oldest}"
    if options.last is not None and options.last < oldest:
        raise OperatorError(f"{since}: it has forgotten --to={options.last} and the days before.")
    if options.first is not None and options.first < oldest:
        return f"{since}: the days before are left out."
    return ""


def _midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), BEIJING)


def _beijing_day(moment: datetime) -> date:
    return moment.astimezone(BEIJING).date()


def _ask(
    options: ReconcileOptions,
    directory: str,
    clock: Callable[[], datetime],
    say: Callable[[str], None],
) -> Counter[str]:
    """Run the graph that asks; return its counts and those of the ``questions``."""
    questions = open_questions(options, clock())
    say(f"reconcile: {len(questions):,} sends have no report")
    if not len(questions) or is_stop_requested():
        return Counter()
    stop_file = os.path.join(directory, "stop")
    asking = Asking(
        endpoint=options.dysmsapi_endpoint,
        archive=options.job.archive,
        questions_per_sec=options.questions_per_sec / min(options.workers, len(questions)),
        clock=clock,
        since=from_ms(to_ms(clock())),
        stop_file=stop_file,
    )
    with (
        _watching(asking, len(questions), say),
        operators_sentences(options.job.dataset),
    ):
        lanes = write_lanes(questions, options.workers, directory)
        with beam.Pipeline(options=PipelineOptions(list(options.job.beam_args))) as pipeline:
            (
                pipeline
                | "Lanes" >> beam.Create(lanes)
                | "AskAlibaba" >> AskAlibaba(asking)
                | "WriteManifest" >> WriteManifest(directory)
            )
        counts = read_manifest(directory).counts
    counts["questions"] = len(questions)
    return counts


def _process(job: JobSettings, clock: Callable[[], datetime], say: Callable[[str], None]) -> bool:
    """Run epochs over what is new, unless a running job has the dataset; tell whether all is processed."""
    try:
        with Catalog(job.dataset, clock) as catalog:
            new = find_new_input(catalog, job)
            if not new and not is_due(catalog, job, clock()):
                return True
            for batch in epochs_of(new):
                if is_stop_requested():
                    return False
                epoch = run_epoch(catalog, job, batch, clock())
                compact(catalog, clock())
                say(
                    f"reconcile: an epoch of {epoch['messages']:,} messages and {epoch['sends']:,} sends"
                )
    except AlreadyRunningError:
        return False
    return True


def _require_archive(archive: str) -> None:
    try:
        require_writable_archive(archive)
    except ArchiveError as failure:
        raise OutputError(f"{failure}.") from None


@contextmanager
def alone(archive: str, dataset: str) -> Iterator[str]:
    """Keep other reconciles of the dataset away; provide an empty directory that all workers see.

    Raises:
        AlreadyRunningError: there is another one.
        OutputError: archive or dataset cannot be written.
    """
    _require_archive(archive)
    directory = os.path.join(dataset, _DIRECTORY)
    with ExitStack() as opened:
        with operators_sentences(dataset):
            os.makedirs(dataset, exist_ok=True)
            lock = opened.enter_context(
                open(os.path.join(dataset, _LOCK_NAME), "w", encoding="ascii")
            )
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunningError(
                    f"Another sms-receipts reconcile asks about the sends of {dataset}: wait for it, "
                    "or stop it."
                ) from None
            # One that was killed leaves its questions behind.
            shutil.rmtree(directory, ignore_errors=True)
            opened.callback(shutil.rmtree, directory, ignore_errors=True)
            os.makedirs(directory)
        yield directory


@contextmanager
def _watching(asking: Asking, questions: int, say: Callable[[str], None]) -> Iterator[None]:
    """Say every few seconds how far all workers are, and hand on the request to stop to them."""
    done = threading.Event()

    def watch() -> None:
        told_at = time.monotonic()
        while not done.wait(_TICK_SECS):
            if is_stop_requested():
                with open(asking.stop_file, "wb"):
                    return
            if time.monotonic() >= told_at + _PROGRESS_SECS:
                told_at = time.monotonic()
                files = archived_answers(asking.archive, asking.since)
                say(
                    f"reconcile: {sum(file.messages for file in files):,} of {questions:,} answered"
                )

    thread = threading.Thread(target=watch, name="reconcile-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _wait(until: datetime, clock: Callable[[], datetime]) -> bool:
    """Wait for the next round; return False if there is none."""
    while not is_stop_requested():
        if clock() >= until:
            return True
        time.sleep(_TICK_SECS)
    return False
