"""Fixtures for the tests of the Pub/Sub door."""

import uuid
from collections.abc import Callable, Iterator

import pytest

from pipeline.pubsub.inbox import PubSubInbox
from pipeline.pubsub.settings import PubSubSettings
from pipeline.pubsub.spec import PubSubInboxSpec
from tests.pubsub_emulator import PubSubEmulator, pubsub
from transforms.tally import close_tally, tally_of

__all__ = ["pubsub"]

Open = Callable[..., PubSubInbox]


@pytest.fixture
def open_inbox(pubsub: PubSubEmulator) -> Iterator[Open]:
    """Open and start inboxes: ``open_inbox(subscription, prefetch_messages=10)``; all close at the end."""
    del pubsub  # its host is in the environment
    opened: list[PubSubInbox] = []
    runs: list[str] = []

    def start(subscription: str, run_id: str | None = None, **given: object) -> PubSubInbox:
        settings = PubSubSettings(subscription, **{"wait_secs": 1, "fetchers": 1, **given})  # type: ignore[arg-type]
        runs.append(run_id or uuid.uuid4().hex)
        opened.append(PubSubInboxSpec(settings).open(runs[-1], lambda: None))
        opened[-1].start()
        return opened[-1]

    yield start
    for inbox in opened:
        inbox.close()
    for run_id in runs:
        close_tally(run_id)


def counts(run_id: str, *names: str) -> tuple[int, ...]:
    """Counts of a run, 0 for what never happened."""
    tally = tally_of(run_id).counts()
    return tuple(tally.get(name, 0) for name in names)
