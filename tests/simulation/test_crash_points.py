"""Killed at every moment that has a name, the job goes on, and the ledger closes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation.crash_points import CRASH_POINTS, CrashPoint, scenario_of
from tests.simulation.lane import Lane
from tests.simulation.scenario import Command
from tests.simulation.simulate import Simulation

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    with Lane(tmp_path_factory.mktemp("crash-points")) as lane:
        yield lane


@pytest.mark.parametrize("point", CRASH_POINTS, ids=lambda point: point.name)
def test_a_job_killed_here_loses_and_doubles_nothing(
    point: CrashPoint, lane: Lane, tmp_path: Path
) -> None:
    simulation = Simulation(lane, tmp_path / "job", scenario_of(point, lane.clock()))

    figures = simulation.figures()

    # A point that nobody comes by proves nothing.
    assert figures["killed"] == (2 if point.again else 1)


@pytest.mark.parametrize("command", ["run", "backfill"])
def test_a_job_stopped_by_hand_in_the_middle_of_an_epoch_says_so_and_loses_nothing(
    command: Command, lane: Lane, tmp_path: Path
) -> None:
    # Beam is in the middle of a step, and has its own way with exceptions there.
    writing = r".*/_staging/[0-9a-f]{32}/[a-z_]+/dt="
    by_hand = CrashPoint("by hand", writing, command=command, action="insist", runs_before=1)
    simulation = Simulation(lane, tmp_path / "job", scenario_of(by_hand, lane.clock()))

    figures = simulation.figures()

    assert figures["stopped by hand"] == 1
    said = (tmp_path / "job" / "job-01.log").read_text("utf-8")
    assert said.endswith(
        f"sms-receipts {command}: stopped; what was not committed is done again.\n"
    )
    assert "Traceback" not in said
