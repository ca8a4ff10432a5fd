"""Fixtures for the tests of the queue door."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from pipeline.mns.settings import Until
from pipeline.stopping import forget_stop
from tests.mns.reading import Reading


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Reading]]:
    """Make inboxes that read scripted queues: ``read(wait_secs=1)``; closed at the end."""
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "secret")
    forget_stop()
    with ExitStack() as stack:

        def start(
            *,
            until: Until | None = None,
            visibility_timeout_secs: int = 60,
            wait_secs: int = 0,
            stop_secs: float = 5.0,
        ) -> Reading:
            return stack.enter_context(
                Reading(
                    until=until or Until(),
                    visibility_timeout_secs=visibility_timeout_secs,
                    wait_secs=wait_secs,
                    stop_secs=stop_secs,
                )
            )

        yield start
    forget_stop()
