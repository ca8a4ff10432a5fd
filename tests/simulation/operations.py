"""What a job does to the world outside its process, seen as it happens: when it can be killed.

An operation is a line of text: ``open PATH`` (to write), ``mkdir PATH``, ``fsync PATH``, ``rename FROM TO``,
``remove PATH``, ``rmtree PATH``, ``connect HOST``, ``sql STATEMENT``, ``send METHOD TARGET`` and ``answered
STATUS METHOD TARGET``. Each is seen just before it is carried out, the last one just after. Most come
from the interpreter's own audit events and from SQLite's trace; fsync and HTTP are wrapped, and behave as
they did. With two landing processes, each of them sees and counts its own.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from pipeline.mns.transport import HttpTransport
from tests.simulation.mishaps import Interruption

_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_EVENTS: Final = {
    "os.mkdir": "mkdir",
    "os.remove": "remove",
    "os.rename": "rename",
    "shutil.rmtree": "rmtree",
    "socket.connect": "connect",
}


def watch(see: Callable[[str, int | None], None]) -> None:
    """Call ``see`` with every operation of this process from now on, and the file that it is about, if open.

    There is no way back: audit hooks stay for as long as the process lives.
    """
    seeing = threading.local()

    def tell(text: str, descriptor: int | None = None) -> None:
        if getattr(seeing, "now", False):  # what is done about an operation is none
            return
        seeing.now = True
        try:
            see(text, descriptor)
        finally:
            seeing.now = False

    _watch_http(tell)
    _watch_fsync(tell)
    _watch_sql(tell)
    sys.addaudithook(functools.partial(_hear, tell))


def _hear(tell: Callable[..., None], event: str, given: tuple[Any, ...]) -> None:
    if event == "open":
        path, mode, flags = given
        is_written = set(mode) & set("wax+") if mode else (flags or 0) & _WRITING
        if is_written and isinstance(path, (str, os.PathLike)):
            tell(f"open {os.fspath(path)}")
    elif event in _EVENTS:
        words = given[1:2] if event == "socket.connect" else given[:2]
        texts = (str(word) for word in words if not isinstance(word, int))
        tell(" ".join((_EVENTS[event], *texts)))


def _watch_fsync(tell: Callable[..., None]) -> None:
    fsync: Callable[[int], None] = os.fsync

    def watched(descriptor: int) -> None:
        tell(f"fsync {os.readlink(f'/proc/self/fd/{descriptor}')}", descriptor)
        fsync(descriptor)

    os.fsync = watched  # type: ignore[assignment]


def _watch_sql(tell: Callable[..., None]) -> None:
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def watched(*given: Any, **named: Any) -> sqlite3.Connection:
        connection = connect(*given, **named)
        connection.set_trace_callback(lambda statement: tell(f"sql {statement}"))
        return connection

    sqlite3.connect = watched  # type: ignore[assignment]


def _watch_http(tell: Callable[..., None]) -> None:
    send = HttpTransport.send

    def watched(self: HttpTransport, method: str, target: str, *rest: Any) -> Any:
        tell(f"send {method} {target}")
        answer = send(self, method, target, *rest)
        tell(f"answered {answer.status} {method} {target}")
        return answer

    HttpTransport.send = watched  # type: ignore[method-assign, assignment]


class Interrupter:
    """Sees the operations, and does what is to be done at one of them."""

    def __init__(
        self, interruption: Interruption | None, jump: Callable[[float], None], log: int
    ) -> None:
        """Write what is seen to the descriptor ``log``; ``jump`` moves the clock by seconds."""
        self._interruption = interruption
        self._pattern = re.compile(interruption.pattern if interruption else "")
        self._jump = jump
        self._log = log
        self._numbers = itertools.count(1)

    def see(self, operation: str, descriptor: int | None) -> None:
        """Look at an operation; from any thread."""
        wanted = self._interruption
        number = 0
        if wanted is not None and self._pattern.match(operation):
            number = next(self._numbers)
        self._note(f"{number} {operation}")
        if wanted is None or not 0 < wanted.nth <= number:
            return
        if wanted.action == "insist":
            os.kill(os.getpid(), signal.SIGINT)
        if number > wanted.nth:
            return
        self._note(f"-- {wanted.action}")
        if wanted.action == "jump":
            self._jump(wanted.jump_secs)
        elif wanted.action == "terminate":
            os.kill(os.getpid(), signal.SIGTERM)
        elif wanted.action in {"kill", "halve"}:
            if wanted.action == "halve":
                assert descriptor is not None, f"{operation} has no file at hand"
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, what: str) -> None:
        os.write(self._log, f"[{os.getpid()}] {what}\n".encode())
