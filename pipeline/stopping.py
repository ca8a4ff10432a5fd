"""The request to stop reading, for everything in this process.

A signal handler sets it and readers look at it. It lives in a module of its own because a pickled
copy of ``__main__`` would not see it, and it is a plain flag because a signal handler must not wait
for a lock that the interrupted code may hold.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


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


@contextmanager
def stopping_on_signals(line: bytes) -> Iterator[None]:
    """On SIGTERM and Ctrl-C, ask to stop and say ``line``; the second time, leave at once.

    Raises:
        KeyboardInterrupt: somebody asked twice.
    """

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal calls it
        if is_stop_requested():
            # Whatever is not committed will be done again. With a text: Beam turns an interrupt without one
            # into another exception, when it comes in the middle of a step.
            raise KeyboardInterrupt("stopped by hand")
        request_stop()
        # Not through a buffered stream: the signal may have come in the middle of a write to it.
        with suppress(BrokenPipeError):  # nobody reads on
            os.write(sys.stderr.fileno(), line)

    forget_stop()
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
