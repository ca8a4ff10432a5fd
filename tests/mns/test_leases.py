"""The ledger of leases, under any order of events."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipeline.mns.leases import Lease, LeaseLedger

_START = datetime(2026, 11, 22, tzinfo=timezone.utc)
_MARGIN = timedelta(seconds=10)
_MAX_HOLD = timedelta(seconds=120)


def _lease(now: datetime, secs: float, age_secs: float = 0.0, messages: int = 2) -> Lease:
    handles: list[str | None] = [f"handle-{number}" for number in range(messages)]
    return Lease(
        "q", handles, now, now + timedelta(seconds=secs), now - timedelta(seconds=age_secs)
    )


def _ledger() -> LeaseLedger:
    return LeaseLedger(_MARGIN, _MAX_HOLD)


def test_a_lease_is_due_shortly_before_its_end_only() -> None:
    ledger = _ledger()
    number = ledger.hold(_lease(_START, 30))
    due = {secs: ledger.due(_START + timedelta(seconds=secs)) for secs in (0, 19, 20, 29, 30, 40)}
    assert due == {0: [], 19: [], 20: [number], 29: [number], 30: [], 40: []}


def test_the_most_urgent_lease_is_due_first() -> None:
    ledger = _ledger()
    late, early = ledger.hold(_lease(_START, 8)), ledger.hold(_lease(_START, 5))
    assert ledger.due(_START) == [early, late]


def test_a_renewed_lease_is_taken_with_its_new_handles() -> None:
    ledger = _ledger()
    number = ledger.hold(_lease(_START, 5))
    held = ledger.get(number)
    assert held is not None
    held.receipt_handles[1] = "new"
    held.expires_at = _START + timedelta(seconds=60)
    assert ledger.due(_START) == []
    taken = ledger.take(number)
    assert taken is not None
    assert taken.receipt_handles == ["handle-0", "new"]
    assert ledger.take(number) is None


def test_nothing_is_held_for_ever() -> None:
    ledger = _ledger()
    lease = _lease(_START, 5)
    ledger.hold(lease)
    lease.expires_at = _START + _MAX_HOLD + timedelta(seconds=5)
    assert ledger.due(_START + _MAX_HOLD) == []


def test_an_expired_lease_is_written_off_and_no_longer_holds_the_watermark() -> None:
    ledger = _ledger()
    ledger.hold(_lease(_START, 5, age_secs=100))
    ledger.hold(_lease(_START, 50, age_secs=10))
    assert ledger.oldest_enqueued_at() == _START - timedelta(seconds=100)
    assert ledger.expire(_START + timedelta(seconds=5)) == 2
    assert ledger.expire(_START + timedelta(seconds=5)) == 0
    assert ledger.oldest_enqueued_at() == _START - timedelta(seconds=10)


class LedgerMachine(RuleBasedStateMachine):
    """Compares the ledger with a plain dict of what is held."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = _ledger()
        self.now = _START
        self.held: dict[int, Lease] = {}

    @rule(secs=st.floats(0.1, 60), age_secs=st.floats(0, 1000))
    def hold(self, secs: float, age_secs: float) -> None:
        lease = _lease(self.now, secs, age_secs)
        self.held[self.ledger.hold(lease)] = lease

    @rule(secs=st.floats(0, 30))
    def let_time_pass(self, secs: float) -> None:
        self.now += timedelta(seconds=secs)
        self.ledger.expire(self.now)

    @rule(data=st.data())
    def renew_what_is_due(self, data: st.DataObject) -> None:
        due = self.ledger.due(self.now)
        for number in due:
            lease = self.held[number]
            assert lease.expires_at - _MARGIN <= self.now < lease.expires_at
            assert self.now - lease.held_since < _MAX_HOLD
            if data.draw(st.booleans()):
                lease.expires_at = self.now + timedelta(seconds=30)

    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        if self.held:
            number = data.draw(st.sampled_from(sorted(self.held)))
            assert self.ledger.take(number) is self.held.pop(number)

    @invariant()
    def the_oldest_living_message_is_known(self) -> None:
        alive = [lease.oldest_enqueued_at for lease in self.held.values() if lease.is_alive]
        assert self.ledger.oldest_enqueued_at() == (min(alive) if alive else None)
        assert len(self.ledger) == len(self.held)


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=25, stateful_step_count=25)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=20))
def test_only_the_tail_is_due(lives_secs: list[float]) -> None:
    ledger = _ledger()
    numbers = [ledger.hold(_lease(_START, secs)) for secs in lives_secs]
    tail = {number for number, secs in zip(numbers, lives_secs, strict=True) if secs <= 10}
    assert set(ledger.due(_START)) == tail
