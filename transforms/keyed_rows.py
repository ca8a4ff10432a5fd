"""Rows in memory that are found by the hash of their key, come and go, and fall due.

A table of Arrow cannot lose a row, and a dict of Python objects takes a kilobyte for each. So rows lie in
*runs*: tables with an order by hash and a mask of those still there. News are runs of their own, which
are merged when there are too many, larger ones more rarely: a row is copied as often as the logarithm of
their number.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.keys import Hashes
from transforms.moments import Milliseconds

# Few: a visit looks into every run, and picks rows out of each in which it finds some.
_MOST_RUNS: Final = 3
# Rows that are gone are kept until a run is merged, as long as they are few.
_FEW_ROWS: Final = 1000

NEVER: Final = 2**62
_NOTHING: Final[Hashes] = np.empty(0, dtype=np.uint64)


class Keyed(NamedTuple):
    """n rows with the hashes of their keys, the hashes of their groups, and the moments they fall due."""

    rows: pa.Table
    hashes: Hashes
    groups: Hashes
    due_ms: Milliseconds

    def take(self, positions: npt.NDArray[np.intp]) -> "Keyed":
        """Pick rows by position."""
        return Keyed(
            self.rows.take(pa.array(positions)),
            self.hashes[positions],
            self.groups[positions],
            self.due_ms[positions],
        )


class KeyedRows:
    """Rows of one schema. Hashes may collide: who asks for a hash gets the rows of every key that has it."""

    def __init__(self, schema: pa.Schema) -> None:
        self._nothing = Keyed(schema.empty_table(), _NOTHING, _NOTHING, np.empty(0, dtype=np.int64))
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        return sum(run.living for run in self._runs)

    @property
    def next_due_ms(self) -> int:
        """The earliest moment that any row falls due; :data:`NEVER` if there is none."""
        return min((run.next_due_ms for run in self._runs), default=NEVER)

    def add(self, news: Keyed) -> None:
        """Add rows; those that are there already stay."""
        if not len(news.hashes):
            return
        self._runs.append(_Run(news))
        stored = sum(len(run.keyed.hashes) for run in self._runs)
        if stored > 2 * len(self) + _FEW_ROWS:
            self._merge(0)
        elif len(self._runs) > _MOST_RUNS:
            self._merge(self._first_to_merge())

    def of_hashes(self, sought: Hashes) -> Keyed:
        """The rows of some hashes (ascending, each once)."""
        return self._gathered(run.of_hashes(sought) for run in self._runs)

    def hashes_of_groups(self, groups: Hashes) -> Hashes:
        """The hashes of all rows of some groups; looks at every row."""
        if not len(groups):
            return _NOTHING
        found = [
            run.keyed.hashes[run.alive & are_among(run.keyed.groups, groups)] for run in self._runs
        ]
        return np.unique(np.concatenate([_NOTHING, *found]))

    def groups_among(self, groups: Hashes) -> Hashes:
        """Those of some groups that have rows here."""
        found = [run.keyed.groups[run.alive] for run in self._runs]
        return np.intersect1d(np.concatenate([_NOTHING, *found]), groups)

    def hashes_due(self, as_of_ms: int) -> Hashes:
        """The hashes of all rows that are due at a moment."""
        found = [
            run.keyed.hashes[run.alive & (run.keyed.due_ms <= as_of_ms)]
            for run in self._runs
            if run.next_due_ms <= as_of_ms
        ]
        return np.unique(np.concatenate([_NOTHING, *found]))

    def drop(self, hashes: Hashes) -> None:
        """Remove the rows of some hashes (ascending, each once)."""
        if not len(hashes):
            return
        for run in self._runs:
            run.drop(run.of_hashes(hashes))
        self._runs = [run for run in self._runs if run.living]

    def drop_due(self, as_of_ms: int) -> Keyed:
        """Remove the rows that are due at a moment, and return them."""
        due = [np.flatnonzero(run.alive & (run.keyed.due_ms <= as_of_ms)) for run in self._runs]
        dropped = self._gathered(iter(due))
        for run, positions in zip(self._runs, due, strict=True):
            run.drop(positions)
        self._runs = [run for run in self._runs if run.living]
        return dropped

    def everything(self) -> Keyed:
        """All rows."""
        return self._gathered(np.flatnonzero(run.alive) for run in self._runs)

    def _gathered(self, positions: Iterator[npt.NDArray[np.intp]]) -> Keyed:
        found = [
            run.keyed.take(which)
            for run, which in zip(self._runs, positions, strict=True)
            if len(which)
        ]
        return concatenated(found) if found else self._nothing

    def _first_to_merge(self) -> int:
        """The oldest run that is no more than twice as large as all the newer ones."""
        first, rows = len(self._runs) - 1, self._runs[-1].living
        while first and self._runs[first - 1].living <= 2 * rows:
            first -= 1
            rows += self._runs[first].living
        return min(first, len(self._runs) - 2)

    def _merge(self, first: int) -> None:
        merged = [
            run.keyed.take(np.flatnonzero(run.alive)) if run.living < len(run.alive) else run.keyed
            for run in self._runs[first:]
        ]
        self._runs[first:] = [_Run(concatenated(merged))]


class _Run:
    """Rows, and where to find them: their hashes in order, each with the row's position."""

    def __init__(self, keyed: Keyed) -> None:
        # A table of many chunks is slow to pick from.
        self.keyed = keyed._replace(rows=keyed.rows.combine_chunks())
        self._order = np.argsort(keyed.hashes, kind="stable")
        self._in_order = keyed.hashes[self._order]
        self.alive = np.ones(len(keyed.hashes), dtype=np.bool_)
        self.living = len(keyed.hashes)
        self.next_due_ms = int(keyed.due_ms.min())

    def of_hashes(self, sought: Hashes) -> npt.NDArray[np.intp]:
        """Positions of the rows of some hashes."""
        starts = np.searchsorted(self._in_order, sought, side="left")
        sizes = np.searchsorted(self._in_order, sought, side="right") - starts
        total = int(sizes.sum())
        if not total:
            return np.empty(0, dtype=np.intp)
        ends = np.cumsum(sizes)
        found = np.arange(total) + np.repeat(starts - (ends - sizes), sizes)
        positions: npt.NDArray[np.intp] = self._order[found]
        return positions[self.alive[positions]]

    def drop(self, positions: npt.NDArray[np.intp]) -> None:
        if not len(positions):
            return
        self.alive[positions] = False
        self.living -= len(positions)
        if self.living and int(self.keyed.due_ms[positions].min()) == self.next_due_ms:
            self.next_due_ms = int(self.keyed.due_ms[self.alive].min())


def concatenated(parts: Sequence[Keyed]) -> Keyed:
    """Put rows together; at least one part."""
    if len(parts) == 1:
        return parts[0]
    return Keyed(
        pa.concat_tables([part.rows for part in parts]),
        np.concatenate([part.hashes for part in parts]),
        np.concatenate([part.groups for part in parts]),
        np.concatenate([part.due_ms for part in parts]),
    )


def are_among(hashes: Hashes, others: Hashes) -> npt.NDArray[np.bool_]:
    """Tell which of n hashes are among others that are ascending: ``np.isin``, ten times faster for few."""
    if not len(others):
        return np.zeros(len(hashes), dtype=np.bool_)
    places = np.minimum(np.searchsorted(others, hashes), len(others) - 1)
    found: npt.NDArray[np.bool_] = others[places] == hashes
    return found
