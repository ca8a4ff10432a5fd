"""Exact counts of one run, its oldest message, and what ended it, kept in the process that does the work.

Beam's metrics cannot serve: finalization callbacks run outside any bundle and have none, and a
failed run has no result to ask. A tally is found by the run's id from wherever the work happens, so
nothing live travels with a pickled transform. It sees only its own process: exact where the whole
pipeline runs in one (the local job), partial elsewhere.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from datetime import datetime


class Tally:
    """Counts by name; safe to share between threads."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()
        self._oldest: dict[str, datetime] = {}
        self._failure: Exception | None = None
        self._lock = threading.Lock()

    def add(self, **counts: int) -> None:
        """Add to counts by name."""
        with self._lock:
            self._counts.update(counts)

    def note_oldest(self, **moments: datetime) -> None:
        """Note moments by name; the earliest of each name counts."""
        with self._lock:
            for name, moment in moments.items():
                self._oldest[name] = min(moment, self._oldest.get(name, moment))

    def fail(self, failure: Exception) -> None:
        """Note what ended the run; the first counts, the rest follow from it."""
        with self._lock:
            self._failure = self._failure or failure

    @property
    def failure(self) -> Exception | None:
        """What ended the run, if something did."""
        return self._failure

    def counts(self) -> Mapping[str, int]:
        """Return a copy of the counts."""
        with self._lock:
            return Counter(self._counts)

    def take_news(self) -> Counter[str]:
        """Return what was counted since this was last called: each count is handed out once."""
        with self._lock:
            news = self._counts - self._taken
            self._taken += news
            return news

    def oldest(self, name: str) -> datetime | None:
        """Return the earliest moment noted under a name."""
        return self._oldest.get(name)


_TALLIES: dict[str, Tally] = {}
_REGISTERING = threading.Lock()


def tally_of(run_id: str) -> Tally:
    """Return the tally of a run in this process, a new one when it is the first to ask."""
    with _REGISTERING:
        return _TALLIES.setdefault(run_id, Tally())


def close_tally(run_id: str) -> None:
    """Forget a run."""
    with _REGISTERING:
        _TALLIES.pop(run_id, None)
