"""Compactions that are killed at chosen operations: ``python -m tests.history.killed_compactions``.

Each line on its standard input is a JSON array: a dataset, the pattern of the operations that count (see
``tests.simulation.operations``), and at which of them the compaction of that dataset is killed. The answer is
the exit code, negative for a signal.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

from tests.history.compacting import Dataset
from tests.simulation import operations
from tests.simulation.mishaps import Interruption


def main() -> None:
    """Fork a process for each line, one after the other."""
    for line in sys.stdin:
        dataset, pattern, nth = json.loads(line)
        process_id = os.fork()
        if not process_id:
            _compact(Path(dataset), Interruption("kill", pattern, nth))
        _, status = os.waitpid(process_id, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 - the answer


def _compact(root: Path, interruption: Interruption) -> None:
    """Compact, and leave the process by an exit code of its own."""
    log = os.open(root.parent / "operations.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    operations.watch(operations.Interrupter(interruption, lambda _: None, log).see)
    dataset = Dataset(root)
    # Late enough for files that were replaced to be deleted.
    dataset.now += timedelta(hours=1)
    try:
        dataset.compact()
    except BaseException as failure:  # noqa: BLE001 - whatever it is, it is to be seen
        os.write(2, f"{type(failure).__name__}: {failure}\n".encode())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
