"""The inboxes at work in this process, found by name from what Beam has pickled.

A source, a checkpoint mark: both travel as primitives. What they stand for (threads, connections,
leases) stays in the process that made it, and is found here.
"""

from __future__ import annotations

import threading
from datetime import datetime

from pipeline.mns.connection import MnsConnection
from pipeline.mns.inbox import Inbox

_LOCK = threading.Lock()
_CONNECTIONS: dict[str, MnsConnection] = {}
_INBOXES: dict[str, dict[str, Inbox]] = {}


def lend_connection(run_id: str, connection: MnsConnection) -> None:
    """Let a run's readers in this process use a connection; its owner closes it."""
    with _LOCK:
        _CONNECTIONS[run_id] = connection


def lent_connection(run_id: str) -> MnsConnection | None:
    """Return the connection lent to a run, if there is one in this process."""
    return _CONNECTIONS.get(run_id)


def add_inbox(run_id: str, reader_id: str, inbox: Inbox) -> None:
    """Make an inbox known by its reader."""
    with _LOCK:
        _INBOXES.setdefault(run_id, {})[reader_id] = inbox


def find_inbox(run_id: str, reader_id: str) -> Inbox | None:
    """Return a reader's inbox; None in another process, or after the run was closed."""
    return _INBOXES.get(run_id, {}).get(reader_id)


def remove_inbox(run_id: str, reader_id: str) -> None:
    """Forget an inbox that has nothing left to do."""
    with _LOCK:
        _INBOXES.get(run_id, {}).pop(reader_id, None)


def oldest_enqueued_at(run_id: str) -> datetime | None:
    """Return the event time of the oldest message that a run's inboxes hold; None while they hold none."""
    with _LOCK:
        inboxes = list(_INBOXES.get(run_id, {}).values())
    oldest = [moment for inbox in inboxes if (moment := inbox.oldest_enqueued_at())]
    return min(oldest, default=None)


def close_run(run_id: str) -> None:
    """Close a run's inboxes and forget them, and forget the connection lent to it."""
    with _LOCK:
        inboxes = _INBOXES.pop(run_id, {})
        _CONNECTIONS.pop(run_id, None)
    for inbox in inboxes.values():
        inbox.close()
