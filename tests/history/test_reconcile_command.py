"""``sms-receipts reconcile`` as an operator uses it: killed, stopped, tried dry."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.__main__ import main
from tests.history.past import AWAITING, DELIVERED, FAILED, SMS, History, wait_until
from tests.job.commands import Job

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def counts_of(out: str) -> dict[str, int]:
    """The lines of the summary."""
    lines = re.findall(r"^ {0,2}(\w+) +([\d,]+)  ", out, re.MULTILINE)
    return {name: int(number.replace(",", "")) for name, number in lines}


def test_after_kill_9_nothing_is_asked_twice_that_the_archive_has(history: History) -> None:
    # Slow enough to be in the middle when the first answers are archived.
    with history.start("--qps=8") as killed:
        wait_until(history.archived_answers)
        killed.process.kill()
        killed.process.wait()
    archived = history.archived_answers()
    assert 0 < archived < SMS

    history.past.set_rules()
    done = history.reconcile()

    assert done.counts["questions"] == history.past.calls() == SMS - archived
    assert len(history.tables().answers) == SMS
    assert len(history.tables().current()) == DELIVERED + FAILED
    assert not (history.dataset / "_reconcile").exists()


def test_sigterm_stops_the_asking_at_once_and_the_rest_is_left(history: History) -> None:
    with history.start("--follow", "--qps=4") as following:
        following.wait_for(f"reconcile: {SMS} sends have no report")
        wait_until(history.past.calls)
        stopped = following.stop()

    assert stopped.exit_code == 0, stopped.err
    assert "Traceback" not in stopped.err
    counts = counts_of(stopped.out)
    answered = history.archived_answers()
    assert counts["questions"] == SMS
    assert counts["left"] == SMS - answered > 0
    assert counts["calls"] == history.past.calls() == answered > 0
    assert "the running job, or the next one, brings them into the tables" in stopped.out
    history.reconcile()
    assert history.past.calls() == SMS


def test_who_follows_asks_again_and_again_about_what_is_new(history: History) -> None:
    nothing_new = "reconcile: 0 sends have no report"
    done = history.follow(until=lambda said: said.count(nothing_new) == 2)
    counts = done.counts
    assert counts["questions"] == counts["calls"] == history.past.calls() == SMS
    assert (counts["delivered"], counts["failed"]) == (DELIVERED, FAILED)
    assert done.is_processed
    assert len(history.tables().current()) == DELIVERED + FAILED


def test_an_outage_of_the_api_is_waited_out_by_who_follows(history: History) -> None:
    def until(said: Sequence[str]) -> bool:
        if said[-1] == f"reconcile: an epoch of {SMS} messages and 0 sends":
            history.past.set_rules({"fault": "reset_before"})
        if "run this again" in said[-1]:
            history.past.set_rules()
        return said[-1] == f"reconcile: an epoch of {AWAITING} messages and 0 sends"

    done = history.follow("--again_after_secs=0", until=until)
    assert [line for line in history.said if "No usable answer comes from" in line]
    assert done.counts["awaiting"] == 2 * AWAITING


def test_a_job_that_follows_brings_the_answers_into_the_tables(
    history: History, tmp_path: Path
) -> None:
    job = Job(history.past.emulator, tmp_path)
    job.send_log.symlink_to(history.own_log)
    with job.follow("--epoch_secs=0.5") as following:
        following.wait_for(rf"epoch: \d+ messages and {SMS} sends")
        done = history.reconcile()
        following.wait_for(rf"epoch: {SMS} messages and 0 sends")
        stopped = following.stop()

    assert not done.is_processed
    assert stopped.exit_code == 0, stopped.err
    assert "The ledger is closed" in stopped.out
    assert stopped.counts["answers"] == SMS
    assert len(history.tables().current()) == DELIVERED + FAILED


def test_a_dry_run_and_a_wrong_flag(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    history.reconcile()
    calls = history.past.calls()
    flags = [f"--archive={history.archive}", f"--dataset={history.dataset}", "--send_log=x"]
    capsys.readouterr()

    assert main(["reconcile", "--dry_run", "--after_secs=0", *flags]) == 0
    assert capsys.readouterr().out.startswith("0 sends have no report")
    assert main(["reconcile", "--dry_run", "--again_after_secs=0", *flags]) == 0
    assert f"would make {AWAITING} calls" in capsys.readouterr().out
    assert main(["reconcile", "--qps=0", *flags]) == 2
    assert capsys.readouterr().err == (
        "sms-receipts reconcile: --qps must be more than 0, and 5000 at most.\n"
    )
    assert history.past.calls() == calls
