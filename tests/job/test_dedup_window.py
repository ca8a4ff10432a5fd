"""Dedup for as long as a queue can redeliver: seven days, over epochs, restarts, compaction and backfill."""

import base64
import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pipeline import compaction
from pipeline.catalog import Catalog
from pipeline.compaction import compact
from pipeline.errors import OutputError
from schemas.records import MnsMessage
from tests.job.oracle import current_rows, event_id
from tests.job.small_job import NOON, QUEUE, SmallJob, report

pytestmark = pytest.mark.integration

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
# A queue keeps a message for seven days.
LAST_CHANCE = NOON + 7 * DAY - HOUR
TABLES = ("enriched_reports", "inbound_sms", "failed_events", "unreported_sends")
PHONE = "13800000001"


def reply(number: int) -> MnsMessage:
    body = {
        "phone_number": PHONE,
        "content": "R",
        "dest_code": "1",
        "sequence_id": str(number),
        "send_time": "2026-11-01 12:00:00",
    }
    return from_queue("SmsUp", f"reply-{number}", json.dumps(body).encode())


def garbage(number: int) -> MnsMessage:
    return from_queue("SmsReport", f"garbage-{number}", b"no JSON")


def from_queue(message_type: str, message_id: str, text: bytes) -> MnsMessage:
    queue = QUEUE.replace("SmsReport", message_type)
    body = base64.b64encode(text)
    return MnsMessage(message_id, queue, message_type, NOON, 1, body)


def pushed(*biz_ids: str) -> MnsMessage:
    """A message with several reports, as HTTP push has them."""
    reports = [json.loads(base64.b64decode(report(biz_id).body)) for biz_id in biz_ids]
    return from_queue("SmsReport", "pushed", json.dumps(reports).encode())


ONCE = (
    report("matched"),
    report("orphan"),
    report("corrected", err_code="EXPIRED"),
    report("corrected", enqueued_at=NOON + HOUR),
    report("nameless", None, message_id="nameless"),
    report("ambiguous", None, message_id="ambiguous"),
    pushed("pushed-1", "pushed-2"),
    *(reply(number) for number in range(3)),
    *(garbage(number) for number in range(3)),
)


def redelivered(messages: Sequence[MnsMessage]) -> list[MnsMessage]:
    """The same messages once more, as the queue hands them out again."""
    return [message._replace(dequeue_count=2) for message in messages]


def sizes(job: SmallJob) -> dict[str, int]:
    """How many rows stand in the tables, superseded ones included."""
    return {table: len(current_rows(job.dataset, table)) for table in TABLES}


def compacted(job: SmallJob, as_of: datetime) -> int:
    with Catalog(str(job.dataset), lambda: as_of) as catalog:
        return compact(catalog, as_of)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> SmallJob:
    """A job that has seen the messages once, and then almost seven days of other traffic.

    No test minds what another one does to it.
    """
    job = SmallJob(tmp_path_factory.mktemp("job"))
    for biz_id in ("matched", "corrected", "nameless", "pushed-1"):
        job.send(biz_id)
    job.send("ambiguous", PHONE, "13800000002")
    job.send("silent")
    job.land(*ONCE)
    job.epoch(NOON + HOUR)
    merged = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "_FILES_PER_SIZE", 3)
        for day in range(6):
            # Every day some news of the first day, and of its own.
            job.land(
                report(f"late-{day}", enqueued_at=NOON + day * DAY + 2 * HOUR),
                report(f"day-{day}", sent_at=NOON + day * DAY),
                reply(100 + day),
                garbage(100 + day),
            )
            job.epoch(NOON + day * DAY + 3 * HOUR)
            merged += compacted(job, NOON + day * DAY + 3 * HOUR)
            if day == 4:
                job.backfill("2026-11-01", "2026-11-02", NOON + day * DAY + 4 * HOUR)
    assert merged > 0
    job.epoch(LAST_CHANCE)
    # Eight reports are in the messages above. Of the later ones, those of the last two days still wait.
    assert sizes(job) == {
        "enriched_reports": 8 + 2 * 4,
        "inbound_sms": 3 + 6,
        "failed_events": 3 + 6,
        "unreported_sends": 3,
    }
    return job


def test_a_message_that_comes_again_after_almost_seven_days_changes_nothing(job: SmallJob) -> None:
    before, rows = job.tables(), sizes(job)

    counts: Counter[str] = Counter()
    for part in (ONCE, ONCE[::2], ONCE[1::2]):  # all at once, then in two epochs
        job.land(*redelivered(part))
        counts += job.epoch(LAST_CHANCE)

    assert job.tables() == before
    assert sizes(job) == rows
    assert counts["duplicate_reports"] == 2 * 8, "two reports are in one message"
    assert (counts["duplicate_inbound"], counts["duplicate_failed"]) == (2 * 3, 2 * 3)


def test_an_epoch_opens_the_files_of_the_days_that_have_news_and_no_others(tmp_path: Path) -> None:
    job = SmallJob(tmp_path)
    for day in range(5):
        job.land(report(f"day-{day}", sent_at=NOON + day * DAY))
    job.epoch(LAST_CHANCE + DAY)
    files = sorted(job.dataset.glob("enriched_reports/*/*.parquet"))
    assert len(files) == 5
    for path in (files[0], *files[2:]):
        path.write_text("no Parquet")

    job.land(report("day-1", sent_at=NOON + DAY), report("new", sent_at=NOON + DAY))
    counts = job.epoch(LAST_CHANCE + DAY)
    job.land(report("day-2", sent_at=NOON + 2 * DAY))
    with pytest.raises(OutputError, match=f"The file {files[2]} of the dataset is damaged"):
        job.epoch(LAST_CHANCE + DAY)

    assert (counts["duplicate_reports"], counts["orphan_reports"]) == (1, 1)


def test_another_message_of_the_same_outcome_changes_nothing(job: SmallJob) -> None:
    before, rows = job.tables(), sizes(job)

    job.land(
        report("matched", message_id="another", enqueued_at=LAST_CHANCE),
        report("orphan", message_id="another one", enqueued_at=LAST_CHANCE),
    )
    counts = job.epoch(LAST_CHANCE)

    assert counts["duplicate_reports"] == 2
    assert job.tables() == before
    assert sizes(job) == rows


def test_another_outcome_after_almost_seven_days_is_a_correction(job: SmallJob) -> None:
    rows = sizes(job)

    job.land(report("matched", err_code="UNDELIV", enqueued_at=LAST_CHANCE))
    counts = job.epoch(LAST_CHANCE)

    assert (counts["corrections"], counts["duplicate_reports"]) == (1, 0)
    assert sizes(job) == {**rows, "enriched_reports": rows["enriched_reports"] + 1}
    current = job.tables().current()[event_id("matched", PHONE)]
    assert (current["revision"], current["err_code"]) == (2, "UNDELIV")
