"""The ledger of leases, under any order of events."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipeline.mns.leases import Lease, LeaseLedger

_DAY = datetime(2026, 11, 22, tzinfo=timezone.utc)
_LEAD_SECS = 10.0
_MAX_HOLD_SECS = 120.0
_RENEWED_SECS = 60.0


def _lease(now_secs: float, secs: float, age_secs: float = 0.0, messages: int = 2) -> Lease:
    handles = [f"handle-{number}" for number in range(messages)]
    enqueued_at = _DAY + timedelta(seconds=now_secs - age_secs)
    return Lease("q", handles, enqueued_at, now_secs, now_secs + secs)


def _renew(lease: Lease, position: int, now_secs: float) -> None:
    lease.renew(position, f"new-{position}", now_secs, _RENEWED_SECS)


def test_a_lease_is_due_shortly_before_its_end_only() -> None:
    ledger = LeaseLedger(_MAX_HOLD_SECS)
    number = ledger.hold(_lease(0, 30))
    due = {}
    for secs in (0, 19, 20, 29, 30, 40):
        ledger.write_off_ended(secs)
        due[secs] = ledger.due(secs, _LEAD_SECS)
    assert due == {0: [], 19: [], 20: [number], 29: [number], 30: [], 40: []}


def test_a_lease_that_is_always_short_is_due_in_its_second_half() -> None:
    lease = _lease(0, 6)
    assert [lease.is_due(secs, _LEAD_SECS) for secs in (0, 2.9, 3)] == [False, False, True]


def test_the_most_urgent_lease_is_due_first() -> None:
    ledger = LeaseLedger(_MAX_HOLD_SECS)
    late, early = ledger.hold(_lease(0, 8)), ledger.hold(_lease(0, 5))
    assert ledger.due(4, _LEAD_SECS) == [early, late]


def test_a_lease_that_is_being_renewed_is_not_due_again() -> None:
    ledger = LeaseLedger(_MAX_HOLD_SECS)
    lease = _lease(0, 5)
    number = ledger.hold(lease)
    lease.is_renewing = True
    assert ledger.due(4, _LEAD_SECS) == []
    lease.is_renewing = False
    assert ledger.due(4, _LEAD_SECS) == [number]


def test_a_renewed_lease_is_taken_with_its_new_handles() -> None:
    ledger = LeaseLedger(_MAX_HOLD_SECS)
    number = ledger.hold(_lease(0, 5))
    held = ledger.get(number)
    assert held is not None
    for position in range(2):
        _renew(held, position, 4)
    assert ledger.due(5, _LEAD_SECS) == []
    assert ledger.due(4 + _RENEWED_SECS - _LEAD_SECS, _LEAD_SECS) == [number]
    taken = ledger.take(number)
    assert taken is not None
    assert taken.receipt_handles == ["new-0", "new-1"]
    assert ledger.take(number) is None
    assert ledger.messages == 0


def test_a_lease_of_which_one_message_was_not_renewed_stays_due() -> None:
    lease = _lease(0, 30)
    _renew(lease, 0, 20)
    assert lease.is_due(21, _LEAD_SECS)
    lease.lose(1)
    assert not lease.is_due(21, _LEAD_SECS)
    assert lease.receipt_handles == ["new-0", None]


def test_messages_that_were_renewed_outlive_those_that_were_not() -> None:
    ledger = LeaseLedger(_MAX_HOLD_SECS)
    lease = _lease(0, 30)
    ledger.hold(lease)
    _renew(lease, 0, 20)
    assert ledger.write_off_ended(31) == 0
    assert ledger.write_off_ended(20 + _RENEWED_SECS) == 2


def test_nothing_is_held_for_ever() -> None:
    ledger = LeaseLedger(_MAX_HOLD_SECS)
    lease = _lease(0, 5)
    ledger.hold(lease)
    for position in range(2):
        _renew(lease, position, _MAX_HOLD_SECS - _RENEWED_SECS + 5)
    assert ledger.due(_MAX_HOLD_SECS - 0.1, _LEAD_SECS) == [1]
    assert ledger.due(_MAX_HOLD_SECS, _LEAD_SECS) == []


def test_a_lease_written_off_no_longer_holds_the_watermark_but_may_be_deleted() -> None:
    ledger = LeaseLedger(_MAX_HOLD_SECS)
    ended = ledger.hold(_lease(0, 5, age_secs=100))
    ledger.hold(_lease(0, 50, age_secs=10))
    assert ledger.oldest_enqueued_at() == _DAY - timedelta(seconds=100)
    assert ledger.write_off_ended(5) == 2
    assert ledger.write_off_ended(5) == 0
    assert ledger.oldest_enqueued_at() == _DAY - timedelta(seconds=10)
    taken = ledger.take(ended)
    assert taken is not None
    assert taken.receipt_handles == ["handle-0", "handle-1"]


class LedgerMachine(RuleBasedStateMachine):
    """Compares the ledger with a plain dict of what is held."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = LeaseLedger(_MAX_HOLD_SECS)
        self.now_secs = 0.0
        self.held: dict[int, Lease] = {}

    @rule(secs=st.floats(0.1, 60), age_secs=st.floats(0, 1000))
    def hold(self, secs: float, age_secs: float) -> None:
        lease = _lease(self.now_secs, secs, age_secs)
        self.held[self.ledger.hold(lease)] = lease

    @rule(secs=st.floats(0, 30))
    def let_time_pass(self, secs: float) -> None:
        self.now_secs += secs
        self.ledger.write_off_ended(self.now_secs)

    @rule(data=st.data())
    def renew_what_is_due(self, data: st.DataObject) -> None:
        for number in self.ledger.due(self.now_secs, _LEAD_SECS):
            lease = self.held[number]
            assert lease.soonest_secs - _LEAD_SECS <= self.now_secs
            assert self.now_secs - lease.held_since_secs < _MAX_HOLD_SECS
            for position in range(2):
                outcome = data.draw(st.sampled_from(["renewed", "lost", "unknown"]))
                if lease.receipt_handles[position] and outcome == "renewed":
                    _renew(lease, position, self.now_secs)
                elif outcome == "lost":
                    lease.lose(position)

    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        if self.held:
            number = data.draw(st.sampled_from(sorted(self.held)))
            assert self.ledger.take(number) is self.held.pop(number)

    @invariant()
    def the_oldest_living_message_is_known(self) -> None:
        alive = [lease.oldest_enqueued_at for lease in self.held.values() if lease.is_alive]
        assert self.ledger.oldest_enqueued_at() == (min(alive) if alive else None)
        assert self.ledger.messages == 2 * len(self.held)

    @invariant()
    def what_can_still_end_is_not_written_off(self) -> None:
        for lease in self.held.values():
            held = zip(lease.receipt_handles, lease.expires_secs, strict=True)
            ends = [secs for handle, secs in held if handle is not None]
            assert lease.soonest_secs == min(ends, default=float("inf"))
            if max(ends, default=0) > self.now_secs:
                assert lease.is_alive


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=25, stateful_step_count=25)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=20))
def test_only_the_tail_is_due(lives_secs: list[float]) -> None:
    ledger = LeaseLedger(_MAX_HOLD_SECS)
    numbers = [ledger.hold(_lease(0, secs)) for secs in lives_secs]
    now_secs = min(lives_secs) * 0.9
    tail = {
        number
        for number, secs in zip(numbers, lives_secs, strict=True)
        if now_secs >= max(secs - _LEAD_SECS, secs / 2)
    }
    assert set(ledger.due(now_secs, _LEAD_SECS)) == tail
