"""Land: bring the messages of the queues into the archive, then delete them from the queues."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Final, NamedTuple, TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from typing_extensions import Self

from pipeline.beam_log import unlogged
from pipeline.errors import OperatorError, OutputError, UnusableMessagesError
from pipeline.inboxes import registry
from pipeline.inboxes.reading import Reading
from pipeline.inboxes.source import ReadInboxes
from pipeline.mns.connection import MnsConnection, lend_connection, take_connection_back
from pipeline.mns.settings import MnsSettings, Until
from pipeline.mns.spec import MnsInboxSpec
from transforms.archive import ArchiveError, ArchiveRaw, require_writable_archive
from transforms.breaker import (
    DEFAULT_LIMIT,
    Breaker,
    FailureLimit,
    FailureLimitError,
    lend_breaker,
    take_breaker_back,
)
from transforms.limit_failures import LimitFailures
from transforms.tally import Tally, close_tally, tally_of

_Value = TypeVar("_Value", datetime, float)
_PROGRESS_SECS: Final = 0.5
# What says itself, in a sentence, what is wrong.
_SENTENCES: Final[Mapping[type[Exception], type[OperatorError]]] = {
    ArchiveError: OutputError,
    FailureLimitError: UnusableMessagesError,
}


class Landed(NamedTuple):
    """What became of the messages, in messages unless said otherwise.

    ``received == archived + released`` when no bundle failed, and
    ``archived == acknowledged + unacknowledged + unconfirmed``.
    """

    received: int
    """Redeliveries included."""
    archived: int
    """In synced archive files."""
    acknowledged: int
    """Deleted from their queue, as the queue confirmed."""
    unacknowledged: int
    """Archived, but the lease was lost or the delete failed: they come back once more."""
    unconfirmed: int
    """Archived, and gone from the queue's view, but the answer that said so was lost."""
    released: int
    """Given back to their queue, unread."""
    redelivered: int
    """Of the received ones: delivered before, to whomever."""
    archive_files: int
    """Files."""
    receive_faults: int
    """Receives that failed and were tried again."""
    lost_leases: int
    """Of the received ones: somebody else may have received them before they were settled here."""


class Standing(NamedTuple):
    """How a landing stands, by queue name where it depends on the queue; times are UTC."""

    oldest_held_at: datetime | None
    """Enqueue time of the oldest message that was received, but neither deleted nor given back yet."""
    oldest_archived_at: datetime | None
    """Enqueue time of the oldest message that the read at hand, or else the last one, has archived."""
    answered_at: Mapping[str, datetime]
    """When a receive last succeeded, whether or not it brought messages."""
    token_expires_at: Mapping[str, datetime]
    """When the token at hand ends."""
    failed_share: Mapping[str, float]
    """Of the last messages (``FailureLimit.window_messages``), the share that cannot be decoded, 0-1.

    Of several processes, each of which sees its part of them, the highest."""


def together(standings: Sequence[Standing]) -> Standing:
    """Tell how several landings of the same queues stand: the worst of each, but an answer is an answer."""

    def oldest(moments: Iterable[datetime | None]) -> datetime | None:
        return min((moment for moment in moments if moment is not None), default=None)

    return Standing(
        oldest(standing.oldest_held_at for standing in standings),
        oldest(standing.oldest_archived_at for standing in standings),
        _merged(max, [standing.answered_at for standing in standings]),
        _merged(min, [standing.token_expires_at for standing in standings]),
        _merged(max, [standing.failed_share for standing in standings]),
    )


def _merged(
    choose: Callable[[Iterable[_Value]], _Value], parts: Sequence[Mapping[str, _Value]]
) -> dict[str, _Value]:
    names = {name for part in parts for name in part}
    return {name: choose(part[name] for part in parts if name in part) for name in names}


class Landing:
    """The landing stage: keeps connections and queue tokens from one read to the next.

    Use it as a context manager, and from one thread at a time.
    """

    def __init__(
        self,
        settings: MnsSettings,
        archive: str,
        clock: Callable[[], datetime],
        limit: FailureLimit = DEFAULT_LIMIT,
    ) -> None:
        """Prepare to land messages of ``settings.queues`` in the directory ``archive``.

        ``clock`` tells the time (aware); Beam pickles it. More messages than ``limit`` allows that
        cannot be decoded end a read.
        """
        self._settings = settings
        self._archive = archive
        self._clock = clock
        self._limit = limit
        self._connection = MnsConnection(settings, clock)
        self._breaker = Breaker(limit)
        # Of the read at hand, or else the last one.
        self._run_id = ""
        self._tally = Tally()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def standing(self) -> Standing:
        """How the landing stands; any thread may ask, at any time."""
        return Standing(
            registry.oldest_enqueued_at(self._run_id),
            self._tally.oldest("archived"),
            self._connection.answered_at(),
            self._connection.token_expiries(),
            self._breaker.shares(),
        )

    def land(self, until: Until, progress: Callable[[Landed], None] | None = None) -> Landed:
        """Read the queues once, until ``until`` or a request to stop; return what became of it.

        Args:
            until: when to end. To follow a queue, land again and again with ``max_secs``: Beam's
                local runner keeps 29 KB per bundle until a read ends (measured, 2.77).
            progress: called about twice a second with the counts so far, from another thread.

        Raises:
            OperatorError: Only the operator can help; what was archived before stays archived.
        """
        try:
            require_writable_archive(self._archive)
        except ArchiveError as failure:
            raise OutputError(str(failure)) from None
        self._run_id = run_id = uuid.uuid4().hex
        self._tally = tally = tally_of(run_id)
        try:
            with ExitStack() as stack:
                lend_connection(run_id, self._connection)
                stack.callback(take_connection_back, run_id)
                stack.callback(registry.close_run, run_id)
                lend_breaker(run_id, self._breaker)
                stack.callback(take_breaker_back, run_id)
                stack.enter_context(unlogged(_is_for_the_operator))
                if progress is not None:
                    stack.enter_context(_reporting(tally, progress))
                self._run(until, run_id)
        except Exception:
            # Beam passes on what a step raised as another exception, or as text; the tally has it.
            _raise_failure(tally)
            raise
        finally:
            close_tally(run_id)
        # A delete can be refused for good after the last bundle was read.
        _raise_failure(tally)
        return _landed(tally.counts())

    def _run(self, until: Until, run_id: str) -> None:
        options = PipelineOptions(flags=[])
        inbox = MnsInboxSpec(self._settings, until)
        reading = Reading(self._settings.max_bundle_messages, self._settings.max_bundle_secs)
        with beam.Pipeline(runner=FnApiRunner(), options=options) as pipeline:
            (
                pipeline
                | "ReadInboxes" >> ReadInboxes([inbox], reading, run_id=run_id, clock=self._clock)
                | "LimitFailures" >> LimitFailures(self._limit, self._clock, run_id=run_id)
                | "ArchiveRaw" >> ArchiveRaw(self._archive, self._clock, run_id=run_id)
            )


def _landed(counts: Mapping[str, int]) -> Landed:
    return Landed(*(counts.get(name, 0) for name in Landed._fields))


def _raise_failure(tally: Tally) -> None:
    """Raise what ended the run, if it was kept, instead of the text that Beam made of it."""
    failure = tally.failure
    if failure is not None:
        said_by = _SENTENCES.get(type(failure))
        raise (said_by(str(failure)) if said_by else failure) from None


@contextmanager
def _reporting(tally: Tally, progress: Callable[[Landed], None]) -> Iterator[None]:
    done = threading.Event()

    def report() -> None:
        while not done.wait(_PROGRESS_SECS):
            progress(_landed(tally.counts()))

    thread = threading.Thread(target=report, name="landing-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _is_for_the_operator(record: logging.LogRecord) -> bool:
    failure = record.exc_info[1] if record.exc_info else None
    while failure is not None:
        if isinstance(failure, (OperatorError, *_SENTENCES)):
            return True
        failure = failure.__cause__ or failure.__context__
    return False
