"""What travels with the pipeline: which subscription to read, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.pubsub.inbox import PubSubInbox
from pipeline.pubsub.settings import PubSubSettings
from transforms.tally import tally_of


@dataclass(frozen=True)
class PubSubInboxSpec:
    """How to open the inbox of a subscription; see ``pipeline.inboxes.inbox.InboxSpec``."""

    settings: PubSubSettings

    @property
    def readers(self) -> int:
        """How many readers share the subscription."""
        return self.settings.readers

    @property
    def batch_messages(self) -> int:
        """How many messages one pull brings at most."""
        return self.settings.pull_messages

    def open(self, run_id: str, on_done: Callable[[], None]) -> PubSubInbox:
        """Make an inbox; it is not started, and does not connect before it is."""
        return PubSubInbox(self.settings, tally_of(run_id), on_done)
