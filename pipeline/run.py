"""The main job on one machine: land what is on the queues, then turn the archive into tables, in epochs."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from types import FrameType
from typing import Final

from pipeline.catalog import Catalog
from pipeline.epochs import JobSettings, epochs_of, find_new_input, is_due, run_epoch
from pipeline.landing import Landed, Landing
from pipeline.mns.settings import Until
from pipeline.mns.stopping import forget_stop, is_stop_requested, request_stop
from pipeline.options import RunOptions

# Counts that are levels, not flows: of several epochs the first or the last one counts.
_LEVELS: Final = frozenset(
    {"waiting_after", "open_after", "rows/waiting_reports", "rows/open_sends"}
)
_LEVELS_BEFORE: Final = frozenset({"waiting_before", "open_before"})


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
    counts = RunCounts()
    with (
        _stopping_on_signals(),
        Catalog(options.job.dataset, clock) as catalog,
        Landing(options.mns, options.job.archive) as landing,
    ):
        counts.pending_before = find_new_input(catalog, options.job).messages
        if counts.pending_before:
            say(f"archive: {counts.pending_before:,} messages wait since an earlier run")
        say(f"queues: reading {', '.join(options.mns.queues)}")
        until = Until(max_secs=options.epoch_secs) if options.follow else Until(empty=True)
        while True:
            _land(landing, until, counts, say)
            _process(catalog, options.job, clock, counts, say)
            if is_stop_requested() or not options.follow:
                break
        counts.pending_after = find_new_input(catalog, options.job).messages
    return counts


def _land(landing: Landing, until: Until, counts: RunCounts, say: Callable[[str], None]) -> None:
    before = Counter(counts.landed)

    def progress(landed: Landed) -> None:
        so_far = before + Counter(landed._asdict())
        if landed.received:
            say(
                f"queues: {so_far['received']:,} received, {so_far['archived']:,} archived, "
                f"{so_far['acknowledged']:,} acknowledged"
            )

    counts.landed.update(landing.land(until, progress)._asdict())


def _process(
    catalog: Catalog,
    job: JobSettings,
    clock: Callable[[], datetime],
    counts: RunCounts,
    say: Callable[[str], None],
) -> None:
    """Run epochs until nothing is new and nobody's patience has run out."""
    as_of = clock()
    new = find_new_input(catalog, job)
    if not new and not is_due(catalog, job, as_of):
        return
    for batch in epochs_of(new):
        epoch = run_epoch(catalog, job, batch, as_of)
        counts.add_epoch(epoch)
        say(
            f"epoch {counts.epochs}: {epoch['messages']:,} messages and {epoch['sends']:,} sends; "
            f"{epoch['matched_reports']:,} matched, {epoch['orphan_reports']:,} orphans, "
            f"{epoch['waiting_after']:,} waiting, {epoch['failed_messages']:,} failed"
        )
        if is_stop_requested():
            return


@contextmanager
def _stopping_on_signals() -> Iterator[None]:
    """On SIGTERM and Ctrl-C: finish the bundle or epoch at hand, commit it, give the rest back."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal calls it
        if is_stop_requested():
            # Asked twice: leave now. Whatever is not committed will be done again.
            raise KeyboardInterrupt
        request_stop()

    forget_stop()
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
