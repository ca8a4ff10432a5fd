"""The marks of one reader's bundles: what a finalized mark allows to acknowledge.

Pure: it orders by counting and knows no clock. Bundles that read from one split follow on each other like a
chain: each begins at the mark of the one before it, its position, and ends with a mark of its own. So the
engine's state that contains a mark contains everything before it in the chain. A bundle that begins at an
older position says that the engine has gone back there, and that what came after never happened.

*Why an acknowledgement may have to be late.* When a checkpoint is complete, Flink finalizes every bundle
that has ended by then, also one that ended after the snapshot and that the checkpoint does not contain
(measured, Beam 2.70). After a crash it goes back to the snapshot, and what was acknowledged beyond it would
be lost. But what is finalized now, the *next* checkpoint contains, and that one is complete when a mark is
finalized whose bundle began after this finalization. It takes an engine that tells a worker of a complete
checkpoint before the worker's next snapshot: leave a pause between checkpoints. Bundles without messages
cut marks, too, so that the last messages are acknowledged while nothing comes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

_Lease = TypeVar("_Lease")


class StaleReaderError(RuntimeError):
    """Another reader has taken over: the engine has given the bundle up, and must not commit it."""


@dataclass
class _Span(Generic[_Lease]):
    """What a bundle handed out."""

    began: int
    leases: list[_Lease]
    is_finalized: bool = False


class Marks(Generic[_Lease]):
    """The chain of marks of one split, in the process that reads it; not safe to share between threads.

    Marks are numbered from 1 and never twice; 0 is the position before the first one.
    """

    def __init__(self, *, acknowledges_late: bool) -> None:
        self._acknowledges_late = acknowledges_late
        self._count = 0  # of what has happened: an order of bundles begun, marks cut and finalized
        self._open: _Span[_Lease] | None = None
        # In the chain and not acknowledged yet, in the order of their numbers.
        self._live: dict[int, _Span[_Lease]] = {}
        # Finalized, and waiting for the next round: when, and the mark's number; in order of the first.
        self._waiting: deque[tuple[int, int]] = deque()

    @property
    def is_open(self) -> bool:
        """Whether a bundle has begun and neither ended nor been given up."""
        return self._open is not None

    def begin(self, position: int) -> tuple[int, list[_Lease]]:
        """Begin a bundle at a position; return its number, and what to give back.

        That is what was handed out after the position: by bundles that failed, or that the engine has
        forgotten with a crash elsewhere. Their readers, if there still are some, are stale from now on.
        """
        released = [] if self._open is None else self._open.leases
        for number in [number for number in self._live if number > position]:
            released.extend(self._live.pop(number).leases)
        self._open = _Span(self._next(), [])
        return self._open.began, released

    def is_current(self, bundle: int) -> bool:
        """Whether a bundle is the one that has begun last, and still open."""
        return self._open is not None and self._open.began == bundle

    def hand_out(self, bundle: int, lease: _Lease) -> None:
        """Note what a bundle has taken.

        Raises:
            StaleReaderError: The bundle is not the one at work.
        """
        self._span(bundle).leases.append(lease)

    def cut(self, bundle: int) -> int:
        """End a bundle; return the number of its mark.

        Raises:
            StaleReaderError: The bundle is not the one at work.
        """
        span = self._span(bundle)
        number = self._next()
        self._live[number], self._open = span, None
        return number

    def give_up(self, bundle: int) -> list[_Lease]:
        """End a bundle without a mark; return what to give back."""
        if not self.is_current(bundle):
            return []
        released, self._open = self._span(bundle).leases, None
        return released

    def finalize(self, number: int) -> list[_Lease]:
        """Note that the engine has finalized a mark; return what may be acknowledged now.

        A second call does nothing, nor does one for a mark that the engine has gone back behind.
        """
        span = self._live.get(number)
        if span is None or span.is_finalized:
            return []
        span.is_finalized = True
        if not self._acknowledges_late:
            return self._take_through(number)
        through = 0
        while self._waiting and self._waiting[0][0] < span.began:
            through = max(through, self._waiting.popleft()[1])
        self._waiting.append((self._next(), number))
        return self._take_through(through)

    def _take_through(self, number: int) -> list[_Lease]:
        """Take what was handed out up to a mark: state that contains a mark contains those before it."""
        numbers = []
        for live in self._live:
            if live > number:
                break
            numbers.append(live)
        return [lease for live in numbers for lease in self._live.pop(live).leases]

    def _span(self, bundle: int) -> _Span[_Lease]:
        if self._open is None or self._open.began != bundle:
            raise StaleReaderError("another reader has taken over from this one")
        return self._open

    def _next(self) -> int:
        self._count += 1
        return self._count
