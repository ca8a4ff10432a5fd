"""Whatever workers do to readers and engines to bundles: nothing is lost, and all is acknowledged at last."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inboxes import registry
from pipeline.inboxes.reading import Reading
from pipeline.inboxes.source import ReadInboxes
from pipeline.stopping import forget_stop
from tests.inboxes.engine import Bundle, Worker, starts
from tests.inboxes.post import Post, PostSpec

_Step: TypeAlias = Literal[
    "bring", "bundle", "bundle elsewhere", "fail", "fail behind the source", "take a checkpoint", "notify",
    "restart the task", "kill the process", "tear a worker down", "close idle readers",
]  # fmt: skip
_USUAL: Final[Sequence[_Step]] = ("bring", "bundle", "bundle elsewhere")
_STEPS: Final[Sequence[_Step]] = (*get_args(_Step), *_USUAL, *_USUAL)
_RUN_IDS = map(str, itertools.count())


class _Job:
    """A job that reads one split with several workers, and takes checkpoints."""

    def __init__(self) -> None:
        self.post = Post("shared-readers")
        self.brought = 0
        self._run_id = f"test-shared-readers-{next(_RUN_IDS)}"
        spec = PostSpec(self.post.name, batch_messages=2)
        reading = Reading(3, advance_wait_secs=0.0, poll_secs=0.1, acknowledges_late=True)
        (self._position,) = starts(ReadInboxes([spec], reading, run_id=self._run_id))
        self._workers = [Worker() for _ in range(3)]
        self._contains: set[int] = set()
        self._ended: list[Bundle] = []
        self._checkpoint = (self._position, frozenset[int]())
        self._owes_notice = False

    def do(self, step: _Step) -> None:
        {
            "bring": self._bring,
            "bundle": self._bundle,
            "bundle elsewhere": self._bundle_elsewhere,
            "fail": lambda: self._workers[0].run(self._position, fail_after=1),
            "fail behind the source": lambda: self._workers[0].run(self._position),
            "take a checkpoint": self._take_checkpoint,
            "notify": self._notify,
            "restart the task": self._restart,
            "kill the process": self._kill,
            "tear a worker down": self._tear_down,
            "close idle readers": self._close_idle_readers,
        }[step]()
        # A crash goes back to the checkpoint: what it lacks must still come.
        assert set(self.post.acknowledged) <= self._checkpoint[1]

    def settle(self) -> None:
        """Let time pass in which nothing fails."""
        for _ in range(self.brought + 3):
            for step in ("bundle", "take a checkpoint", "notify"):
                self.do(step)

    def close(self) -> None:
        for worker in self._workers:
            worker.tear_down()
        registry.close_run(self._run_id)

    def _bring(self) -> None:
        self.brought += 1
        self.post.bring(self.brought)

    def _bundle(self) -> None:
        bundle = self._workers[0].run(self._position)
        assert bundle.residual is not None
        self._position = bundle.residual
        self._contains |= {int(m.message_id.rpartition("-")[2]) for m in bundle.messages}
        self._ended.append(bundle)

    def _bundle_elsewhere(self) -> None:
        self._workers.append(self._workers.pop(0))
        self._bundle()

    def _take_checkpoint(self) -> None:
        self._notify()
        self._owes_notice = True
        self._checkpoint = (self._position, frozenset(self._contains))

    def _notify(self) -> None:
        """Finalize what has ended by now, also what the checkpoint does not contain."""
        if self._owes_notice:
            self._owes_notice = False
            ended, self._ended = self._ended, []
            for bundle in ended:
                bundle.finalize()

    def _restart(self) -> None:
        self._position, contains = self._checkpoint
        self._contains, self._ended, self._owes_notice = set(contains), [], False

    def _kill(self) -> None:
        self.close()
        self._workers = [Worker() for _ in self._workers]
        self._restart()

    def _tear_down(self) -> None:
        self._workers.pop(0).tear_down()
        self._workers.append(Worker())

    def _close_idle_readers(self) -> None:
        for worker in self._workers:
            worker.clock_secs += 61


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(_STEPS), min_size=10, max_size=40))
def test_nothing_is_lost_and_all_is_acknowledged_in_the_end(steps: Sequence[_Step]) -> None:
    forget_stop()
    job = _Job()
    try:
        for step in steps:
            job.do(step)
        job.settle()
        assert {*job.post.acknowledged} == {*range(1, job.brought + 1)}
        assert job.post.open_inboxes() == 1
    finally:
        job.close()
