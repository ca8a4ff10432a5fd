"""What the tables know of each day, and of the sends that no report has come for."""

from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from analytics.completeness import KEYS, DayCounts, count_by_day, silent_sends
from tests.analytics.dataset import (
    DAY_1,
    DAY_2,
    NOON,
    Dataset,
    event_id,
    orphan,
    report,
    send,
    unreported,
)

PHONE = "13800000000"
FIRST, LAST = date(2026, 11, 1), date(2026, 11, 2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Dataset(tmp_path_factory.mktemp("completeness") / "dataset")
    made.add(
        "enriched_reports",
        DAY_1,
        [
            report("1"),
            # Delivered by a query's answer, failed by the report that came after it.
            report("2", origin="query"),
            report("2", revision=2, success=False, err_code="EXPIRED", message_id="late"),
            report("3", sign_name="Another"),
            orphan("4"),
            # One of several recipients: whose it is, nobody knows.
            orphan("5", phone_number=None, event_id=event_id("5", "")),
        ],
    )
    made.add("open_sends", DAY_2, [send("6", DAY_2), send("7", DAY_2)])
    made.add("unreported_sends", DAY_1, [unreported("8"), unreported("3")])
    made.commit()
    return made.directory


def test_the_current_outcome_of_every_sms_counts_once(dataset: Path) -> None:
    assert count_by_day(dataset, FIRST, LAST) == [
        DayCounts(FIRST, logged=4, silent=1, delivered=3, failed=1),
        DayCounts(LAST, logged=2, silent=2, delivered=0, failed=0),
    ]


def test_days_and_signs_can_be_chosen(dataset: Path) -> None:
    assert [each.day for each in count_by_day(dataset, LAST, LAST)] == [LAST]
    assert count_by_day(dataset, FIRST, LAST, "Another") == [
        DayCounts(FIRST, logged=1, silent=0, delivered=1, failed=0)
    ]
    assert count_by_day(dataset, FIRST, LAST, "Nobody's") == []


def silent(
    dataset: Path, since: datetime, until: datetime, left_out: tuple[str, ...] = ()
) -> list[str]:
    keys = pa.table({"biz_id": left_out, "phone_number": [PHONE] * len(left_out)}, schema=KEYS)
    found = silent_sends(dataset, since, until, keys)
    assert found.column_names == ["biz_id", "phone_number", "requested_at"]
    return [str(biz_id) for biz_id in found["biz_id"].to_pylist()]


def test_sends_without_a_report_are_listed_oldest_first(dataset: Path) -> None:
    moment = timedelta(milliseconds=1)
    assert silent(dataset, NOON[DAY_1], NOON[DAY_2] + moment) == ["8", "6", "7"]
    assert silent(dataset, NOON[DAY_1] + moment, NOON[DAY_2] + moment) == ["6", "7"]
    assert silent(dataset, NOON[DAY_1], NOON[DAY_2]) == ["8"]


def test_sends_that_were_asked_about_are_left_out(dataset: Path) -> None:
    ever = datetime(2027, 1, 1, tzinfo=timezone.utc)
    assert silent(dataset, NOON[DAY_1], ever, left_out=("6", "nobody's")) == ["8", "7"]


def test_templates_can_be_chosen_and_orphans_have_none(dataset: Path) -> None:
    assert count_by_day(dataset, FIRST, FIRST, template_codes=["SMS_0", "SMS_1"]) == [
        DayCounts(FIRST, logged=4, silent=1, delivered=2, failed=1)
    ]
    assert count_by_day(dataset, FIRST, FIRST, template_codes=["SMS_0"]) == []
