"""What QuerySendDetails answered about one send, as a message of the archive: written and read here.

Alibaba's answer has no BizId in its rows, only the filter had (419277); so what was asked is kept with what
was answered. The archive is the truth of these, too: an answer is decoded by the epochs, and again by a
backfill.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

import msgspec

from schemas.records import MnsMessage
from transforms.decode_body import JsonObject, Number, open_body, parse_json
from transforms.decode_times import parse_spaced
from transforms.failures import UnusableError
from transforms.keys import event_id
from transforms.moments import LATEST, from_ms, to_ms

# Both the message type and the name of the archive's directory: no queue has brought these.
QUERY_MESSAGE_TYPE: Final = "QuerySendDetails"

Answer = Literal["delivered", "failed", "awaiting", "unknown", "refused"]
# SendStatus (419277), the most telling first.
_ANSWERS: Final[Mapping[str, Answer]] = {"3": "delivered", "2": "failed", "1": "awaiting"}
_LATEST_MS: Final = to_ms(LATEST)
_MS_DIGITS: Final = len(str(_LATEST_MS))


class Question(NamedTuple):
    """A send to ask about: its key, and when the application asked for it."""

    biz_id: str
    phone_number: str
    requested_at: datetime


class _Key(msgspec.Struct):
    biz_id: str
    phone_number: str


_KEY: Final = msgspec.json.Decoder(_Key)


class AnsweredReport(NamedTuple):
    """One row of an answer that is a verdict: the part of ``delivery_report.avsc`` that the API knows."""

    biz_id: str
    phone_number: str
    success: bool
    err_code: str | None
    out_id: str | None
    send_time: datetime
    report_time: datetime | None


class DecodedAnswer(NamedTuple):
    """``query_answer.avsc`` without the message's columns, and the verdicts in it."""

    event_id: str
    question: Question
    answer: Answer
    reports: Sequence[AnsweredReport]


def query_message(
    question: Question,
    details: Sequence[Mapping[str, Any]],
    asked_at: datetime,
    *,
    refusal: str | None = None,
) -> MnsMessage:
    """Make a message of what was asked and answered.

    Args:
        question: the send.
        details: the rows of SmsSendDetailDTOs, as the API names their fields; none if it knows no such SMS.
        asked_at: when; part of the message's id, so that every asking is kept.
        refusal: the error code, if the API would not answer about this SMS.
    """
    asked = f"{question.biz_id}|{question.phone_number}|{to_ms(asked_at)}"
    body = {
        "biz_id": question.biz_id,
        "phone_number": question.phone_number,
        "requested_at_ms": to_ms(question.requested_at),
        "details": [dict(row) for row in details],
        **({"refusal": refusal} if refusal else {}),
    }
    return MnsMessage(
        message_id=f"query-{hashlib.md5(asked.encode()).hexdigest()}",
        queue_name=QUERY_MESSAGE_TYPE,
        message_type=QUERY_MESSAGE_TYPE,
        enqueued_at=asked_at,
        dequeue_count=1,
        body=json.dumps(body, ensure_ascii=False).encode(),
    )


def decode_answer(body: bytes) -> DecodedAnswer:
    """Read the body of such a message.

    Raises:
        UnusableError: it is none; nothing else is raised, whatever the bytes.
    """
    fields = parse_json(open_body(body))
    if not isinstance(fields, dict) or not isinstance(fields.get("details"), list):
        raise UnusableError("unknown_shape", "expected an object with an array named details")
    question = Question(
        _text(fields, "biz_id"), _text(fields, "phone_number"), _moment(fields, "requested_at_ms")
    )
    if _optional_text(fields, "refusal"):
        return DecodedAnswer(_event_id(question), question, "refused", ())
    statuses, reports = set(), []
    for row in fields["details"]:
        if not isinstance(row, dict):
            raise UnusableError("unknown_shape", "details: expected objects")
        status = _status(row)
        statuses.add(status)
        if _ANSWERS[status] != "awaiting":
            reports.append(_report(question, row, success=status == "3"))
    known = [word for status, word in _ANSWERS.items() if status in statuses]
    answer: Answer = known[0] if known else "unknown"
    return DecodedAnswer(_event_id(question), question, answer, reports)


def asked_key(body: bytes) -> tuple[str, str] | None:
    """Read only which send was asked about, at a tenth of the cost; the answer may be an unusable one.

    None if it is no such message.
    """
    try:
        key = _KEY.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return key.biz_id, key.phone_number


def _event_id(question: Question) -> str:
    return event_id(question.biz_id, question.phone_number)


def _report(question: Question, row: JsonObject, *, success: bool) -> AnsweredReport:
    send_time = _time(row, "SendDate")
    if send_time is None:
        raise UnusableError("missing_field", "SendDate: required")
    return AnsweredReport(
        biz_id=question.biz_id,
        phone_number=question.phone_number,
        success=success,
        err_code=_optional_text(row, "ErrCode"),
        out_id=_optional_text(row, "OutId"),
        send_time=send_time,
        report_time=_time(row, "ReceiveDate"),
    )


def _status(row: JsonObject) -> str:
    value = row.get("SendStatus")
    status = value.spelling if isinstance(value, Number) else value
    if status not in _ANSWERS:
        raise UnusableError("unknown_status", f"SendStatus: expected one of {', '.join(_ANSWERS)}")
    return str(status)


def _text(fields: JsonObject, name: str) -> str:
    value = _optional_text(fields, name)
    if not value:
        raise UnusableError("empty_identifier", f"{name}: expected text")
    return value


def _optional_text(fields: JsonObject, name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise UnusableError("wrong_type", f"{name}: expected a string")
    return value


def _time(row: JsonObject, name: str) -> datetime | None:
    text = _optional_text(row, name)
    if not text:
        return None  # an SMS without a verdict has an empty ReceiveDate
    try:
        return parse_spaced(text)
    except ValueError:
        raise UnusableError("malformed_time", f"{name}: expected yyyy-MM-dd HH:mm:ss") from None


def _moment(fields: JsonObject, name: str) -> datetime:
    value = fields.get(name)
    text = value.spelling if isinstance(value, Number) else ""
    if not text.isdigit() or len(text) > _MS_DIGITS or int(text) >= _LATEST_MS:
        raise UnusableError("malformed_number", f"{name}: expected UTC milliseconds")
    return from_ms(int(text))
