"""Credentials that heal: Alibaba's own client, our tokens and our MNS client, against the emulator.

Time is the machine's plus an offset, which the emulator and the client share.
"""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from pipeline.errors import CredentialsError, OperatorError, QueueError, TransientError
from pipeline.mns.connection import MnsConnection
from pipeline.mns.inbox import MnsInbox
from pipeline.mns.settings import MnsSettings, Until
from tests.emulator.admin_caller import Admin
from tests.emulator_process import EmulatorProcess, start_emulator_process
from transforms.tally import Tally

pytestmark = pytest.mark.integration

_MINUTE = 60


class _World:
    """A queue, a client, and their time."""

    def __init__(self, emulator: EmulatorProcess, stack: ExitStack) -> None:
        self.admin = Admin(emulator)
        self.queue = emulator.report_queue
        now_ms = self.admin.get("/clock")["now_ms"]
        self._offset = datetime.fromtimestamp(now_ms / 1000, timezone.utc) - _machine_now()
        # An inbox with one fetcher that stops when it has one batch ahead.
        self.settings = MnsSettings(
            queues=(self.queue,), mns_endpoint=emulator.url, dybaseapi_endpoint=emulator.url,
            fetchers=1, prefetch_messages=16, wait_secs=0,
        )  # fmt: skip
        self.connection = MnsConnection(self.settings, self.now)
        stack.callback(self.connection.close)
        # One connection for the thousands of moves of a day.
        self._clock = http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=20)
        stack.callback(self._clock.close)
        stack.callback(self.admin.end_rules)

    def now(self) -> datetime:
        return _machine_now() + self._offset

    def let_pass(self, secs: float) -> None:
        self._clock.request("POST", "/emulator/clock", f'{{"advance_secs": {secs}}}')
        response = self._clock.getresponse()
        response.read()
        assert response.status == 200
        self._offset += timedelta(seconds=secs)

    def set_token_rules(self, *rules: dict[str, Any]) -> None:
        self.admin.set_rules(*({"operations": ["token"], **rule} for rule in rules))

    def do_business(self) -> int:
        """Receive a message and delete it; return how many there were."""
        received = self.connection.client.receive(self.queue, 1, 0)
        if received is None:
            return 0
        assert self.connection.client.delete(self.queue, received.receipt_handles) == []
        return 1

    def try_business(self) -> TransientError | OperatorError | None:
        """Return why no business could be done."""
        try:
            self.do_business()
        except (TransientError, OperatorError) as fault:
            return fault
        return None

    def secs_until_business(self) -> int:
        """Let seconds pass, and return how many, until business can be done."""
        for secs in itertools.count(1):
            self.let_pass(1)
            if self.try_business() is None:
                return secs
        raise AssertionError


def _machine_now() -> datetime:
    return datetime.now(timezone.utc)


def _wait_for(condition: Callable[[], bool]) -> None:
    """Wait until an inbox's threads have brought something about."""
    deadline = time.monotonic() + 15
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.01)


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorProcess]:
    process = start_emulator_process(
        "--traffic=6000", "--carrier_delay_secs=0", "--token_lifetime_secs=600"
    )
    yield process
    process.stop()


@pytest.fixture
def world(emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[_World]:
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "emulator-key-id")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "emulator-key-secret")
    with ExitStack() as stack:
        yield _World(emulator, stack)


def test_a_day_of_ten_minute_tokens_has_no_failed_call(world: _World) -> None:
    world.set_token_rules({"fault": "slow", "delay_secs": 0})  # counts the tokens
    done = 0
    for _ in range(24 * 60 * _MINUTE // 30):
        world.let_pass(30)
        done += world.do_business()
    assert done == 2880
    # Each is replaced two minutes before its end.
    (tokens,) = world.admin.injected()
    assert 24 * 60 // 10 <= tokens <= 24 * 60 // 8 + 1


def test_a_token_service_that_is_down_for_15_minutes_is_waited_out(world: _World) -> None:
    assert world.do_business() == 1
    world.let_pass(8 * _MINUTE)  # the token is to be replaced now
    kinds = ("unavailable", "reset_before", "throttling", "garbage_answer", "half_answer")
    world.set_token_rules(
        {"fault": "slow", "delay_secs": 4, "times": 1},
        *(
            {"fault": kind, "from_secs": first, "until_secs": first + 3 * _MINUTE}
            for kind, first in zip(kinds, range(0, 15 * _MINUTE, 3 * _MINUTE), strict=True)
        ),
    )
    began = world.now()
    good, failed = 0, 0
    while world.now() - began < timedelta(minutes=15, seconds=-1):
        world.let_pass(1)
        fault = world.try_business()
        assert fault is None or isinstance(fault, TransientError)
        good += fault is None
        failed += fault is not None
        if fault is None:
            assert failed == 0  # what was valid was used to its end, and nothing came after it
    assert good > 90
    _, *calls = world.admin.injected()
    # An answer that is half lost is one to the emulator, so that the pauses begin anew.
    assert all(count > 45 for count in calls)
    assert sum(calls) <= 15 * _MINUTE
    assert world.secs_until_business() <= 3


def test_an_inbox_has_messages_within_five_seconds_of_the_token_services_return(
    world: _World,
) -> None:
    tally = Tally()
    with ExitStack() as stack:
        inbox = MnsInbox(world.settings, Until(), world.connection, tally)
        stack.callback(inbox.close)
        inbox.start()
        _wait_for(lambda: tally.counts()["received"] == 16)
        world.set_token_rules({"fault": "unavailable"})
        world.let_pass(10 * _MINUTE)  # the token at hand is dead now
        assert inbox.take(0) is not None  # makes room for more
        # Its pauses are long by then.
        _wait_for(lambda: tally.counts()["receive_faults"] == 4)
        assert tally.counts()["received"] == 16
        world.admin.end_rules()
        assert inbox.take(5.0) is not None
    assert inbox.failure is None


def test_a_queue_that_refuses_every_token_is_given_up_after_a_minute(world: _World) -> None:
    assert world.do_business() == 1
    world.admin.set_rules(
        {"fault": "forbidden", "code": "AccessDeniedByRamPolicy"},
        {"fault": "slow", "delay_secs": 0, "operations": ["token"]},
    )
    began = world.now()
    while isinstance(fault := world.try_business(), TransientError):
        assert "may not be read with these keys (AccessDeniedByRamPolicy)" in str(fault)
        world.let_pass(1)
    assert isinstance(fault, QueueError)
    assert timedelta(seconds=45) <= world.now() - began <= timedelta(seconds=105)
    refused, tokens = world.admin.injected()
    # The one that worked, and eight fresh ones.
    assert (refused, tokens) == (9, 8)


def test_a_queue_that_lets_nothing_be_deleted_is_given_up_after_a_minute_and_read_until_then(
    world: _World,
) -> None:
    assert world.do_business() == 1
    world.admin.set_rules(
        {"fault": "forbidden", "code": "AccessDenied", "operations": ["delete"]},
        {"fault": "slow", "delay_secs": 0, "operations": ["token"]},
    )
    began = world.now()
    receive, delete = world.connection.client.receive, world.connection.client.delete
    fault: Exception | None = None
    while not isinstance(fault, OperatorError):
        received = receive(world.queue, 1, 0)  # never refused
        assert received is not None
        with pytest.raises((TransientError, OperatorError)) as caught:
            delete(world.queue, received.receipt_handles)
        fault = caught.value
        world.let_pass(1)
    assert isinstance(fault, QueueError)
    assert "its messages may not be deleted, with these keys (AccessDenied)" in str(fault)
    assert "AliyunMNSFullAccess" in str(fault)
    assert timedelta(seconds=45) <= world.now() - began <= timedelta(seconds=105)
    refused, tokens = world.admin.injected()
    # By the token at hand, and by a fresh one.
    assert refused <= 2 * 9
    assert tokens <= 2 * 9


def test_a_queue_that_refuses_for_half_a_minute_is_not_given_up(world: _World) -> None:
    assert world.do_business() == 1
    world.admin.set_rules({"fault": "forbidden", "code": "AccessDenied", "until_secs": 30})
    while world.try_business() is not None:
        world.let_pass(1)
    # And the next time it has as many tries again.
    world.admin.set_rules({"fault": "forbidden", "code": "AccessDenied", "until_secs": 30})
    assert isinstance(world.try_business(), TransientError)
    assert world.secs_until_business() <= 65


def test_a_queue_that_refuses_at_random_is_neither_given_up_nor_its_token_service_hammered(
    world: _World,
) -> None:
    assert world.do_business() == 1
    world.admin.set_rules(
        {"fault": "forbidden", "share": 0.1, "operations": ["receive", "delete"]},
        {"fault": "token_revoked", "share": 0.1, "operations": ["receive", "delete"]},
        {"fault": "slow", "delay_secs": 0, "operations": ["token"]},
    )
    began = world.now()
    done = 0
    for _ in range(600):
        world.let_pass(0.1)
        fault = world.try_business()
        assert fault is None or isinstance(fault, TransientError)
        done += fault is None
    assert done > 200
    _, _, tokens = world.admin.injected()
    assert tokens <= 2 * (world.now() - began).total_seconds()


def test_keys_that_are_withdrawn_stop_it_when_the_last_token_ends(world: _World) -> None:
    assert world.do_business() == 1
    world.set_token_rules({"fault": "forbidden", "code": "InvalidAccessKeyId.Inactive"})
    began = world.now()
    while (fault := world.try_business()) is None:
        world.let_pass(5)
    assert isinstance(fault, CredentialsError)
    assert timedelta(minutes=9, seconds=50) <= world.now() - began <= timedelta(minutes=11)
    (asked,) = world.admin.injected()
    assert 8 <= asked <= 12
