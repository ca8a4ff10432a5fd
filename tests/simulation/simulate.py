"""One seed, from its first message to the closed ledger."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias

from tests.job.oracle import BEIJING, current_rows, tables_of
from tests.simulation import mishaps
from tests.simulation.books import Archived, Books, LedgerOpenError, require_equal
from tests.simulation.lane import Lane
from tests.simulation.mishaps import Interruption
from tests.simulation.scenario import (
    TWO_PROCESSES,
    VISIBILITY_SECS,
    Round,
    Scenario,
    begins_at,
    scenario,
)
from tests.simulation.task import Task

_DONE: Final = 0
_OPERATOR: Final = 2
_KILLED: Final = -9
_TERMINATED: Final = -15
_STOPPED_BY_HAND: Final = 130
# What the processes of a run say in its log of mishaps that they bring about, and of their archive files.
_DONE_TO: Final = re.compile(rb"^\[\d+\] -- (\w+)$", re.MULTILINE)
_ARCHIVED_BY: Final = re.compile(rb"^\[(\d+)\] \d+ rename \S+\.avro\.", re.MULTILINE)


# What seeds have gone through, in numbers that add up; see :meth:`Simulation.figures`.
Figures: TypeAlias = Counter[str]


class Simulation:
    """One seed in a lane; everything below ``root``, which is a new directory."""

    def __init__(self, lane: Lane, root: Path, given: Scenario, flaw: str | None = None) -> None:
        root.mkdir()
        self._lane = lane
        self._root = root
        self._given = given
        self._flaw = flaw
        self._books = Books()
        self._archived = Archived(root / "archive")
        self._log = root / "sends.jsonl"
        self._log.touch()
        self._exits: Counter[int] = Counter()
        self._faults: Counter[str] = Counter()
        self._events: Counter[str] = Counter()

    def figures(self) -> Figures:
        """Live through the scenario and close the ledger.

        Raises:
            LedgerOpenError: it does not close.
        """
        lane, given = self._lane, self._given
        lane.renew_queues(VISIBILITY_SECS, given.retention_secs)
        for number, each in enumerate(given.rounds):
            self._live_through(number, each)
        self._heal()
        if given.is_recomputed:
            self._recompute()
        archived = self._archived
        return Counter(
            {
                "seeds": 1,
                "messages": len(self._books.enqueued),
                "runs": self._exits.total(),
                "killed": self._exits[_KILLED],
                "stopped by hand": self._exits[_STOPPED_BY_HAND],
                "stopped with a sentence": self._exits[_OPERATOR],
                **self._events,
                "archived copies of redelivered messages": archived.redelivered,
                "archived more than once": archived.copies - len(archived.messages),
                "forgotten by their queue": len(self._books.forgotten),
            }
        ) + Counter({f"fault {kind}": count for kind, count in self._faults.items()})

    def _live_through(self, number: int, each: Round) -> None:
        lane, books = self._lane, self._books
        with self._log.open("ab") as log:
            log.write(each.log)
        books.entries += each.logged
        for batch in each.batches:
            lane.enqueue(batch, books)
        lane.set_faults(f"{self._given.seed}/{number}", each.faults)
        exit_code = self._run(each)
        self._faults += lane.end_faults()
        self._require_exit(each, exit_code)
        self._take_stock()
        self._let_pass(each.jump_secs)

    def _run(self, each: Round) -> int:
        # Without an archive, which a job killed early has not made, a backfill is refused.
        if each.command == "backfill" and (self._root / "archive").is_dir():
            return self._job("backfill", each.interruption)
        mode = "--follow" if each.command == "follow" else "--until-empty"
        return self._job(mode, each.interruption, each.stopped_after_secs)

    def _job(
        self,
        mode: str,
        interruption: Interruption | None = None,
        stopped_after_secs: float | None = None,
    ) -> int:
        lane, given = self._lane, self._given
        flags = [
            f"--archive={self._root / 'archive'}",
            f"--dataset={self._root / 'dataset'}",
            f"--send_log={self._log}",
        ]
        if mode == "backfill":
            today = lane.clock().astimezone(BEIJING).date()
            flags += [f"--from={today - timedelta(days=40)}", f"--to={today + timedelta(days=2)}"]
            flags += [flag for flag in given.flags if flag.startswith("--join_patience_secs")]
        else:
            flags += [
                mode,
                f"--mns_queues={','.join(lane.queue_names)}",
                f"--mns_endpoint={lane.endpoint}",
                f"--dybaseapi_endpoint={lane.endpoint}",
                *given.flags,
            ]
        task = Task(
            command="backfill" if mode == "backfill" else "run",
            flags=flags,
            clock=lane.clock,
            log=str(self._root / f"job-{self._exits.total():02d}.log"),
            interruption=interruption,
            stopped_after_secs=stopped_after_secs,
            killed_after_secs=interruption.after_secs if interruption else None,
            settings={"pipeline.compaction._FILES_PER_SIZE": given.files_per_size},
            flaw=self._flaw,
        )
        exit_code = lane.run(task)
        self._exits[exit_code] += 1
        self._note_events(mode, exit_code, Path(task.log).read_bytes())
        return exit_code

    def _note_events(self, mode: str, exit_code: int, log: bytes) -> None:
        """Count what a run has gone through; what was meant to happen to it need not have."""
        done = Counter(action.decode() for action in _DONE_TO.findall(log))
        # A run that follows its queues ends cleanly only when it is asked to.
        is_stopped = mode == "--follow" and exit_code in {_DONE, _TERMINATED}
        self._events += Counter(
            {
                "backfills": mode == "backfill",
                "stopped by SIGTERM": done["terminate"] > 0 or is_stopped,
                "jumps of the clock during a run": done["jump"],
                "landing processes killed": (done["kill"] + done["halve"]) * (exit_code != _KILLED),
                "runs to which two landing processes contributed": (
                    len(set(_ARCHIVED_BY.findall(log))) > 1
                ),
            }
        )

    def _require_exit(self, each: Round, exit_code: int) -> None:
        action = each.interruption.action if each.interruption else None
        allowed = {_DONE}
        if action in {"kill", "halve"}:
            allowed.add(_KILLED)
            if TWO_PROCESSES in self._given.flags:
                # It was the other one.
                allowed.add(_OPERATOR)
        if action == "terminate" or each.stopped_after_secs:
            # Before the job listens for it, or after.
            allowed.add(_TERMINATED)
        if action == "insist" or (action == "terminate" and each.stopped_after_secs):
            allowed.add(_STOPPED_BY_HAND)
        if mishaps.may_stop_the_job(each.faults):
            allowed.add(_OPERATOR)
        if exit_code not in allowed:
            raise LedgerOpenError(f"the job ended with exit code {exit_code}")

    def _take_stock(self) -> None:
        """Look where every message is, now."""
        # In this order: what leaves a queue meanwhile has to be in the archive before.
        held = self._lane.held()
        self._archived.read(self._books)
        self._books.require_no_loss(held, self._archived.messages)

    def _let_pass(self, secs: float) -> None:
        held = self._lane.held()
        self._lane.clock.advance(secs)
        self._books.note_expiry(
            held, self._archived.messages, self._given.retention_secs, self._lane.clock()
        )

    def _heal(self) -> None:
        """Run once more, undisturbed, and compare."""
        as_of = self._lane.clock()
        exit_code = self._job("--until-empty")
        if exit_code != _DONE:
            raise LedgerOpenError(f"the undisturbed job ended with exit code {exit_code}")
        self._take_stock()
        left = self._lane.held()
        if left:
            raise LedgerOpenError(f"{len(left)} messages are still queued, {min(left)} for one")
        self._compare(as_of, "after the last run")

    def _recompute(self) -> None:
        """Backfill everything: the same tables, out of archive and send log alone."""
        as_of = self._lane.clock()
        exit_code = self._job("backfill")
        if exit_code != _DONE:
            raise LedgerOpenError(f"the backfill ended with exit code {exit_code}")
        self._compare(as_of, "after the backfill")

    def _compare(self, as_of: datetime, when: str) -> None:
        dataset = self._root / "dataset"
        expected = self._books.expected(self._archived, as_of, self._given.patience)
        require_equal(tables_of(dataset), expected, when)
        failed_lines = len(current_rows(dataset, "failed_sends"))
        if failed_lines != self._given.garbage_lines:
            raise LedgerOpenError(
                f"{when}: {failed_lines} failed sends, but {self._given.garbage_lines} lines are no sends"
            )


def simulate(lane: Lane, seed: int, flaw: str | None = None) -> Figures:
    """Run a seed; what it leaves on the disk stays there if the ledger does not close.

    Raises:
        LedgerOpenError: it does not; the text says how to run the seed again.
    """
    begin = begins_at(seed, lane.clock())
    lane.clock.advance((begin - lane.clock()).total_seconds())
    root = lane.root / f"seed-{seed}"
    try:
        figures = Simulation(lane, root, scenario(seed, begin), flaw).figures()
    except Exception as error:
        raise LedgerOpenError(
            f"seed {seed}: {error}\n  see {root}; to run it again: python -m tests.simulation --seed {seed}"
        ) from error
    shutil.rmtree(root)
    return figures
