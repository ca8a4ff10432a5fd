"""The send log in the archive: what came as messages is joined as what was read from files."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog import Catalog
from pipeline.explain.text import text
from schemas.contracts import contract
from schemas.records import MnsMessage
from tests.history.explaining import explained, said
from tests.history.failed_job import FailedJob
from tests.job.oracle import Tables
from tests.job.small_job import NOON, SmallJob, report
from transforms.decode_sends import SEND_MESSAGE_TYPE, single_object
from transforms.moments import day_number

pytestmark = pytest.mark.integration

DAY, MINUTE, SECOND = timedelta(days=1), timedelta(minutes=1), timedelta(seconds=1)
# As long and as odd as a subscription's name may be.
SUBSCRIPTION = "s" + "a-Z0_.~+%" * 28
SENDS = contract("send_log_entry")


def send(
    biz_id: str,
    phone_number: str = "13800000001",
    *,
    requested_at: datetime = NOON - SECOND,
    message_id: str | None = None,
    is_avro: bool = True,
) -> MnsMessage:
    """A send as ``SmallJob.send`` logs it, as a message."""
    entry: dict[str, Any] = {
        "biz_id": biz_id,
        "phone_number": phone_number,
        "template_code": "SMS_1",
        "tags": {"team": "growth"},
        "requested_at": requested_at,
    }
    if is_avro:
        body = single_object(SENDS.fingerprint, SENDS.encode(entry))
    else:
        body = json.dumps({**entry, "requested_at": requested_at.isoformat()}).encode()
    return message(body, message_id or f"send {biz_id} {phone_number}", requested_at + SECOND)


def message(body: bytes, message_id: str, enqueued_at: datetime = NOON) -> MnsMessage:
    return MnsMessage(message_id, SUBSCRIPTION, SEND_MESSAGE_TYPE, enqueued_at, 1, body)


class Story:
    """The same sends and reports twice: logged to a file, and archived."""

    def __init__(self, root: Path) -> None:
        self.logged, self.archived = SmallJob(root / "logged"), SmallJob(root / "archived")

    def send(self, biz_id: str, requested_at: datetime, *, is_avro: bool = True) -> None:
        self.logged.send(biz_id, requested_at=requested_at)
        self.archived.land(send(biz_id, requested_at=requested_at, is_avro=is_avro))

    def land(self, *messages: MnsMessage) -> None:
        for job in (self.logged, self.archived):
            job.land(*messages)

    def tables(self) -> tuple[Tables, Tables]:
        return self.logged.tables(), self.archived.tables()


@pytest.fixture
def story(tmp_path: Path) -> Story:
    """A send that is reported, one that never is, and one that waits; a report without a send."""
    story = Story(tmp_path)
    story.send("reported", NOON - SECOND)
    story.send("unreported", NOON - 5 * DAY, is_avro=False)
    story.send("open", NOON)
    story.land(report("reported"), report("orphan", sent_at=NOON - 5 * DAY))
    return story


def test_archived_sends_are_joined_as_logged_ones(story: Story) -> None:
    logged, archived = (job.epoch(NOON + MINUTE) for job in (story.logged, story.archived))

    tables, same = story.tables()
    assert tables == same
    assert (len(same.enriched), len(same.unreported), len(same.open_sends)) == (2, 1, 1)
    assert logged["sends"] == archived["sends"] == 3
    assert (archived["messages"], archived["matched_sends"]) == (5, 1)


def test_a_send_that_comes_after_its_report_ends_the_wait(story: Story) -> None:
    for job in (story.logged, story.archived):
        job.epoch(NOON + MINUTE)
    story.send("orphan", NOON - 5 * DAY - SECOND)
    story.land(report("open", sent_at=NOON + SECOND))
    for job in (story.logged, story.archived):
        job.epoch(NOON + 2 * MINUTE)

    tables, same = story.tables()
    assert tables == same
    assert {row["match"] for row in same.current().values()} == {"matched"}


def test_a_send_that_came_twice_counts_once(story: Story) -> None:
    """Redelivered, published twice, and in a file as well."""
    story.archived.land(
        send("reported", requested_at=NOON - SECOND),
        send("reported", requested_at=NOON - SECOND, message_id="again", is_avro=False),
    )
    story.archived.send("reported")
    for job in (story.logged, story.archived):
        counts = job.epoch(NOON + MINUTE)
    assert counts["duplicate_sends"] == 3
    story.archived.land(send("reported", requested_at=NOON - SECOND, message_id="later"))
    story.archived.epoch(NOON + 2 * MINUTE)

    tables, same = story.tables()
    assert tables == same


def test_a_backfill_gives_the_same_rows(story: Story) -> None:
    # A report is up to three days after its send, which is in a file of that day.
    story.send("far", NOON - 3 * DAY + MINUTE)
    story.land(report("far", sent_at=NOON + MINUTE))
    # And one file has sends of days that are far apart.
    apart = {"long ago": NOON - 20 * DAY, "now": NOON}
    story.archived.land(*(send(biz_id, requested_at=at) for biz_id, at in apart.items()))
    for biz_id, at in apart.items():
        story.logged.send(biz_id, requested_at=at)
    for job in (story.logged, story.archived):
        job.epoch(NOON + 2 * MINUTE)
    before, same = story.tables()
    assert before == same

    for first, last in (("2026-11-01", "2026-11-01"), ("2026-10-27", "2026-10-31")):
        counts = story.archived.backfill(first, last, NOON + 2 * MINUTE)
        assert counts["other_days/sends"] > 0
        assert story.archived.tables() == before


def test_the_days_of_a_file_say_for_which_days_its_sends_are_needed(story: Story) -> None:
    job = SmallJob(story.archived.archive.parent / "days")
    job.land(send("a"))
    job.epoch(NOON)
    with Catalog(str(job.dataset), lambda: NOON) as catalog:
        (days,) = catalog.archive_days().values()
    today = day_number("2026-11-01")
    assert days == list(range(today, today + job.settings.days_apart))


def test_what_is_no_send_is_a_failed_event_and_a_replay_of_it_joins(tmp_path: Path) -> None:
    job = FailedJob(tmp_path)
    body = send("a").body
    job.fail(send("a"), reason="unknown_message_type")
    job.land(message(body + b"x", "trailing"), message(b"[]", "shape"), report("a"))
    counts = job.epoch(NOON + MINUTE)
    assert counts["failed_messages"] == 2
    failed = {row["message_id"]: row for row in job.attempts()}
    assert {name: (row["reason"], row["queue_name"]) for name, row in failed.items()} == {
        "trailing": ("malformed_avro", SUBSCRIPTION),
        "shape": ("unknown_shape", SUBSCRIPTION),
        "send a 13800000001": ("unknown_message_type", SUBSCRIPTION),
    }
    assert job.tables().waiting

    counts = job.replay(NOON + 2 * MINUTE)

    assert (counts["succeeded/failed_events"], counts["failed_again/failed_events"]) == (1, 2)
    tables = job.tables()
    assert {row["match"] for row in tables.enriched.values()} == {"matched"}
    assert job.open_events() == {"trailing": 2, "shape": 2}
    job.backfill("2026-11-01", "2026-11-01", NOON + 3 * MINUTE)
    assert job.tables().enriched == tables.enriched


def test_a_backfill_finds_replayed_sends_far_from_the_day_they_came_on(tmp_path: Path) -> None:
    job = FailedJob(tmp_path)
    late = send("a")._replace(enqueued_at=NOON + 20 * DAY)
    job.fail(late, reason="unknown_message_type")
    job.land(report("a"))
    as_of = NOON + 21 * DAY
    job.epoch(as_of)
    job.replay(as_of)
    before = job.tables()
    assert {row["match"] for row in before.current().values()} == {"matched"}

    job.backfill("2026-11-01", "2026-11-01", as_of)

    assert job.tables().current() == before.current()


def test_a_send_that_came_as_a_message_is_explained(tmp_path: Path) -> None:
    job = SmallJob(tmp_path / "job")
    person, other = "13812345678", "13900000001"
    job.land(
        send("1^0", person),
        send("1^0", other, is_avro=False),
        message(send("1^0", person).body[:-1], "broken"),
        send("2^0"),
    )
    job.epoch(NOON + MINUTE)
    (archived,) = (path for path in job.archive.glob("*/*/*.avro"))

    explanation = explained(job, "1^0")

    told = {recipient.phone_number: recipient for recipient in explanation.recipients}
    assert told.keys() == {person, other, None}
    for phone_number in (person, other):
        (logged,) = told[phone_number].moments[:1]
        assert (logged.kind, logged.at) == ("send log", NOON - SECOND)
        assert logged.what == "SendSms was called"
        (place,) = logged.places
        assert place.file == str(archived.relative_to(job.archive))
        assert place.commit is not None
        assert told[phone_number].state == "open"
    assert any("malformed_avro" in moment.what for moment in told[None].moments)
    assert person not in text(explanation)


def test_a_send_that_no_epoch_has_read_is_explained_too(tmp_path: Path) -> None:
    job = SmallJob(tmp_path / "job")
    job.land(report("0^0"))
    job.epoch(NOON)
    job.land(send("1^0"))
    (recipient,) = explained(job, "1^0").recipients
    assert said(recipient) == ["SendSms was called; no epoch has read it yet"]
    assert recipient.state == "not processed"


def test_an_archive_without_send_log_flags_is_joined_too(story: Story) -> None:
    job = story.archived
    job.settings = replace(job.settings, send_log=None)
    job.epoch(NOON + MINUTE)
    assert {row["match"] for row in job.tables().enriched.values()} == {"matched", "orphan"}
