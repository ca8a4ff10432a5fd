"""What counts now of one recipient of a send, and what the operator can do about it."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

from pipeline.explain.archive import Row
from pipeline.explain.facts import Facts, is_orphan, spelled_outcome
from pipeline.options_explain import ExplainOptions
from pipeline.sms_api import QUERY_DAYS
from transforms import tables
from transforms.moments import BEIJING

State = Literal[
    "delivered",
    "failed",
    "waiting",
    "open",
    "unreported",
    "not processed",
    "missing",
    "failed event",
]

# As long as reconcile waits by itself.
_RECONCILED_AFTER: Final = timedelta(hours=1)
_REMEMBERED: Final = timedelta(days=QUERY_DAYS)
_MOST_HOURS: Final = 48
_ANSWERS: Final[Mapping[str, str]] = {
    "awaiting": "no verdict yet",
    "unknown": "it knows no such SMS",
    "refused": "it will not say",
}


def verdict(facts: Facts, options: ExplainOptions) -> tuple[State, str]:
    """Say what counts, in a word and in a sentence without personal data."""
    is_news = any(
        record and archived.reports and archived.message["message_id"] in facts.unread
        for archived, record in facts.messages
    )
    newer = "; a newer message is not processed yet" if is_news else ""
    if facts.current is not None:
        row = facts.current.row
        return "delivered" if row["success"] else "failed", f"{_current(row)}{newer}"
    for stored in facts.of(tables.WAITING_REPORTS):
        until = spelled(stored.row["enqueued_at"] + options.patience)
        return "waiting", (
            f"{spelled_outcome(stored.row)}, but its send is not in the send log; it is waited for until "
            f"{until}{newer}"
        )
    if is_news:
        return "not processed", "reported; no epoch has brought the report into the tables yet"
    reported = {
        each.message["message_id"] for each, record in facts.messages if record and each.reports
    }
    if not reported.isdisjoint(_open_failures(facts)):
        return "failed event", "reported by a failed event, which can be decoded now"
    if reported:
        return "missing", "reported: the archive has the report, and no table has it"
    return _without_report(facts, options)


def _current(row: Row) -> str:
    count = row["revision"]
    revisions = "1 revision" if count == 1 else f"{count} revisions"
    orphan = "; an orphan: its send is not in the send log" if is_orphan(row) else ""
    answer = "; Alibaba's answer, not a report from a queue" if row["origin"] == "query" else ""
    return f"{spelled_outcome(row)}; {revisions}; current is revision {count}{answer}{orphan}"


def _without_report(facts: Facts, options: ExplainOptions) -> tuple[State, str]:
    answer, asked = _last_answer(facts), ""
    if answer is not None:
        asked = f"; asked at {spelled(answer['enqueued_at'])}, Alibaba said: {told(answer)}"
    for stored in facts.of(tables.OPEN_SENDS):
        until = spelled(stored.row["requested_at"] + options.patience)
        return "open", f"no report yet; it is waited for until {until}{asked}"
    if facts.of(tables.UNREPORTED_SENDS):
        return "unreported", f"no report came within the patience{asked}"
    if any(logged.entry for logged in facts.logged):
        return "not processed", "logged; no epoch has brought it into the tables yet"
    if any(record for _, record in facts.messages) or answer is not None:
        return "missing", f"Alibaba was asked about it, and no table has its send{asked}"
    return "failed event", "only known from what cannot be decoded"


def next_steps(facts: Facts, options: ExplainOptions, state: State, now: datetime) -> Iterator[str]:
    """Say what the operator can do, a step a line; nothing if all is well."""
    places = f"--dataset={shlex.quote(options.dataset)} --archive={shlex.quote(options.archive)}"
    for message_id in _open_failures(facts):
        yield f"sms-receipts replay --message_id={shlex.quote(message_id)} {places}"
    if state == "not processed":
        yield "let sms-receipts run finish its next epoch"
    elif state == "missing":
        yield f"sms-receipts backfill of its day, if the archive should be in the tables ({places})"
    elif state in {"open", "unreported"}:
        yield from _ask(facts, options, now, places)
    elif state == "waiting" or (facts.current and is_orphan(facts.current.row)):
        yield "log the send just as it was given to SendSms: the next epoch joins the two"


def _ask(facts: Facts, options: ExplainOptions, now: datetime, places: str) -> Iterator[str]:
    sends = (*facts.of(tables.OPEN_SENDS), *facts.of(tables.UNREPORTED_SENDS))
    requested_at = min(stored.row["requested_at"] for stored in sends)
    age = now - requested_at
    answer = _last_answer(facts)
    if answer is not None and answer["answer"] in {"unknown", "refused"}:
        yield "compare biz_id and phone number in the send log with what SendSms was given"
    if age > _REMEMBERED:
        yield f"nothing: Alibaba answers about the last {QUERY_DAYS} days only"
    elif age < _RECONCILED_AFTER:
        yield "wait: most reports come within minutes"
    else:
        day = requested_at.astimezone(BEIJING).date()
        send_log = shlex.quote(options.send_log) if options.send_log else "..."
        yield (
            f"no report after {_duration(age)}: sms-receipts reconcile --from={day} --to={day} {places} "
            f"--send_log={send_log}"
        )


def _last_answer(facts: Facts) -> Row | None:
    return max(
        (stored.row for stored in facts.of(tables.QUERY_ANSWERS)),
        key=lambda row: row["enqueued_at"],
        default=None,
    )


def _open_failures(facts: Facts) -> Sequence[str]:
    """The messages and send log entries whose last attempt has failed."""
    last: dict[str, Row] = {}
    for stored in sorted(facts.failed, key=lambda each: int(each.row["attempt"])):
        last[stored.row["event_id"]] = stored.row
    return [row["message_id"] for row in last.values() if row["replayed_at"] is None]


def told(answer: Row) -> str:
    """Say what Alibaba answered."""
    return _ANSWERS.get(answer["answer"], answer["answer"])


def spelled(moment: datetime) -> str:
    """Spell a moment as Beijing time, to the second."""
    return f"{moment.astimezone(BEIJING):%Y-%m-%d %H:%M:%S}"


def _duration(age: timedelta) -> str:
    hours = age // timedelta(hours=1)
    return f"{hours} h" if hours < _MOST_HOURS else f"{hours // 24} days"
