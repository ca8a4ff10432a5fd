"""The request to stop reading, for everything in this process.

A signal handler sets it and readers look at it. It lives in a module of its own because a pickled
copy of ``__main__`` would not see it, and it is a plain flag because a signal handler must not wait
for a lock that the interrupted code may hold.
"""

from __future__ import annotations


class _Stopping:
    """The flag."""

    requested = False


def request_stop() -> None:
    """Ask every reader to stop: the last bundle is committed, the rest goes back to the queue."""
    _Stopping.requested = True


def is_stop_requested() -> bool:
    """Whether somebody asked to stop."""
    return _Stopping.requested


def forget_stop() -> None:
    """Take the request back, so that reading may begin again."""
    _Stopping.requested = False
