"""The ledger closes, whatever the queues do and whenever the job is killed; and an open one is noticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation.crash_points import CRASH_POINTS, scenario_of
from tests.simulation.lane import Lane
from tests.simulation.many import simulate_many
from tests.simulation.mishaps import fault_names
from tests.simulation.simulate import Simulation

pytestmark = pytest.mark.integration

_SEEDS = range(200)
_EVENTS = (
    "archived copies of redelivered messages", "archived more than once", "backfills",
    "forgotten by their queue", "jumps of the clock during a run",
    "runs to which two landing processes contributed", "stopped by SIGTERM", "stopped by hand",
    "stopped with a sentence",
)  # fmt: skip


@pytest.mark.timeout(900)
def test_the_ledger_of_every_seed_closes() -> None:
    sums: Counter[str] = Counter()
    failures = []
    for outcome in simulate_many(_SEEDS, lanes=5):
        if isinstance(outcome, Counter):
            sums += outcome
        else:
            failures.append(str(outcome))

    assert not failures, "\n".join(failures)
    assert sums["seeds"] == len(_SEEDS)
    # Seeds that nothing happens to prove nothing.
    assert sums["killed"] >= 200
    assert [name for name in _EVENTS if not sums[name]] == []
    assert [name for name in sorted(fault_names()) if not sums[f"fault {name}"]] == []
    assert sum(count for name, count in sums.items() if name.startswith("fault ")) >= 200


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    with Lane(tmp_path_factory.mktemp("flaws")) as lane:
        yield lane


@pytest.mark.parametrize(
    ("flaw", "point", "words"),
    [
        (
            "acknowledges_at_once",
            "half of an archive file is written",
            "neither queued nor archived",
        ),
        ("forgets_what_is_written", "in the commit", "missing in enriched"),
        ("keeps_what_it_replaces", "in a backfill's replace", "stands there twice"),
    ],
)
def test_a_broken_job_is_caught(
    flaw: str, point: str, words: str, lane: Lane, tmp_path: Path
) -> None:
    (chosen,) = (each for each in CRASH_POINTS if each.name == point)
    simulation = Simulation(lane, tmp_path / "job", scenario_of(chosen, lane.clock()), flaw)

    with pytest.raises(AssertionError, match=words):
        simulation.figures()
