"""The job record by record, as dicts: what the plain loop and the per-element Beam pipeline share.

``decode_with_validate`` is what the documentation of json, datetime and fastavro leads to;
``decode_with_msgspec`` is the same verdict from a typed C decoder.

Times become epoch milliseconds (UTC) as soon as they are parsed or read: Beam's shuffle would pickle
every single datetime, eight for a pair of records, and subtraction is faster too.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from functools import cache, partial
from hashlib import md5
from typing import Annotated, Any, Final, TypeAlias

import fastavro
import msgspec
import pyarrow as pa
import pybase64

from benchmarks.competitors import FIRST_REVISION
from schemas.contracts import contract

Record: TypeAlias = dict[str, Any]
Decode: TypeAlias = Callable[[Mapping[str, Any]], Record]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_EPOCH_BEIJING: Final = datetime(1970, 1, 1, 8)  # noqa: DTZ001 - Alibaba's times are naive too
_BEIJING_OFFSET_MS: Final = 8 * 3600 * 1000
_DAY_MS: Final = 24 * 3600 * 1000
ENRICHED: Final = contract("enriched_report").arrow
UNREPORTED: Final = contract("unreported_send").arrow
FAILED: Final = pa.schema(
    [
        ("event_id", pa.string()),
        ("reason", pa.string()),
        ("original", pa.binary()),
        ("message_id", pa.string()),
        ("enqueued_at", pa.timestamp("ms", tz="UTC")),
    ]
)
_DELIVERY_REPORT: Final = contract("delivery_report").schema
_KNOWN_FIELDS: Final = frozenset(
    ("phone_number", "success", "biz_id", "out_id", "send_time", "report_time", "err_code")
) | {"err_msg", "sms_size"}
_SEND_FIELDS: Final = (
    "sign_name", "template_code", "template_param", "sms_up_extend_code", "campaign",
    "requested_at", "request_id",
)  # fmt: skip


class BadMessageError(Exception):
    """Raised when a body is no delivery report; its text is the reason."""


def decode_with_validate(message: Mapping[str, Any], *, raise_errors: bool) -> Record:
    """Decode with json and strptime, check with ``fastavro.validate``.

    Args:
        message: A record of the archive.
        raise_errors: Ask fastavro for the reason at once (its default), which makes it compose an
            exception for each optional field that has a value; or only for a yes or no.

    Raises:
        BadMessageError: the body is no delivery report.
    """
    try:
        text = base64.b64decode(message["body"], validate=True)
    except binascii.Error:
        raise BadMessageError("malformed_base64") from None
    try:
        fields = json.loads(text)
    except ValueError:
        raise BadMessageError("malformed_json") from None
    try:
        report = _report(fields, message)
    except KeyError:
        raise BadMessageError("missing_field") from None
    except (TypeError, ValueError):
        raise BadMessageError("wrong_type") from None
    try:
        fits = fastavro.validate(report, _DELIVERY_REPORT, raise_errors=raise_errors)
    except fastavro.validation.ValidationError:
        fits = False
    if not fits:
        raise BadMessageError("wrong_type")
    return report


def _report(fields: Mapping[str, Any], message: Mapping[str, Any]) -> Record:
    report_time, sms_size = fields.get("report_time"), fields.get("sms_size")
    return {
        "biz_id": fields["biz_id"],
        "phone_number": fields.get("phone_number"),
        "success": fields["success"],
        "err_code": fields.get("err_code"),
        "err_msg": fields.get("err_msg"),
        "out_id": fields.get("out_id"),
        "sms_size": None if sms_size is None else int(sms_size),
        "send_time": _parse_time(fields["send_time"]),
        "report_time": None if report_time is None else _parse_time(report_time),
        "unknown_fields": {
            name: json.dumps(value) for name, value in fields.items() if name not in _KNOWN_FIELDS
        },
        "message_id": message["message_id"],
        "enqueued_at": _to_ms(message["enqueued_at"], _EPOCH),
    }


def _parse_time(text: str) -> int:
    return _to_ms(datetime.strptime(text, "%Y-%m-%d %H:%M:%S"), _EPOCH_BEIJING)  # noqa: DTZ007


def _to_ms(time: datetime, epoch: datetime) -> int:
    since = time - epoch
    return (since.days * 86400 + since.seconds) * 1000 + since.microseconds // 1000


class _Body(msgspec.Struct):
    success: bool
    biz_id: str
    send_time: Annotated[datetime, msgspec.Meta(tz=False)]
    phone_number: str | None = None
    report_time: Annotated[datetime, msgspec.Meta(tz=False)] | None = None
    out_id: str | None = None
    err_code: str | None = None
    err_msg: str | None = None
    sms_size: str | None = None


_parse_body: Final = msgspec.json.Decoder(_Body).decode


def decode_with_msgspec(message: Mapping[str, Any]) -> Record:
    """Decode straight into a typed struct; its types are the check.

    Raises:
        BadMessageError: the body is no delivery report.
    """
    try:
        body = _parse_body(pybase64.b64decode(message["body"], None, True))
    except (binascii.Error, ValueError):
        # The rare path knows how to name the reason.
        return decode_with_validate(message, raise_errors=False)
    return {
        "biz_id": body.biz_id,
        "phone_number": body.phone_number,
        "success": body.success,
        "err_code": body.err_code,
        "err_msg": body.err_msg,
        "out_id": body.out_id,
        "sms_size": None if body.sms_size is None else int(body.sms_size),
        "send_time": _to_ms(body.send_time, _EPOCH_BEIJING),
        "report_time": body.report_time and _to_ms(body.report_time, _EPOCH_BEIJING),
        "unknown_fields": {},
        "message_id": message["message_id"],
        "enqueued_at": _to_ms(message["enqueued_at"], _EPOCH),
    }


WITH_VALIDATE: Final[Decode] = partial(decode_with_validate, raise_errors=True)
WITH_QUIET_VALIDATE: Final[Decode] = partial(decode_with_validate, raise_errors=False)


def from_send_log(entry: Mapping[str, Any]) -> Record:
    """Take a send log entry as fastavro read it."""
    return {**entry, "requested_at": _to_ms(entry["requested_at"], _EPOCH)}


def key(record: Mapping[str, Any]) -> tuple[str, str]:
    """Join reports and sends on this. In this input every report has its phone number."""
    return record["biz_id"], record["phone_number"]


def first(reports: Iterable[Record]) -> Record:
    """Choose the report that counts among those of one key."""
    return min(reports, key=lambda report: (report["enqueued_at"], report["message_id"]))


def enrich(report: Record, send: Mapping[str, Any] | None) -> Record:
    """Join a report with its send log entry; returns a row of ``enriched_reports``."""
    found = send or {}
    requested_at, report_time = found.get("requested_at"), report["report_time"]
    return {
        **report,
        "event_id": _event_id(report),
        "revision": FIRST_REVISION,
        "match": "matched" if send else "orphan",
        "origin": "mns",
        "out_id": report["out_id"] or found.get("out_id"),
        "unknown_fields": list(report["unknown_fields"].items()),
        **{name: found.get(name) for name in _SEND_FIELDS},
        "tags": list(found.get("tags", {}).items()),
        "queueing_ms": _elapsed_ms(requested_at, report["send_time"]),
        "carrier_ms": _elapsed_ms(report["send_time"], report_time),
        "total_ms": _elapsed_ms(requested_at, report_time),
    }


def unreported(send: Mapping[str, Any]) -> Record:
    """Turn a send without a report into a row of ``unreported_sends``."""
    return {**send, "event_id": _event_id(send), "tags": list(send["tags"].items())}


def failed(message: Mapping[str, Any], reason: str) -> Record:
    """Turn a bad message into a row of ``failed_events``."""
    return {
        "event_id": md5(f"failed|{message['message_id']}".encode()).hexdigest(),
        "reason": reason,
        "original": message["body"],
        "message_id": message["message_id"],
        "enqueued_at": _to_ms(message["enqueued_at"], _EPOCH),
    }


def beijing_day(time_ms: int) -> str:
    """Name the partition that a time belongs to."""
    return _day_name((time_ms + _BEIJING_OFFSET_MS) // _DAY_MS)


@cache
def _day_name(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).date().isoformat()


def _event_id(record: Mapping[str, Any]) -> str:
    return md5(f"{record['biz_id']}|{record['phone_number'] or ''}".encode()).hexdigest()


def _elapsed_ms(start_ms: int | None, end_ms: int | None) -> int | None:
    return None if start_ms is None or end_ms is None else end_ms - start_ms
