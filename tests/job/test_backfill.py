"""A backfill replaces days; it refuses to replace them by less than they were made from."""

import base64
import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random

import pytest

from pipeline.errors import OutputError, SendLogError
from schemas.records import MnsMessage
from tests.job.oracle import current_rows
from tests.job.small_job import NOON, SmallJob, report

pytestmark = pytest.mark.integration

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
# Between 1 and 2 November in Beijing.
MIDNIGHT = datetime(2026, 11, 1, 16, tzinfo=timezone.utc)


@pytest.fixture
def job(tmp_path: Path) -> SmallJob:
    """A job whose one report and one send are in the tables."""
    job = SmallJob(tmp_path)
    job.send("a")
    job.land(report("a"))
    job.epoch(NOON + MINUTE)
    return job


@pytest.mark.parametrize("day", ["2026-10-31", "2026-11-01", "2026-11-02"])
def test_days_whose_archive_is_gone_are_left_as_they_are(job: SmallJob, day: str) -> None:
    before = job.tables()
    (path,) = job.archive.glob("*/*/*.avro")
    path.rename(path.with_suffix(".gone"))

    with pytest.raises(OutputError, match=f"lacks 1 files that these days were made from, {path}"):
        job.backfill(day, day, NOON + DAY)

    assert job.tables() == before


def test_an_archive_file_of_other_days_may_be_gone(job: SmallJob) -> None:
    (path,) = job.archive.glob("*/*/*.avro")
    job.land(report("b", sent_at=NOON + 5 * DAY))
    job.epoch(NOON + 5 * DAY)
    before = job.tables()
    path.unlink()

    job.backfill("2026-11-06", "2026-11-06", NOON + 5 * DAY)

    assert job.tables() == before


@pytest.mark.parametrize("is_forgotten", [True, False])
def test_days_are_not_recomputed_without_their_send_log(
    job: SmallJob, tmp_path: Path, is_forgotten: bool
) -> None:
    before = job.tables()
    other = tmp_path / "other.jsonl"
    other.write_text("")
    job.settings = replace(job.settings, send_log=None if is_forgotten else str(other))

    with pytest.raises(SendLogError, match="made with another send log, .*sends.jsonl for one"):
        job.backfill("2026-11-01", "2026-11-01", NOON + DAY)

    assert job.tables() == before


def test_a_part_of_the_send_log_that_is_gone_is_told(job: SmallJob, tmp_path: Path) -> None:
    later = tmp_path / "later.jsonl"
    job.settings = replace(job.settings, send_log=str(tmp_path / "*.jsonl"))
    later.write_text(job.send_log.read_text().replace('"a"', '"b"'))
    job.epoch(NOON + MINUTE)
    job.send_log.unlink()

    job.backfill("2026-11-01", "2026-11-01", NOON + DAY)

    assert [line for line in job.said if "sends.jsonl first" in line]


def replies_of_two_days() -> MnsMessage:
    """A message with a reply of 1 November and one of the 2nd, as HTTP push batches them."""
    replies = [
        {
            "phone_number": "13800000001",
            "send_time": send_time,
            "content": "TD",
            "sign_name": "Example",
            "dest_code": "10690",
            "sequence_id": number,
        }
        for number, send_time in enumerate(["2026-11-01 23:59:59", "2026-11-02 00:00:01"])
    ]
    body = base64.b64encode(json.dumps(replies).encode())
    return MnsMessage("M1", "q-SmsUp", "SmsUp", MIDNIGHT + MINUTE, 1, body)


def test_a_report_that_no_epoch_has_read_finds_its_send_after_a_backfill(job: SmallJob) -> None:
    job.send("b", requested_at=MIDNIGHT - MINUTE)
    job.epoch(MIDNIGHT)
    job.land(report("b", sent_at=MIDNIGHT + MINUTE))

    # The send's day, which is not that of the report.
    job.backfill("2026-11-01", "2026-11-01", MIDNIGHT + 2 * MINUTE)

    job.epoch(MIDNIGHT + 4 * DAY)
    assert job.tables() == job.expected(MIDNIGHT + 4 * DAY)
    assert [row["match"] for row in job.tables().current().values()] == ["matched", "matched"]
    assert "backfill: first 1 messages and sends that no epoch has read" in job.said


@pytest.mark.parametrize("first_is_an_epoch", [True, False])
def test_backfills_around_a_midnight_change_no_answer_whenever_they_come(
    tmp_path: Path, first_is_an_epoch: bool
) -> None:
    job, random = SmallJob(tmp_path / "job"), Random(1)  # noqa: S311 (test data)
    requested = {
        f"biz-{number}": MIDNIGHT + timedelta(seconds=random.randrange(-20, 5))
        for number in range(40)
    }
    reports = [
        report(biz_id, sent_at=requested_at + timedelta(seconds=random.randrange(30)))
        for biz_id, requested_at in requested.items()
    ]
    facts: list[str | MnsMessage] = [*requested, *reports]
    random.shuffle(facts)
    for part in range(4):
        for fact in facts[part::4]:
            if isinstance(fact, MnsMessage):
                job.land(fact)
            else:
                job.send(fact, requested_at=requested[fact])
        if first_is_an_epoch and not part:
            job.epoch(MIDNIGHT + part * MINUTE)
        day = random.choice(["2026-11-01", "2026-11-02"])
        job.backfill(day, day, MIDNIGHT + part * MINUTE)
    job.epoch(MIDNIGHT + 4 * DAY)

    assert job.tables() == job.expected(MIDNIGHT + 4 * DAY)


@pytest.mark.parametrize("has_read", [True, False])
def test_a_backfill_of_one_day_of_a_message_leaves_its_other_day_to_the_epochs(
    tmp_path: Path, has_read: bool
) -> None:
    job = SmallJob(tmp_path / "job")
    if has_read:
        job.send("a")
        job.epoch(NOON)
    job.land(replies_of_two_days())

    job.backfill("2026-11-01", "2026-11-01", MIDNIGHT + DAY)
    job.epoch(MIDNIGHT + DAY)

    replies = current_rows(job.dataset, "inbound_sms")
    assert sorted(reply["sequence_id"] for reply in replies) == ["0", "1"]
    job.land(replies_of_two_days()._replace(dequeue_count=2))
    assert job.epoch(MIDNIGHT + DAY)["duplicate_inbound"] == 2


def test_a_backfill_into_a_new_dataset_makes_its_days_alone(tmp_path: Path) -> None:
    job = SmallJob(tmp_path / "job")
    for biz_id, sent_at in (("a", NOON), ("b", NOON + 5 * DAY)):
        job.send(biz_id, requested_at=sent_at)
        job.land(report(biz_id, sent_at=sent_at))

    for day in ("2026-11-01", "2026-11-02"):
        job.backfill(day, day, NOON + 5 * DAY)

    assert [row["biz_id"] for row in job.tables().current().values()] == ["a"]
    job.epoch(NOON + 5 * DAY)
    assert job.tables() == job.expected(NOON + 5 * DAY)
