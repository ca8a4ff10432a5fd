"""A run's health: every way in which it can go wrong is seen in a number."""

from datetime import datetime, timedelta, timezone

import pytest

from pipeline.errors import OutputError
from pipeline.health import Health, Snapshot
from pipeline.landing import Landed, Standing, together

START = datetime(2026, 11, 1, 4, tzinfo=timezone.utc)
REPORTS, REPLIES = "Alicom-Queue-1-SmsReport", "Alicom-Queue-1-SmsUp"
NOTHING = Landed(*(0 for _ in Landed._fields))


def after(secs: float) -> datetime:
    return START + timedelta(seconds=secs)


class Run:
    """A run as its parts tell of it; ``standing`` is what the landing would say at the moment."""

    def __init__(self) -> None:
        self.standing = Standing(None, None, {}, {}, {})
        self.health = Health((REPORTS, REPLIES), lambda: self.standing, START)

    def stand(self, **changes: object) -> None:
        self.standing = self.standing._replace(**changes)  # type: ignore[arg-type]

    def read(self, began_secs: float, ended_secs: float, **landed: int) -> None:
        self.health.begin_read(after(began_secs))
        self.health.end_read(NOTHING._replace(**landed), after(ended_secs))

    def at(self, secs: float) -> Snapshot:
        return self.health.snapshot(after(secs))


@pytest.fixture
def run() -> Run:
    return Run()


def test_counts_are_those_of_all_reads_and_of_the_one_at_hand(run: Run) -> None:
    run.read(0, 10, received=100, redelivered=3, archived=100, acknowledged=100)
    run.health.begin_read(after(12))
    sums = run.health.note_read(NOTHING._replace(received=20, redelivered=1, archived=16))

    assert (sums["received"], sums["archived"], sums["redelivered"]) == (120, 116, 4)
    snapshot = run.at(13)
    assert (snapshot.landed.received, snapshot.landed.redelivered) == (120, 4)
    assert snapshot.last_read.received == 20

    run.health.end_read(NOTHING._replace(received=30, archived=30, acknowledged=30), after(14))
    assert run.at(14).landed.received == 130
    assert run.health.counts.landed["acknowledged"] == 130


@pytest.mark.parametrize(
    ("landed", "held"),
    [
        ({"received": 9, "archived": 9, "acknowledged": 9}, 0),
        ({"received": 9, "archived": 4, "acknowledged": 4, "released": 5}, 0),
        ({"received": 9, "archived": 9, "acknowledged": 7, "unconfirmed": 2}, 0),
        ({"received": 9, "archived": 9, "acknowledged": 6, "unacknowledged": 3}, 0),
        ({"received": 9, "archived": 2}, 9),
    ],
)
def test_what_is_received_and_not_settled_is_held(
    run: Run, landed: dict[str, int], held: int
) -> None:
    run.read(0, 10, **landed)

    assert run.at(11).held == held


def test_a_message_at_hand_ages(run: Run) -> None:
    run.health.begin_read(after(0))
    run.stand(oldest_held_at=after(-60))

    assert run.at(1).oldest_held_secs == 61
    run.stand(oldest_held_at=None)
    assert run.at(2).oldest_held_secs == 0


def test_an_archived_message_ages_until_an_epoch_has_it(run: Run) -> None:
    run.health.begin_read(after(0))
    run.stand(oldest_archived_at=after(-5))
    assert run.at(1).oldest_unprocessed_secs == 0

    run.health.note_read(NOTHING._replace(received=40, archived=30))
    assert (run.at(2).unprocessed_messages, run.at(2).oldest_unprocessed_secs) == (30, 7)

    run.health.end_read(NOTHING._replace(received=40, archived=40), after(3))
    assert (run.at(3).unprocessed_messages, run.at(3).oldest_unprocessed_secs) == (40, 8)

    run.health.note_backlog(40, after(-5))
    assert (run.at(4).unprocessed_messages, run.at(4).oldest_unprocessed_secs) == (40, 9)

    run.health.note_backlog(0, None)
    assert (run.at(5).unprocessed_messages, run.at(5).oldest_unprocessed_secs) == (0, 0)


def test_a_backlog_of_an_earlier_run_ages_while_new_messages_come(run: Run) -> None:
    run.health.note_backlog(1000, after(-3600))
    run.health.begin_read(after(0))
    run.stand(oldest_archived_at=after(-5))
    run.health.note_read(NOTHING._replace(received=10, archived=10))

    assert run.at(60).unprocessed_messages == 1010
    assert run.at(60).oldest_unprocessed_secs == 3660


def test_a_queue_that_answers_is_not_silent_even_if_it_has_nothing(run: Run) -> None:
    run.health.begin_read(after(0))
    run.stand(answered_at={REPORTS: after(9), REPLIES: after(2)})

    assert run.at(10).silent_secs == {REPORTS: 1, REPLIES: 8}


def test_the_silence_of_a_queue_grows_over_reads_and_ends_with_an_answer(run: Run) -> None:
    run.stand(answered_at={REPLIES: after(9)})
    run.read(0, 10)
    assert run.at(10).silent_secs == {REPORTS: 10, REPLIES: 1}

    run.read(10, 20)
    run.health.begin_read(after(20))
    assert run.at(25).silent_secs == {REPORTS: 25, REPLIES: 16}

    run.stand(answered_at={REPORTS: after(26), REPLIES: after(26)})
    assert run.at(27).silent_secs == {REPORTS: 1, REPLIES: 1}


def test_an_epoch_is_no_silence(run: Run) -> None:
    run.stand(answered_at={REPORTS: after(9), REPLIES: after(10)})
    run.read(0, 10)
    assert run.at(600).silent_secs == {REPORTS: 1, REPLIES: 0}

    run.health.begin_read(after(600))
    assert run.at(605).silent_secs == {REPORTS: 6, REPLIES: 5}


def test_a_token_that_is_not_replaced_runs_down(run: Run) -> None:
    run.health.begin_read(after(0))
    run.stand(token_expires_at={REPORTS: after(600)})

    assert [run.at(secs).token_secs[REPORTS] for secs in (0, 500, 700)] == [600, 100, -100]


def test_a_token_needs_no_replacement_while_an_epoch_runs(run: Run) -> None:
    run.stand(token_expires_at={REPORTS: after(600)})
    run.read(0, 10)

    assert run.at(3600).token_secs == {REPORTS: 590}


def test_epochs_are_counted_and_the_time_since_the_last_one(run: Run) -> None:
    assert run.at(7).since_epoch_secs == 7
    run.health.note_epoch({"messages": 5, "waiting_after": 3}, after(10))
    run.health.note_epoch({"messages": 6, "waiting_after": 2}, after(20))

    snapshot = run.at(25)
    assert (snapshot.epochs, snapshot.since_epoch_secs) == (2, 5)
    assert snapshot.processed == {"messages": 11, "waiting_after": 2}


def test_what_keeps_the_tables_back_is_told_while_it_does(run: Run) -> None:
    run.health.note_processing(OutputError("The disk is full."))
    assert run.at(0).processing_failure == "The disk is full."

    run.health.note_processing(None)
    assert run.at(1).processing_failure is None


def test_the_share_of_messages_that_cannot_be_decoded_is_passed_on(run: Run) -> None:
    run.stand(failed_share={REPORTS: 0.25})

    assert run.at(0).failed_share == {REPORTS: 0.25}


def test_a_clock_that_is_set_back_makes_no_time_negative(run: Run) -> None:
    run.health.note_backlog(1, after(10))
    run.stand(oldest_held_at=after(10))

    snapshot = run.at(0)
    assert (snapshot.oldest_held_secs, snapshot.oldest_unprocessed_secs) == (0, 0)


def test_landing_processes_stand_as_their_worst_but_any_may_get_an_answer() -> None:
    one = Standing(
        after(10), None, {REPORTS: after(50)}, {REPORTS: after(600)}, {REPORTS: 0.1, REPLIES: 0.2}
    )
    other = Standing(
        after(20),
        after(5),
        {REPORTS: after(40), REPLIES: after(30)},
        {REPORTS: after(500)},
        {REPORTS: 0.3},
    )

    assert (
        together([one, other])
        == together([other, one])
        == Standing(
            oldest_held_at=after(10),
            oldest_archived_at=after(5),
            answered_at={REPORTS: after(50), REPLIES: after(30)},
            token_expires_at={REPORTS: after(500)},
            failed_share={REPORTS: 0.3, REPLIES: 0.2},
        )
    )
    assert together([one]) == one
