"""An explanation on paper, for people and for machines.

Unless they are asked for, phone numbers are masked and texts left out: what is printed goes into tickets.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from pipeline.explain.search import REWRITING
from pipeline.explain.story import Explanation, Moment, Place, Recipient
from pipeline.explain.verdict import State, spelled

# A call may have a thousand recipients: of more than these, a line each is shown.
_RECIPIENTS_IN_FULL: Final = 5
_SHORT_LINES: Final = 50
# Free text, and what nobody knows the meaning of.
_TEXTS: Final = frozenset(
    ("err_msg", "out_id", "template_param", "tags", "unknown_fields", "original")
)
_UNITS: Final = ((bytes, "byte"), (str, "character"))
_INDENT: Final = " " * 36
# A masked number has some ten thousand readings; the digest in the id of an answer would tell the right one.
_DIGEST: Final = re.compile(r"\bquery-[0-9a-f]{32}\b")
_SHORTEST_NUMBER: Final = 7


def text(explanation: Explanation) -> str:
    """Lay an explanation out for people."""
    options, recipients, searched = explanation
    snapshot = searched.history.snapshot
    writer = _Writer(explanation)
    lines = [
        f"{options.biz_id}: {_count(recipients)}; {options.dataset} as of commit {snapshot.epoch}, "
        f"{spelled(snapshot.as_of)}. Times are Beijing time.",
    ]
    if len(recipients) > _RECIPIENTS_IN_FULL:
        lines += ["", *writer.short_lines(recipients), *_summary(recipients)]
    else:
        for recipient in recipients:
            lines += ["", *writer.lines(recipient)]
    lines += ["", searched.sentence(), *searched.notes]
    return writer.scrubbed("\n".join(lines))


def document(explanation: Explanation) -> str:
    """Write an explanation as one JSON document; its moments are UTC, its sentences name Beijing time."""
    options, recipients, searched = explanation
    writer = _Writer(explanation)
    written = json.dumps(
        {
            "biz_id": options.biz_id,
            "dataset": options.dataset,
            "epoch": searched.history.snapshot.epoch,
            "as_of": searched.history.snapshot.as_of,
            "shows_personal_data": options.shows_personal_data,
            "recipients": [writer.as_json(recipient) for recipient in recipients],
            "searched": {
                "table_files": searched.table_files,
                "archive": options.archive,
                "days": searched.days,
                "archive_files": searched.archive_files,
                "messages": searched.messages,
                "unread_archive_files": searched.unread_files,
                "send_log_files": searched.send_log_files,
                "notes": searched.notes,
            },
        },
        ensure_ascii=False,
        indent=2,
        default=datetime.isoformat,
    )
    return writer.scrubbed(written)


def mask(phone_number: str) -> str:
    """Leave of a phone number what tells a person who knows it, as 138****0000."""
    kept = 7 if len(phone_number) >= len("13800000000") else len(phone_number) // 2
    head = kept // 2
    tail = kept - head
    return f"{phone_number[:head]}{'*' * (len(phone_number) - kept)}{phone_number[-tail:] if tail else ''}"


class _Writer:
    """Writes an explanation, with or without personal data."""

    def __init__(self, explanation: Explanation) -> None:
        self._options = explanation.options
        self._numbers = sorted(
            (each.phone_number for each in explanation.recipients if each.phone_number),
            key=len,
            reverse=True,
        )

    def scrubbed(self, written: str) -> str:
        """Mask what names a person where nobody thought of it: in a file's name, say."""
        if self._options.shows_personal_data:
            return written
        for number in self._numbers:
            if len(number) >= _SHORTEST_NUMBER:
                written = written.replace(number, mask(number))
        return _DIGEST.sub("query-...", written)

    def number(self, phone_number: str | None) -> str:
        if phone_number is None:
            return "(no number)"
        return phone_number if self._options.shows_personal_data else mask(phone_number)

    def short_lines(self, recipients: Sequence[Recipient]) -> Iterator[str]:
        """A line for each recipient; what is delivered needs nobody's attention, and comes last."""
        ordered = sorted(recipients, key=lambda recipient: recipient.state == "delivered")
        for recipient in ordered[:_SHORT_LINES]:
            yield f"{self.number(recipient.phone_number):<16}  {recipient.verdict}"
        if len(ordered) > _SHORT_LINES:
            yield f"... and {len(ordered) - _SHORT_LINES:,} more"

    def lines(self, recipient: Recipient) -> Iterator[str]:
        """All about one recipient."""
        yield self.number(recipient.phone_number)
        for moment in recipient.moments:
            at = f"{spelled(moment.at)}.{moment.at.microsecond // 1000:03}"
            current = "  <- current" if moment.is_current else ""
            yield f"  {at}  {moment.kind:<8}  {moment.what}{current}"
            for more in self._more(moment):
                yield f"{_INDENT} {more}"
        yield f"Verdict: {recipient.verdict}."
        for step in recipient.next_steps:
            yield f"Next: {step}"

    def _more(self, moment: Moment) -> Iterator[str]:
        fields = [
            f"{name}={_in_line(self._shown(name, value))}" for name, value in moment.fields.items()
        ]
        if fields:
            yield ", ".join(fields)
        for place in moment.places:
            yield f"in {place.file}{_by(place)}"

    def as_json(self, recipient: Recipient) -> Mapping[str, Any]:
        """All about one recipient."""
        number = recipient.phone_number
        return {
            "phone_number": None if number is None else self.number(number),
            "state": recipient.state,
            "verdict": recipient.verdict,
            "next_steps": recipient.next_steps,
            "revision": recipient.current["revision"] if recipient.current else None,
            "history": [
                {
                    "at": moment.at,
                    "kind": moment.kind.replace(" ", "_"),
                    "what": moment.what,
                    "fields": {
                        name: self._shown(name, value) for name, value in moment.fields.items()
                    },
                    "files": [_place(place) for place in moment.places],
                    "is_current": moment.is_current,
                }
                for moment in recipient.moments
            ],
        }

    def _shown(self, name: str, value: Any) -> Any:  # noqa: ANN401 (of any column)
        if name in _TEXTS and not self._options.shows_personal_data:
            unit = next((unit for kind, unit in _UNITS if isinstance(value, kind)), "field")
            return f"({len(value):,} {unit}{'' if len(value) == 1 else 's'})"
        return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _by(place: Place) -> str:
    """Say which commit read or wrote a file."""
    if place.commit is None:
        return ""
    verb = "read" if place.is_read else "written"
    merged = ", with rows of older files" if place.commit.kind in REWRITING else ""
    return f" ({verb} by commit {place.commit.number}, {place.commit.kind}{merged})"


def _place(place: Place) -> Mapping[str, Any]:
    known = None if place.commit is None else place.commit.number
    kind = None if place.commit is None else place.commit.kind
    verb = "read_by" if place.is_read else "written_by"
    return {"file": place.file, verb: known, "commit_kind": kind}


def _in_line(value: object) -> str:
    if isinstance(value, datetime):
        return spelled(value)
    if isinstance(value, list):
        return " and ".join(map(str, value))
    return str(value)


def _count(recipients: Sequence[Recipient]) -> str:
    named = sum(recipient.phone_number is not None for recipient in recipients)
    nameless = " and what names none" if named < len(recipients) else ""
    return f"{named:,} recipient{'' if named == 1 else 's'}{nameless}"


def _summary(recipients: Sequence[Recipient]) -> Iterator[str]:
    states: Counter[State] = Counter(recipient.state for recipient in recipients)
    yield f"Verdict: {', '.join(f'{count:,} {state}' for state, count in states.most_common())}."
    for step in dict.fromkeys(step for recipient in recipients for step in recipient.next_steps):
        yield f"Next: {step}"
    yield "--phone_number=... tells all about one of them; --json about every one."
