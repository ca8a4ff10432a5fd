"""Killed at any moment, the job loses nothing and counts nothing twice."""

from pathlib import Path

import pytest

from benchmarks.kills import kill_and_count


@pytest.mark.integration
@pytest.mark.timeout(180)
def test_five_kills_under_load_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    figures = kill_and_count(tmp_path, kills=5, per_sec=100, seed=5)

    assert figures.outcomes > 500
    assert figures.is_exact, figures
