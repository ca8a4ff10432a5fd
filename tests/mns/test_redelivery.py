"""A healthy run receives nothing twice."""

from __future__ import annotations

import pytest

from benchmarks import redelivery


@pytest.mark.integration
def test_a_healthy_run_has_no_redelivery(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "emulator-key-id")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "emulator-key-secret")
    assert redelivery.main(["--messages", "5000", "--processes", "1"]) == 0
    assert "redelivered 0 = 0.00000%" in capsys.readouterr().out
