"""Ask QuerySendDetails about many sends, from any number of workers, and archive what it answers.

An answer is archived, synced, before anybody counts it. So a crash costs the questions of some seconds, and
what is archived needs not be asked again.
"""

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from itertools import islice
from time import monotonic
from typing import Final, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import PCollection
from typing_extensions import override

from pipeline.errors import EndpointError, OperatorError, OutputError, TransientError
from pipeline.inboxes.backoff import backoff_secs
from pipeline.sms_api import (
    QUERY_DAYS,
    NoAnswerError,
    RefusedQuestionError,
    SmsApi,
    ThrottledError,
)
from schemas.records import MnsMessage
from transforms.archive import (
    ArchiveError,
    ArchiveFile,
    list_archive,
    read_archive,
    write_archive_file,
)
from transforms.decode_query import (
    QUERY_MESSAGE_TYPE,
    Question,
    asked_key,
    decode_answer,
    query_message,
)
from transforms.failures import UnusableError
from transforms.manifest import Note, counts_note
from transforms.moments import BEIJING

# Tries of one question, with pauses of half a second to 16 s between them: a minute in all. A service that
# has never answered is given up on after 3 s: its address is probably wrong.
_TRIES: Final = 8
_FIRST_TRIES: Final = 4
_FIRST_PAUSE_SECS: Final = 0.5
_LONGEST_PAUSE_SECS: Final = 16.0
# An answer takes some 100 ms; one interpreter is busy with some hundreds of answers a second.
_THREADS: Final = 32
# What one archive file holds at most, in seconds and in answers: what a crash costs.
_BATCH_SECS: Final = 5.0
_BATCH_ANSWERS: Final = 1000
_TICK_SECS: Final = 0.2
# A call takes a moment, and clocks disagree; an SMS may wait before it is sent.
_EARLIER: Final = timedelta(minutes=5)
_LATER: Final = timedelta(hours=1)

# What becomes of a question, besides the answers: the answer cannot be decoded and is a failed event; none
# came; it was not asked because somebody wants to stop.
UNREADABLE: Final = "unreadable"
UNANSWERED: Final = "unanswered"
LEFT: Final = "left"


def days_to_ask(question: Question, as_of: datetime) -> Sequence[date]:
    """The Beijing days on which Alibaba may have the send, the likeliest first; one at least.

    It is that of the sender's clock, unless midnight was near. No other day is asked for that is still to
    come at ``as_of``, or that Alibaba has forgotten.
    """
    moments = (
        question.requested_at,
        question.requested_at + _LATER,
        question.requested_at - _EARLIER,
    )
    first, *others = dict.fromkeys(moment.astimezone(BEIJING).date() for moment in moments)
    today = as_of.astimezone(BEIJING).date()
    oldest = today - timedelta(days=QUERY_DAYS)
    return [first, *(day for day in others if oldest <= day <= today)]


def archived_answers(archive: str, since: datetime) -> list[ArchiveFile]:
    """List the files of the archive that have answers to questions asked at ``since`` or later."""
    landed_from = since.astimezone(timezone.utc).date()
    return [
        file
        for file in list_archive(archive, landed_from=landed_from)
        if file.queue_name == QUERY_MESSAGE_TYPE and file.last_enqueued_at >= since
    ]


def archived_bodies(archive: str, since: datetime) -> Iterator[bytes]:
    """Read the answers to what was asked at ``since`` or later, processed or not.

    Raises:
        ArchiveFileError: a file is damaged.
    """
    for file in archived_answers(archive, since):
        for batch in read_archive(file.path).batches:
            recent = batch.filter(pc.greater_equal(batch["enqueued_at"], pa.scalar(since)))
            yield from recent["body"].to_pylist()


def _outcome(body: bytes) -> str:
    try:
        return decode_answer(body).answer
    except UnusableError:
        return UNREADABLE  # an epoch makes a failed event of it


def write_lanes(questions: pa.Table, lanes: int, directory: str) -> list[str]:
    """Deal questions out, one file a lane, so that every lane has the oldest of its own first.

    Args:
        questions: biz_id, phone_number, requested_at.
        lanes: how many, at most.
        directory: where every worker can read them.
    """
    paths = []
    for lane in range(min(lanes, len(questions))):
        paths.append(os.path.join(directory, f"lane-{lane}.arrow"))
        dealt = questions.take(np.arange(lane, len(questions), lanes))
        with pa.OSFile(paths[-1], "wb") as file, pa.ipc.new_file(file, dealt.schema) as writer:
            writer.write_table(dealt, max_chunksize=_BATCH_ANSWERS)
    return paths


def _read_lane(path: str) -> pa.Table:
    with pa.memory_map(path) as file:
        return pa.ipc.open_file(file).read_all()


@dataclass(frozen=True)
class Asking:
    """How a lane is asked, and where its answers go.

    Attributes:
        endpoint: of the SMS API.
        archive: root of the archive; every worker must be able to write there.
        questions_per_sec: of one lane.
        clock: the time; a function that pickles.
        since: when the asking began.
        stop_file: lanes are left when a file of this name appears.
    """

    endpoint: str
    archive: str
    questions_per_sec: float
    clock: Callable[[], datetime]
    since: datetime
    stop_file: str


class AskAlibaba(beam.PTransform[PCollection[str], PCollection[Note]]):
    """Ask what the lanes hold, files of :func:`write_lanes`, and archive the answers; the output is counts.

    A lane is what one worker asks, question after question, at its share of the rate. A lane that is begun
    again leaves out what the archive has of it. Counts: every question counts once, as what became of it (an
    answer, or ``UNREADABLE``, ``UNANSWERED``, ``LEFT``); ``calls`` are those made.
    """

    def __init__(self, asking: Asking) -> None:
        super().__init__()
        self._asking = asking

    @override
    def expand(self, lanes: PCollection[str]) -> PCollection[Note]:
        notes: PCollection[Note] = (
            lanes | "SpreadLanes" >> beam.Reshuffle() | "Ask" >> beam.ParDo(_AskFn(self._asking))
        )
        return notes


class Asked(NamedTuple):
    """What became of a question, the calls it took, and what to archive; or why there was no answer."""

    outcome: str
    calls: int
    message: MnsMessage | None = None
    fault: TransientError | None = None


class _AskFn(beam.DoFn):
    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    @override
    def process(self, lane: str) -> Iterator[Note]:
        questions = _read_lane(lane)
        archived = {
            asked_key(body): _outcome(body)
            for body in archived_bodies(self._asking.archive, self._asking.since)
        }
        counts: Counter[str] = Counter()

        def unasked() -> Iterator[Question]:
            for part in questions.to_batches(_BATCH_ANSWERS):
                for row in part.to_pylist():
                    question = Question(**row)
                    outcome = archived.get(question[:2])
                    if outcome is None:
                        yield question
                    else:
                        counts[outcome] += 1

        asking = self._asking
        asker = Asker(SmsApi(asking.endpoint), asking.questions_per_sec, asking.clock)
        try:
            for batch in asker.ask(unasked(), self._is_stopped):
                self._write(batch)
                counts.update(asked.outcome for asked in batch)
                counts["calls"] += sum(asked.calls for asked in batch)
        finally:
            asker.close()
        counts[LEFT] += len(questions) - (counts.total() - counts["calls"])
        yield counts_note(counts)

    def _write(self, batch: Sequence[Asked]) -> None:
        messages = [asked.message for asked in batch if asked.message is not None]
        if not messages:
            return
        try:
            write_archive_file(self._asking.archive, messages, self._asking.clock())
        except ArchiveError as failure:
            raise OutputError(str(failure)) from None

    def _is_stopped(self) -> bool:
        return os.path.exists(self._asking.stop_file)


class Asker:
    """Asks about sends, many at once, and not more often than it may."""

    def __init__(
        self, api: SmsApi, questions_per_sec: float, clock: Callable[[], datetime]
    ) -> None:
        """Ask ``api``; ``clock`` tells when an answer was asked for."""
        self._api = api
        self._clock = clock
        self._draw = random.Random().random  # noqa: S311 - jitter keeps no secret
        self._closed = threading.Event()
        self._turns = _Turns(questions_per_sec, self._closed)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="ask")
        self._has_answered = False
        self._unanswered_in_a_row = 0

    def ask(
        self, questions: Iterable[Question], is_stopped: Callable[[], bool]
    ) -> Iterator[list[Asked]]:
        """Ask about each; yield what became of them, some seconds' worth at a time.

        Args:
            questions: read as far as they can be asked.
            is_stopped: whether to stop; what is under way is finished then, and the rest is not read.

        Raises:
            OperatorError: only the operator can help, or nobody answers any more; not before what was
                answered is yielded.
        """
        waiting = iter(questions)
        batch: list[Asked] = []
        yield_at = monotonic() + _BATCH_SECS
        try:
            pending = self._begin(islice(waiting, _THREADS))
            while pending:
                done, pending = wait(pending, _TICK_SECS, FIRST_COMPLETED)
                for future in done:
                    batch.append(future.result())
                    self._require_answers(batch[-1])
                if is_stopped():
                    self._closed.set()
                else:
                    pending |= self._begin(islice(waiting, len(done)))
                if batch and (monotonic() >= yield_at or len(batch) >= _BATCH_ANSWERS):
                    yield batch
                    batch, yield_at = [], monotonic() + _BATCH_SECS
        except OperatorError:
            if batch:
                yield batch
            raise
        if batch:
            yield batch

    def close(self) -> None:
        """End the threads; nobody waits for an answer any more."""
        self._closed.set()
        self._threads.shutdown(cancel_futures=True)

    def _begin(self, questions: Iterable[Question]) -> set[Future[Asked]]:
        return {self._threads.submit(self._ask_one, question) for question in questions}

    def _require_answers(self, asked: Asked) -> None:
        """Give up when nobody answers; one question without an answer is asked again another time."""
        if asked.fault is None:
            self._unanswered_in_a_row = 0
            return
        self._unanswered_in_a_row += 1
        if not self._has_answered or self._unanswered_in_a_row >= _THREADS:
            raise EndpointError(f"{asked.fault}; what was answered is kept, so run this again.")

    def _ask_one(self, question: Question) -> Asked:
        calls = failures = 0
        days = days_to_ask(question, self._clock())
        while self._turns.take():
            asked_at = self._clock()
            calls += 1
            try:
                details = self._api.send_details(question.biz_id, question.phone_number, days[0])
            except RefusedQuestionError as refusal:
                self._has_answered = True
                message = query_message(question, (), asked_at, refusal=str(refusal))
                return Asked(_outcome(message.body), calls, message)
            except TransientError as fault:
                failures += 1
                if failures == self._most_tries(fault):
                    return Asked(UNANSWERED, calls, fault=fault)
                pause = backoff_secs(failures, _FIRST_PAUSE_SECS, _LONGEST_PAUSE_SECS, self._draw)
                if isinstance(fault, ThrottledError):
                    self._turns.hold(pause)
                elif self._closed.wait(pause):
                    break
                continue
            self._has_answered = True
            if details or len(days) == 1:
                message = query_message(question, details, asked_at)
                return Asked(_outcome(message.body), calls, message)
            days = days[1:]
        return Asked(LEFT, calls)

    def _most_tries(self, fault: TransientError) -> int:
        is_strange = isinstance(fault, NoAnswerError) and not self._has_answered
        return _FIRST_TRIES if is_strange else _TRIES


class _Turns:
    """Spreads calls evenly, and holds all of them back when the service has had too many."""

    def __init__(self, per_sec: float, closed: threading.Event) -> None:
        self._interval_secs = 1.0 / per_sec
        self._closed = closed
        self._next_secs = monotonic()
        self._taking = threading.Lock()

    def take(self) -> bool:
        """Wait for a turn; return False when there are no more."""
        with self._taking:
            now_secs = monotonic()
            turn_secs = max(self._next_secs, now_secs)
            self._next_secs = turn_secs + self._interval_secs
        return not self._closed.wait(turn_secs - now_secs)

    def hold(self, secs: float) -> None:
        """Let nobody have a turn for so long, who does not have one yet."""
        with self._taking:
            self._next_secs = max(self._next_secs, monotonic() + secs)
