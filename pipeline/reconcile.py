"""Reconcile: ask Alibaba about the sends that no report has come for.

Receipts get lost: in the network, in an outage longer than the queue's retention, to another consumer. For
30 days QuerySendDetails knows what became of an SMS (419277). Its answers land in the archive as messages do,
and become rows by the same epochs; so this works beside ``sms-receipts run --follow``, which picks them up.
"""

import os
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final, NamedTuple

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from analytics.connection import connect
from pipeline.asking import AskAlibaba
from pipeline.catalog import Catalog
from pipeline.epochs import JobSettings, epochs_of, find_new_input, run_epoch
from pipeline.errors import AlreadyRunningError
from pipeline.graph_faults import operators_sentences
from pipeline.ledger import LedgerError
from transforms.archive import list_archive, read_archive
from transforms.decode_query import QUERY_MESSAGE_TYPE, Question, decode_answer
from transforms.failures import UnusableError
from transforms.manifest import WriteManifest, read_manifest
from transforms.tally import close_tally, tally_of

# How far back Alibaba answers (419277).
QUERY_DAYS: Final = 30
_PROGRESS_SECS: Final = 5.0
_CHUNK_SECS: Final = 2.0
_MOST_PER_CHUNK: Final = 1000
_SILENT_SENDS: Final = """
SELECT biz_id, phone_number, min(requested_at) AS requested_at
FROM sends
WHERE state IN ('open', 'unreported') AND requested_at >= ? AND requested_at < ?
GROUP BY biz_id, phone_number
ORDER BY requested_at, biz_id, phone_number
"""


@dataclass(frozen=True)
class ReconcileSettings:
    """How to ask, and about what.

    Attributes:
        job: archive, dataset and how they are processed.
        dysmsapi_endpoint: ``http(s)://host[:port]`` of the SMS API.
        after: how old a send must be: most reports come by themselves.
        again_after: how long an answer that was no verdict stands before the question is asked again.
        questions_per_sec: of all workers together.
        workers: lanes in which Beam may ask, each with its share of the rate.
        first, last: Beijing days of the sends; None for as far as Alibaba answers.
    """

    job: JobSettings
    dysmsapi_endpoint: str
    after: timedelta
    again_after: timedelta
    questions_per_sec: float
    workers: int
    first: date | None
    last: date | None


class Reconciled(NamedTuple):
    """What became of it: the counts of the asking, and those of the epochs; None if another job has them."""

    asking: Mapping[str, int]
    epochs: Mapping[str, int] | None


def open_questions(settings: ReconcileSettings, as_of: datetime) -> list[Question]:
    """Find the sends to ask about, oldest first.

    Raises:
        analytics.catalog.DatasetError: there is no dataset.
    """
    recently = _asked_since(settings.job.archive, as_of - settings.again_after)
    oldest = as_of - timedelta(days=QUERY_DAYS)
    with connect(settings.job.dataset, first_day=settings.first, last_day=settings.last) as tables:
        rows = tables.execute(_SILENT_SENDS, [oldest, as_of - settings.after]).fetchall()
    questions = (Question(*row) for row in rows)
    return [q for q in questions if (q.biz_id, q.phone_number) not in recently]


def reconcile(
    settings: ReconcileSettings, clock: Callable[[], datetime], say: Callable[[str], None]
) -> Reconciled:
    """Ask about every open question once, and bring the tables up to date.

    Raises:
        OperatorError: only the operator can help; what was answered stays in the archive.
    """
    questions = open_questions(settings, clock())
    say(f"reconcile: {len(questions):,} sends have no report")
    asked = _ask(settings, questions, clock, say) if questions else Counter[str]()
    return Reconciled(asked, _process(settings.job, clock, say))


def _asked_since(archive: str, moment: datetime) -> set[tuple[str, str]]:
    """The keys that the archive has answers for, asked since then: whether processed or not."""
    asked = set()
    for file in list_archive(archive, landed_from=moment.date()):
        if file.queue_name != QUERY_MESSAGE_TYPE or file.last_enqueued_at < moment:
            continue
        for batch in read_archive(file.path):
            for row in batch.select(["body", "enqueued_at"]).to_pylist():
                try:
                    question = decode_answer(row["body"]).question
                except UnusableError:
                    continue  # an epoch makes a failed event of it
                if row["enqueued_at"] >= moment:
                    asked.add((question.biz_id, question.phone_number))
    return asked


def _ask(
    settings: ReconcileSettings,
    questions: Sequence[Question],
    clock: Callable[[], datetime],
    say: Callable[[str], None],
) -> Mapping[str, int]:
    run_id = uuid.uuid4().hex
    notes_at = os.path.join(settings.job.archive, f".reconcile-{run_id}")
    of_a_lane = settings.questions_per_sec / settings.workers
    size = max(1, min(_MOST_PER_CHUNK, int(of_a_lane * _CHUNK_SECS)))
    chunks = [questions[start : start + size] for start in range(0, len(questions), size)]
    try:
        with (
            _progress(run_id, len(questions), say),
            operators_sentences(settings.job.archive),
            _scratch(notes_at),
        ):
            with beam.Pipeline(options=PipelineOptions(list(settings.job.beam_args))) as pipeline:
                asking = AskAlibaba(
                    settings.dysmsapi_endpoint, settings.job.archive, of_a_lane, clock, run_id
                )
                (
                    pipeline
                    | "Questions" >> beam.Create(_in_lanes(chunks, settings.workers))
                    | "AskAlibaba" >> asking
                    | "WriteManifest" >> WriteManifest(notes_at)
                )
            counts = read_manifest(notes_at).counts
    finally:
        close_tally(run_id)
    if counts["asked"] != len(questions):
        raise LedgerError(
            f"Of {len(questions)} questions {counts['asked']} were asked: this is a bug of sms-receipts."
        )
    return counts


def _in_lanes(
    chunks: Sequence[Sequence[Question]], lanes: int
) -> Iterator[tuple[int, Sequence[Question]]]:
    for number, chunk in enumerate(chunks):
        yield number % lanes, chunk


def _process(
    job: JobSettings, clock: Callable[[], datetime], say: Callable[[str], None]
) -> Mapping[str, int] | None:
    """Run epochs over what the archive has, unless a running job will."""
    counts: Counter[str] = Counter()
    try:
        with Catalog(job.dataset, clock) as catalog:
            for batch in epochs_of(find_new_input(catalog, job)):
                counts.update(run_epoch(catalog, job, batch, clock()))
    except AlreadyRunningError:
        say("reconcile: the running job has the dataset, and will process the answers")
        return None
    return counts


@contextmanager
def _scratch(directory: str) -> Iterator[None]:
    os.makedirs(directory)
    try:
        yield
    finally:
        for name in os.listdir(directory):
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)


@contextmanager
def _progress(run_id: str, questions: int, say: Callable[[str], None]) -> Iterator[None]:
    """Say every few seconds how far it is; only workers of this process can be heard."""
    done = threading.Event()

    def tell() -> None:
        while not done.wait(_PROGRESS_SECS):
            asked = tally_of(run_id).counts().get("asked", 0)
            say(f"reconcile: {asked:,} of {questions:,} asked")

    thread = threading.Thread(target=tell, name="reconcile-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
