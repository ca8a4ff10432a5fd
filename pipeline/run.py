"""The main job on one machine: land what is on the queues, then turn the archive into tables, in epochs."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from datetime import date, datetime, timedelta
from typing import Final

from pipeline.breaker_mark import heed_mark, leave_mark
from pipeline.catalog import Catalog
from pipeline.compaction import compact
from pipeline.epochs import (
    NewInput,
    archive_files,
    epochs_of,
    find_new_input,
    is_due,
    require_send_log,
    run_epoch,
)
from pipeline.errors import OutputError, SmsReceiptsError, UnusableMessagesError
from pipeline.health import Health, RunCounts, Snapshot
from pipeline.landing import Landed, Landing
from pipeline.landing_processes import LandingProcesses
from pipeline.memory import give_memory_back, keep_large_blocks_apart
from pipeline.metrics import served
from pipeline.mns.settings import Until
from pipeline.offers import take_offers
from pipeline.options import RunOptions
from pipeline.stopping import GivenUpError, is_stop_requested, stopping_on_signals
from pipeline.summary import status_line, troubles_of
from transforms.archive import ArchiveFile, delete_unfinished_files
from transforms.decode_query import QUERY_MESSAGE_TYPE

# A queue to which messages keep coming is never empty: what has come by then is processed meanwhile.
_DRAIN_SECS: Final = 300.0
_STOPPING: Final = b"stopping: what was received is archived, the rest is given back\n"
# An epoch of so many messages takes seconds: a line says that it has begun, and none begins after a stop.
_WORTH_A_LINE: Final = 100_000
_STATUS_EVERY: Final = timedelta(minutes=1)
# What keeps the tables from being brought up to date is tried again so soon, and then ever later.
_FIRST_PAUSE: Final = timedelta(seconds=5)
_LONGEST_PAUSE: Final = timedelta(minutes=1)


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
    if options.follow:
        keep_large_blocks_apart()
    with (
        # From the same moment: what is read has as long to come to an end as what is processed.
        stopping_on_signals(_STOPPING, options.mns.stop_secs),
        Catalog(options.job.dataset, clock) as catalog,
        _landing(options, clock) as landing,
    ):
        job = _MainJob(options, catalog, landing, clock, say)
        with _metrics(options, job.snapshot, say):
            job.look_back()
            if is_stop_requested():
                return job.finished()
            heed_mark(options.job.archive, options.failure_limit.share)
            say(f"queues: reading {', '.join(options.mns.queues)}")
            round_secs = options.epoch_secs if options.follow else _DRAIN_SECS
            until = Until(empty=not options.follow, max_secs=round_secs)
            while True:
                began = clock()
                # Who follows sees an epoch and a status every few seconds; a long drain tells how far it is.
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
        self._follows = options.follow
        self._failed_share = options.failure_limit.share
        self._catalog = catalog
        self._landing = landing
        self._health = Health(options.mns.queues, landing.standing, clock())
        self._clock = clock
        self._say = say
        self._landed_from: date | None = None
        # Who follows is told at once that all is well; a drain may be over before it is worth a line.
        self._status_at = None if options.follow else clock()
        self._troubles: Set[str] = frozenset()
        self._has_commits = catalog.has_commits()
        self._failures = 0
        self._failed_at = clock()

    def snapshot(self) -> Snapshot:
        """How the run is doing; any thread may ask."""
        return self._health.snapshot(self._clock())

    def look_back(self) -> None:
        """Process what an earlier run has left, whether or not the queues can be read today."""
        require_send_log(self._catalog, self._settings)
        unread = self._unread()
        delete_unfinished_files(self._settings.archive, self._clock())
        self._health.counts.pending_before = _of_queues(unread)
        with self._landing_goes_on():
            if unread:
                self._say(f"archive: {_messages(unread):,} messages wait since an earlier run")
                self._process()
            else:
                # A send log that cannot be read is told before anything lands for it.
                find_new_input(self._catalog, self._settings)

    def land(self, until: Until, *, tells: bool) -> None:
        """Bring messages into the archive, and acknowledge them."""

        def progress(landed: Landed) -> None:
            so_far = self._health.note_read(landed)
            if tells and landed.received:
                self._say(
                    f"queues: {so_far['received']:,} received, {so_far['archived']:,} archived, "
                    f"{so_far['acknowledged']:,} acknowledged"
                )
            if tells:
                self.tell_status()

        self._health.begin_read(self._clock())
        try:
            landed = self._landing.land(until, progress)
        except UnusableMessagesError as failure:
            raise leave_mark(
                self._settings.archive, failure, self._failed_share, self._clock()
            ) from None
        self._health.end_read(landed, self._clock())

    def process(self) -> None:
        """Bring the tables up to date; after a failure, once its pause is over."""
        if self._failures:
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._failures - 1, 10))
            since = self._clock() - self._failed_at
            if is_stop_requested() or timedelta() <= since < pause:
                return
        with self._landing_goes_on():
            self._process()

    @contextmanager
    def _landing_goes_on(self) -> Iterator[None]:
        """Hold back what keeps the tables from being brought up to date, if they ever were.

        Messages live on their queue for 7 days and in the archive for ever: so a send log that cannot be
        read, or a full disk below the dataset, is told and tried again while messages land.
        """
        try:
            yield
        except SmsReceiptsError as failure:
            if not (self._follows and self._has_commits):
                raise
            self._failures += 1
            self._failed_at = self._clock()
            # It is kept for a while, and all that it has seen need not be.
            failure.__traceback__ = failure.__cause__ = failure.__context__ = None
            self._health.note_processing(failure)
            with suppress(OutputError):  # the next try will say so
                self._catalog.mend()
                self._note_backlog(self._unread())
            self.tell_status()
        else:
            self._failures = 0
            self._health.note_processing(None)

    def _process(self) -> None:
        """Run epochs until nothing is new and nobody's patience has run out."""
        # Here nothing reads the tables that a compaction beside this run would replace.
        take_offers(self._catalog)
        as_of = self._clock()
        new = find_new_input(self._catalog, self._settings, self._landed_from)
        self._note_backlog(new.archive_files)
        if not new and not is_due(self._catalog, self._settings, as_of):
            self._landed_from = (as_of - timedelta(days=1)).date()
            return
        if is_stop_requested() and new.messages > _WORTH_A_LINE:
            self._tell_what_is_left()
            return
        epochs = self._health.counts.epochs
        try:
            self._run_epochs(new, as_of)
        except GivenUpError:
            has_sends = bool(new.send_log) and self._health.counts.epochs == epochs
            self._tell_what_is_left("given up to stop in time; ", has_sends=has_sends)

    def _run_epochs(self, new: NewInput, as_of: datetime) -> None:
        """Commit one after the other, until a stop is requested.

        Raises:
            GivenUpError: it was requested, and did not wait for what was not committed.
        """
        done = 0
        for batch in epochs_of(new):
            if is_stop_requested() and done:
                self._tell_what_is_left()
                return
            if batch.messages >= _WORTH_A_LINE:
                self._say(f"epoch: processing {batch.messages:,} messages")
            epoch = run_epoch(self._catalog, self._settings, batch, as_of)
            self._has_commits = True
            done += len(batch.archive_files)
            self._health.note_epoch(epoch, self._clock())
            self._health.counts.answers += batch.answers
            self._note_backlog(new.archive_files[done:])
            self._say(
                f"epoch: {epoch['messages']:,} messages and {epoch['sends']:,} sends; "
                f"{epoch['matched_reports']:,} matched, {epoch['orphan_reports']:,} orphans, "
                f"{epoch['waiting_after']:,} waiting, {epoch['failed_messages']:,} failed"
            )
            if not is_stop_requested():
                compact(self._catalog, as_of)
        # The whole archive is looked through until all of it is read; only recent days can grow after that.
        self._landed_from = (as_of - timedelta(days=1)).date()

    def _tell_what_is_left(self, what: str = "", *, has_sends: bool = False) -> None:
        messages = self.snapshot().unprocessed_messages
        self._say(
            f"epoch: {what}{messages:,} archived messages{' and new sends' if has_sends else ''} are left "
            "for the next start"
        )

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
        counts.pending_after = _of_queues(self._unread())
        return counts

    def _unread(self) -> Sequence[ArchiveFile]:
        """The archive files that no epoch has read."""
        return archive_files(self._settings, choose=self._catalog.unconsumed)

    def _note_backlog(self, files: Sequence[ArchiveFile]) -> None:
        oldest = min((file.first_enqueued_at for file in files), default=None)
        self._health.note_backlog(_messages(files), oldest)


def _messages(files: Iterable[ArchiveFile]) -> int:
    return sum(file.messages for file in files)


def _of_queues(files: Sequence[ArchiveFile]) -> int:
    """How many messages a queue has brought; Alibaba's answers were archived by reconcile."""
    return _messages(file for file in files if file.queue_name != QUERY_MESSAGE_TYPE)


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
