"""``sms-receipts reconcile`` as an operator uses it: killed, stopped, tried dry."""

import re

import pytest

from pipeline.__main__ import main
from tests.history.past import AWAITING, DELIVERED, FAILED, SMS, History

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def counts_of(out: str) -> dict[str, int]:
    """The lines of the summary."""
    lines = re.findall(r"^ {0,2}(\w+) +([\d,]+)  ", out, re.MULTILINE)
    return {name: int(number.replace(",", "")) for name, number in lines}


def test_after_kill_9_nothing_is_asked_twice_that_the_archive_has(history: History) -> None:
    # Slow enough to be in the middle when the first answers are archived.
    with history.start("--qps=8") as killed:
        killed.wait_for(rf"reconcile: [1-9]\d* of {SMS} answered")
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
        while not history.past.calls():
            pass
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
    with history.start("--follow", "--every_secs=0.5") as following:
        following.wait_for(f"reconcile: {SMS} sends have no report")
        following.wait_for("reconcile: 0 sends have no report")
        following.wait_for("reconcile: 0 sends have no report")
        stopped = following.stop()

    assert stopped.exit_code == 0, stopped.err
    counts = counts_of(stopped.out)
    assert counts["questions"] == counts["calls"] == history.past.calls() == SMS
    assert (counts["delivered"], counts["failed"], counts["awaiting"]) == (
        DELIVERED,
        FAILED,
        AWAITING,
    )
    assert len(history.tables().current()) == DELIVERED + FAILED


def test_an_outage_of_the_api_is_waited_out_by_who_follows(history: History) -> None:
    with history.start("--follow", "--every_secs=0.5", "--again_after_secs=0") as following:
        following.wait_for(rf"an epoch of {SMS} messages")
        following.wait_for(f"reconcile: {AWAITING} sends have no report")
        history.past.set_rules({"fault": "reset_before"})
        following.wait_for("No usable answer comes from .* run this again")
        history.past.set_rules()
        following.wait_for(rf"an epoch of {AWAITING} messages")
        assert following.stop().exit_code == 0


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
