"""The shared inboxes at work in this process, found by name from what Beam has pickled.

A source, a checkpoint mark: both travel as primitives. What they stand for (threads, connections,
leases) stays in the process that made it, and is found here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Final

from pipeline.inboxes.inbox import InboxSpec
from pipeline.inboxes.reading import Reading
from pipeline.inboxes.shared import SharedInbox

_LOCK = threading.Lock()
# By run, and there by the split's number.
_RUNS: Final[dict[str, dict[int, SharedInbox]]] = {}
_BY_ID: Final[dict[str, SharedInbox]] = {}


def shared_inbox(run_id: str, split: int, spec: InboxSpec, reading: Reading) -> SharedInbox:
    """Return what this process reads one split of a run from; made when first asked for."""
    with _LOCK:
        run = _RUNS.setdefault(run_id, {})
        if split not in run:
            run[split] = shared = SharedInbox(run_id, spec, reading)
            _BY_ID[shared.inbox_id] = shared
        return run[split]


def find_inbox(inbox_id: str) -> SharedInbox | None:
    """Return a shared inbox; None in another process, or after the run was closed."""
    return _BY_ID.get(inbox_id)


def oldest_enqueued_at(run_id: str) -> datetime | None:
    """Return the event time of the oldest message that a run's inboxes hold; None while they hold none."""
    return _earliest(run_id, SharedInbox.oldest_enqueued_at)


def watermark(run_id: str) -> datetime | None:
    """Return the watermark of a run's inboxes in this process; None as long as nothing is known."""
    return _earliest(run_id, SharedInbox.watermark)


def token_expires_at(run_id: str) -> datetime | None:
    """Return when the first of the tokens ends that a run's inboxes have; None if they have none."""
    return _earliest(run_id, SharedInbox.token_expires_at)


def _earliest(run_id: str, ask: Callable[[SharedInbox], datetime | None]) -> datetime | None:
    with _LOCK:
        inboxes = list(_RUNS.get(run_id, {}).values())
    return min((moment for inbox in inboxes if (moment := ask(inbox))), default=None)


def close_run(run_id: str) -> None:
    """Close a run's inboxes and forget them."""
    with _LOCK:
        inboxes = _RUNS.pop(run_id, {}).values()
        for inbox in inboxes:
            del _BY_ID[inbox.inbox_id]
    for inbox in inboxes:
        inbox.close()
