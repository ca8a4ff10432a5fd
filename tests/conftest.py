"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.emulator_process import EmulatorProcess, start_emulator_process

TESTS = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for its groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Share tests out between processes: those of a file together, or of a directory with servers of its own.

    Engines, which mostly wait, come first; the simulation keeps every core busy, and comes last.
    """
    items.sort(key=lambda item: {"engines": -1, "simulation": 1}.get(_group(item.path), 0))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item.path)))


@cache
def _group(file: Path) -> str:
    has_servers = file.parent != TESTS and (file.parent / "conftest.py").exists()
    is_one = has_servers or file.parent.name == "simulation"
    return str((file.parent if is_one else file).relative_to(TESTS))


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
