"""An engine that takes checkpoints, as Flink does, reads one split, and crashes whenever it is told to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, get_args

from pipeline.inboxes.marks import Marks

Step = Literal[
    "begin", "take", "end", "fail", "take a snapshot", "complete", "notify", "lose the notice", "deliver",
    "deliver the last", "kill the worker", "restart the task",
]  # fmt: skip
_TROUBLE: Final[Sequence[Step]] = ("fail", "lose the notice", "kill the worker", "restart the task")
# Trouble is rare, as it must be for anything to happen in between.
STEPS: Final[Sequence[Step]] = [
    step for step in get_args(Step) for _ in range(1 if step in _TROUBLE else 10)
]


class ViolationError(Exception):
    """Something was acknowledged, or not, that should not, or should have been."""


class _State(NamedTuple):
    """What a snapshot contains."""

    position: int
    worker: int
    leases: frozenset[int]


class Engine:
    """Runs bundles one after the other; each step does nothing where it makes no sense.

    What a completed checkpoint finalizes is every bundle that ended before the worker hears of it, whether
    or not the snapshot contains it; and the worker may hear of each much later.

    Args:
        make_marks: makes the marks of a new worker process.
        pauses: whether a worker hears of a complete checkpoint before it takes the next snapshot.
    """

    def __init__(self, make_marks: Callable[[], Marks[int]], *, pauses: bool = True) -> None:
        self._make_marks = make_marks
        self._pauses = pauses
        self._marks = make_marks()
        self._worker = 0
        self._open: int | None = None
        self._next_lease = 0
        self._taken: list[int] = []
        self._state = self._completed = _State(0, 0, frozenset())
        self._snapshot: _State | None = None
        self._owed_notices = 0
        self._ended: list[int] = []
        self._sent: list[int] = []
        self._held: set[int] = set()
        self.acknowledged: set[int] = set()

    def do(self, step: Step) -> None:
        """Do a step.

        Raises:
            ViolationError: It acknowledged what the completed checkpoint lacks, or what is not held.
        """
        getattr(self, f"_{step.replace(' ', '_')}")()

    def settle(self) -> None:
        """Let some rounds pass in which nothing comes and nothing fails.

        Raises:
            ViolationError: Something was neither acknowledged nor given back.
        """
        for step in ("end", *["begin", "end", "take a snapshot", "complete", "notify"] * 4):
            self.do(step)  # type: ignore[arg-type]
            while self._sent:
                self._deliver()
        if self._held:
            raise ViolationError(f"{self._held} are still held")

    def _begin(self) -> None:
        if self._open is None:
            is_ours = self._state.worker == self._worker
            self._open, released = self._marks.begin(self._state.position if is_ours else 0)
            self._give_back(released)

    def _take(self) -> None:
        if self._open is not None:
            self._next_lease += 1
            self._held.add(self._next_lease)
            self._taken.append(self._next_lease)
            self._marks.hand_out(self._open, self._next_lease)

    def _end(self) -> None:
        if self._open is not None:
            position = self._marks.cut(self._open)
            self._state = _State(position, self._worker, self._state.leases.union(self._taken))
            self._ended.append(position)
            self._open, self._taken = None, []

    def _fail(self) -> None:
        if self._open is not None:
            self._give_back(self._marks.give_up(self._open))
            self._restart_the_task()

    def _take_a_snapshot(self) -> None:
        is_free = self._snapshot is None and not (self._pauses and self._owed_notices)
        if self._open is None and is_free:
            self._snapshot = self._state

    def _complete(self) -> None:
        if self._snapshot is not None:
            self._completed, self._snapshot = self._snapshot, None
            self._owed_notices += 1

    def _notify(self) -> None:
        if self._owed_notices:
            self._owed_notices -= 1
            self._sent += self._ended
            self._ended = []

    def _lose_the_notice(self) -> None:
        self._owed_notices = max(0, self._owed_notices - 1)

    def _deliver_the_last(self) -> None:
        self._deliver(-1)

    def _deliver(self, which: int = 0) -> None:
        if self._sent:
            for lease in self._marks.finalize(self._sent.pop(which)):
                if lease not in self._completed.leases:
                    raise ViolationError(f"{lease} is acknowledged, and would be lost by a crash")
                if lease not in self._held:
                    raise ViolationError(f"{lease} is not held any more")
                self._held.remove(lease)
                self.acknowledged.add(lease)

    def _restart_the_task(self) -> None:
        """Go back to the completed checkpoint, in the same worker process."""
        self._state, self._snapshot, self._owed_notices = self._completed, None, 0
        self._open, self._taken, self._ended = None, [], []

    def _kill_the_worker(self) -> None:
        self._restart_the_task()
        self._marks = self._make_marks()
        self._worker += 1
        self._sent = []
        self._held = set()  # their leases end, and they come back

    def _give_back(self, leases: Sequence[int]) -> None:
        for lease in leases:
            if lease not in self._held:
                raise ViolationError(f"{lease} is given back, but not held")
            self._held.remove(lease)
