"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.emulator_process import EmulatorProcess, start_emulator_process


@pytest.fixture
def start_emulator() -> Iterator[Callable[..., EmulatorProcess]]:
    """Start emulators with any flags: ``start_emulator("--traffic=100")``; all stop at the end."""
    running: list[EmulatorProcess] = []

    def start(*flags: str) -> EmulatorProcess:
        running.append(start_emulator_process(*flags))
        return running[-1]

    yield start
    for emulator in running:
        emulator.stop()


@pytest.fixture(scope="session")
def emulator() -> Iterator[EmulatorProcess]:
    """One emulator for all tests that bring queues of their own, or do not mind company.

    Its carrier takes no time and never deviates, so that a test knows what it gets.
    """
    process = start_emulator_process(
        "--carrier_delay_secs=0",
        "--carrier_failure_rate=0",
        "--carrier_duplicate_rate=0",
        "--carrier_correction_rate=0",
        "--carrier_silent_rate=0",
        "--carrier_lost_rate=0",
        "--carrier_reply_rate=0",
        "--carrier_missing_phone_rate=0",
        "--carrier_missing_optional_rate=0",
    )
    yield process
    process.stop()
