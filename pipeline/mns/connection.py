"""What outlives one read: connections, tokens, and whether the service has ever answered."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import datetime

from pipeline.mns.client import MnsClient
from pipeline.mns.credentials import TokenService
from pipeline.mns.settings import MnsSettings
from pipeline.mns.tokens import QueueTokens
from pipeline.mns.transport import HttpTransport

_LOCK = threading.Lock()
_LENT: dict[str, MnsConnection] = {}


class MnsConnection:
    """A client for the queues of some settings, with the memory of which queues have answered.

    A service that has never answered is given up after a few tries, since somebody is waiting to
    hear what is wrong; one that has answered before is tried for as long as it takes.
    """

    def __init__(self, settings: MnsSettings, clock: Callable[[], datetime]) -> None:
        """Prepare; neither connects nor reads keys."""
        draw = random.Random().random  # noqa: S311 - jitter keeps no secret
        self._tokens = QueueTokens(TokenService(settings.dybaseapi_endpoint).fetch, clock, draw)
        transport = HttpTransport(settings.mns_endpoint)
        self.client = MnsClient(settings.mns_endpoint, transport, self._tokens, clock)
        self.draw = draw
        self.clock = clock
        self._answered_at: dict[str, datetime] = {}

    def has_answered(self, queue_name: str) -> bool:
        """Whether the queue was ever read through this connection."""
        return queue_name in self._answered_at

    def note_answer(self, queue_name: str) -> None:
        """Note that the queue was read."""
        self._answered_at[queue_name] = self.clock()

    def answered_at(self) -> dict[str, datetime]:
        """Return when each queue was last read, by queue name (UTC); idle queues answer, too."""
        return dict(self._answered_at)

    def token_expiries(self) -> dict[str, datetime]:
        """Return when the token of each queue that has one ends, by queue name (UTC)."""
        return self._tokens.expiries()

    def close(self) -> None:
        """Close the idle connections."""
        self.client.close()


def lend_connection(run_id: str, connection: MnsConnection) -> None:
    """Let a run's inboxes in this process use a connection; its owner closes it."""
    with _LOCK:
        _LENT[run_id] = connection


def lent_connection(run_id: str) -> MnsConnection | None:
    """Return the connection lent to a run, if there is one in this process."""
    return _LENT.get(run_id)


def take_connection_back(run_id: str) -> None:
    """End a loan; inboxes that use the connection keep it."""
    with _LOCK:
        _LENT.pop(run_id, None)
