"""A landing process: what it says to its parent, and what it does when it is told to land.

Imports nothing heavy: it sees to its signals and its log before Beam, which takes a second.
"""

from __future__ import annotations

import logging
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from datetime import datetime
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from pipeline.errors import SmsReceiptsError
from pipeline.mns.settings import MnsSettings, Until
from pipeline.stopping import forget_stop, request_stop
from transforms.breaker import FailureLimit

if TYPE_CHECKING:
    from pipeline.landing import Landed, Standing


class Progress(NamedTuple):
    """From a child: the counts of its read so far, and how it stands."""

    landed: Landed
    standing: Standing


class Ready(NamedTuple):
    """From a child: it can be told to land."""


class Done(NamedTuple):
    """From a child: what became of its read, and how it stands; it can be told to land again."""

    landed: Landed
    standing: Standing


class Failed(NamedTuple):
    """From a child: what ended it."""

    failure: Exception
    traceback: str


class Stop(NamedTuple):
    """From the parent: end the read."""


Report: TypeAlias = "Ready | Progress | Done | Failed"
Command: TypeAlias = "Until | Stop"


class LandingParts(NamedTuple):
    """What a ``Landing`` is made of."""

    settings: MnsSettings
    archive: str
    clock: Callable[[], datetime]
    limit: FailureLimit


def serve(pipe: Connection, parts: LandingParts, log_level: int) -> None:
    """Land whenever the parent says so, until it is gone."""
    # Ctrl-C and a service manager's SIGTERM reach the whole group: the parent decides what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(level=log_level, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("pipeline").setLevel(logging.WARNING)
    commands = _Commands(pipe)
    from pipeline.landing import Landing  # noqa: PLC0415 - see above

    with Landing(*parts) as landing:

        def tell(landed: Landed) -> None:
            commands.report(Progress(landed, landing.standing()))

        try:
            commands.report(Ready())
            while (until := commands.next_read()) is not None:
                landed = landing.land(until, tell)
                commands.report(Done(landed, landing.standing()))
        except Exception as failure:  # noqa: BLE001 - the parent raises it
            commands.report(_failed(failure))


class _Commands:
    """The child's end of the pipe, with a thread that listens while the child lands."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._sending = threading.Lock()
        self._changed = threading.Condition()
        self._until: Until | None = None
        self._is_over = False
        threading.Thread(target=self._listen, name="landing-commands", daemon=True).start()

    def report(self, report: Report) -> None:
        """Tell the parent; a parent that is gone hears nothing."""
        with self._sending:
            try:
                self._pipe.send(report)
            except OSError:
                return

    def next_read(self) -> Until | None:
        """Wait for a command to land; None when the parent is gone."""
        with self._changed:
            self._changed.wait_for(lambda: self._until is not None or self._is_over)
            until, self._until = self._until, None
            return None if self._is_over else until

    def _listen(self) -> None:
        while True:
            try:
                command: Command | None = self._pipe.recv()
            except (EOFError, OSError):
                command = None
            with self._changed:
                if isinstance(command, Until):
                    forget_stop()
                    self._until = command
                else:
                    request_stop()
                    self._is_over = command is None
                self._changed.notify_all()
            if command is None:
                return


def _failed(failure: Exception) -> Failed:
    # What is said in one sentence has no story worth telling.
    is_bug = not isinstance(failure, SmsReceiptsError)
    story = traceback.format_exc() if is_bug else ""
    try:
        pickle.loads(pickle.dumps(failure))  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - whatever an exception's own pickling raises
        failure = RuntimeError(f"{type(failure).__name__} in a landing process")
    return Failed(failure, story)
