"""Named moments at which the job is killed, and a small scenario around each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Final, NamedTuple

from tests.simulation.bodies import garbage
from tests.simulation.mishaps import Action, Interruption, Rule
from tests.simulation.scenario import (
    HEALING_SECS,
    Command,
    Plan,
    Round,
    Scenario,
    Story,
    batches_of,
)

# Enough messages in every round for more than one receive and more than one delete.
_SENDS: Final = 80
_FLAGS: Final = (
    "--join_patience_secs=259200",
    "--mns_fetchers=1",
    "--mns_ack_threads=1",
    "--mns_max_bundle_secs=0.2",
    "--mns_drain_wait_secs=0",
)
_STAGED: Final = r".*/_staging/[0-9a-f]{32}"
_MOVE: Final = rf"rename {_STAGED}/[a-z_]+/dt="


class CrashPoint(NamedTuple):
    """A moment.

    Attributes:
        name: what has happened by then, or is about to.
        pattern: the operation just before which the job is killed (see ``operations.py``).
        nth: which of these.
        command: what is killed.
        runs_before: undisturbed runs before that one.
        action: how it is ended; see :class:`Interruption`.
        files_per_size: how many files of a size compaction merges.
        faults: what the queues do wrong.
        again: the operation before which the restarted job is killed, too.
    """

    name: str
    pattern: str
    nth: int = 1
    command: Command = "run"
    runs_before: int = 0
    action: Action = "kill"
    files_per_size: int = 16
    faults: Sequence[Rule] = ()
    again: str | None = None


CRASH_POINTS: Final = (
    CrashPoint("after a receive", "answered 200 GET"),
    CrashPoint(
        "half of an archive file is written", r"fsync .*\.avro\.[0-9a-f]{32}\.tmp$", action="halve"
    ),
    CrashPoint("an archive file is written, not synced", r"fsync .*\.avro\.[0-9a-f]{32}\.tmp$"),
    CrashPoint("an archive file is synced, not named", r"rename .*\.avro\.[0-9a-f]{32}\.tmp "),
    CrashPoint("an archive file is named, its name not synced", r"fsync .*/landed=[0-9-]*$"),
    CrashPoint("archived, nothing deleted", "send DELETE"),
    CrashPoint("deleted, the answer not seen", "answered 204 DELETE"),
    CrashPoint("half of the deletes are done", "send DELETE", nth=2),
    CrashPoint(
        "half of one batch is deleted",
        "answered 404 DELETE",
        faults=({"fault": "partial_delete", "code": "InternalError"},),
    ),
    CrashPoint("landed, no epoch begun", f"mkdir {_STAGED}/spill"),
    CrashPoint("an epoch has shuffled, not written", f"mkdir {_STAGED}/[a-z_]+/dt="),
    CrashPoint("an epoch has written some files", f"open {_STAGED}/[a-z_]+/dt=", nth=3),
    CrashPoint("all is written, nothing committed", r"sql SELECT coalesce\(max\(epoch\)"),
    CrashPoint("in the commit", "sql INSERT INTO data_files", nth=2, runs_before=1),
    CrashPoint("at the end of the commit", "sql INSERT OR REPLACE INTO send_log_files"),
    CrashPoint("committed, no file moved", _MOVE, runs_before=1),
    CrashPoint("committed, some files moved", _MOVE, nth=2),
    CrashPoint("all files moved, the staging directory not removed", f"rmtree {_STAGED} "),
    CrashPoint("a file that left is not deleted", r"remove .*\.parquet", runs_before=2),
    CrashPoint("files that left are deleted, not forgotten", "sql DELETE FROM", runs_before=2),
    CrashPoint(
        "in a compaction's commit", "sql INSERT INTO epochs", nth=2, runs_before=1, files_per_size=2
    ),
    CrashPoint(
        "a compaction is committed, not moved",
        f"rename {_STAGED}/failed_events/",
        nth=2,
        runs_before=1,
        files_per_size=2,
    ),
    CrashPoint("while the job mends a crash", _MOVE, nth=2, again=_MOVE),
    CrashPoint(
        "before a backfill's replace", "sql UPDATE data_files", command="backfill", runs_before=1
    ),
    CrashPoint(
        "in a backfill's replace",
        "sql INSERT INTO data_files",
        nth=2,
        command="backfill",
        runs_before=1,
    ),
    CrashPoint("after a backfill's replace", _MOVE, nth=2, command="backfill", runs_before=1),
)


def scenario_of(point: CrashPoint, begin: datetime) -> Scenario:
    """Undisturbed runs, one that is killed, and another one that is killed if the point says so."""
    random = Random(f"crash points/{point.name}")  # noqa: S311 - a simulation
    plans = [Plan(begin) for _ in range(point.runs_before + 1)]
    story = Story(random, len(point.name), plans)
    story.tell(_SENDS)
    for plan in plans:
        # One failed event a run: files of one size, which compaction merges as soon as it may.
        plan.drafts.append(garbage(random))
    quiet = [
        Round(
            log=b"".join(plan.lines),
            logged=plan.entries,
            batches=list(batches_of(random, plan.drafts)),
            faults=(),
            command="run",
            stopped_after_secs=None,
            interruption=None,
            jump_secs=0,
        )
        for plan in plans
    ]
    if point.command == "backfill":
        # Without news there is no epoch before it, whose operations are of the same kind.
        quiet[-1] = replace(quiet[-1], log=b"", logged=())
    kill = Interruption(point.action, point.pattern, point.nth)
    rounds = [
        *quiet[:-1],
        replace(quiet[-1], command=point.command, faults=point.faults, interruption=kill),
    ]
    if point.again is not None:
        restart = Interruption("kill", point.again)
        rounds.append(replace(quiet[-1], log=b"", logged=(), batches=(), interruption=restart))
    rounds[-1] = replace(rounds[-1], jump_secs=HEALING_SECS)
    return Scenario(
        seed=0,
        patience=timedelta(days=3),
        retention_secs=7 * 86_400,
        flags=_FLAGS,
        files_per_size=point.files_per_size,
        rounds=rounds,
        garbage_lines=story.garbage_lines,
        is_recomputed=False,
    )
