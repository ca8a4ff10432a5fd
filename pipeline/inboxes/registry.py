"""The shared inboxes at work in this process, found by name from what Beam has pickled.

A source, a checkpoint mark: both travel as primitives. What they stand for (threads, connections,
leases) stays in the process that made it, and is found here.
"""

from __future__ import annotations

import threading
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
    with _LOCK:
        inboxes = list(_RUNS.get(run_id, {}).values())
    oldest = [moment for inbox in inboxes if (moment := inbox.oldest_enqueued_at())]
    return min(oldest, default=None)


def close_run(run_id: str) -> None:
    """Close a run's inboxes and forget them."""
    with _LOCK:
        inboxes = _RUNS.pop(run_id, {}).values()
        for inbox in inboxes:
            del _BY_ID[inbox.inbox_id]
    for inbox in inboxes:
        inbox.close()
