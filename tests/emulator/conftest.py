"""Fixtures for the emulator's own tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.emulator.admin_caller import Admin
from tests.emulator.mns_caller import MnsCaller
from tests.emulator.node import Node
from tests.emulator_process import EmulatorProcess, start_emulator_process

_NUMBERS = itertools.count(1)


@pytest.fixture
def mns(emulator: EmulatorProcess) -> MnsCaller:
    """The account's own client."""
    return MnsCaller(emulator)


@pytest.fixture
def queue(mns: MnsCaller) -> Iterator[str]:
    """A queue that only this test uses; gone afterwards."""
    name = f"Test-Queue-{next(_NUMBERS)}"
    assert mns.create(name).status == 201
    yield name
    mns.drop(name)


another_queue = queue


@pytest.fixture(scope="session")
def disturbed() -> Iterator[EmulatorProcess]:
    """An emulator for all tests that set fault plans or advance the clock."""
    process = start_emulator_process(
        "--carrier_delay_secs=3600",
        "--carrier_instant_rate=0",
        "--carrier_silent_rate=0",
        "--carrier_lost_rate=0",
    )
    yield process
    process.stop()


@pytest.fixture
def admin(disturbed: EmulatorProcess) -> Iterator[Admin]:
    """Governs the disturbed emulator; no plan outlives its test."""
    admin = Admin(disturbed)
    yield admin
    admin.end_rules()


@pytest.fixture
def stocked(disturbed: EmulatorProcess, admin: Admin) -> Iterator[str]:
    """A queue of the disturbed emulator, only for this test, with the messages a, b and c."""
    mns = MnsCaller(disturbed)
    name = f"Test-Queue-{next(_NUMBERS)}"
    assert mns.create(name, VisibilityTimeout=30, MessageRetentionPeriod=600).status == 201
    for body in "abc":
        mns.send(name, body)
    yield name
    admin.end_rules()
    mns.drop(name)


@pytest.fixture(scope="session")
def prompt() -> Iterator[EmulatorProcess]:
    """An emulator where each SMS is delivered, reported and answered at once."""
    others = ("failure", "duplicate", "correction", "silent", "lost")
    process = start_emulator_process(
        "--carrier_delay_secs=0",
        "--carrier_reply_rate=1",
        "--carrier_missing_phone_rate=0",
        "--carrier_missing_optional_rate=0",
        *(f"--carrier_{name}_rate=0" for name in others),
    )
    yield process
    process.stop()


@pytest.fixture
def talkative(prompt: EmulatorProcess) -> EmulatorProcess:
    """The prompt emulator, with nothing on its queues; each test sends to numbers of its own."""
    Admin(prompt).advance(0)  # what is due comes now
    mns = MnsCaller(prompt)
    for name in (prompt.report_queue, prompt.reply_queue):
        mns.drop(name)
        assert mns.create(name).status == 201
    return prompt


@pytest.fixture(scope="session")
def node() -> Node:
    """Node.js with Alibaba's clients, or a skipped test."""
    return Node()
