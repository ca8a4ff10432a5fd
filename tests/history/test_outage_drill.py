"""The consumer is down for longer than the queues keep their messages, and in the end nothing is missing."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from benchmarks.drill import RETENTION, Drill, rehearse
from tests.emulator_process import EmulatorProcess


@pytest.mark.integration
@pytest.mark.timeout(180)
def test_after_six_hours_without_a_consumer_nothing_is_missing(
    start_emulator: Callable[..., EmulatorProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Reports get lost besides, come twice, are corrected, and do not name their number.
    emulator = start_emulator(
        f"--retention_secs={RETENTION // timedelta(seconds=1)}",
        "--carrier_lost_rate=0.02",
        "--carrier_missing_phone_rate=0.02",
    )
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", emulator.key_id)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", emulator.key_secret)
    said: list[str] = []
    drill = Drill(emulator.url, tmp_path, said.append)

    figures = rehearse(drill, 600, said.append)

    assert figures.missing_before > 400
    assert (figures.missing_after, figures.wrong_after) == (0, 0)
    assert figures.recovered >= figures.missing_before
    assert "Every day is within the tolerance of 0.10%." in said[-1]
