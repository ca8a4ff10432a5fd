"""Audit: are the tables complete? Alibaba's own totals of each day say.

QuerySendStatistics counts what was sent and what became of it; the tables should know the same. What they
lack, ``sms-receipts reconcile`` asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import NamedTuple

from analytics.completeness import DayCounts
from pipeline.sms_api import DayTotals


class AuditedDay(NamedTuple):
    """One Beijing day: Alibaba's totals beside what the tables know, in SMS."""

    theirs: DayTotals
    ours: DayCounts

    @property
    def missing_reports(self) -> int:
        """Verdicts that Alibaba has and the tables have not; negative when they have more."""
        return self.theirs.delivered + self.theirs.failed - self.ours.delivered - self.ours.failed

    @property
    def wrong_verdicts(self) -> int:
        """How many verdicts are delivered here and failed there, or the reverse."""
        delivered = self.theirs.delivered - self.ours.delivered
        failed = self.theirs.failed - self.ours.failed
        return min(abs(delivered), abs(failed)) if delivered * failed < 0 else 0

    @property
    def unlogged_sends(self) -> int:
        """SMS that Alibaba has sent and the send log does not know; negative when it knows more."""
        return self.theirs.total - self.ours.logged

    @property
    def gap(self) -> float:
        """The share of the day's SMS that are missing, doubled or wrong, 0 to 1 and above."""
        off = abs(self.missing_reports) + self.wrong_verdicts
        return off / max(1, self.theirs.total)


def compare(
    first: date, last: date, theirs: Sequence[DayTotals], ours: Sequence[DayCounts]
) -> list[AuditedDay]:
    """Put the days of a range side by side; a day that nobody names has no SMS."""
    totals: Mapping[date, DayTotals] = {each.day: each for each in theirs}
    counts: Mapping[date, DayCounts] = {each.day: each for each in ours}
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return [
        AuditedDay(
            totals.get(day, DayTotals(day, 0, 0, 0, 0)), counts.get(day, DayCounts(day, 0, 0, 0, 0))
        )
        for day in days
    ]


def gaps(days: Sequence[AuditedDay], tolerance: float) -> list[AuditedDay]:
    """The days whose gap is above the tolerance (a share)."""
    return [day for day in days if day.gap > tolerance]
