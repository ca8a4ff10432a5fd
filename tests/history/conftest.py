"""Fixtures of the tests of reconcile and audit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulator_process import start_emulator_process
from tests.history.past import FLAGS, History, Past


@pytest.fixture(scope="session")
def _past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    send_log = tmp_path_factory.mktemp("past") / "send_log"
    emulator = start_emulator_process(*FLAGS, f"--traffic_send_log={send_log}/")
    yield Past(emulator, send_log)
    emulator.stop()


@pytest.fixture
def past(_past: Past, monkeypatch: pytest.MonkeyPatch) -> Iterator[Past]:
    """The emulator of all tests here, undisturbed, and the keys to it; its calls are counted."""
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", _past.emulator.key_id)
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", _past.emulator.key_secret)
    _past.set_rules()
    yield _past
    _past.end_rules()


@pytest.fixture
def history(past: Past, tmp_path: Path) -> History:
    """A job of this test's own, about that past."""
    return History(past, tmp_path)
