"""An inbox that reads a scripted queue, and what it counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone

from pipeline.inboxes.inbox import Batch
from pipeline.mns.connection import MnsConnection
from pipeline.mns.inbox import MnsInbox
from pipeline.mns.settings import MnsSettings, Until
from tests.mns.fake_mns import FakeMns
from transforms.tally import Tally

QUEUE = "Alicom-Queue-1000000000000001-SmsReport"


class Reading(ExitStack):
    """A queue, an inbox that reads it, and the inbox's counts; closes them in this order reversed."""

    def __init__(
        self, *, until: Until, visibility_timeout_secs: int, wait_secs: int, stop_secs: float
    ) -> None:
        super().__init__()
        self.queue = FakeMns()
        settings = MnsSettings(
            queues=(QUEUE,),
            mns_endpoint=self.queue.endpoint,
            dybaseapi_endpoint=self.queue.endpoint,
            fetchers=1,
            wait_secs=wait_secs,
            drain_wait_secs=0,
            prefetch_messages=256,
            max_bundle_secs=0.3,
            visibility_timeout_secs=visibility_timeout_secs,
            renewal_margin_secs=min(1, visibility_timeout_secs / 2),
            stop_secs=stop_secs,
        )
        self.callback(self.queue.close)
        self.clock_is_off = timedelta()
        connection = MnsConnection(settings, lambda: datetime.now(timezone.utc) + self.clock_is_off)
        self.callback(connection.close)
        self.tally = Tally()
        self.done = threading.Event()
        self._taken: list[int] = []
        self.inbox = MnsInbox(settings, until, connection, self.tally, self.done.set)
        self.callback(self.inbox.close)

    def count(self, name: str) -> int:
        """Return a count of the inbox's."""
        return self.tally.counts()[name]

    def take(self) -> Batch:
        """Take a batch that must be there."""
        batch = self.inbox.take(5.0)
        assert batch is not None, self.inbox.failure
        self._taken.append(batch.lease)
        return batch

    def acknowledge(self) -> None:
        """Acknowledge all that was taken since this was last done."""
        leases, self._taken = self._taken, []
        self.inbox.acknowledge(leases)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until the inbox's threads have brought something about."""
        deadline = time.monotonic() + 5
        pause = threading.Event()
        while not condition():
            assert time.monotonic() < deadline
            pause.wait(0.01)
