"""The main job on one machine: land what is on the queues, then turn the archive into tables, in epochs."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from types import FrameType
from typing import Final

from pipeline.catalog import Catalog
from pipeline.compaction import compact
from pipeline.epochs import JobSettings, epochs_of, find_new_input, is_due, run_epoch
from pipeline.landing import Landed, Landing
from pipeline.landing_processes import LandingProcesses
from pipeline.mns.settings import Until
from pipeline.mns.stopping import forget_stop, is_stop_requested, request_stop
from pipeline.options import RunOptions

# Counts that are levels, not flows: of several epochs the first or the last one counts.
_LEVELS: Final = frozenset(
    {"waiting_after", "open_after", "rows/waiting_reports", "rows/open_sends"}
)
_LEVELS_BEFORE: Final = frozenset({"waiting_before", "open_before"})
# A queue to which messages keep coming is never empty: what has come by then is processed meanwhile.
_DRAIN_SECS: Final = 300.0
_STOPPING: Final = (
    b"stopping: what was received is archived and processed, the rest is given back\n"
)
# An epoch of so many messages takes seconds, and a line says that it has begun.
_WORTH_A_LINE: Final = 100_000


@dataclass
class RunCounts:
    """What a run has done so far.

    Attributes:
        landed: sums of :class:`Landed`, by its names.
        processed: the counts of all epochs, as one.
        epochs: how many were committed.
        pending_before: archived messages that an earlier run had left unprocessed.
        pending_after: archived messages that this run leaves unprocessed.
    """

    landed: Counter[str] = field(default_factory=Counter)
    processed: Counter[str] = field(default_factory=Counter)
    epochs: int = 0
    pending_before: int = 0
    pending_after: int = 0

    def add_epoch(self, counts: Mapping[str, int]) -> None:
        """Add a committed epoch."""
        for name, count in counts.items():
            if name in _LEVELS:
                self.processed[name] = count
            elif name not in _LEVELS_BEFORE or not self.epochs:
                self.processed[name] += count
        self.epochs += 1


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
        job = _MainJob(options.job, catalog, landing, say)
        job.look_back(clock())
        say(f"queues: reading {', '.join(options.mns.queues)}")
        round_secs = options.epoch_secs if options.follow else _DRAIN_SECS
        until = Until(empty=not options.follow, max_secs=round_secs)
        while True:
            began = clock()
            # Who follows sees an epoch every few seconds; a long drain tells how far it is.
            job.land(until, tells=not options.follow)
            is_drained = clock() - began < timedelta(seconds=round_secs)
            job.process(clock())
            if is_stop_requested() or (is_drained and not options.follow):
                break
        return job.finished()


class _MainJob:
    """Land and process, in turns; keeps the counts."""

    def __init__(
        self,
        settings: JobSettings,
        catalog: Catalog,
        landing: Landing | LandingProcesses,
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._landing = landing
        self._say = say
        self._counts = RunCounts()
        self._landed_from: date | None = None

    def look_back(self, as_of: datetime) -> None:
        """Process what an earlier run has left, whether or not the queues can be read today."""
        pending = find_new_input(self._catalog, self._settings).messages
        self._counts.pending_before = pending
        if pending:
            self._say(f"archive: {pending:,} messages wait since an earlier run")
            self.process(as_of)

    def land(self, until: Until, *, tells: bool) -> None:
        """Bring messages into the archive, and acknowledge them."""
        before = Counter(self._counts.landed)

        def progress(landed: Landed) -> None:
            so_far = before + Counter(landed._asdict())
            if landed.received:
                self._say(
                    f"queues: {so_far['received']:,} received, {so_far['archived']:,} archived, "
                    f"{so_far['acknowledged']:,} acknowledged"
                )

        self._counts.landed.update(self._landing.land(until, progress if tells else None)._asdict())

    def process(self, as_of: datetime) -> None:
        """Run epochs until nothing is new and nobody's patience has run out."""
        new = find_new_input(self._catalog, self._settings, self._landed_from)
        # The whole archive is looked through once; only recent days can have grown since.
        self._landed_from = (as_of - timedelta(days=2)).date()
        if not new and not is_due(self._catalog, self._settings, as_of):
            return
        for batch in epochs_of(new):
            if batch.messages >= _WORTH_A_LINE:
                self._say(f"epoch: processing {batch.messages:,} messages")
            epoch = run_epoch(self._catalog, self._settings, batch, as_of)
            self._counts.add_epoch(epoch)
            self._say(
                f"epoch: {epoch['messages']:,} messages and {epoch['sends']:,} sends; "
                f"{epoch['matched_reports']:,} matched, {epoch['orphan_reports']:,} orphans, "
                f"{epoch['waiting_after']:,} waiting, {epoch['failed_messages']:,} failed"
            )
            compact(self._catalog, as_of)
            if is_stop_requested():
                return

    def finished(self) -> RunCounts:
        """The counts, at the end."""
        self._counts.pending_after = find_new_input(self._catalog, self._settings).messages
        return self._counts


def _landing(options: RunOptions, clock: Callable[[], datetime]) -> Landing | LandingProcesses:
    if options.landing_processes == 1:
        return Landing(options.mns, options.job.archive, clock)
    return LandingProcesses(options.mns, options.job.archive, clock, options.landing_processes)


@contextmanager
def _stopping_on_signals() -> Iterator[None]:
    """On SIGTERM and Ctrl-C: finish the bundle or epoch at hand, commit it, give the rest back."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal calls it
        if is_stop_requested():
            # Asked twice: leave now. Whatever is not committed will be done again.
            raise KeyboardInterrupt
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
