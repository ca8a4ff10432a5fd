"""The breaker: it stops for what cannot be chance, and for nothing less."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.breaker import Breaker, FailureLimit, FailureLimitError

QUEUE = "Alicom-Queue-1000000000000001-SmsReport"
LIMIT = FailureLimit(share=0.5, window_messages=1000)
GOOD: list[str | None] = [None]
BAD: list[str | None] = ["unknown_shape"]

verdicts = st.sampled_from([None, None, "unknown_shape", "malformed_json"])


def first_too_many(all_verdicts: list[str | None], limit: FailureLimit) -> int | None:
    """Which message is the one too many, by the definition: counted anew for every message."""
    for end in range(1, len(all_verdicts) + 1):
        window = all_verdicts[max(0, end - limit.window_messages) : end]
        failed = sum(reason is not None for reason in window)
        if failed / max(len(window), limit.least_messages) > limit.share:
            return end
    return None


@given(
    st.lists(st.lists(verdicts, max_size=8), max_size=12),
    st.floats(0, 1),
    st.integers(1, 20),
)
def test_it_trips_at_the_message_that_is_one_too_many_however_they_come(
    bundles: list[list[str | None]], share: float, window_messages: int
) -> None:
    limit = FailureLimit(share, window_messages)
    breaker = Breaker(limit)
    everything = [verdict for bundle in bundles for verdict in bundle]
    trips_at = first_too_many(everything, limit)
    seen = 0
    for bundle in bundles:
        seen += len(bundle)
        if trips_at is not None and seen >= trips_at:
            with pytest.raises(FailureLimitError):
                breaker.note(QUEUE, bundle)
            return
        breaker.note(QUEUE, bundle)
    assert trips_at is None


@given(st.lists(verdicts, max_size=60), st.integers(1, 20))
def test_a_limit_of_one_never_trips(messages: list[str | None], window_messages: int) -> None:
    Breaker(FailureLimit(1.0, window_messages)).note(QUEUE, messages)


def test_some_garbage_among_good_messages_is_no_reason_to_stop() -> None:
    breaker = Breaker(LIMIT)

    for _ in range(100):
        breaker.note(QUEUE, GOOD * 60 + BAD * 40)

    assert breaker.shares() == {QUEUE: 0.4}


def test_a_little_garbage_and_nothing_else_is_no_reason_to_stop() -> None:
    breaker = Breaker(LIMIT)

    breaker.note(QUEUE, BAD * 250)

    assert breaker.shares() == {QUEUE: 0.5}
    with pytest.raises(FailureLimitError):
        breaker.note(QUEUE, BAD)


def test_a_format_that_changes_is_noticed_within_a_window() -> None:
    breaker = Breaker(LIMIT)
    breaker.note(QUEUE, GOOD * 100_000)

    breaker.note(QUEUE, BAD * 500)
    with pytest.raises(FailureLimitError):
        breaker.note(QUEUE, BAD)


def test_old_failures_are_forgotten() -> None:
    breaker = Breaker(LIMIT)

    for _ in range(10):
        breaker.note(QUEUE, BAD * 250)
        breaker.note(QUEUE, GOOD * 1000)

    assert breaker.shares() == {QUEUE: 0}


def test_a_queue_answers_for_itself() -> None:
    breaker = Breaker(LIMIT)
    breaker.note("busy", GOOD * 100_000)

    with pytest.raises(FailureLimitError, match=" of quiet "):
        breaker.note("quiet", BAD * 251)


@pytest.mark.parametrize(("readers", "each"), [(1, 1000), (2, 500), (3, 333), (2000, 1)])
def test_several_readers_of_a_queue_share_its_limit(readers: int, each: int) -> None:
    assert LIMIT.shared_by(readers) == FailureLimit(LIMIT.share, each)


def test_the_sentence_names_the_commonest_reasons_and_what_to_do() -> None:
    reasons: list[str | None] = []
    reasons += ["unknown_shape"] * 150 + ["malformed_json"] * 60 + ["wrong_type"] * 30 + ["x"] * 11

    with pytest.raises(FailureLimitError) as tripped:
        Breaker(LIMIT).note(QUEUE, reasons)

    assert str(tripped.value) == (
        f"Of the last 251 messages of {QUEUE} 251 cannot be used (unknown_shape 150, malformed_json 60, "
        "wrong_type 30), more than --max_failed_share=0.5 allows: run a version that knows their format, "
        "or --max_failed_share=1 to let them become failed events; what was held went back to the queue"
    )


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_between_nothing_and_all(share: float) -> None:
    with pytest.raises(ValueError, match="--max_failed_share must be 0-1"):
        FailureLimit(share=share)


def test_a_window_has_a_message_at_least() -> None:
    with pytest.raises(ValueError, match="--failed_share_window_messages must be at least 1"):
        FailureLimit(window_messages=0)
