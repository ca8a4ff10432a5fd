"""Reconcile, in this process: what Alibaba knows comes into the tables, and nothing is asked twice."""

import fcntl
import json
import os
import re
from collections import Counter
from datetime import timedelta
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.asking import AskAlibaba, Asking, write_lanes
from pipeline.catalog import Catalog
from pipeline.clock import utc_now
from pipeline.epochs import find_new_input, run_epoch
from pipeline.errors import (
    AlreadyRunningError,
    CredentialsError,
    EndpointError,
    OperatorError,
    OutputError,
)
from pipeline.reconcile import Reconciled, next_step, open_questions, plan, summary
from tests.history.past import AWAITING, DELIVERED, FAILED, SMS, History
from tests.job.oracle import archived_messages
from transforms.manifest import WriteManifest, read_manifest
from transforms.moments import BEIJING, from_ms, to_ms

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

ANSWERED = {"delivered": DELIVERED, "failed": FAILED, "awaiting": AWAITING}


def answers(history: History) -> Counter[str]:
    """How many sends have which answer, by the table; each send was asked about once."""
    rows = history.tables().answers.values()
    assert len({row["event_id"] for row in rows}) == len(rows)
    return Counter(row["answer"] for row in rows)


def read_the_send_log(history: History, *flags: str) -> None:
    """An epoch of the main job."""
    job = history.options(*flags).job
    with Catalog(job.dataset, utc_now) as catalog:
        run_epoch(catalog, job, find_new_input(catalog, job), utc_now())


def test_lost_reports_are_recovered_and_nothing_is_asked_twice(history: History) -> None:
    done = history.reconcile()

    counts = done.counts
    assert {word: counts[word] for word in ANSWERED} == ANSWERED
    assert counts["questions"] == counts["calls"] == history.past.calls() == SMS
    assert done.is_processed
    tables = history.tables()
    assert {(row["origin"], row["match"]) for row in tables.enriched.values()} == {
        ("query", "matched")
    }
    assert len(tables.current()) == DELIVERED + FAILED
    assert len(tables.open_sends) == AWAITING
    assert answers(history) == ANSWERED
    details = [json.loads(each["body"])["details"] for each in archived_messages(history.archive)]
    assert {"SendStatus", "SendDate"} <= details[0][0].keys()
    assert "Content" not in details[0][0]
    assert not (history.dataset / "_reconcile").exists()

    again = history.reconcile()

    assert again.counts == {}
    assert history.past.calls() == SMS
    # Where Alibaba had no verdict, it is asked again when the answer is old.
    later = history.reconcile("--again_after_secs=0")
    assert (later.counts["questions"], later.counts["awaiting"]) == (AWAITING, AWAITING)
    audited = history.audit()
    assert sum(day.theirs.total for day in audited.days) == SMS
    assert {(day.missing_reports, day.wrong_verdicts) for day in audited.days} == {(0, 0)}
    assert audited.gaps == []


def test_beside_a_running_job_the_answers_wait_in_the_archive(history: History) -> None:
    job = history.options().job
    with Catalog(job.dataset, utc_now) as catalog:
        run_epoch(catalog, job, find_new_input(catalog, job), utc_now())

        done = history.reconcile()
        again = history.reconcile()

        assert not done.is_processed
        assert again.counts == {}
        assert history.past.calls() == SMS
        assert len(history.tables().open_sends) == SMS
        # The running job's next epoch finds them.
        run_epoch(catalog, job, find_new_input(catalog, job), utc_now())
    assert answers(history) == ANSWERED
    assert len(history.tables().open_sends) == AWAITING


def test_unknown_and_refused_sends_are_outcomes_of_their_own(history: History) -> None:
    noon = (utc_now() - timedelta(days=2)).replace(hour=4)
    history.log("1^0", "13800000001", noon)
    history.log("2^0", "12", noon)
    history.log("3^0", "a number", noon)

    done = history.reconcile()

    assert answers(history) == {**ANSWERED, "unknown": 1, "refused": 2}
    told = summary(done)
    assert f"Every question is accounted for: {SMS + 3} = {DELIVERED} delivered + " in told
    assert re.search(r"\n  refused +2  Alibaba will not say", told)
    assert history.reconcile().counts == {}
    # They stay open until the patience is over.
    assert len(history.tables().open_sends) == AWAITING + 3


def test_a_lane_that_is_begun_again_leaves_out_what_the_archive_has(
    history: History, tmp_path: Path
) -> None:
    read_the_send_log(history)
    questions = open_questions(history.options(), utc_now())
    lanes = write_lanes(questions, 3, str(tmp_path))
    asking = Asking(
        endpoint=history.past.emulator.url,
        archive=str(history.archive),
        questions_per_sec=1000,
        clock=utc_now,
        since=from_ms(to_ms(utc_now())),
        stop_file=str(tmp_path / "stop"),
    )

    def attempt() -> Counter[str]:
        options = PipelineOptions(["--runner=FnApiRunner"])
        with beam.Pipeline(options=options) as pipeline:
            pipeline | beam.Create(lanes) | AskAlibaba(asking) | WriteManifest(str(tmp_path))
        return read_manifest(str(tmp_path)).counts

    assert +attempt() == {**ANSWERED, "calls": SMS}
    assert +attempt() == ANSWERED
    assert history.past.calls() == SMS


def test_only_the_days_asked_for_are_asked_about(history: History) -> None:
    read_the_send_log(history)
    now = utc_now()
    days = Counter(
        row["requested_at"].astimezone(BEIJING).date()
        for row in open_questions(history.options(), now).to_pylist()
    )
    first = min(days)
    chosen = [f"--from={first}", f"--to={first}"]
    assert len(open_questions(history.options(*chosen), now)) == days[first] < SMS
    done = Reconciled(Counter(), is_processed=True)
    assert next_step(history.options(*chosen), done, now) == (
        f"sms-receipts audit --from={first} --to={first} --dataset={history.dataset}"
    )
    done = Reconciled(Counter(left=1, unanswered=2), is_processed=True)
    assert next_step(history.options(*chosen), done, now).endswith("asks about the other 3")
    young = len(open_questions(history.options("--after_secs=86400"), now))
    assert 0 < young < SMS


def test_days_that_alibaba_has_forgotten_are_left_out_with_a_sentence(history: History) -> None:
    history.log("1^0", "13800000001", utc_now() - timedelta(days=31))
    read_the_send_log(history)
    now = utc_now()
    oldest = (now - timedelta(days=30)).astimezone(BEIJING).date()
    forgotten = f"Alibaba answers about the last 30 days, since {oldest}"

    told = plan(history.options("--from=2026-01-01"), now)
    assert told.startswith(f"{forgotten}: the days before are left out. {SMS} sends have no report")
    with pytest.raises(OperatorError, match=f"{forgotten}: it has forgotten --to=2026-01-02"):
        history.reconcile("--from=2026-01-01", "--to=2026-01-02")
    assert history.past.calls() == 0


def test_a_plan_asks_nothing(history: History) -> None:
    with pytest.raises(OperatorError, match="There is no dataset at"):
        plan(history.options(), utc_now())
    read_the_send_log(history)
    told = plan(history.options("--qps=2"), utc_now())
    assert f"{SMS} sends have no report: reconcile would make {SMS} calls" in told
    assert "which take 0:00:30 (h:mm:ss) at --qps=2." in told
    assert history.past.calls() == 0
    assert not history.archive.exists()


@pytest.mark.parametrize(
    ("fault", "error", "sentence"),
    [
        ({"fault": "forbidden", "code": "Forbidden.RAM"}, CredentialsError, "QuerySendDetails"),
        ({"fault": "reset_before"}, EndpointError, "check --dysmsapi_endpoint"),
    ],
)
def test_what_a_worker_meets_reaches_the_operator_as_one_sentence(
    history: History, fault: dict[str, str], error: type[OperatorError], sentence: str
) -> None:
    history.past.set_rules(fault)
    with pytest.raises(error, match=sentence) as met:
        history.reconcile()
    assert met.type is error
    assert "\n" not in str(met.value)
    assert not (history.dataset / "_reconcile").exists()


def test_an_archive_that_cannot_be_written_is_told_before_anything_is_asked(
    history: History, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"The archive .* cannot be written"):
        history.reconcile(f"--archive={tmp_path}/file/archive")
    assert history.past.calls() == 0


def test_a_second_reconcile_is_refused(history: History) -> None:
    history.dataset.mkdir()
    lock = os.open(history.dataset / "_reconcile_lock", os.O_CREAT | os.O_WRONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(AlreadyRunningError, match="Another sms-receipts reconcile"):
        history.reconcile()
    os.close(lock)
    assert history.past.calls() == 0
