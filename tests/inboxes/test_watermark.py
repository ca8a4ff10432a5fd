"""The watermark never passes a message still held, never moves back, and moves on when idle."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from pipeline.inboxes.watermark import Watermark

_START = datetime(2026, 11, 22, tzinfo=timezone.utc)


def _at(secs: float) -> datetime:
    return _START + timedelta(seconds=secs)


def test_nothing_is_known_before_every_queue_was_found_empty() -> None:
    watermark = Watermark(["a", "b"])
    poll = watermark.begin_poll("a", _at(0))
    watermark.end_poll("a", poll, found_nothing=True)
    assert watermark.advance(None) is None


def test_idle_queues_move_it_on() -> None:
    watermark = Watermark(["a", "b"])
    for secs in (10, 20):
        for queue_name in ("a", "b"):
            poll = watermark.begin_poll(queue_name, _at(secs))
            watermark.end_poll(queue_name, poll, found_nothing=True)
        assert watermark.advance(None) == _at(secs - 5)


def test_an_empty_poll_counts_only_after_those_that_were_under_way() -> None:
    watermark = Watermark(["a"])
    slow = watermark.begin_poll("a", _at(0))
    empty = watermark.begin_poll("a", _at(100))
    watermark.end_poll("a", empty, found_nothing=True)
    assert watermark.advance(None) is None
    watermark.end_poll("a", slow, found_nothing=False)
    assert watermark.advance(_at(1)) == _at(1)
    assert watermark.advance(None) == _at(95)


def test_a_late_redelivery_does_not_move_it_back() -> None:
    watermark = Watermark(["a"])
    assert watermark.advance(_at(10)) == _at(10)
    assert watermark.advance(_at(3)) == _at(10)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("hold"), st.floats(0, 100)),
            st.tuples(st.just("let go"), st.floats(0, 1)),
            st.tuples(st.just("found empty"), st.floats(0, 20)),
        ),
        max_size=30,
    )
)
def test_it_never_moves_past_what_is_held_and_never_back(events: list[tuple[str, float]]) -> None:
    watermark, held, now = Watermark(["a"]), [], _at(1000)
    before: datetime | None = None
    for kind, amount in events:
        now += timedelta(seconds=1)
        if kind == "hold":
            held.append(now - timedelta(seconds=amount))
        elif kind == "let go" and held:
            held.pop(int(amount * (len(held) - 1)))
        elif kind == "found empty":
            poll = watermark.begin_poll("a", now - timedelta(seconds=amount))
            watermark.end_poll("a", poll, found_nothing=True)
        after = watermark.advance(min(held, default=None))
        if before is not None:
            assert after is not None
            assert after >= before
        if held and after != before:
            assert after is not None
            assert after <= min(held)
        before = after
