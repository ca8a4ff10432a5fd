"""Alibaba's totals beside the tables': what is a gap, and what the operator is told."""

import json
from datetime import date, timedelta

import pytest

from analytics.completeness import DayCounts
from pipeline.audit import Audit, AuditedDay, compare, document, text
from pipeline.options_reconcile import AuditOptions
from pipeline.sms_api import DayTotals

DAY = date(2026, 11, 1)
TODAY = date(2026, 11, 20)


def totals(delivered: int, failed: int, awaiting: int = 0, day: date = DAY) -> DayTotals:
    return DayTotals(day, delivered + failed + awaiting, delivered, failed, awaiting)


def counts(delivered: int, failed: int, silent: int = 0, day: date = DAY) -> DayCounts:
    return DayCounts(day, delivered + failed + silent, silent, delivered, failed)


@pytest.mark.parametrize(
    ("theirs", "ours", "missing", "wrong", "unlogged", "gap"),
    [
        (totals(90, 10), counts(90, 10), 0, 0, 0, 0.0),
        (totals(90, 10), counts(80, 10, silent=10), 10, 0, 0, 0.1),
        (totals(90, 10), counts(80, 10), 10, 0, 10, 0.1),
        # Five that failed are thought to be delivered.
        (totals(90, 10), counts(95, 5), 0, 5, 0, 0.05),
        (totals(90, 10), counts(92, 5, silent=3), 3, 2, 0, 0.05),
        # More than Alibaba has is as wrong as less.
        (totals(90, 10), counts(91, 10), -1, 0, -1, 0.01),
        # Neither side knows yet.
        (totals(80, 10, awaiting=10), counts(80, 10, silent=10), 0, 0, 0, 0.0),
        (totals(0, 0), counts(1, 0), -1, 0, -1, 1.0),
        (totals(0, 0), counts(0, 0), 0, 0, 0, 0.0),
    ],
)
def test_a_gap_is_what_is_missing_too_much_or_wrong(  # noqa: PLR0913, PLR0917 (a table)
    theirs: DayTotals, ours: DayCounts, missing: int, wrong: int, unlogged: int, gap: float
) -> None:
    day = AuditedDay(theirs, ours)
    assert (day.missing_reports, day.wrong_verdicts, day.unlogged_sends) == (
        missing,
        wrong,
        unlogged,
    )
    assert day.gap == pytest.approx(gap)


def test_totals_of_one_day_add_up_and_a_day_that_nobody_names_is_empty() -> None:
    third = DAY + timedelta(days=2)
    days = compare(
        DAY, third, [totals(1, 2, 3), totals(10, 20, 30), totals(4, 0, day=third)], [counts(5, 6)]
    )
    assert days == [
        AuditedDay(totals(11, 22, 33), counts(5, 6)),
        AuditedDay(totals(0, 0, day=DAY + timedelta(days=1)), counts(0, 0, day=DAY + timedelta(1))),
        AuditedDay(totals(4, 0, day=third), counts(0, 0, day=third)),
    ]


def audited(*days: AuditedDay, last: date = DAY, today: date = TODAY, forgotten: int = 0) -> Audit:
    options = AuditOptions(
        "/data", "http://localhost", DAY, last, None, None, None, 0.001, json=False
    )
    return Audit(options, today, days, forgotten)


def test_a_complete_day_needs_nothing() -> None:
    told = text(audited(AuditedDay(totals(90, 10), counts(90, 10))))
    assert "Every day is within the tolerance of 0.10%." in told
    assert "reconcile" not in told


def test_a_gap_ends_with_the_command_that_closes_it() -> None:
    told = text(
        audited(
            AuditedDay(totals(990, 10), counts(989, 10, silent=1)),
            AuditedDay(totals(90, 10), counts(80, 10, silent=10)),
        )
    )
    assert "1 of 2 days are outside of the tolerance of 0.10%." in told
    last = told.splitlines()[-1]
    assert last.startswith("Next: sms-receipts reconcile --from=2026-11-01 --to=2026-11-01")
    assert "--dataset=/data" in last
    assert "total" in told


def test_what_was_never_logged_cannot_be_asked_about() -> None:
    told = text(audited(AuditedDay(totals(90, 10), counts(80, 10))))
    assert "10 SMS of these days are not in the send log" in told
    assert "sms-receipts reconcile" not in told


def test_a_gap_that_alibaba_has_forgotten_stays() -> None:
    gap = AuditedDay(totals(90, 10), counts(80, 10, silent=10))
    told = text(audited(gap, today=DAY + timedelta(days=31), forgotten=2))
    assert "2 days before 2026-11-02 were not compared" in told
    assert "answers about single SMS since 2026-11-02 only: these gaps stay." in told
    assert "sms-receipts reconcile" not in told
    assert "sms-receipts reconcile" in text(audited(gap, today=DAY + timedelta(days=30)))


def test_today_is_not_over() -> None:
    assert "Today is not over" in text(
        audited(AuditedDay(totals(9, 1), counts(9, 1)), last=DAY, today=DAY)
    )


def test_the_document_holds_the_same_figures() -> None:
    told = json.loads(document(audited(AuditedDay(totals(90, 9, 1), counts(80, 9, silent=11)))))
    (day,) = told.pop("days")
    assert day == {
        "day": "2026-11-01",
        "alibaba": {"total": 100, "delivered": 90, "failed": 9, "awaiting": 1},
        "tables": {"logged": 100, "silent": 11, "delivered": 80, "failed": 9},
        "missing_reports": 10,
        "wrong_verdicts": 0,
        "unlogged_sends": 0,
        "gap": 0.1,
    }
    (note,) = told.pop("notes")
    assert note.startswith("Next: sms-receipts reconcile")
    assert told == {
        "from": "2026-11-01",
        "to": "2026-11-01",
        "sign_name": None,
        "template_type": None,
        "tolerance": 0.001,
        "is_within_tolerance": False,
    }
