"""A backfill replaces days; it refuses to replace them by less than they were made from."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.errors import OutputError, SendLogError
from tests.job.small_job import NOON, SmallJob, report

pytestmark = pytest.mark.integration

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


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
