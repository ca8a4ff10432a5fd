"""Damage in the archive: the job goes on with what is readable, says what is missing, and heals."""

import logging
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.errors import OutputError
from schemas.records import MnsMessage
from tests.job.oracle import current_rows
from tests.job.small_job import NOON, SmallJob, report

pytestmark = pytest.mark.integration

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
SOON = NOON + 10 * MINUTE
COUNT = 1500


@pytest.fixture
def job(tmp_path: Path) -> SmallJob:
    """A job with one archive file of several blocks, and another one."""
    job = SmallJob(tmp_path)
    job.land(*(numbered(number) for number in range(COUNT)))
    job.land(report("other"))
    return job


def numbered(number: int) -> MnsMessage:
    """A message of any of three days."""
    sent_at = NOON - (number % 3) * DAY
    return report(
        f"biz-{number}", sent_at=sent_at, enqueued_at=NOON + number * timedelta(seconds=1)
    )


def large_file(job: SmallJob) -> Path:
    (path,) = job.archive.glob(f"*/*/*-{COUNT}-*.avro")
    return path


def damage(path: Path) -> bytes:
    """Change a byte in the middle, in a block that is not the last; return what was there."""
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    return whole


def test_the_readable_part_is_used_and_the_rest_is_told(
    job: SmallJob, caplog: pytest.LogCaptureFixture
) -> None:
    path = large_file(job)
    damage(path)

    with caplog.at_level(logging.WARNING, "pipeline"):
        counts = job.epoch(SOON)

    lost = counts["damaged_messages"]
    assert 0 < lost < COUNT
    assert (counts["messages"], counts["decoded_messages"]) == (COUNT + 1, COUNT + 1 - lost)
    waiting = current_rows(job.dataset, "waiting_reports")
    assert len(waiting) == COUNT + 1 - lost
    (event,) = current_rows(job.dataset, "failed_events")
    assert (event["reason"], event["source_file"]) == ("damaged_archive_file", str(path))
    assert event["original"] in path.read_bytes()
    (warning,) = [each.message for each in caplog.records if each.name == "pipeline.epochs"]
    assert f"{path} is damaged at byte " in warning
    assert f"{lost:,} of its {COUNT:,} messages cannot be read" in warning
    # Reports may be as late as the patience, and its day.
    assert "backfill --from=2026-10-28 --to=2026-11-01" in warning
    assert job.epoch(SOON + MINUTE) == {}, "a file is read once, damaged or not"


def test_a_restored_file_heals_by_a_backfill(job: SmallJob) -> None:
    path = large_file(job)
    whole = damage(path)
    job.epoch(SOON)

    path.write_bytes(whole)
    counts = job.backfill("2026-10-28", "2026-11-01", SOON)

    assert counts["damaged_messages"] == 0
    assert current_rows(job.dataset, "failed_events") == []
    assert job.tables() == job.expected(SOON)


def test_a_backfill_of_known_damage_changes_nothing(job: SmallJob) -> None:
    damage(large_file(job))
    job.epoch(SOON)
    before = job.tables()

    counts = job.backfill("2026-10-28", "2026-11-01", SOON)
    # The failed event's day is not among these: it stays, and is not there twice.
    job.backfill("2026-10-30", "2026-10-31", SOON)

    assert counts["damaged_parts"] == 1
    assert job.tables() == before


def test_a_backfill_does_not_replace_rows_by_less_than_they_were_made_from(job: SmallJob) -> None:
    job.epoch(SOON)
    before = job.tables()
    path = large_file(job)
    whole = damage(path)

    with pytest.raises(OutputError, match=f"^The archive file {path} has been damaged since"):
        job.backfill("2026-10-30", "2026-10-31", SOON)
    assert job.tables() == before

    path.write_bytes(whole)
    job.backfill("2026-10-30", "2026-10-31", SOON)
    assert job.tables() == before


def test_a_file_of_which_nothing_is_left_does_not_stop_the_job(job: SmallJob) -> None:
    path = large_file(job)
    path.write_bytes(b"")

    counts = job.epoch(SOON)

    assert (counts["damaged_messages"], counts["waiting_after"]) == (COUNT, 1)
    (event,) = current_rows(job.dataset, "failed_events")
    assert (event["message_id"], event["original"]) == (f"{path.name}#0+0", b"")


def test_a_file_with_more_messages_than_its_name_says_is_not_committed(job: SmallJob) -> None:
    path = large_file(job)
    renamed = path.rename(path.with_name(path.name.replace(f"-{COUNT}-", "-3-")))

    with pytest.raises(
        OutputError, match=f"^The archive file .* holds {COUNT} messages, 1497 more"
    ):
        job.epoch(SOON)

    renamed.rename(path)
    job.epoch(SOON)
    assert job.tables() == job.expected(SOON)
