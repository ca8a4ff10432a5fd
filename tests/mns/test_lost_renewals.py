"""Renewals whose answers are lost, against the emulator: what it did and what was heard differ."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timezone

import pytest

from pipeline.mns.connection import MnsConnection
from pipeline.mns.inbox import MnsInbox
from pipeline.mns.settings import MnsSettings, Until
from tests.emulator.admin_caller import Admin
from tests.emulator_process import EmulatorProcess
from transforms.tally import Tally

pytestmark = pytest.mark.integration

_RENEWED_SECS = 60


@pytest.mark.parametrize("fault", ["reset_before", "reset_after", "half_answer"])
def test_no_message_is_deleted_by_a_wrong_handle_and_those_in_doubt_come_back(
    start_emulator: Callable[..., EmulatorProcess], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "emulator-key-id")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "emulator-key-secret")
    emulator = start_emulator(
        "--traffic=40", "--carrier_delay_secs=0", "--carrier_reply_rate=0",
        "--visibility_timeout_secs=4",
    )  # fmt: skip
    admin, queue = Admin(emulator), emulator.report_queue
    settings = MnsSettings(
        queues=(queue,), mns_endpoint=emulator.url, dybaseapi_endpoint=emulator.url,
        visibility_timeout_secs=_RENEWED_SECS, fetchers=1, wait_secs=0,
    )  # fmt: skip
    messages, _, _ = admin.depths(queue)
    admin.set_rules({"fault": fault, "operations": ["renew"], "share": 0.3})
    tally = Tally()
    with ExitStack() as stack:
        connection = MnsConnection(settings, lambda: datetime.now(timezone.utc))
        stack.callback(connection.close)
        inbox = MnsInbox(settings, Until(max_messages=messages), connection, tally)
        stack.callback(inbox.close)
        inbox.start()
        leases: list[int] = []
        while (batch := inbox.take(5.0)) is not None:
            leases.append(batch.lease)
        # Half of their time passes first, so that they are due.
        _wait_for(lambda: tally.counts()["renewals"] == len(leases))
        inbox.acknowledge(leases)
    counts = tally.counts()
    lost = counts["lost_leases"]
    assert (counts["received"], counts["acknowledged"]) == (messages, messages - lost)
    assert counts["unacknowledged"] == lost
    assert (lost > 0) is (fault != "reset_before")
    assert admin.depths(queue) == (0, lost, 0)
    admin.advance(_RENEWED_SECS)
    assert admin.depths(queue) == (lost, 0, 0)


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.02)
