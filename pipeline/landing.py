"""Land: bring the messages of the queues into the archive, then delete them from the queues."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Final, NamedTuple

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from typing_extensions import Self

from pipeline.errors import OperatorError, OutputError
from pipeline.mns import registry
from pipeline.mns.connection import MnsConnection
from pipeline.mns.settings import MnsSettings, Until
from pipeline.mns.source import ReadFromMns
from transforms.archive import ArchiveError, ArchiveRaw, require_writable_archive
from transforms.tally import Tally, close_tally, tally_of

_PROGRESS_SECS: Final = 0.5
# Where Beam 2.77 logs the traceback of a step that raised.
_BEAMS_FAILURE_LOGGERS: Final = (
    "apache_beam.runners.common",
    "apache_beam.runners.worker.sdk_worker",
)


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


class Landing:
    """The landing stage: keeps connections and queue tokens from one read to the next.

    Use it as a context manager, and from one thread at a time.
    """

    def __init__(self, settings: MnsSettings, archive: str, clock: Callable[[], datetime]) -> None:
        """Prepare to land messages of ``settings.queues`` in the directory ``archive``.

        ``clock`` tells the time (aware); Beam pickles it.
        """
        self._settings = settings
        self._archive = archive
        self._clock = clock
        self._connection = MnsConnection(settings, clock)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

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
        run_id = uuid.uuid4().hex
        tally = tally_of(run_id)
        try:
            with ExitStack() as stack:
                registry.lend_connection(run_id, self._connection)
                stack.callback(registry.close_run, run_id)
                stack.enter_context(_operator_errors_unlogged())
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
        with beam.Pipeline(runner=FnApiRunner(), options=options) as pipeline:
            (
                pipeline
                | "ReadFromMns" >> ReadFromMns(self._settings, until, run_id=run_id)
                | "ArchiveRaw" >> ArchiveRaw(self._archive, self._clock, run_id=run_id)
            )


def _landed(counts: Mapping[str, int]) -> Landed:
    return Landed(*(counts.get(name, 0) for name in Landed._fields))


def _raise_failure(tally: Tally) -> None:
    """Raise what ended the run, if it was kept, instead of the text that Beam made of it."""
    if isinstance(tally.failure, ArchiveError):
        raise OutputError(str(tally.failure)) from None
    if tally.failure is not None:
        raise tally.failure from None


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


def _is_not_for_the_operator(record: logging.LogRecord) -> bool:
    failure = record.exc_info[1] if record.exc_info else None
    while failure is not None:
        if isinstance(failure, (OperatorError, ArchiveError)):
            return False
        failure = failure.__cause__ or failure.__context__
    return True


@contextmanager
def _operator_errors_unlogged() -> Iterator[None]:
    """Keep Beam from logging the traceback of what the caller will say in a sentence."""
    loggers = [logging.getLogger(name) for name in _BEAMS_FAILURE_LOGGERS]
    for logger in loggers:
        logger.addFilter(_is_not_for_the_operator)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_not_for_the_operator)
