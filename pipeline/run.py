"""The main job on one machine: land what is on the queues, then turn the archive into tables, in epochs."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from types import FrameType
from typing import Final

from pipeline.catalog import Catalog
from pipeline.compaction import compact
from pipeline.epochs import epochs_of, find_new_input, is_due, run_epoch
from pipeline.health import Health, RunCounts, Snapshot
from pipeline.landing import Landed, Landing
from pipeline.landing_processes import LandingProcesses
from pipeline.memory import give_memory_back
from pipeline.metrics import served
from pipeline.mns.settings import Until
from pipeline.mns.stopping import forget_stop, is_stop_requested, request_stop
from pipeline.options import RunOptions
from pipeline.summary import status_line, troubles_of
from transforms.archive import ArchiveFile, delete_unfinished_files

# A queue to which messages keep coming is never empty: what has come by then is processed meanwhile.
_DRAIN_SECS: Final = 300.0
_STOPPING: Final = b"stopping: what was received is archived, the rest is given back\n"
# An epoch of so many messages takes seconds: a line says that it has begun, and none begins after a stop.
_WORTH_A_LINE: Final = 100_000
_STATUS_EVERY: Final = timedelta(minutes=1)


def run(
    options: RunOptions, clock: Callable[[], datetime], say: Callable[[str], None]
) -> RunCounts:
    """Do what ``sms-receipts run`` was asked to do.

    Args:
        options: the flags.
        clock: the time, aware.
        say: prints a line of progress.

    Raises:
        OperatorError: only the operator can help; what was archived stays archived.
    """
    with (
        _stopping_on_signals(),
        Catalog(options.job.dataset, clock) as catalog,
        _landing(options, clock) as landing,
    ):
        job = _MainJob(options, catalog, landing, clock, say)
        with _metrics(options, job.snapshot, say):
            job.look_back()
            say(f"queues: reading {', '.join(options.mns.queues)}")
            round_secs = options.epoch_secs if options.follow else _DRAIN_SECS
            until = Until(empty=not options.follow, max_secs=round_secs)
            while True:
                began = clock()
                # Who follows sees an epoch every few seconds; a long drain tells how far it is.
                job.land(until, tells=not options.follow)
                is_drained = clock() - began < timedelta(seconds=round_secs)
                job.process()
                if options.follow:
                    job.tell_status()
                give_memory_back()
                if is_stop_requested() or (is_drained and not options.follow):
                    break
            return job.finished()


class _MainJob:
    """Land and process, in turns; keeps the run's health up to date."""

    def __init__(
        self,
        options: RunOptions,
        catalog: Catalog,
        landing: Landing | LandingProcesses,
        clock: Callable[[], datetime],
        say: Callable[[str], None],
    ) -> None:
        self._settings = options.job
        self._catalog = catalog
        self._landing = landing
        self._health = Health(options.mns.queues, landing.standing, clock())
        self._clock = clock
        self._say = say
        self._landed_from: date | None = None
        self._status_at: datetime | None = None
        self._troubles: Set[str] = frozenset()

    def snapshot(self) -> Snapshot:
        """How the run is doing; any thread may ask."""
        return self._health.snapshot(self._clock())

    def look_back(self) -> None:
        """Process what an earlier run has left, whether or not the queues can be read today."""
        pending = find_new_input(self._catalog, self._settings).messages
        delete_unfinished_files(self._settings.archive, self._clock())
        self._health.counts.pending_before = pending
        if pending:
            self._say(f"archive: {pending:,} messages wait since an earlier run")
            self.process()

    def land(self, until: Until, *, tells: bool) -> None:
        """Bring messages into the archive, and acknowledge them."""

        def progress(landed: Landed) -> None:
            so_far = self._health.note_read(landed)
            if tells and landed.received:
                self._say(
                    f"queues: {so_far['received']:,} received, {so_far['archived']:,} archived, "
                    f"{so_far['acknowledged']:,} acknowledged"
                )

        self._health.begin_read(self._clock())
        landed = self._landing.land(until, progress)
        self._health.end_read(landed, self._clock())

    def process(self) -> None:
        """Run epochs until nothing is new and nobody's patience has run out."""
        as_of = self._clock()
        new = find_new_input(self._catalog, self._settings, self._landed_from)
        # The whole archive is looked through once; only recent days can have grown since.
        self._landed_from = (as_of - timedelta(days=1)).date()
        self._note_backlog(new.archive_files)
        if not new and not is_due(self._catalog, self._settings, as_of):
            return
        if is_stop_requested() and new.messages > _WORTH_A_LINE:
            self._say(f"epoch: {new.messages:,} archived messages are left for the next start")
            return
        done = 0
        for batch in epochs_of(new):
            if batch.messages >= _WORTH_A_LINE:
                self._say(f"epoch: processing {batch.messages:,} messages")
            epoch = run_epoch(self._catalog, self._settings, batch, as_of)
            done += len(batch.archive_files)
            self._health.note_epoch(epoch, self._clock())
            self._note_backlog(new.archive_files[done:])
            self._say(
                f"epoch: {epoch['messages']:,} messages and {epoch['sends']:,} sends; "
                f"{epoch['matched_reports']:,} matched, {epoch['orphan_reports']:,} orphans, "
                f"{epoch['waiting_after']:,} waiting, {epoch['failed_messages']:,} failed"
            )
            compact(self._catalog, as_of)
            if is_stop_requested():
                return

    def tell_status(self) -> None:
        """Say in a line how the run is doing: once a minute, and at once when trouble comes or goes."""
        now, snapshot = self._clock(), self.snapshot()
        troubles = troubles_of(snapshot).keys()
        is_time = self._status_at is None or now - self._status_at >= _STATUS_EVERY
        if is_time or troubles != self._troubles:
            self._status_at, self._troubles = now, troubles
            self._say(status_line(snapshot))

    def finished(self) -> RunCounts:
        """The counts, at the end."""
        counts = self._health.counts
        counts.pending_after = find_new_input(self._catalog, self._settings).messages
        return counts

    def _note_backlog(self, files: Sequence[ArchiveFile]) -> None:
        oldest = min((file.first_enqueued_at for file in files), default=None)
        self._health.note_backlog(sum(file.messages for file in files), oldest)


@contextmanager
def _metrics(
    options: RunOptions, take: Callable[[], Snapshot], say: Callable[[str], None]
) -> Iterator[None]:
    if options.metrics_address is None:
        yield
        return
    with served(options.metrics_address, take) as url:
        say(f"metrics: {url}")
        yield


def _landing(options: RunOptions, clock: Callable[[], datetime]) -> Landing | LandingProcesses:
    if options.landing_processes == 1:
        return Landing(options.mns, options.job.archive, clock, options.failure_limit)
    return LandingProcesses(
        options.mns,
        options.job.archive,
        clock,
        options.landing_processes,
        options.failure_limit,
    )


@contextmanager
def _stopping_on_signals() -> Iterator[None]:
    """On SIGTERM and Ctrl-C: finish the bundle or epoch at hand, commit it, give the rest back."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal calls it
        if is_stop_requested():
            # Asked twice: leave now. Whatever is not committed will be done again. With a text: Beam turns
            # an interrupt without one into another exception, when it comes in the middle of a step.
            raise KeyboardInterrupt("stopped by hand")
        request_stop()
        # Not through a buffered stream: the signal may have come in the middle of a write to it.
        os.write(sys.stderr.fileno(), _STOPPING)

    forget_stop()
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
