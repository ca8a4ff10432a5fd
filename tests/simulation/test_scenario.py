"""A failing seed can be run again: what happens in it depends on nothing else."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from tests.simulation.scenario import begins_at, scenario

_NOW = datetime(2026, 11, 22, 10, tzinfo=timezone.utc)


def test_a_scenario_is_a_function_of_its_seed_and_its_beginning() -> None:
    assert [scenario(seed, _NOW) for seed in range(5)] == [
        scenario(seed, _NOW) for seed in range(5)
    ]
    assert scenario(1, _NOW) != scenario(2, _NOW)


def test_a_seed_begins_at_the_same_time_of_day_whenever_it_is_run() -> None:
    begin = begins_at(7, _NOW)
    later = begins_at(7, _NOW + timedelta(days=3, hours=5))

    assert _NOW < begin <= _NOW + timedelta(days=1)
    assert begin.timetz() == later.timetz()
