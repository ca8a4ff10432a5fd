"""The shapes that Alibaba's SMS messages come in, each brought to one record.

A shape is data: which name each of our columns goes by in it, and how it spells verdicts and
times. Flags are the lowest of all documents (218006, 2017): only what every document requires is
required. A field that no column is for is kept in ``unknown_fields`` as its exact JSON text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from transforms.decode_body import JsonObject, Number, open_body, parse_json, raw_members
from transforms.decode_times import parse_compact, parse_rfc_822, parse_spaced
from transforms.failures import UnusableError

_MAX_INT: Final = 2**31 - 1
_MAX_INT_DIGITS: Final = 10

# No document and no capture shows success in quotes; taken for what it says, and counted.
_QUOTED: Final = {"true": True, "false": False}


@dataclass(frozen=True)
class TimeFormat:
    """How a shape writes times: the parsers to try in turn, and what to call them in a detail."""

    words: str
    parsers: tuple[Callable[[str], datetime], ...]


_SPACED: Final = TimeFormat("yyyy-MM-dd HH:mm:ss", (parse_spaced,))
_RFC_822: Final = TimeFormat("an RFC 822 time with an offset", (parse_rfc_822,))
_REPLY: Final = TimeFormat(
    "yyyy-MM-dd HH:mm:ss or yyyyMMddHHmmss", (parse_spaced, parse_compact)
)  # 101847 writes the first, 218006 the second
_OLD_INTERNATIONAL: Final = TimeFormat(
    "yyyy-MM-dd HH:mm:ss or an RFC 822 time with an offset", (parse_spaced, parse_rfc_822)
)


@dataclass(frozen=True)
class ReportShape:
    """One way to write a delivery report.

    Attributes:
        columns: Our column -> the field's name in this shape.
        verdicts: Status text -> success; empty where the shape has a JSON boolean.
        kept: Fields that a column takes less than all of: kept in ``unknown_fields`` as well.
        time: How it writes its times.
    """

    columns: Mapping[str, str]
    time: TimeFormat
    verdicts: Mapping[str, bool]
    kept: frozenset[str] = frozenset()

    @property
    def marks(self) -> tuple[str, str]:
        """Return the two fields that tell this shape from the others."""
        return self.columns["biz_id"], self.columns["success"]

    @property
    def known(self) -> frozenset[str]:
        """Return the fields that a column takes all of."""
        return frozenset(self.columns.values()) - self.kept


_MAINLAND_NAMES: Final = (
    "biz_id", "phone_number", "success", "err_code", "err_msg", "out_id", "sms_size", "send_time",
    "report_time",
)  # fmt: skip

# 101641 and 218006; DypnsSmsVerifyReport has the same nine fields, 414224 (cpaas) four more.
_MAINLAND: Final = ReportShape({name: name for name in _MAINLAND_NAMES}, _SPACED, {})

# 162962. Status 6 is "expired": not delivered, but not what the carrier calls a failure either.
_INTERNATIONAL: Final = ReportShape(
    columns={
        "biz_id": "MessageId",
        "phone_number": "To",
        "success": "Status",
        "err_code": "ErrorCode",
        "err_msg": "ErrorDescription",
        "sms_size": "SmsSize",
        "send_time": "SendDate",
        "report_time": "ReceiveDate",
    },
    time=_RFC_822,
    verdicts={"1": True, "2": False, "6": False},
    kept=frozenset({"Status"}),
)

# 106601 and 73871, and 106598 with NumberDetail. SendStatus 1 is "submitted": no verdict.
_OLDER_INTERNATIONAL: Final = ReportShape(
    columns={
        "biz_id": "BizId",
        "phone_number": "PhoneNumber",
        "success": "SendStatus",
        "err_code": "ErrorCode",
        "err_msg": "ErrorMessage",
        "out_id": "ExternalId",
        "sms_size": "SmsQuantity",
        "send_time": "SendDate",
        "report_time": "ReceiveDate",
    },
    time=_OLD_INTERNATIONAL,
    verdicts={"2": False, "3": True},
    kept=frozenset({"SendStatus"}),
)

# 197995: a mainland account that sends abroad.
_GLOBE: Final = ReportShape(
    columns={
        "biz_id": "message_id",
        "phone_number": "to",
        "success": "status",
        "err_code": "error_code",
        "err_msg": "error_description",
        "send_time": "send_date",
        "report_time": "receive_date",
    },
    time=_SPACED,
    verdicts={"1": True, "2": False},
)


@dataclass(frozen=True)
class ReplyShape:
    """One way to write an inbound SMS; ``marks`` and ``known`` as in :class:`ReportShape`."""

    marks: tuple[str, str]
    known: frozenset[str]


# SmsUp: 101847 and 218006; sign_name in 60127 only.
_REPLY_SHAPE: Final = ReplyShape(
    marks=("content", "dest_code"),
    known=frozenset(
        {"phone_number", "send_time", "content", "dest_code", "sequence_id", "sign_name"}
    ),
)

Shape = ReportShape | ReplyShape

# Message type -> the shapes it may have, in the order in which they are tried.
SHAPES: Final[Mapping[str, tuple[Shape, ...]]] = {
    "SmsReport": (_MAINLAND, _INTERNATIONAL, _OLDER_INTERNATIONAL),
    "DypnsSmsVerifyReport": (_MAINLAND,),
    "GlobeSmsReport": (_GLOBE,),
    "SmsUp": (_REPLY_SHAPE,),
}

# What HTTP push sends is an array of anything (101867).
_PUSHED: Final = (_MAINLAND, _INTERNATIONAL, _OLDER_INTERNATIONAL, _REPLY_SHAPE, _GLOBE)


class DeliveryReport(NamedTuple):
    """A delivery report as decoded: ``delivery_report.avsc`` without the message's columns."""

    biz_id: str
    phone_number: str | None
    success: bool
    err_code: str | None
    err_msg: str | None
    out_id: str | None
    sms_size: int | None
    send_time: datetime
    report_time: datetime | None
    unknown_fields: dict[str, str]


class InboundSms(NamedTuple):
    """An inbound SMS as decoded: ``inbound_sms.avsc`` without the message's columns."""

    phone_number: str | None
    send_time: datetime
    content: str
    dest_code: str
    sequence_id: str | None
    sign_name: str | None
    unknown_fields: dict[str, str]


class DecodedBody(NamedTuple):
    """All records of one message; ``success_as_string`` counts "true" and "false" in quotes."""

    reports: list[DeliveryReport]
    inbound: list[InboundSms]
    success_as_string: int


def schema_of(message_type: str) -> str:
    """Name the contract that a message of this type is meant for."""
    if message_type not in SHAPES:
        return "mns_message"
    return "inbound_sms" if message_type == "SmsUp" else "delivery_report"


def decode_body(message_type: str, body: bytes) -> DecodedBody:
    """Decode one message body, whichever of its known shapes it has.

    An array, as HTTP push sends them, is taken whole or not at all.

    Raises:
        UnusableError: It is none of them; nothing else is raised, whatever the bytes.
    """
    if message_type not in SHAPES:
        known = ", ".join(SHAPES)
        raise UnusableError("unknown_message_type", f"message_type: expected one of {known}")
    text = open_body(body)
    value = parse_json(text)
    if isinstance(value, dict):
        objects, shapes = [value], SHAPES[message_type]
    elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
        objects, shapes = value, _PUSHED
    else:
        raise UnusableError("unknown_shape", "expected an object or an array of objects")
    if not objects:
        raise UnusableError("empty_body", "expected at least one object")
    chosen = [_choose(shapes, each) for each in objects]
    decoded = DecodedBody([], [], 0)
    for shape, fields, unknown in zip(
        chosen, objects, _unknown_fields(text, objects, chosen), strict=True
    ):
        if isinstance(shape, ReplyShape):
            decoded.inbound.append(_decode_reply(fields, unknown))
        else:
            decoded.reports.append(_decode_report(shape, fields, unknown))
    quoted = sum(
        shape is _MAINLAND and isinstance(fields["success"], str)
        for shape, fields in zip(chosen, objects, strict=True)
    )
    return decoded._replace(success_as_string=quoted)


def _choose(shapes: Sequence[Shape], fields: JsonObject) -> Shape:
    """Take the first shape whose marks are all there, else the first with any of them.

    Fields that Alibaba may add to one shape can be the marks of another: a report of 414224 has
    a message_id, which marks a GlobeSmsReport.
    """
    for enough in (all, any):
        for shape in shapes:
            if enough(mark in fields for mark in shape.marks):
                return shape
    marks = sorted({mark for shape in shapes for mark in shape.marks})
    raise UnusableError("unknown_shape", f"expected one of the fields {', '.join(marks)}")


def _unknown_fields(
    text: str, objects: Sequence[JsonObject], shapes: Sequence[Shape]
) -> list[dict[str, str]]:
    """Return each object's fields that go to ``unknown_fields``, as their exact JSON text."""
    names = [each.keys() - shape.known for each, shape in zip(objects, shapes, strict=True)]
    if not any(names):
        return [{} for _ in objects]
    return [
        {name: raw for name, raw in members.items() if name in kept}
        for members, kept in zip(raw_members(text), names, strict=True)
    ]


def _decode_report(
    shape: ReportShape, fields: JsonObject, unknown_fields: dict[str, str]
) -> DeliveryReport:
    names = shape.columns
    biz_id = _required(names["biz_id"], _text(fields, names["biz_id"]))
    if not biz_id:
        raise UnusableError("empty_identifier", f"{names['biz_id']}: expected text")
    return DeliveryReport(
        biz_id=biz_id,
        phone_number=_phone_number(fields, names["phone_number"]),
        success=_verdict(shape, fields),
        err_code=_text(fields, names["err_code"]),
        err_msg=_text(fields, names["err_msg"]),
        out_id=_text(fields, names["out_id"]) if "out_id" in names else None,
        sms_size=_whole_number(fields, names["sms_size"]) if "sms_size" in names else None,
        send_time=_required(names["send_time"], _time(fields, names["send_time"], shape.time)),
        report_time=_time(fields, names["report_time"], shape.time),
        unknown_fields=unknown_fields,
    )


def _decode_reply(fields: JsonObject, unknown_fields: dict[str, str]) -> InboundSms:
    return InboundSms(
        phone_number=_phone_number(fields, "phone_number"),
        send_time=_required("send_time", _time(fields, "send_time", _REPLY)),
        content=_required("content", _text(fields, "content")),
        dest_code=_required("dest_code", _text(fields, "dest_code")),
        sequence_id=_text_or_number(fields, "sequence_id"),
        sign_name=_text(fields, "sign_name"),
        unknown_fields=unknown_fields,
    )


def _required(name: str, value: Any) -> Any:
    if value is None:
        raise UnusableError("missing_field", f"{name}: required")
    return value


def _text(fields: JsonObject, name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise UnusableError("wrong_type", f"{name}: expected a string")
    return value


def _phone_number(fields: JsonObject, name: str) -> str | None:
    """Read a phone number; an empty one is an absent one, so that the join knows one spelling."""
    return _text(fields, name) or None


def _text_or_number(fields: JsonObject, name: str) -> str | None:
    value = fields.get(name)
    if isinstance(value, Number):
        return value.spelling
    if value is not None and not isinstance(value, str):
        raise UnusableError("wrong_type", f"{name}: expected a string or a number")
    return value


def _verdict(shape: ReportShape, fields: JsonObject) -> bool:
    name = shape.columns["success"]
    if shape.verdicts:
        status = _required(name, _text_or_number(fields, name))
        if status not in shape.verdicts:
            expected = ", ".join(shape.verdicts)
            raise UnusableError("unknown_status", f"{name}: expected one of {expected}")
        return shape.verdicts[status]
    success = _required(name, fields.get(name))
    if isinstance(success, bool):
        return success
    if isinstance(success, str) and success in _QUOTED:
        return _QUOTED[success]
    raise UnusableError("wrong_type", f"{name}: expected true or false")


def _whole_number(fields: JsonObject, name: str) -> int | None:
    """Read a whole number of 0 to 2147483647, written as a string or as a number."""
    text = _text_or_number(fields, name)
    if text is None:
        return None
    is_whole = text.isascii() and text.isdigit() and len(text) <= _MAX_INT_DIGITS
    if not is_whole or int(text) > _MAX_INT:
        raise UnusableError("malformed_number", f"{name}: expected a whole number up to {_MAX_INT}")
    return int(text)


def _time(fields: JsonObject, name: str, time: TimeFormat) -> datetime | None:
    text = _text(fields, name)
    if text is None:
        return None
    for parse in time.parsers:
        try:
            return parse(text)
        except ValueError:
            continue
    raise UnusableError("malformed_time", f"{name}: expected {time.words}")
