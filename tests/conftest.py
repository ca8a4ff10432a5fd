"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override
from xdist.scheduler import LoadScopeScheduling

from tests.emulator_process import EmulatorProcess, start_emulator_process

TESTS = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Engines, which mostly wait, come first; the simulation keeps every core busy, and comes last."""
    items.sort(key=lambda item: {"engines": -1, "simulation": 1}.get(_group(item.path), 0))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Share the tests out between processes."""
    return _ByServers(config, log)


# pytest-xdist has no types.
class _ByServers(LoadScopeScheduling):  # type: ignore[misc]
    """Keeps the tests of a file together, or those of a directory that has servers of its own."""

    @override
    def _split_scope(self, nodeid: str) -> str:
        return _group(TESTS.parent / nodeid.partition("::")[0])


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
