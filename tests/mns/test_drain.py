"""When a queue counts as empty."""

from __future__ import annotations

from pipeline.mns.drain import Drain


def test_as_many_empty_polls_that_waited_as_there_are_fetchers_prove_it_empty() -> None:
    drain = Drain(fetchers=3)
    for number in range(3):
        assert not drain.is_empty
        assert drain.found_nothing(float(number), number + 1.0, wait_secs=1)
    assert drain.is_empty


def test_one_fetcher_must_find_nothing_twice() -> None:
    drain = Drain(fetchers=1)
    drain.found_nothing(0.0, 1.0, wait_secs=1)
    assert not drain.is_empty


def test_an_answer_that_did_not_wait_proves_nothing() -> None:
    drain = Drain(fetchers=2)
    for number in range(7):
        assert not drain.found_nothing(float(number), number + 0.01, wait_secs=1)
    assert not drain.is_empty


def test_a_server_that_never_waits_is_believed_in_the_end() -> None:
    drain = Drain(fetchers=2)
    for number in range(16):
        drain.found_nothing(float(number), number + 0.01, wait_secs=1)
    assert drain.is_empty


def test_a_poll_that_just_lost_the_race_for_the_last_message_counts() -> None:
    drain = Drain(fetchers=2)
    drain.found_messages(0.02)
    drain.found_nothing(0.0, 1.0, wait_secs=1)
    drain.found_nothing(0.03, 1.03, wait_secs=1)
    assert drain.is_empty


def test_a_poll_without_a_wait_does_not_count_when_it_began_before_the_last_message() -> None:
    drain = Drain(fetchers=2)
    drain.found_messages(0.02)
    drain.found_nothing(0.0, 0.03, wait_secs=0)
    drain.found_nothing(0.03, 0.04, wait_secs=0)
    assert not drain.is_empty


def test_a_message_begins_it_all_again() -> None:
    drain = Drain(fetchers=2)
    drain.found_nothing(0.0, 1.0, wait_secs=1)
    drain.found_messages(1.5)
    drain.found_nothing(1.0, 2.0, wait_secs=1)  # began before the message came
    drain.found_nothing(2.0, 3.0, wait_secs=1)
    assert not drain.is_empty
    drain.found_nothing(3.0, 4.0, wait_secs=1)
    assert drain.is_empty
