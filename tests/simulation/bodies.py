"""Message bodies as Alibaba writes them, together with what they mean.

The meaning is written down beside the body, not read out of it: nothing of the project decodes it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime
from random import Random
from typing import Any, Final, NamedTuple

from tests.job.oracle import BEIJING, Row

REPORTS: Final = "SmsReport"
REPLIES: Final = "SmsUp"

_FAILURES: Final = ("UNDELIV", "EXPIRED", "MK:0001", "REJECTED")
_OPTIONAL: Final = ("report_time", "err_msg", "err_code", "sms_size", "out_id")
_CONTENTS: Final = ("退订", "TD", "1", "好的，谢谢 & <再见>", "zero\ttab")


@dataclass(frozen=True)
class Sms:
    """One SMS to one number; times are aware, to the second."""

    biz_id: str
    phone_number: str
    sent_at: datetime
    out_id: str | None


class Draft(NamedTuple):
    """A message before it is enqueued: its text, and what it says.

    Rows lack ``message_id`` and ``enqueued_at``. Neither a report nor an inbound SMS: it must fail.
    """

    message_type: str
    body: str
    reports: Sequence[Row] = ()
    inbound: Row | None = None


class Said(NamedTuple):
    """One JSON object of a body, and the row that it means."""

    fields: Mapping[str, Any]
    row: Row


def outcome(random: Random, but: Sequence[str] = ()) -> str:
    """Choose an error code, DELIVERED mostly, that is not among ``but``."""
    if "DELIVERED" not in but and random.random() < 0.8:
        return "DELIVERED"
    return random.choice([code for code in (*_FAILURES, "DELIVERED") if code not in but])


def report(random: Random, sms: Sms, code: str, *, has_phone: bool = True) -> Draft:
    """A delivery report, in one of the shapes that the queue knows."""
    shape = random.random()
    if not has_phone or shape < 0.85:
        said = _mainland(random, sms, code, has_phone=has_phone)
    elif shape < 0.92:
        said = _international(random, sms, code)
    else:
        said = _older_international(random, sms, code)
    return Draft(REPORTS, _text(random, said.fields), [said.row])


def pushed(random: Random, batch: Sequence[tuple[Sms, str]]) -> Draft:
    """Several reports in one message, as HTTP push sends them; of different SMS."""
    said = [_mainland(random, sms, code) for sms, code in batch]
    return Draft(
        REPORTS, _text(random, [each.fields for each in said]), [each.row for each in said]
    )


def reply(random: Random, sms: Sms) -> Draft:
    """An inbound SMS."""
    at = sms.sent_at + timedelta(minutes=random.randrange(1, 30))
    number = random.randrange(10**9, 10**10)
    fields = {
        "phone_number": sms.phone_number,
        "send_time": _compact(at) if random.random() < 0.5 else _spaced(at),
        "content": random.choice(_CONTENTS),
        "dest_code": "106575258192",
        "sequence_id": number if random.random() < 0.5 else str(number),
    }
    row = {
        "phone_number": sms.phone_number,
        "send_time": at,
        "content": fields["content"],
        "dest_code": fields["dest_code"],
        "sequence_id": str(number),
        "sign_name": None,
        "unknown_fields": {},
    }
    return Draft(REPLIES, _text(random, fields), inbound=row)


def garbage(random: Random) -> Draft:
    """A body that nobody can use."""
    message_type = random.choice((REPORTS, REPORTS, REPLIES))
    moment = "2026-11-01 12:00:00"
    whole: dict[str, Any] = {"biz_id": "1^0", "success": True, "send_time": moment}
    kinds: list[str] = [
        "not base64 at all!",
        _encoded(b"\xff\xfe\x00"),
        _encoded(b"{}"),
        _encoded(b"{"),
        _encoded(b"42"),
        _encoded(b"[]"),
        _encoded(b'{"success": true, "success": true}'),
        _encoded(b"[" * 40 + b"]" * 40),
        _encoded(_json({"unheard": "of"})),
        _encoded(_json(whole | {"biz_id": ""})),
        _encoded(_json(whole | {"success": "perhaps"})),
        _encoded(_json(whole | {"send_time": "yesterday"})),
        _encoded(_json(whole | {"sms_size": "many"})),
        _encoded(_json(whole | {"phone_number": 13800000000})),
        _encoded(_json([whole, whole | {"send_time": None}])),
    ]
    return Draft(message_type, random.choice(kinds))


def _mainland(random: Random, sms: Sms, code: str, *, has_phone: bool = True) -> Said:
    reported_at = sms.sent_at + timedelta(seconds=random.randrange(1, 60))
    success = code == "DELIVERED"
    fields: dict[str, Any] = {
        "send_time": _spaced(sms.sent_at),
        "report_time": _spaced(reported_at),
        "success": success,
        "err_msg": "用户接收成功" if success else "失败",
        "err_code": code,
        "phone_number": sms.phone_number,
        "sms_size": "1" if random.random() < 0.9 else random.randrange(1, 5),
        "biz_id": sms.biz_id,
    }
    if sms.out_id is not None:
        fields["out_id"] = sms.out_id
    if not has_phone:
        _leave_out(random, fields, "phone_number", "")
    if random.random() < 0.1:
        _leave_out(random, fields, random.choice(_OPTIONAL), None)
    row: Row = {
        **_row(fields),
        "send_time": sms.sent_at,
        "report_time": reported_at if fields.get("report_time") else None,
    }
    if random.random() < 0.05:
        fields["success"] = str(success).lower()
    if random.random() < 0.05:
        row["unknown_fields"] = _add_unknown(fields, "channel", {"name": "三网", "id": 7})
    return Said(fields, row)


def _row(fields: Mapping[str, Any]) -> Row:
    names = ("biz_id", "phone_number", "success", "err_code", "err_msg", "out_id")
    size = fields.get("sms_size")
    return {
        **{name: fields.get(name) for name in names},
        "phone_number": fields.get("phone_number") or None,
        "sms_size": None if size is None else int(size),
        "unknown_fields": {},
    }


def _leave_out(random: Random, fields: dict[str, Any], name: str, empty: object) -> None:
    """Leave a field out, or send it without a value."""
    if random.random() < 0.7 or name not in fields:
        fields.pop(name, None)
    else:
        fields[name] = empty


def _international(random: Random, sms: Sms, code: str) -> Said:
    reported_at = sms.sent_at + timedelta(seconds=random.randrange(1, 60))
    status = "1" if code == "DELIVERED" else random.choice(("2", "6"))
    fields: dict[str, Any] = {
        "To": sms.phone_number,
        "MessageId": sms.biz_id,
        "SmsSize": "2",
        "SendDate": format_datetime(sms.sent_at.astimezone(BEIJING)),
        "ReceiveDate": format_datetime(reported_at.astimezone(BEIJING)),
        "ErrorCode": code,
        "ErrorDescription": "说明",
    }
    row = _foreign_row(sms, code, reported_at) | {"sms_size": 2, "out_id": None}
    row["unknown_fields"] = _add_unknown(fields, "Status", status)
    return Said(fields, row)


def _older_international(random: Random, sms: Sms, code: str) -> Said:
    reported_at = sms.sent_at + timedelta(seconds=random.randrange(1, 60))
    fields: dict[str, Any] = {
        "PhoneNumber": sms.phone_number,
        "BizId": sms.biz_id,
        "SendDate": _spaced(sms.sent_at),
        "ReceiveDate": _spaced(reported_at),
        "ErrorCode": code,
        "ErrorMessage": "说明",
        "SmsQuantity": 1,
    }
    if sms.out_id is not None:
        fields["ExternalId"] = sms.out_id
    row = _foreign_row(sms, code, reported_at)
    unknown = _add_unknown(fields, "SendStatus", 3 if code == "DELIVERED" else "2")
    if random.random() < 0.5:
        unknown |= _add_unknown(fields, "NumberDetail", {"Country": "Singapore", "Carrier": None})
    return Said(fields, row | {"unknown_fields": unknown})


def _foreign_row(sms: Sms, code: str, reported_at: datetime) -> Row:
    return {
        "biz_id": sms.biz_id,
        "phone_number": sms.phone_number,
        "success": code == "DELIVERED",
        "err_code": code,
        "err_msg": "说明",
        "out_id": sms.out_id,
        "sms_size": 1,
        "send_time": sms.sent_at,
        "report_time": reported_at,
    }


def _add_unknown(fields: dict[str, Any], name: str, value: object) -> dict[str, str]:
    """Add a field that no column takes all of; returns how it must be kept: as its JSON text."""
    fields[name] = value
    return {name: json.dumps(value, ensure_ascii=False)}


def _text(random: Random, value: object) -> str:
    """Write a body: base64 of JSON text, as MNS carries it; some producers leave the base64 out."""
    return _json(value).decode() if random.random() < 0.05 else _encoded(_json(value))


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


def _spaced(at: datetime) -> str:
    return f"{at.astimezone(BEIJING):%Y-%m-%d %H:%M:%S}"


def _compact(at: datetime) -> str:
    return f"{at.astimezone(BEIJING):%Y%m%d%H%M%S}"
