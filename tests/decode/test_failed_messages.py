"""What does not fit becomes a failed event: original bytes, a known reason, no values."""

import base64
import hashlib
import json
from typing import Any, get_args

import pytest

from schemas.contracts import contract
from tests.decode.samples import (
    ENQUEUED_AT,
    FAILED_AT,
    GLOBE,
    INTERNATIONAL,
    MAINLAND,
    OLDER_INTERNATIONAL,
    REPLY,
    body_of,
    decode,
    json_text,
)
from transforms import failures
from transforms.decode_body import MAX_DEPTH
from transforms.validate import require_contract

CANARY = "13800001111"


def mainland(**changes: Any) -> bytes:
    return body_of({**MAINLAND, **changes})


def without(sample: dict[str, Any], name: str) -> bytes:
    return body_of({key: value for key, value in sample.items() if key != name})


def text(old: bytes, new: bytes, sample: dict[str, Any] = MAINLAND) -> bytes:
    written = json_text(sample)
    assert old in written
    return body_of(written.replace(old, new))


def nested(levels: int) -> bytes:
    return text(b'"order-1"', b"[" * levels + b"]" * levels)


TIME = "send_time: expected yyyy-MM-dd HH:mm:ss"
SIZE = "sms_size: expected a whole number up to 2147483647"
BASE64 = "expected base64 or JSON text"

# (message type, body, reason, detail)
REFUSED: list[tuple[str, bytes, str, str]] = [
    ("SmsReport", b"", "empty_body", "expected JSON text"),
    ("SmsReport", body_of([]), "empty_body", "expected at least one object"),
    ("SmsReport", b"not base64 " + CANARY.encode(), "malformed_base64", BASE64),
    ("SmsReport", body_of(MAINLAND)[:-1], "malformed_base64", BASE64),
    ("SmsReport", body_of(MAINLAND) + b"\n", "malformed_base64", BASE64),
    ("SmsReport", body_of(MAINLAND).replace(b"e", b"\xe9", 1), "malformed_base64", BASE64),
    ("SmsReport", b" " + json_text(MAINLAND), "malformed_base64", BASE64),
    ("SmsReport", b"\x00", "malformed_base64", BASE64),
    ("SmsReport", base64.b64encode(b"\xff\xfe{}"), "malformed_utf8", "expected UTF-8 text"),
    ("SmsReport", text(b"DELIVERED", b"\xed\xa0\x80"), "malformed_utf8", "expected UTF-8 text"),
    ("SmsReport", text(b"DELIVERED", b"\xc3("), "malformed_utf8", "expected UTF-8 text"),
    ("SmsReport", body_of(b'{"biz_id":'), "malformed_json", "not JSON at character 10"),
    ("SmsReport", body_of(b"hello"), "malformed_json", "not JSON at character 0"),
    ("SmsReport", body_of(b" "), "malformed_json", "not JSON at character 1"),
    ("SmsReport", text(b'"DELIVERED"', b"NaN"), "malformed_json",
     "expected numbers, not NaN or Infinity"),
    ("SmsReport", text(b'"DELIVERED"', b"-Infinity"), "malformed_json",
     "expected numbers, not NaN or Infinity"),
    ("SmsReport", text(b"DELIVERED", b"a\x00b"), "malformed_json", "not JSON at character 192"),
    ("SmsReport", body_of(json_text(MAINLAND) + b"{}"), "malformed_json",
     "not JSON at character 240"),
    ("SmsReport", text(b'"success"', b'"biz_id": "2^0", "success"'), "duplicate_key",
     "expected each field once"),
    ("SmsReport", text(b'"success": true', b'"success": true, "success": true'), "duplicate_key",
     "expected each field once"),
    ("SmsReport", text(b'"success"', b'"bi\\u007a_id" : "2^0", "success"'), "duplicate_key",
     "expected each field once"),
    ("SmsReport", text(b'"order-1"', b'{"a":1,"a":2}'), "duplicate_key",
     "expected each field once"),
    ("SmsReport", nested(MAX_DEPTH), "nested_too_deep", "expected at most 32 levels"),
    ("SmsReport", nested(30_000), "nested_too_deep", "expected at most 32 levels"),
    ("SmsReport", body_of(b"[" * 50_000), "nested_too_deep", "expected at most 32 levels"),
    ("SmsReport", body_of(b'{"a":' * 50_000), "nested_too_deep", "expected at most 32 levels"),
    ("SmsReport", text(b"DELIVERED", b"\\ud83d"), "lone_surrogate",
     "expected whole Unicode characters"),
    ("SmsReport", text(b'"sms_size": "1"', b'"\\udc00": 1'), "lone_surrogate",
     "expected whole Unicode characters"),
    ("SmsReport", text(b"DELIVERED", b"\\u0000"), "nul_character", "expected text without NUL"),
    ("SmsUp", text(b"1234567890", b"\\u0000", REPLY), "nul_character",
     "expected text without NUL"),
    ("VoiceReport", body_of(MAINLAND), "unknown_message_type",
     "message_type: expected one of SmsReport, DypnsSmsVerifyReport, GlobeSmsReport, SmsUp"),
    (CANARY, body_of(MAINLAND), "unknown_message_type",
     "message_type: expected one of SmsReport, DypnsSmsVerifyReport, GlobeSmsReport, SmsUp"),
    ("SmsReport", body_of(REPLY), "unknown_shape",
     "expected one of the fields BizId, MessageId, SendStatus, Status, biz_id, success"),
    ("SmsUp", body_of(MAINLAND), "unknown_shape",
     "expected one of the fields content, dest_code"),
    ("SmsReport", body_of({}), "unknown_shape",
     "expected one of the fields BizId, MessageId, SendStatus, Status, biz_id, success"),
    ("SmsReport", body_of(5), "unknown_shape", "expected an object or an array of objects"),
    ("SmsReport", body_of([MAINLAND, 1]), "unknown_shape",
     "expected an object or an array of objects"),
    ("SmsReport", body_of([MAINLAND, {CANARY: 1}]), "unknown_shape",
     "expected one of the fields BizId, MessageId, SendStatus, Status, biz_id, content, "
     "dest_code, message_id, status, success"),
    ("SmsReport", without(MAINLAND, "biz_id"), "missing_field", "biz_id: required"),
    ("SmsReport", without(MAINLAND, "success"), "missing_field", "success: required"),
    ("SmsReport", mainland(send_time=None), "missing_field", "send_time: required"),
    ("SmsReport", without(INTERNATIONAL, "Status"), "missing_field", "Status: required"),
    ("GlobeSmsReport", without(GLOBE, "send_date"), "missing_field", "send_date: required"),
    ("SmsUp", without(REPLY, "content"), "missing_field", "content: required"),
    ("SmsUp", without(REPLY, "dest_code"), "missing_field", "dest_code: required"),
    ("SmsReport", mainland(biz_id=""), "empty_identifier", "biz_id: expected text"),
    ("SmsReport", mainland(phone_number=int(CANARY)), "wrong_type",
     "phone_number: expected a string"),
    ("SmsReport", mainland(err_code=1), "wrong_type", "err_code: expected a string"),
    ("SmsReport", mainland(out_id={"a": CANARY}), "wrong_type", "out_id: expected a string"),
    ("SmsReport", mainland(success="True"), "wrong_type", "success: expected true or false"),
    ("SmsReport", mainland(success=1), "wrong_type", "success: expected true or false"),
    ("SmsReport", mainland(success=[True]), "wrong_type", "success: expected true or false"),
    ("SmsReport", mainland(sms_size=True), "wrong_type",
     "sms_size: expected a string or a number"),
    ("SmsReport", mainland(send_time=20261101120000), "wrong_type", "send_time: expected a string"),
    ("SmsUp", body_of({**REPLY, "sequence_id": [1]}), "wrong_type",
     "sequence_id: expected a string or a number"),
    ("SmsReport", mainland(send_time="2026-11-01T12:00:00"), "malformed_time", TIME),
    ("SmsReport", mainland(send_time="2026-11-01 12:00:00Z"), "malformed_time", TIME),
    ("SmsReport", mainland(send_time="2026-11-01 12:00:00+08:00"), "malformed_time", TIME),
    ("SmsReport", mainland(send_time="2026-11-01 12:00:00.0"), "malformed_time", TIME),
    ("SmsReport", mainland(send_time="2026-11-01 12:00"), "malformed_time", TIME),
    ("SmsReport", mainland(send_time="2026-11-1  12:00:00"), "malformed_time", TIME),
    ("SmsReport", mainland(send_time="2026-02-29 12:00:00"), "malformed_time", TIME),
    ("SmsReport", mainland(send_time="2026-13-01 12:00:00"), "malformed_time", TIME),
    ("SmsReport", mainland(send_time="2026-11-01 24:00:00"), "malformed_time", TIME),
    ("SmsReport", mainland(send_time="2026-11-01 12:00:60"), "malformed_time", TIME),
    ("SmsReport", mainland(send_time="0001-01-01 00:00:00"), "malformed_time", TIME),
    ("SmsReport", mainland(send_time="1970-01-01 07:59:59"), "malformed_time", TIME),
    ("SmsReport", mainland(send_time="9999-12-31 08:00:00"), "malformed_time", TIME),
    ("SmsReport", mainland(send_time="２026-11-01 12:00:00"), "malformed_time", TIME),
    ("SmsReport", mainland(send_time="20261101120000"), "malformed_time", TIME),
    ("SmsReport", mainland(report_time=""), "malformed_time",
     "report_time: expected yyyy-MM-dd HH:mm:ss"),
    ("SmsReport", body_of({**INTERNATIONAL, "SendDate": "2021-11-25 10:27:00"}), "malformed_time",
     "SendDate: expected an RFC 822 time with an offset"),
    ("SmsReport", body_of({**INTERNATIONAL, "SendDate": "31 Feb 2021 10:27:00 +0800"}),
     "malformed_time", "SendDate: expected an RFC 822 time with an offset"),
    ("SmsReport", body_of({**INTERNATIONAL, "SendDate": "31 Dec 9999 23:00:00 -0200"}),
     "malformed_time", "SendDate: expected an RFC 822 time with an offset"),
    ("SmsReport", body_of({**INTERNATIONAL, "SendDate": "25 Nov 2021 10:27:00 +9900"}),
     "malformed_time", "SendDate: expected an RFC 822 time with an offset"),
    ("SmsUp", body_of({**REPLY, "send_time": "2026110112000"}), "malformed_time",
     "send_time: expected yyyy-MM-dd HH:mm:ss or yyyyMMddHHmmss"),
    ("SmsReport", mainland(sms_size=1.5), "malformed_number", SIZE),
    ("SmsReport", mainland(sms_size="1.0"), "malformed_number", SIZE),
    ("SmsReport", mainland(sms_size="2147483648"), "malformed_number", SIZE),
    ("SmsReport", mainland(sms_size=10**400), "malformed_number", SIZE),
    ("SmsReport", mainland(sms_size=-1), "malformed_number", SIZE),
    ("SmsReport", mainland(sms_size=""), "malformed_number", SIZE),
    ("SmsReport", mainland(sms_size="²"), "malformed_number", SIZE),
    ("SmsReport", body_of({**INTERNATIONAL, "Status": "3"}), "unknown_status",
     "Status: expected one of 1, 2, 6"),
    ("SmsReport", body_of({**OLDER_INTERNATIONAL, "SendStatus": 1}), "unknown_status",
     "SendStatus: expected one of 2, 3"),
    ("GlobeSmsReport", body_of({**GLOBE, "status": CANARY}), "unknown_status",
     "status: expected one of 1, 2"),
]  # fmt: skip


@pytest.mark.parametrize(("message_type", "body", "reason", "detail"), REFUSED)
def test_a_message_that_does_not_fit_fails_with_its_reason(
    message_type: str, body: bytes, reason: str, detail: str
) -> None:
    decoded = decode(body_of(MAINLAND), body, message_type=message_type)
    row = decoded.failed.to_pylist()[-1]
    assert (row["reason"], row["detail"]) == (reason, detail)
    assert row["original"] == body
    assert row["message_id"] == "M1"
    assert decoded.counts[f"failed/{reason}"] >= 1
    assert decoded.counts["messages"] == 2
    if message_type == "SmsReport":  # and takes nothing else with it
        assert decoded.reports.column("message_id").to_pylist() == ["M0"]


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: refused[2])
def test_a_detail_holds_nothing_that_came_in(refused: tuple[str, bytes, str, str]) -> None:
    message_type, body, _, _ = refused
    for row in decode(body, message_type=message_type).failed.to_pylist():
        for value in (CANARY, MAINLAND["biz_id"], REPLY["content"], "order-1", "DELIVERED"):
            assert value not in row["detail"]


@pytest.mark.timeout(5)  # it took 15 s, and the square of the length
def test_a_string_that_does_not_end_is_read_once() -> None:
    body = body_of(b"[" * (MAX_DEPTH + 1) + b'"' + b'\\"' * 24_000)
    (row,) = decode(body).failed.to_pylist()
    assert row["reason"] == "nested_too_deep"


def test_the_reasons_in_code_are_the_reasons_of_the_schema() -> None:
    assert get_args(failures.Reason) == contract("failed_event").symbols("reason")
    assert get_args(failures.Stage) == contract("failed_event").symbols("stage")


def test_every_reason_is_reached() -> None:
    reached = {reason for _, _, reason, _ in REFUSED}
    with pytest.raises(failures.UnusableError) as refusal:
        require_contract("send_log_entry", {"biz_id": 1})
    of_others = {
        "damaged_archive_file",
        "malformed_avro",
        "unknown_schema",
    }  # the last two: test_sends
    of_messages = set(get_args(failures.Reason)) - of_others
    assert reached | {refusal.value.reason} == of_messages


def test_a_failed_event_tells_where_when_and_what() -> None:
    body = mainland(sms_size="one")
    (row,) = decode(body).failed.to_pylist()
    assert row == {
        "event_id": hashlib.md5(b"failed|M0").hexdigest(),
        "stage": "decode",
        "reason": "malformed_number",
        "detail": SIZE,
        "schema_name": "delivery_report",
        "schema_fingerprint": contract("delivery_report").fingerprint,
        "original": body,
        "message_id": "M0",
        "queue_name": "Alicom-Queue-1000000000000001-SmsReport",
        "message_type": "SmsReport",
        "source_file": None,
        "enqueued_at": ENQUEUED_AT,
        "failed_at": FAILED_AT,
        "attempt": 1,
        "pipeline_version": failures.PIPELINE_VERSION,
        "replayed_at": None,
    }


@pytest.mark.parametrize(
    ("message_type", "schema_name"),
    [
        ("SmsReport", "delivery_report"),
        ("GlobeSmsReport", "delivery_report"),
        ("SmsUp", "inbound_sms"),
        ("VoiceReport", "mns_message"),
    ],
)
def test_a_failed_event_names_the_contract_it_was_meant_for(
    message_type: str, schema_name: str
) -> None:
    (row,) = decode(b"", message_type=message_type).failed.to_pylist()
    assert row["schema_name"] == schema_name


def test_failed_events_fit_their_contract() -> None:
    decoded = decode(*[body for _, body, _, _ in REFUSED])
    contract("failed_event").require_batch(decoded.failed)


def test_the_original_of_a_failed_event_fails_again_in_the_same_way() -> None:
    first = decode(*[body for kind, body, _, _ in REFUSED if kind == "SmsReport"]).failed
    again = decode(*first.column("original").to_pylist()).failed
    assert again.to_pylist() == first.to_pylist()


def test_as_many_levels_as_allowed_are_kept() -> None:
    levels = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    body = json.dumps({**MAINLAND, "x": "@", "y": "[" * 99}).replace('"@"', levels).encode()
    (row,) = decode(body_of(body)).reports.to_pylist()
    assert dict(row["unknown_fields"]) == {"x": levels, "y": f'"{"[" * 99}"'}
