"""The job in a process of its own: a launcher imports Beam once and forks a process for every run.

Started as ``python -m tests.simulation.job``. Each line on its standard input is a task (``task.py``); it
answers with the exit code of the process when that has ended, negative for a signal.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import multiprocessing
import os
import select
import signal
import ssl
import stat
import sys
import traceback
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any, Final

# Imported by others at their first use: here once instead of in every process.
import numpy.ma  # noqa: F401
import pyarrow.acero  # noqa: F401
from alibabacloud_tea_openapi import utils as alibaba

# A command imports what it needs when it runs.
import pipeline.backfill  # noqa: F401
import pipeline.options  # noqa: F401
import pipeline.run  # noqa: F401
from pipeline import __main__ as command_line
from pipeline import landing_child, landing_processes
from tests.simulation import flaws, operations
from tests.simulation.task import Task

# No run takes as long; who does has to say where it stands.
_HANGING_SECS: Final = 50
# Alibaba's client reads the machine's certificates whenever it is made, a tenth of a run; nothing here is
# encrypted.
_NO_CERTIFICATES: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def main() -> None:
    """Fork a process for every task, one after the other."""
    gc.collect()
    gc.freeze()
    print("ready", flush=True)  # noqa: T201 - the answer
    for line in sys.stdin:
        task = Task.from_json(line)
        # Open as long as the process lives, or one that it has forked.
        lifeline, held = os.pipe()
        process_id = os.fork()
        if not process_id:
            os._exit(_carry_out(task))
        os.close(held)
        _signal_in_time(task, process_id)
        _, status = os.waitpid(process_id, 0)
        if not select.select([lifeline], [], [], _HANGING_SECS)[0]:
            raise RuntimeError("a landing process has outlived the job")
        os.close(lifeline)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


def _signal_in_time(task: Task, process_id: int) -> None:
    """Send the signals that are due while the process runs."""
    process = os.pidfd_open(process_id)
    for secs, number in (
        (task.stopped_after_secs, signal.SIGTERM),
        (task.killed_after_secs, signal.SIGKILL),
    ):
        if secs is not None and not select.select([process], [], [], secs)[0]:
            signal.pidfd_send_signal(process, number)
    os.close(process)


def _carry_out(task: Task) -> int:
    log = os.open(task.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(log, stream)
    faulthandler.dump_traceback_later(_HANGING_SECS, exit=True)
    try:
        _prepare(task, log)
        return command_line.main([task.command, *task.flags])
    except BaseException:  # noqa: BLE001 - whatever it is, it is to be seen
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _prepare(task: Task, log: int) -> None:
    """Let the job see the lane's clock, and watch what it does."""
    clock = task.clock
    _replace(command_line, "utc_now", clock)
    # Alibaba's own client looks at the machine's clock.
    _replace(alibaba.Utils, "get_timestamp", lambda: f"{clock():%Y-%m-%dT%H:%M:%SZ}")
    _replace(ssl, "create_default_context", lambda *_, **__: _NO_CERTIFICATES)
    # A landing process is forked as the job is: it would have to import Beam again.
    forking = SimpleNamespace(get_context=lambda _: multiprocessing.get_context("fork"))
    _replace(landing_processes, "multiprocessing", forking)
    _replace(landing_processes, "serve", _serve)
    for dotted, value in task.settings.items():
        module, _, name = dotted.rpartition(".")
        _replace(importlib.import_module(module), name, value)
    if task.flaw is not None:
        getattr(flaws, task.flaw)()
    clock()  # opens its file
    operations.watch(operations.Interrupter(task.interruption, clock.advance, log).see)


def _serve(pipe: Connection, *given: Any) -> None:
    """Be a landing process, without the ends of pipes that belong to its parent alone."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        except OSError:  # that of the listing
            continue
        if is_socket and descriptor != pipe.fileno():
            os.close(descriptor)
    landing_child.serve(pipe, *given)


def _replace(owner: object, name: str, value: object) -> None:
    if not hasattr(owner, name):
        raise AttributeError(f"{owner} has no {name} any more: the simulation must follow")
    setattr(owner, name, value)


if __name__ == "__main__":
    main()
