"""A disk that does not answer any more, for a process that loads this as its ``sitecustomize``.

Work on the tables that takes longer than anybody waits for it, at no cost: the first file that the n-th
attempt (an epoch, a compaction) writes is never opened.
"""

import os
import re
import sys
import threading
from pathlib import Path

HANGS = "the disk hangs"
_STAGED = re.compile(r"/_staging/([0-9a-f]{32})/[a-z_]+/dt=")


def hanging_at(attempt: int, directory: Path) -> dict[str, str]:
    """What the environment of such a process must say; ``directory`` is empty, and for this only."""
    code = f"from {__name__} import hang_at\nhang_at({attempt})\n"
    (directory / "sitecustomize.py").write_text(code, "utf-8")
    return {"PYTHONPATH": f"{directory}{os.pathsep}{Path(__file__).parents[2]}"}


def hang_at(attempt: int) -> None:
    """Let this process hang at its n-th attempt, until a signal's handler raises."""
    attempts: list[str] = []

    def hang(event: str, arguments: tuple[object, ...]) -> None:
        staged = _STAGED.search(str(arguments[0])) if event == "open" else None
        if staged is None:
            return
        if staged[1] not in attempts:
            attempts.append(staged[1])
        if len(attempts) == attempt:
            os.write(sys.stderr.fileno(), f"{HANGS}\n".encode())
            threading.Event().wait()

    sys.addaudithook(hang)
