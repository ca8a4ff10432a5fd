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
from typing import Final

# What is given up may wait on its way out for helpers of its own that nobody can interrupt: not for longer.
_WAY_OUT_SECS: Final = 5.0
_LEAVING: Final = b"stopping: what was not committed is left for the next start\n"


class GivenUpError(KeyboardInterrupt):
    """Raised in what may be given up, once a request to stop has waited for it long enough.

    An interrupt, so that nothing on its way takes it for a failure of its own.
    """


class _Stopping:
    """The flags."""

    requested = False
    # Only the main thread, in which signals are handled, looks at these.
    has_waited = False
    may_give_up = False


def request_stop() -> None:
    """Ask every reader to stop: the last bundle is committed, the rest goes back to the queue."""
    _Stopping.requested = True


def is_stop_requested() -> bool:
    """Whether somebody asked to stop."""
    return _Stopping.requested


def forget_stop() -> None:
    """Take the request back, so that reading may begin again."""
    _Stopping.requested = _Stopping.has_waited = False


@contextmanager
def given_up_to_stop() -> Iterator[None]:
    """Give up what runs in the context once a request to stop has waited for it long enough.

    It may be left anywhere, so it must not matter to anybody until the context has ended. Only for the main
    thread, in which signals are handled, and within :func:`stopping_on_signals`.

    Raises:
        GivenUpError: the request has waited long enough, perhaps before the context was entered.
    """
    _Stopping.may_give_up = True
    try:
        if _Stopping.has_waited:
            raise GivenUpError("given up to stop")
        yield
    finally:
        _Stopping.may_give_up = False


@contextmanager
def stopping_on_signals(line: bytes, patience_secs: float | None = None) -> Iterator[None]:
    """On SIGTERM and Ctrl-C, ask to stop and say ``line``; the second time, leave at once.

    So long after the request, what runs in :func:`given_up_to_stop` is given up; None waits for it.

    Raises:
        KeyboardInterrupt: somebody asked twice.
    """
    before = {signal.SIGALRM: signal.getsignal(signal.SIGALRM)}

    def give_up(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal calls it
        is_on_its_way, _Stopping.has_waited = _Stopping.has_waited, True
        if not _Stopping.may_give_up:
            return
        if is_on_its_way:
            with suppress(BrokenPipeError):
                os.write(sys.stderr.fileno(), _LEAVING)
            os._exit(0)
        # With a text: Beam turns an interrupt without one into another exception.
        raise GivenUpError("given up to stop")

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as signal calls it
        if is_stop_requested():
            # Whatever is not committed will be done again. With a text: Beam turns an interrupt without one
            # into another exception, when it comes in the middle of a step.
            raise KeyboardInterrupt("stopped by hand")
        request_stop()
        # Not through a buffered stream: the signal may have come in the middle of a write to it.
        with suppress(BrokenPipeError):  # nobody reads on
            os.write(sys.stderr.fileno(), line)
        if patience_secs is not None:
            # A timer of the system: a thread must not be started from here, where its lock may be held.
            signal.signal(signal.SIGALRM, give_up)
            signal.setitimer(signal.ITIMER_REAL, patience_secs, _WAY_OUT_SECS)

    forget_stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, before[number])
        # Now nobody can start the timer any more.
        if signal.getsignal(signal.SIGALRM) is give_up:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before[signal.SIGALRM])
        _Stopping.has_waited = False
