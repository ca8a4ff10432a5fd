"""What happened to one send, in order of time: what came in, what was decided, what counts now."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from analytics.catalog import CommitRecord
from pipeline.errors import OperatorError
from pipeline.explain.archive import ArchivedMessage, Row
from pipeline.explain.facts import (
    Facts,
    by_recipient,
    is_of,
    is_orphan,
    outcome_of,
    spelled_outcome,
)
from pipeline.explain.search import Searched, StoredRow, Traces, search
from pipeline.explain.verdict import State, next_steps, spelled, told, verdict
from pipeline.options_explain import ExplainOptions
from transforms import tables

_SEND_FIELDS: Final = (
    "template_code",
    "sign_name",
    "campaign",
    "out_id",
    "sms_up_extend_code",
    "request_id",
    "template_param",
    "tags",
)
_REPORT_FIELDS: Final = (
    "send_time",
    "report_time",
    "err_msg",
    "sms_size",
    "out_id",
    "unknown_fields",
)

_UNREAD: Final = "; no epoch has read it yet"

Kind = Literal["send log", "message", "answer", "failed", "decision"]


class Place(NamedTuple):
    """A file that holds it, as its dataset, archive or send log names it, and the commit that knows it.

    Of a file of the archive that is the commit that read it, of one of a table the commit that wrote it;
    None if none has.
    """

    file: str
    commit: CommitRecord | None
    is_read: bool


class Moment(NamedTuple):
    """Something that happened, or was decided.

    ``what`` is a sentence without personal data; there may be some in ``fields``, which say more, by column.
    """

    at: datetime
    kind: Kind
    what: str
    fields: Mapping[str, Any]
    places: Sequence[Place]
    is_current: bool = False


class Recipient(NamedTuple):
    """What happened to the SMS to one phone number; of None nobody knows to which."""

    phone_number: str | None
    moments: Sequence[Moment]
    current: Row | None
    state: State
    verdict: str
    next_steps: Sequence[str]


class Explanation(NamedTuple):
    """All recipients of a send that something is known about."""

    options: ExplainOptions
    recipients: Sequence[Recipient]
    searched: Searched


def explain(
    options: ExplainOptions, clock: Callable[[], datetime], say: Callable[[str], None]
) -> Explanation:
    """Find out everything about one send.

    Args:
        options: the flags.
        clock: the time, aware.
        say: prints a line of progress.

    Raises:
        OperatorError: nothing is known of it, or only the operator can help.
    """
    now = clock()
    explanation = tell(search(options, now, say), options, now)
    known = {recipient.phone_number for recipient in explanation.recipients}
    if not known or (options.phone_number is not None and options.phone_number not in known):
        raise OperatorError(_nothing_known(explanation))
    return explanation


def tell(traces: Traces, options: ExplainOptions, now: datetime) -> Explanation:
    """Say what traces mean."""
    wanted = {None, options.phone_number}
    recipients = [
        _recipient(facts, options, now)
        for facts in by_recipient(traces)
        if options.phone_number is None or facts.phone_number in wanted
    ]
    return Explanation(options, recipients, traces.searched)


def _nothing_known(explanation: Explanation) -> str:
    options, _, searched = explanation
    # What was mistyped may be a phone number: it is not repeated.
    of_whom = "" if options.phone_number is None else " to this --phone_number"
    hints = "" if options.send_log else " --send_log looks in the send log, too."
    if options.days is None:
        hints += " --from and --to look through all that was archived of these days."
    return (
        f"Nothing is known of this BIZ_ID{of_whom}. {' '.join([searched.sentence(), *searched.notes])} "
        f"Compare it with what SendSms answered, and quote its ^.{hints}"
    )


def _recipient(facts: Facts, options: ExplainOptions, now: datetime) -> Recipient:
    moments = [
        *_log_moments(facts, now),
        *_message_moments(facts),
        *_answers_without_message(facts),
        *_failed_moments(facts),
        *_report_decisions(facts),
        *_other_decisions(facts, options),
    ]
    state, sentence = verdict(facts, options)
    return Recipient(
        facts.phone_number,
        sorted(moments, key=lambda moment: moment.at),
        facts.current.row if facts.current else None,
        state,
        sentence,
        list(next_steps(facts, options, state, now)),
    )


# -- what came in ---------------------------------------------------------------------------------------


def _log_moments(facts: Facts, now: datetime) -> Iterator[Moment]:
    sends: dict[datetime, StoredRow] = {}
    for stored in (
        *facts.of(tables.OPEN_SENDS),
        *facts.of(tables.UNREPORTED_SENDS),
        *facts.enriched,
    ):
        if stored.row["requested_at"] is not None:
            sends.setdefault(stored.row["requested_at"], stored)
    for logged in facts.logged:
        places = [Place(logged.file, logged.read_by, is_read=True)]
        if logged.entry is not None:
            # A log that was moved is known by another name.
            is_read = logged.is_read or logged.entry["requested_at"] in sends
            what = f"SendSms was called{'' if is_read else _UNREAD}"
            fields = _fields(logged.entry, _SEND_FIELDS)
            yield Moment(logged.entry["requested_at"], "send log", what, fields, places)
        elif not facts.is_stored(logged.file):
            # Nobody knows when it was written.
            what = f"refused, {logged.failure}{'' if logged.is_read else _UNREAD}"
            yield Moment(now, "send log", what, {}, places)
    if not any(logged.entry for logged in facts.logged):
        for requested_at, stored in sends.items():
            what = "SendSms was called, as the tables have it"
            fields = _fields(stored.row, _SEND_FIELDS)
            yield Moment(requested_at, "send log", what, fields, [_written(stored)])


def _message_moments(facts: Facts) -> Iterator[Moment]:
    """A moment for each message: one that was archived twice was delivered twice."""
    copies: defaultdict[str, list[tuple[ArchivedMessage, Row | None]]] = defaultdict(list)
    for archived, record in facts.messages:
        copies[archived.message["message_id"]].append((archived, record))
    for message_id, found in copies.items():
        found.sort(key=lambda each: int(each[0].message["dequeue_count"]))
        archived, record = found[0]
        message = archived.message
        fields = {
            "message_id": message_id,
            "queue_name": message["queue_name"],
            "dequeue_count": [each.message["dequeue_count"] for each, _ in found],
        }
        places = [Place(each.file, each.read_by, is_read=True) for each, _ in found]
        kind: Kind = "message"
        if record is None:
            what = f"cannot be decoded, {archived.failure}"
            fields["original"] = message["body"]
        elif archived.answers:
            kind, what = "answer", f"Alibaba was asked: {_answered(archived)}"
            fields |= _fields(next(iter(archived.reports), {}), _REPORT_FIELDS)
            answers = facts.of(tables.QUERY_ANSWERS)
            places += [_written(stored) for stored in answers if is_of(stored, message_id)]
        else:
            what = f"{spelled_outcome(record)}, {_fate(facts, record)}"
            fields |= _fields(record, _REPORT_FIELDS)
        times = f"; archived {len(found)} times (redelivered)" if len(found) > 1 else ""
        unread = _UNREAD if message_id in facts.unread else ""
        yield Moment(message["enqueued_at"], kind, f"{what}{times}{unread}", fields, places)


def _answers_without_message(facts: Facts) -> Iterator[Moment]:
    """The answers that the archive did not give."""
    archived = {each.message["message_id"] for each, _ in facts.messages}
    for stored in facts.of(tables.QUERY_ANSWERS):
        message_id = stored.row["message_id"]
        if message_id not in archived:
            what = f"Alibaba was asked: {told(stored.row)}"
            fields = {"message_id": message_id}
            yield Moment(stored.row["enqueued_at"], "answer", what, fields, [_written(stored)])


def _answered(archived: ArchivedMessage) -> str:
    verdicts = [spelled_outcome(report) for report in archived.reports]
    return ", ".join(verdicts) or told(archived.answers[0])


def _fate(facts: Facts, report: Row) -> str:
    """What became of a report from a queue."""
    message_id = report["message_id"]
    waiting = facts.of(tables.WAITING_REPORTS)
    revisions = [each.row["revision"] for each in facts.enriched if is_of(each, message_id)]
    if revisions:
        return f"speaks for revision {max(revisions)}"
    if any(is_of(each, message_id) for each in waiting):
        return "waits for its send log entry"
    if any(outcome_of(each.row) == outcome_of(report) for each in (*facts.enriched, *waiting)):
        return "a duplicate: another message said so before"
    return "not in the tables"


def _failed_moments(facts: Facts) -> Iterator[Moment]:
    for stored in facts.failed:
        row = stored.row
        at = row["failed_at"]
        what = f"{row['stage']}, {row['reason']}: {row['detail']}"
        if row["replayed_at"] is not None:
            at, what = row["replayed_at"], "replayed with success"
        fields = _fields(row, ("message_id", "queue_name", "source_file", "original"))
        what = f"{what} (attempt {row['attempt']})"
        yield Moment(at, "failed", what, fields, [_written(stored)])


# -- what was decided -----------------------------------------------------------------------------------


def _report_decisions(facts: Facts) -> Iterator[Moment]:
    for number, stored in enumerate(facts.enriched):
        row = stored.row
        why = _why(row, [each.row for each in facts.enriched[:number]])
        match = "an orphan: no send log entry" if is_orphan(row) else "matched with its send"
        what = f"revision {row['revision']}, {spelled_outcome(row)}: {why}; {match}"
        yield _decision(facts, stored, what)


def _other_decisions(facts: Facts, options: ExplainOptions) -> Iterator[Moment]:
    for stored in facts.of(tables.WAITING_REPORTS):
        until = spelled(stored.row["enqueued_at"] + options.patience)
        what = f"{spelled_outcome(stored.row)}: waits for its send log entry until {until}"
        yield _decision(facts, stored, what)
    for stored in facts.of(tables.OPEN_SENDS):
        until = spelled(stored.row["requested_at"] + options.patience)
        yield _decision(facts, stored, f"open: waits for a report until {until}")
    late = "; one came later, so that this row counts no more" if facts.enriched else ""
    for stored in facts.of(tables.UNREPORTED_SENDS):
        yield _decision(facts, stored, f"unreported: no report had come within the patience{late}")


def _decision(facts: Facts, stored: StoredRow, what: str) -> Moment:
    at, places = facts.decided_at(stored), [_written(stored)]
    or_later = " (then or later)" if stored.is_merged else ""
    return Moment(at, "decision", f"{what}{or_later}", {}, places, stored is facts.current)


def _why(row: Row, before: Sequence[Row]) -> str:
    """Say why a row of a report was written, given those that were written before."""
    if not before:
        first = {"query": "the answer of a query", "replay": "the first report, replayed"}
        return first.get(row["origin"], "the first report")
    same = [each for each in before if outcome_of(each) == outcome_of(row)]
    if not same:
        return _why_another(row, before)
    if not is_orphan(row) and all(map(is_orphan, same)):
        return "its send log entry came"
    last = same[-1]
    if row["revision"] != last["revision"]:
        return f"revision {last['revision']} before, ranked anew"
    if row["message_id"] != last["message_id"]:
        return "an earlier report says the same"
    return "written again, with an earlier send log entry"


def _why_another(row: Row, before: Sequence[Row]) -> str:
    """Say why an outcome was written that none of those before is."""
    if row["origin"] == "query":
        return "the answer of a query, which ranks before what a queue brings"
    if row["revision"] <= max(each["revision"] for each in before):
        return "an earlier report, found later"
    highest = max(before, key=lambda each: int(each["revision"]))
    if highest["origin"] != "query":
        return "a correction: a later report says otherwise"
    is_same = (highest["success"], highest["err_code"]) == (row["success"], row["err_code"])
    agrees = "confirms" if is_same else "corrects"
    return f"the real report, which {agrees} the answer of the query and takes its place"


def _written(stored: StoredRow) -> Place:
    return Place(stored.file, stored.commit, is_read=False)


def _fields(row: Row, names: Sequence[str]) -> dict[str, Any]:
    """The fields of a row that say something."""
    return {name: row[name] for name in names if row.get(name) not in (None, {}, "")}
