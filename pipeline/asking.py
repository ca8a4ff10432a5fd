"""Ask QuerySendDetails about many sends, from any number of workers, and archive what it answers.

An answer is archived, synced, before anybody counts it; so a crash costs the questions of one chunk, some
seconds' worth, and what is archived needs not be asked again.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from time import monotonic
from typing import Final

import apache_beam as beam
from apache_beam.pvalue import PCollection
from typing_extensions import override

from pipeline.errors import OperatorError, TransientError
from pipeline.mns.backoff import backoff_secs
from pipeline.sms_api import RefusedQuestionError, SmsApi
from schemas.records import MnsMessage
from transforms.archive import write_archive_file
from transforms.decode_query import Question, query_message
from transforms.manifest import Note, counts_note
from transforms.moments import BEIJING
from transforms.tally import tally_of

# Tries of one question, with pauses of half a second to 16 s between them: a minute in all.
_TRIES: Final = 8
_FIRST_PAUSE_SECS: Final = 0.5
_LONGEST_PAUSE_SECS: Final = 16.0
# An answer takes some 100 ms; so many under way reach the service's limit of 5,000 a second in theory,
# and any rate that one worker can keep up in practice.
_THREADS: Final = 32
_NEAR_MIDNIGHT: Final = timedelta(minutes=5)


def days_to_ask(question: Question) -> Sequence[date]:
    """The Beijing days on which Alibaba may have the send, the likeliest first.

    It is that of the sender's clock, unless midnight was near: a call takes a moment, and clocks disagree.
    """
    moments = (
        question.requested_at,
        question.requested_at + _NEAR_MIDNIGHT,
        question.requested_at - _NEAR_MIDNIGHT,
    )
    return tuple(dict.fromkeys(moment.astimezone(BEIJING).date() for moment in moments))


class AskingError(Exception):
    """Raised on a worker when only the operator can help; a sentence with cause and fix."""


class AskAlibaba(beam.PTransform[PCollection[tuple[int, Sequence[Question]]], PCollection[Note]]):
    """Ask about chunks of sends, keyed by lane, and archive the answers; the output is counts.

    A lane is what one worker asks, chunk after chunk, at its share of the rate.

    Args:
        endpoint: of the SMS API.
        archive: root of the archive; every worker must be able to write there.
        questions_per_sec: of one lane.
        clock: the time; a function that pickles.
        run_id: name of the tally of progress (``transforms.tally``).
    """

    def __init__(
        self,
        endpoint: str,
        archive: str,
        questions_per_sec: float,
        clock: Callable[[], datetime],
        run_id: str,
    ) -> None:
        super().__init__()
        self._ask = _AskFn(endpoint, archive, questions_per_sec, clock, run_id)

    @override
    def expand(self, chunks: PCollection[tuple[int, Sequence[Question]]]) -> PCollection[Note]:
        notes: PCollection[Note] = (
            chunks | "Lanes" >> beam.GroupByKey() | "Ask" >> beam.ParDo(self._ask)
        )
        return notes


class _AskFn(beam.DoFn):
    def __init__(
        self,
        endpoint: str,
        archive: str,
        questions_per_sec: float,
        clock: Callable[[], datetime],
        run_id: str,
    ) -> None:
        self._endpoint = endpoint
        self._archive = archive
        self._questions_per_sec = questions_per_sec
        self._clock = clock
        self._run_id = run_id

    @override
    def setup(self) -> None:
        self._asker = Asker(SmsApi(self._endpoint), self._questions_per_sec, self._clock)

    @override
    def process(self, lane: tuple[int, Iterable[Sequence[Question]]]) -> Iterator[Note]:
        _, chunks = lane
        for chunk in chunks:
            try:
                messages, counts = self._asker.ask([Question(*question) for question in chunk])
            except OperatorError as failure:
                raise AskingError(str(failure)) from None
            if messages:
                write_archive_file(self._archive, messages, self._clock())
            tally_of(self._run_id).add(**counts)
            yield counts_note(counts)

    @override
    def teardown(self) -> None:
        self._asker.close()


class Asker:
    """Asks about sends, several at once, and not more often than it may."""

    def __init__(
        self,
        api: SmsApi,
        questions_per_sec: float,
        clock: Callable[[], datetime],
    ) -> None:
        """Ask ``api``; ``clock`` tells when an answer was asked for."""
        self._api = api
        self._interval_secs = 1.0 / questions_per_sec
        self._clock = clock
        self._draw = random.Random().random  # noqa: S311 - jitter keeps no secret
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="ask")
        self._next_secs = monotonic()
        self._taking_turns = threading.Lock()
        self._closed = threading.Event()

    def ask(self, questions: Sequence[Question]) -> tuple[list[MnsMessage], Counter[str]]:
        """Ask about each; return the answers as messages, and what became of the questions.

        Counts: ``asked`` = ``answered`` + ``refused`` + ``unanswered``, and ``calls``.

        Raises:
            OperatorError: only the operator can help, or nobody answers any more.
        """
        counts: Counter[str] = Counter(asked=len(questions))
        messages: list[MnsMessage] = []
        pending = [self._threads.submit(self._ask_one, question) for question in questions]
        try:
            for future in pending:
                message, outcome, calls = future.result()
                counts[outcome] += 1
                counts["calls"] += calls
                if message is not None:
                    messages.append(message)
        except OperatorError:
            self._closed.set()
            raise
        finally:
            for future in pending:
                future.cancel()
        if counts["unanswered"] == len(questions):
            raise OperatorError(
                f"Alibaba's SMS API has not answered any of {len(questions)} questions, each asked {_TRIES} "
                "times: check --dysmsapi_endpoint and the network, and run again; what was answered is kept"
            )
        return messages, counts

    def close(self) -> None:
        """End the threads; nobody waits for an answer any more."""
        self._closed.set()
        self._threads.shutdown(cancel_futures=True)

    def _ask_one(self, question: Question) -> tuple[MnsMessage | None, str, int]:
        """Ask about one send; return the answer, what became of the question, and the calls it took."""
        days = days_to_ask(question)
        calls = failures = 0
        while True:
            self._wait_for_turn()
            asked_at = self._clock()
            calls += 1
            try:
                details = self._api.send_details(question.biz_id, question.phone_number, days[0])
            except RefusedQuestionError:
                return None, "refused", calls
            except TransientError:
                failures += 1
                pause = backoff_secs(failures, _FIRST_PAUSE_SECS, _LONGEST_PAUSE_SECS, self._draw)
                if failures == _TRIES or self._closed.wait(pause):
                    return None, "unanswered", calls
                continue
            if details or len(days) == 1:
                return query_message(question, details, asked_at), "answered", calls
            days = days[1:]

    def _wait_for_turn(self) -> None:
        with self._taking_turns:
            now_secs = monotonic()
            turn_secs = max(self._next_secs, now_secs)
            self._next_secs = turn_secs + self._interval_secs
        self._closed.wait(max(0.0, turn_secs - now_secs))
