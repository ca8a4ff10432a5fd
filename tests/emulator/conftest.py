"""Fixtures for the emulator's own tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.emulator.mns_caller import MnsCaller
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
    mns.call("DELETE", f"/queues/{name}")


@pytest.fixture
def talkative() -> Iterator[EmulatorProcess]:
    """An emulator of one's own, where each SMS is delivered, reported and answered at once."""
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
