"""MNS queues as the source sees them: how to open an inbox on a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.clock import utc_now
from pipeline.mns.connection import MnsConnection, lent_connection
from pipeline.mns.inbox import MnsInbox
from pipeline.mns.settings import BATCH_MESSAGES, MnsSettings, Until
from transforms.tally import tally_of


@dataclass(frozen=True)
class MnsInboxSpec:
    """How to read MNS queues (``pipeline.inboxes.inbox.InboxSpec``).

    Attributes:
        settings: which queues, and how. All of them share one inbox, so a slow one delays nobody.
        until: when to end; each reader applies it for itself.
        readers: how many readers share the queues.
    """

    settings: MnsSettings
    until: Until = Until()
    readers: int = 1

    @property
    def batch_messages(self) -> int:
        """How many messages one receive brings at most."""
        return BATCH_MESSAGES

    def open(self, run_id: str, on_done: Callable[[], None]) -> MnsInbox:
        """Make an inbox on the connection lent to the run, or else on one of its own."""
        lent = lent_connection(run_id)
        if lent is not None:
            return MnsInbox(self.settings, self.until, lent, tally_of(run_id), on_done)
        connection = MnsConnection(self.settings, utc_now)

        def close() -> None:
            connection.close()
            on_done()

        return MnsInbox(self.settings, self.until, connection, tally_of(run_id), close)
