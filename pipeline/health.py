"""How a run is doing: what it has done so far, and how it stands.

The run tells it, and any thread may ask: the status line, the exporter of metrics, the summary at the
end. The time is an argument. Nothing personal comes here: counts, moments, and names of queues.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from pipeline.errors import SmsReceiptsError
from pipeline.landing import Landed, Standing

# Counts that are levels, not flows: of several epochs the first or the last one counts.
_LEVELS: Final = frozenset(
    {"waiting_after", "open_after", "rows/waiting_reports", "rows/open_sends"}
)
_LEVELS_BEFORE: Final = frozenset({"waiting_before", "open_before"})
_NOTHING: Final = Landed(*(0 for _ in Landed._fields))


@dataclass
class RunCounts:
    """What a run has done so far.

    Attributes:
        landed: sums of :class:`Landed`, by its names.
        processed: the counts of all epochs, as one.
        epochs: how many were committed.
        pending_before: archived messages of the queues that an earlier run had left unprocessed.
        pending_after: archived messages of the queues that this run leaves unprocessed.
        answers: processed messages that reconcile had archived.
        failure: what keeps the tables from being brought up to date, while it does.
    """

    landed: Counter[str] = field(default_factory=Counter)
    processed: Counter[str] = field(default_factory=Counter)
    epochs: int = 0
    pending_before: int = 0
    pending_after: int = 0
    answers: int = 0
    failure: SmsReceiptsError | None = None

    def add_epoch(self, counts: Mapping[str, int]) -> None:
        """Add a committed epoch."""
        for name, count in counts.items():
            if name in _LEVELS:
                self.processed[name] = count
            elif name not in _LEVELS_BEFORE or not self.epochs:
                self.processed[name] += count
        self.epochs += 1


class Snapshot(NamedTuple):
    """A run at a moment; by queue name where it depends on the queue, in seconds where it is a time."""

    landed: Landed
    """Of the whole run."""
    last_read: Landed
    """Of the read at hand, or else the last one."""
    processed: Mapping[str, int]
    """The counts of all epochs, as one."""
    epochs: int
    """Committed."""
    since_epoch_secs: float
    """Since the last commit, or the start: an idle run commits nothing."""
    unprocessed_messages: int
    """Archived, and not in the tables yet."""
    oldest_unprocessed_secs: float
    """Since the oldest of these was enqueued; 0 when there are none."""
    oldest_held_secs: float
    """Since the oldest message that is received but not settled was enqueued; 0 when there are none."""
    silent_secs: Mapping[str, float]
    """For how long it has been read without an answer; an empty answer is one."""
    token_secs: Mapping[str, float]
    """How long its token is still good, when it was last read; less than 0 when it had ended."""
    failed_share: Mapping[str, float]
    """Of its last messages, the share that cannot be decoded, 0-1."""
    processing_failure: str | None
    """What keeps the tables from being brought up to date, as a sentence; None while nothing does."""

    @property
    def held(self) -> int:
        """Received and at hand: neither deleted nor given back, and no delete was refused."""
        landed = self.landed
        settled = landed.acknowledged + landed.unconfirmed + landed.unacknowledged
        return landed.received - settled - landed.released


class Health:
    """What the parts of a run tell of themselves, put together; safe to share between threads."""

    def __init__(
        self, queues: Sequence[str], standing: Callable[[], Standing], started_at: datetime
    ) -> None:
        """Begin; ``standing`` tells how the landing stands at the moment."""
        self._standing = standing
        self._lock = threading.Lock()
        self._counts = RunCounts()
        self._epoch_at = started_at
        self._read = _NOTHING
        self._read_began_at = self._read_ended_at = started_at
        self._is_reading = False
        self._silent_before = dict.fromkeys(queues, timedelta())
        self._archived_since_look = 0
        self._backlog = 0
        self._backlog_since: datetime | None = None

    @property
    def counts(self) -> RunCounts:
        """What the run has done, without the read at hand."""
        return self._counts

    def begin_read(self, at: datetime) -> None:
        """Note that the queues are being read from now on."""
        with self._lock:
            self._read, self._is_reading, self._read_began_at = _NOTHING, True, at

    def note_read(self, landed: Landed) -> Mapping[str, int]:
        """Note what the read at hand has landed so far; return the sums of the whole run."""
        with self._lock:
            self._read = landed
            return self._landed()

    def end_read(self, landed: Landed, at: datetime) -> None:
        """Note what a read has landed."""
        answered_at = self._standing().answered_at
        with self._lock:
            self._silent_before = self._silences(answered_at, at)
            self._read, self._is_reading, self._read_ended_at = landed, False, at
            self._counts.landed.update(landed._asdict())
            self._archived_since_look += landed.archived

    def note_backlog(self, messages: int, oldest_enqueued_at: datetime | None) -> None:
        """Note how many archived messages are unprocessed, after a look at the archive."""
        with self._lock:
            self._backlog, self._backlog_since = messages, oldest_enqueued_at
            self._archived_since_look = 0

    def note_epoch(self, counts: Mapping[str, int], at: datetime) -> None:
        """Note a committed epoch."""
        with self._lock:
            self._counts.add_epoch(counts)
            self._epoch_at = at

    def note_processing(self, failure: SmsReceiptsError | None) -> None:
        """Note what keeps the tables from being brought up to date, or that nothing does."""
        with self._lock:
            self._counts.failure = failure

    def snapshot(self, now: datetime) -> Snapshot:
        """How the run is doing."""
        standing = self._standing()
        with self._lock:
            until = now if self._is_reading else self._read_ended_at
            archived = self._archived_since_look + (self._read.archived if self._is_reading else 0)
            waiting = [self._backlog_since, standing.oldest_archived_at if archived else None]
            return Snapshot(
                landed=Landed(**self._landed()),
                last_read=self._read,
                processed=Counter(self._counts.processed),
                epochs=self._counts.epochs,
                since_epoch_secs=_secs(now - self._epoch_at),
                unprocessed_messages=self._backlog + archived,
                oldest_unprocessed_secs=_age(min(filter(None, waiting), default=None), now),
                oldest_held_secs=_age(standing.oldest_held_at, now),
                silent_secs={
                    queue_name: _secs(silence)
                    for queue_name, silence in self._silences(standing.answered_at, until).items()
                },
                token_secs={
                    queue_name: (expires_at - until).total_seconds()
                    for queue_name, expires_at in standing.token_expires_at.items()
                },
                failed_share=standing.failed_share,
                processing_failure=str(failure) if (failure := self._counts.failure) else None,
            )

    def _landed(self) -> dict[str, int]:
        read = self._read if self._is_reading else _NOTHING
        return {name: self._counts.landed[name] + count for name, count in read._asdict().items()}

    def _silences(
        self, answered_at: Mapping[str, datetime], until: datetime
    ) -> dict[str, timedelta]:
        """For how long each queue has been read without an answer; epochs do not count."""
        if not self._is_reading:
            return self._silent_before
        return {
            queue_name: (
                until - answer
                if (answer := answered_at.get(queue_name)) and answer >= self._read_began_at
                else before + (until - self._read_began_at)
            )
            for queue_name, before in self._silent_before.items()
        }


def _secs(span: timedelta) -> float:
    return max(0.0, span.total_seconds())


def _age(moment: datetime | None, now: datetime) -> float:
    return _secs(now - moment) if moment else 0.0
