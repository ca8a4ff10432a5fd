"""Engines for the tests of this directory, each started once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulator_process import EmulatorProcess, start_emulator_process
from tests.engines import fetch
from tests.engines.flink_cluster import FlinkCluster
from tests.engines.streams import environment
from tests.pubsub_emulator import pubsub

__all__ = ["pubsub"]


@pytest.fixture(scope="package")
def prism() -> Path:
    """Beam's Prism."""
    return fetch.prism()


@pytest.fixture(scope="package")
def flink_emulator() -> Iterator[EmulatorProcess]:
    """The emulator whose account's keys the workers of the cluster have."""
    process = start_emulator_process()
    yield process
    process.stop()


@pytest.fixture(scope="package")
def flink(
    tmp_path_factory: pytest.TempPathFactory, flink_emulator: EmulatorProcess
) -> Iterator[FlinkCluster]:
    """A Flink cluster of two task managers."""
    root = tmp_path_factory.mktemp("flink")
    with FlinkCluster(fetch.flink(), root, environment(flink_emulator)) as cluster:
        yield cluster
