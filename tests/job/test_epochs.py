"""Epochs on the real graph: whatever comes in whichever order, the tables hold what they must."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random

import pytest

from pipeline import epochs
from pipeline.backfill import backfill
from pipeline.catalog import Catalog
from pipeline.epochs import run_epoch
from pipeline.errors import OutputError, SendLogError
from schemas.records import MnsMessage
from tests.job.oracle import current_rows, event_id
from tests.job.small_job import NOON, SmallJob, answer, report

pytestmark = pytest.mark.integration

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
SOON = NOON + 10 * MINUTE
PAST_PATIENCE = NOON + 3 * DAY + MINUTE
# The last second of 1 November in Beijing, and the first of the 2nd.
BEFORE_MIDNIGHT = datetime(2026, 11, 1, 15, 59, 59, tzinfo=timezone.utc)
AFTER_MIDNIGHT = datetime(2026, 11, 1, 16, 0, 1, tzinfo=timezone.utc)


@pytest.fixture
def job(tmp_path: Path) -> SmallJob:
    return SmallJob(tmp_path)


def test_a_report_and_its_send_meet(job: SmallJob) -> None:
    job.send("a")
    job.land(report("a"))

    counts = job.epoch(SOON)

    assert job.tables() == job.expected(SOON)
    assert (counts["matched_reports"], counts["matched_sends"]) == (1, 1)
    (row,) = job.tables().current().values()
    assert (row["match"], row["tags"]) == ("matched", {"team": "growth"})
    assert (row["queueing_ms"], row["carrier_ms"], row["total_ms"]) == (1000, 5000, 6000)


def test_nothing_new_is_no_epoch(job: SmallJob) -> None:
    job.send("a")
    job.land(report("a"))
    job.epoch(SOON)
    before = job.tables()

    assert job.epoch(SOON) == Counter()

    assert job.tables() == before


def test_a_report_waits_for_its_send(job: SmallJob) -> None:
    job.land(report("a"))
    assert job.epoch(SOON)["waiting_after"] == 1
    assert job.tables() == job.expected(SOON)

    job.send("a")
    counts = job.epoch(SOON + MINUTE)

    assert (counts["waiting_before"], counts["matched_reports"]) == (1, 1)
    assert job.tables() == job.expected(SOON + MINUTE)
    assert job.tables().waiting == {}


def test_patience_runs_out_without_news(job: SmallJob) -> None:
    job.send("silent")
    job.land(report("unknown"))
    job.epoch(SOON)
    assert (len(job.tables().open_sends), len(job.tables().waiting)) == (1, 1)

    counts = job.epoch(PAST_PATIENCE)

    assert (counts["messages"], counts["orphan_reports"], counts["unreported_new"]) == (0, 1, 1)
    assert job.tables() == job.expected(PAST_PATIENCE)
    assert list(job.tables().unreported) == [event_id("silent", "13800000001")]
    (orphan,) = job.tables().current().values()
    assert (orphan["biz_id"], orphan["match"]) == ("unknown", "orphan")
    assert job.epoch(PAST_PATIENCE + DAY) == Counter()


def test_a_late_report_ends_an_unreported_send(job: SmallJob) -> None:
    job.send("a")
    job.epoch(PAST_PATIENCE)
    assert len(job.tables().unreported) == 1

    job.land(report("a", enqueued_at=PAST_PATIENCE))
    job.epoch(PAST_PATIENCE + MINUTE)

    assert job.tables() == job.expected(PAST_PATIENCE + MINUTE)
    assert job.tables().unreported == {}


def test_a_late_send_turns_an_orphan_into_a_match(job: SmallJob) -> None:
    job.land(report("a"))
    job.epoch(PAST_PATIENCE)
    assert [row["match"] for row in job.tables().current().values()] == ["orphan"]

    job.send("a")
    counts = job.epoch(PAST_PATIENCE + MINUTE)

    assert counts["revised_rows"] == 1
    assert job.tables() == job.expected(PAST_PATIENCE + MINUTE)
    assert [row["match"] for row in job.tables().current().values()] == ["matched"]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_later_different_outcome_is_a_correction(job: SmallJob, at_once: bool) -> None:
    job.send("a")
    job.land(report("a", err_code="EXPIRED"))
    if not at_once:
        job.epoch(SOON)
    job.land(report("a", enqueued_at=NOON + MINUTE))
    job.land(report("a", enqueued_at=NOON + 2 * MINUTE, message_id="again"))
    counts = job.epoch(SOON + MINUTE)

    assert (counts["corrections"], counts["duplicate_reports"]) == (1, 1)
    assert job.tables() == job.expected(SOON + MINUTE)
    (row,) = job.tables().current().values()
    assert (row["revision"], row["err_code"], row["match"]) == (2, "DELIVERED", "matched")


def test_a_redelivered_message_changes_nothing(job: SmallJob) -> None:
    job.send("a")
    for _ in range(2):
        job.land(report("a"))
        job.land(report("a"))
        job.epoch(SOON)

    assert len(current_rows(job.dataset, "enriched_reports")) == 1
    assert job.tables() == job.expected(SOON)


def test_an_earlier_report_that_comes_later_takes_the_place_of_the_first(job: SmallJob) -> None:
    job.send("a")
    job.land(report("a", enqueued_at=NOON + MINUTE, message_id="second"))
    job.epoch(SOON)
    job.land(report("a", enqueued_at=NOON + MINUTE / 2, message_id="first"))
    job.epoch(SOON + MINUTE)

    assert job.tables() == job.expected(SOON + MINUTE)
    (row,) = job.tables().current().values()
    assert row["message_id"] == "first"


def test_a_report_without_number_finds_the_only_recipient(job: SmallJob) -> None:
    job.send("a")
    job.land(report("a", None))
    job.epoch(SOON)

    assert job.tables() == job.expected(SOON)
    (row,) = job.tables().current().values()
    assert (row["phone_number"], row["event_id"]) == ("13800000001", event_id("a", "13800000001"))


def test_a_report_without_number_waits_for_the_send_that_tells(job: SmallJob) -> None:
    job.land(report("a", None))
    job.epoch(SOON)
    assert job.tables() == job.expected(SOON)
    job.send("a")
    job.epoch(SOON + MINUTE)

    assert job.tables() == job.expected(SOON + MINUTE)
    assert [row["match"] for row in job.tables().current().values()] == ["matched"]


def test_a_report_without_number_cannot_choose_among_several_recipients(job: SmallJob) -> None:
    job.send("a", "13800000001", "13800000002")
    job.land(report("a", None, message_id="M1"), report("a", None, message_id="M2"))
    counts = job.epoch(SOON)

    assert counts["orphan_reports"] == 2
    assert job.tables() == job.expected(SOON)
    assert len(job.tables().open_sends) == 2


def test_an_orphan_does_not_tell_how_many_recipients_a_send_had(job: SmallJob) -> None:
    # The send was never logged: a verdict without number may be anybody's, not that of the number known.
    job.land(report("a", "13800000001"))
    job.epoch(PAST_PATIENCE)
    job.land(report("a", None, enqueued_at=PAST_PATIENCE, message_id="M2"))
    job.epoch(PAST_PATIENCE + 4 * DAY)

    assert job.tables() == job.expected(PAST_PATIENCE + 4 * DAY)
    assert len(job.tables().current()) == 2


def test_a_send_and_its_report_may_stand_on_both_sides_of_midnight(job: SmallJob) -> None:
    job.send("a", requested_at=BEFORE_MIDNIGHT)
    job.land(report("a", sent_at=AFTER_MIDNIGHT))
    job.epoch(SOON + DAY)

    assert job.tables() == job.expected(SOON + DAY)
    (row,) = current_rows(job.dataset, "enriched_reports", "2026-11-02")
    assert row["requested_at"] == BEFORE_MIDNIGHT


@pytest.mark.parametrize(
    ("requested_at", "sent_at"),
    [
        pytest.param(BEFORE_MIDNIGHT, AFTER_MIDNIGHT, id="sent-a-day-later"),
        pytest.param(AFTER_MIDNIGHT, BEFORE_MIDNIGHT, id="logged-by-a-clock-that-is-ahead"),
    ],
)
@pytest.mark.parametrize("send_first", [True, False])
def test_midnight_does_not_hide_the_past(
    job: SmallJob, requested_at: datetime, sent_at: datetime, send_first: bool
) -> None:
    """Patience has run out on one side when the other comes, and the days of the two differ."""
    much_later = PAST_PATIENCE + DAY
    if send_first:
        job.send("a", requested_at=requested_at)
    else:
        job.land(report("a", sent_at=sent_at))
    job.epoch(much_later)
    if send_first:
        job.land(report("a", sent_at=sent_at, enqueued_at=much_later))
    else:
        job.send("a", requested_at=requested_at)
    job.epoch(much_later + MINUTE)

    assert job.tables() == job.expected(much_later + MINUTE)
    assert [row["match"] for row in job.tables().current().values()] == ["matched"]


def a_busy_week(random: Random) -> Iterator[MnsMessage | tuple[str, tuple[str, ...], datetime]]:
    """Reports (messages) and sends (biz_id, numbers, requested_at) of all kinds."""
    for number in range(120):
        biz_id = f"biz-{number}"
        requested_at = NOON + timedelta(seconds=random.randrange(-60 * 3600, 60 * 3600))
        phones = tuple(
            f"1380000{number:03d}{index}" for index in range(random.choice((1, 1, 1, 3)))
        )
        if random.random() < 0.9:
            yield biz_id, phones, requested_at
        for phone in phones:
            sent_at = (requested_at + timedelta(seconds=random.randrange(120))).replace(
                microsecond=0
            )
            enqueued_at = sent_at + timedelta(seconds=random.randrange(1, 600))
            if random.random() < 0.2:
                yield answer(
                    biz_id,
                    phone,
                    err_code=random.choice(("DELIVERED", "EXPIRED", None)),
                    requested_at=requested_at,
                    asked_at=sent_at + timedelta(seconds=random.randrange(600)),
                )
            if random.random() < 0.1:
                continue
            told = None if random.random() < 0.1 else phone
            name = f"{biz_id}/{phone}"
            yield report(biz_id, told, sent_at=sent_at, enqueued_at=enqueued_at, message_id=name)
            if told is None:
                continue
            for kind, err_code in (("again", "DELIVERED"), ("correction", "EXPIRED")):
                if random.random() < 0.1:
                    yield report(
                        biz_id,
                        told,
                        err_code=err_code,
                        sent_at=sent_at,
                        enqueued_at=enqueued_at + timedelta(seconds=random.randrange(300)),
                        message_id=f"{name}/{kind}",
                    )


def give(job: SmallJob, seed: int, parts: int) -> Iterator[None]:
    """Hand out the week in parts: all sends of a call at once, messages in any order, some twice."""
    week = list(a_busy_week(Random(1)))  # noqa: S311 (test data)
    random = Random(seed)  # noqa: S311 (test data)
    random.shuffle(week)
    for part in range(parts):
        messages = []
        for fact in week[part::parts]:
            if isinstance(fact, MnsMessage):
                messages += [fact] * random.choice((1, 1, 1, 2))
            else:
                biz_id, phones, requested_at = fact
                job.send(biz_id, *phones, requested_at=requested_at)
        job.land(*messages)
        yield


AFTER_THE_WEEK = NOON + 4 * DAY


def test_a_busy_week_in_one_epoch(job: SmallJob) -> None:
    for _ in give(job, 2, 1):
        job.epoch(AFTER_THE_WEEK)

    tables = job.tables()
    assert tables == job.expected(AFTER_THE_WEEK)
    for name, rows in vars(tables).items():
        assert rows or name in {"inbound", "failed"}, f"the week has no case for {name}"


def test_many_small_epochs_say_what_one_says(tmp_path: Path) -> None:
    # Nobody's patience runs out between the epochs, so that both see the same facts in the end.
    whole, parted = SmallJob(tmp_path / "whole"), SmallJob(tmp_path / "parted")
    for _ in give(whole, 3, 1):
        pass
    for number, _ in enumerate(give(parted, 4, 6)):
        parted.epoch(NOON + number * MINUTE)
    whole.epoch(AFTER_THE_WEEK)
    parted.epoch(AFTER_THE_WEEK)

    assert parted.tables() == parted.expected(AFTER_THE_WEEK)
    assert parted.tables() == whole.tables()


def test_a_backlog_is_cut_into_epochs_and_buckets_without_a_difference(
    job: SmallJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in give(job, 5, 4):
        pass
    monkeypatch.setattr(epochs, "_MESSAGES_PER_EPOCH", 50)
    monkeypatch.setattr(epochs, "_ROWS_PER_BUCKET", 30)
    monkeypatch.setattr(epochs, "_MESSAGES_PER_UNIT", 40)

    job.epoch(AFTER_THE_WEEK)

    with Catalog(str(job.dataset), lambda: NOON) as catalog:
        assert len({file.path for file in catalog.files("enriched_reports")}) > 10
    assert job.tables() == job.expected(AFTER_THE_WEEK)


def test_a_backfill_gives_the_rows_of_the_run(job: SmallJob) -> None:
    for number, _ in enumerate(give(job, 6, 3)):
        job.epoch(NOON + number * MINUTE)
    job.epoch(AFTER_THE_WEEK)
    of_the_run = job.tables()

    job.backfill("2026-10-28", "2026-11-05", AFTER_THE_WEEK)
    assert job.tables() == of_the_run

    first = {name: current_rows(job.dataset, name) for name in ("enriched_reports", "open_sends")}
    job.backfill("2026-10-28", "2026-11-05", AFTER_THE_WEEK)
    for name, rows in first.items():
        assert current_rows(job.dataset, name) == rows


def test_a_backfill_leaves_other_days_alone(job: SmallJob) -> None:
    for _ in give(job, 7, 1):
        job.epoch(AFTER_THE_WEEK)
    of_the_run = job.tables()
    with Catalog(str(job.dataset), lambda: NOON) as catalog:
        days = ["2026-10-30", "2026-10-31", "2026-11-02", "2026-11-03", "2026-11-04"]
        others = catalog.files("enriched_reports", days)
        assert others

        job_files = [catalog.absolute(file.path) for file in others]
    before = [Path(path).read_bytes() for path in job_files]

    counts = job.backfill("2026-11-01", "2026-11-01", AFTER_THE_WEEK)

    assert counts["other_days/reports"] > 0
    assert job.tables() == of_the_run
    assert [Path(path).read_bytes() for path in job_files] == before
    with Catalog(str(job.dataset), lambda: NOON) as catalog:
        assert catalog.files("enriched_reports", days) == others


@pytest.mark.parametrize("day", ["2026-11-01", "2026-11-02"])
@pytest.mark.parametrize(
    ("requested_at", "sent_at"),
    [(BEFORE_MIDNIGHT, AFTER_MIDNIGHT), (AFTER_MIDNIGHT, BEFORE_MIDNIGHT)],
)
def test_a_backfill_looks_beyond_midnight(
    job: SmallJob, day: str, requested_at: datetime, sent_at: datetime
) -> None:
    job.send("a", requested_at=requested_at)
    job.land(report("a", sent_at=sent_at))
    job.epoch(SOON + DAY)

    job.backfill(day, day, SOON + DAY)

    assert job.tables() == job.expected(SOON + DAY)
    assert len(job.tables().current()) == 1


def test_an_epoch_after_a_backfill_goes_on_where_the_last_one_stopped(job: SmallJob) -> None:
    parts = give(job, 8, 2)
    next(parts)
    job.epoch(NOON)
    job.backfill("2026-10-28", "2026-11-05", NOON)
    assert job.tables() == job.expected(NOON)
    next(parts)
    # What no epoch has read, the backfill lets an epoch read first.
    job.backfill("2026-10-28", "2026-11-05", NOON + MINUTE)
    assert job.tables() == job.expected(NOON + MINUTE)
    job.epoch(AFTER_THE_WEEK)

    assert job.tables() == job.expected(AFTER_THE_WEEK)


def test_patience_does_not_end_because_a_flag_was_forgotten(job: SmallJob) -> None:
    job.land(report("a"))
    job.epoch(SOON)
    forgetful = replace(job.settings, send_log=None)
    with (
        Catalog(str(job.dataset), lambda: NOON) as catalog,
        pytest.raises(SendLogError, match=r"was made with a send log: give --send_log"),
    ):
        epochs.find_new_input(catalog, forgetful)

    assert len(job.tables().waiting) == 1


def test_a_backfill_of_no_archive_is_refused(job: SmallJob, tmp_path: Path) -> None:
    job.send("a")
    job.epoch(SOON)
    typo = replace(job.settings, archive=str(tmp_path / "typo"))
    with (
        Catalog(str(job.dataset), lambda: NOON) as catalog,
        pytest.raises(OutputError, match=r"^There is no archive at .*typo: correct --archive\.$"),
    ):
        backfill(catalog, typo, range(1), SOON, job.said.append)


def test_an_archive_file_that_is_gone_is_told_in_a_sentence(job: SmallJob) -> None:
    job.land(report("a"))
    (path,) = job.archive.glob("*/*/*.avro")
    with Catalog(str(job.dataset), lambda: NOON) as catalog:
        new = epochs.find_new_input(catalog, job.settings)
        path.rename(path.with_suffix(".gone"))

        with pytest.raises(OutputError, match=r"No such file"):
            run_epoch(catalog, job.settings, new, SOON)

    path.with_suffix(".gone").rename(path)
    job.epoch(SOON)
    assert job.tables() == job.expected(SOON)
