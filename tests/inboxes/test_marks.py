"""What a finalized mark allows to acknowledge; some engines finalize more than their checkpoints contain."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from pipeline.inboxes.marks import Marks, StaleReaderError
from tests.inboxes.checkpoints import STEPS, Engine, Step, ViolationError

_STEPS = st.lists(st.sampled_from(STEPS), min_size=50, max_size=150)


def _late() -> Marks[int]:
    return Marks(acknowledges_late=True)


@settings(max_examples=60, deadline=None)
@given(_STEPS)
def test_nothing_is_acknowledged_that_a_crash_would_lose_and_everything_in_the_end(
    steps: Sequence[Step],
) -> None:
    engine = Engine(_late)
    for step in steps:
        engine.do(step)
    engine.settle()


class _AfterAnyLaterMark(Marks[int]):
    """Takes any mark that is finalized later for the next round."""

    @override
    def finalize(self, number: int) -> list[int]:
        if number in self._live:
            self._live[number].began = self._count + 1
        return super().finalize(number)


class _NeverGoesBack(Marks[int]):
    """Takes a bundle at an old position for the next one."""

    @override
    def begin(self, position: int) -> tuple[int, list[int]]:
        return super().begin(self._count)


@pytest.mark.parametrize(
    ("make_marks", "pauses"),
    [
        (lambda: Marks(acknowledges_late=False), True),
        (lambda: _AfterAnyLaterMark(acknowledges_late=True), True),
        (lambda: _NeverGoesBack(acknowledges_late=True), True),
        (_late, False),
    ],
    ids=["at once", "after any later mark", "never goes back", "no pause between checkpoints"],
)
def test_a_rule_that_loses_messages_is_caught(
    make_marks: Callable[[], Marks[int]], pauses: bool
) -> None:
    def is_caught(seed: int) -> bool:
        engine = Engine(make_marks, pauses=pauses)
        steps = random.Random(seed).choices(STEPS, k=100)  # noqa: S311 - no secret
        try:
            for step in steps:
                engine.do(step)
        except ViolationError:
            return True
        return False

    assert any(is_caught(seed) for seed in range(3_000))


def _ended(marks: Marks[int], position: int, *leases: int) -> int:
    bundle, _ = marks.begin(position)
    for lease in leases:
        marks.hand_out(bundle, lease)
    return marks.cut(bundle)


def test_a_mark_speaks_for_those_before_it_and_no_others() -> None:
    marks = Marks[int](acknowledges_late=False)
    first = _ended(marks, 0, 1)
    second = _ended(marks, first, 2, 3)
    third = _ended(marks, second, 4)
    assert marks.finalize(second) == [1, 2, 3]
    assert marks.finalize(second) == marks.finalize(first) == []
    assert marks.finalize(third) == [4]


def test_a_bundle_that_begins_at_an_older_position_gives_back_what_came_after_it() -> None:
    marks = Marks[int](acknowledges_late=False)
    first = _ended(marks, 0, 1)
    second = _ended(marks, first, 2)
    stale, _ = marks.begin(second)
    marks.hand_out(stale, 3)
    bundle, released = marks.begin(first)
    assert sorted(released) == [2, 3]
    with pytest.raises(StaleReaderError):
        marks.hand_out(stale, 4)
    with pytest.raises(StaleReaderError):
        marks.cut(stale)
    assert marks.give_up(stale) == []
    assert marks.finalize(second) == []
    assert marks.finalize(marks.cut(bundle)) == [1]


def test_what_is_finalized_is_acknowledged_a_round_late() -> None:
    marks = _late()
    first = _ended(marks, 0, 1)
    under_way, _ = marks.begin(first)
    assert marks.finalize(first) == []
    # This bundle began before, so that one checkpoint may have finalized both.
    second = marks.cut(under_way)
    assert marks.finalize(second) == []
    third = _ended(marks, second)
    assert marks.finalize(third) == [1]
