"""Audit: are the tables complete? Alibaba's own totals of each day say.

QuerySendStatistics counts what was sent and what became of it; the tables should know the same. What they
lack, ``sms-receipts reconcile`` asks for.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import Final, NamedTuple

from analytics.catalog import DatasetError
from analytics.completeness import DayCounts, count_by_day
from pipeline.errors import CredentialsError, EndpointError, OperatorError, TransientError
from pipeline.inboxes.backoff import backoff_secs
from pipeline.options_reconcile import AuditOptions
from pipeline.sms_api import QUERY_DAYS, DayTotals, RefusedQuestionError, SmsApi
from transforms.moments import BEIJING

_TRIES: Final = 5
_FIRST_PAUSE_SECS, _LONGEST_PAUSE_SECS = 0.5, 4.0
_HEADINGS: Final = (
    f"{'':<10}   {'Alibaba:':>9}{'':30}   {'tables:':>9}",
    f"{'day':<10}   {'sent':>9} {'delivered':>9} {'failed':>9} {'awaiting':>9}   {'logged':>9} "
    f"{'delivered':>9} {'failed':>9} {'silent':>9}   {'missing':>9} {'wrong':>9} {'unlogged':>9} {'gap':>8}",
)


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
        """How many verdicts are delivered here and failed there, or the reverse; at least."""
        delivered = self.theirs.delivered - self.ours.delivered
        failed = self.theirs.failed - self.ours.failed
        return min(abs(delivered), abs(failed)) if delivered * failed < 0 else 0

    @property
    def unlogged_sends(self) -> int:
        """SMS that Alibaba has sent and the send log does not know; negative when it knows more."""
        return self.theirs.total - self.ours.logged

    @property
    def gap(self) -> float:
        """The share of the day's SMS whose verdict is missing, too many or wrong: 0 is complete."""
        off = abs(self.missing_reports) + self.wrong_verdicts
        return off / max(1, self.theirs.total)


class Audit(NamedTuple):
    """The days that were compared.

    Of days before ``remembered`` Alibaba may have no totals any more (then they were not compared, and are
    ``forgotten``), and answers nothing about their SMS.
    """

    options: AuditOptions
    today: date
    days: Sequence[AuditedDay]
    forgotten: int

    @property
    def gaps(self) -> Sequence[AuditedDay]:
        """The days outside of the tolerance."""
        return [day for day in self.days if day.gap > self.options.tolerance]

    @property
    def remembered(self) -> date:
        """The first day that reconcile can ask about."""
        return self.today - timedelta(days=QUERY_DAYS)


def audit(options: AuditOptions, clock: Callable[[], datetime]) -> Audit:
    """Compare the days that were asked for.

    Raises:
        OperatorError: only the operator can help.
    """
    today = clock().astimezone(BEIJING).date()
    if options.last > today:
        raise OperatorError(f"--to={options.last} is still to come: today is {today} in Beijing.")
    api = SmsApi(options.dysmsapi_endpoint)
    theirs = _totals(api, options, abroad=False)
    try:
        theirs += _totals(api, options, abroad=True)
    except (CredentialsError, EndpointError):
        raise
    except OperatorError:
        pass  # an account that may not send abroad may be told so instead of zeros
    try:
        ours = count_by_day(
            options.dataset, options.first, options.last, options.sign_name, options.template_codes
        )
    except DatasetError as error:
        raise OperatorError(str(error)) from None
    days = compare(options.first, options.last, theirs, ours)
    named = {each.day for each in theirs}
    remembered = today - timedelta(days=QUERY_DAYS)
    compared = [day for day in days if day.theirs.day in named or day.theirs.day >= remembered]
    return Audit(options, today, compared, len(days) - len(compared))


def compare(
    first: date, last: date, theirs: Sequence[DayTotals], ours: Sequence[DayCounts]
) -> list[AuditedDay]:
    """Put the days of a range side by side.

    Args:
        first: the first day.
        last: the last one.
        theirs: any number of totals of a day, which add up; a day that nobody names has no SMS.
        ours: one count a day.
    """
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    totals = {day: DayTotals(day, 0, 0, 0, 0) for day in days}
    for each in theirs:
        sums = map(sum, zip(totals[each.day][1:], each[1:], strict=True))
        totals[each.day] = DayTotals(each.day, *sums)
    counts = {each.day: each for each in ours}
    return [AuditedDay(totals[day], counts.get(day, DayCounts(day, 0, 0, 0, 0))) for day in days]


def text(audited: Audit) -> str:
    """Lay an audit out for people: a line a day, what it means, and what to do."""
    days, gaps = audited.days, audited.gaps
    share = f"the tolerance of {audited.options.tolerance:.2%}"
    verdict = f"Every day is within {share}."
    if gaps:
        verdict = f"{len(gaps)} of {len(days)} days are outside of {share}."
    sums = [_line("total", _total(days))] if len(days) > 1 else []
    return "\n".join(
        [
            *_HEADINGS,
            *(_line(day.theirs.day.isoformat(), day) for day in days),
            *sums,
            "",
            *_notes(audited),
            verdict,
            *_next_steps(audited),
        ]
    )


def document(audited: Audit) -> str:
    """Write an audit as one JSON document."""
    options = audited.options
    return json.dumps(
        {
            "from": options.first.isoformat(),
            "to": options.last.isoformat(),
            "sign_name": options.sign_name,
            "template_type": options.template_type,
            "tolerance": options.tolerance,
            "is_within_tolerance": not audited.gaps,
            "days": [
                {
                    "day": day.theirs.day.isoformat(),
                    "alibaba": dict(zip(day.theirs._fields[1:], day.theirs[1:], strict=True)),
                    "tables": dict(zip(day.ours._fields[1:], day.ours[1:], strict=True)),
                    "missing_reports": day.missing_reports,
                    "wrong_verdicts": day.wrong_verdicts,
                    "unlogged_sends": day.unlogged_sends,
                    "gap": day.gap,
                }
                for day in audited.days
            ],
            "notes": [*_notes(audited), *_next_steps(audited)],
        },
        ensure_ascii=False,
        indent=2,
    )


def _total(days: Sequence[AuditedDay]) -> AuditedDay:
    """Add days up; what is missing on one day and too much on another (midnight) cancels out."""
    theirs = map(sum, zip(*(day.theirs[1:] for day in days), strict=True))
    ours = map(sum, zip(*(day.ours[1:] for day in days), strict=True))
    first = days[0].theirs.day
    return AuditedDay(DayTotals(first, *theirs), DayCounts(first, *ours))


def _line(name: str, day: AuditedDay) -> str:
    ours = day.ours
    theirs = " ".join(f"{number:>9,}" for number in day.theirs[1:])
    known = " ".join(
        f"{number:>9,}" for number in (ours.logged, ours.delivered, ours.failed, ours.silent)
    )
    off = (day.missing_reports, day.wrong_verdicts, day.unlogged_sends)
    return f"{name:<10}   {theirs}   {known}   {' '.join(f'{each:>9,}' for each in off)} {day.gap:>8.2%}"


def _notes(audited: Audit) -> Iterator[str]:
    """What is to be known about the comparison."""
    if audited.forgotten:
        yield (
            f"{audited.forgotten} days before {audited.remembered} were not compared: Alibaba has no totals "
            "of them."
        )
    if audited.options.last == audited.today:
        yield "Today is not over: its totals still change."


def _next_steps(audited: Audit) -> Iterator[str]:
    """What closes the gaps, or why nothing does."""
    gaps = audited.gaps
    unlogged = sum(max(0, day.unlogged_sends) for day in gaps)
    if unlogged:
        yield (
            f"{unlogged:,} SMS of these days are not in the send log that the tables know, so that reconcile "
            "cannot ask about them: let sms-receipts run read the log, and log what it lacks."
        )
    within_reach = [day.theirs.day for day in gaps if day.theirs.day >= audited.remembered]
    if gaps and not within_reach:
        yield f"Alibaba answers about single SMS since {audited.remembered} only: these gaps stay."
    # Where Alibaba awaits as many receipts as the tables do, asking would tell nothing.
    if within_reach and any(day.ours.silent > day.theirs.awaiting for day in gaps):
        yield (
            f"Next: sms-receipts reconcile --from={within_reach[0]} --to={within_reach[-1]} "
            f"--dataset={audited.options.dataset} (and --archive, --send_log as for sms-receipts run)"
        )


def _totals(api: SmsApi, options: AuditOptions, *, abroad: bool) -> list[DayTotals]:
    failures = 0
    while True:
        try:
            return api.send_statistics(
                options.first,
                options.last,
                abroad=abroad,
                sign_name=options.sign_name,
                template_type=options.template_type,
            )
        except RefusedQuestionError as refusal:
            raise OperatorError(
                f"Alibaba will not tell its totals of {options.first} to {options.last} ({refusal}): ask for "
                "fewer or later days, and check --sign_name and --template_type."
            ) from None
        except TransientError as fault:
            failures += 1
            if failures == _TRIES:
                raise EndpointError(f"{fault}.") from None
            time.sleep(
                backoff_secs(failures, _FIRST_PAUSE_SECS, _LONGEST_PAUSE_SECS, random.random)
            )
