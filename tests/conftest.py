"""Fixtures for all tests, and how they share two processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.emulator_process import EmulatorProcess, start_emulator_process


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what shares servers or engines: a directory with fixtures of its own, else a file."""
    for item in items:
        directory = item.path.parent
        shares = directory.name != "tests" and (directory / "conftest.py").exists()
        item.add_marker(pytest.mark.xdist_group(directory.name if shares else item.path.stem))


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
