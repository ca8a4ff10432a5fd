"""Every documented shape becomes one record with every field in its place."""

from datetime import datetime, timezone
from typing import Any

import pytest

from schemas.contracts import contract
from tests.decode.samples import (
    ENQUEUED_AT,
    GLOBE,
    INTERNATIONAL,
    MAINLAND,
    OLDER_INTERNATIONAL,
    REPLY,
    beijing,
    body_of,
    decode,
    json_text,
)

ORIGIN = {"message_id": "M0", "enqueued_at": ENQUEUED_AT}
MAINLAND_ROW: dict[str, Any] = {
    **MAINLAND,
    "sms_size": 1,
    "send_time": datetime(2026, 11, 1, 4, 0, tzinfo=timezone.utc),
    "report_time": datetime(2026, 11, 1, 4, 0, 3, tzinfo=timezone.utc),
    "unknown_fields": [],
    **ORIGIN,
    "origin": "mns",
}


def report(value: object, message_type: str = "SmsReport") -> dict[str, Any]:
    decoded = decode(body_of(value), message_type=message_type)
    assert decoded.failed.to_pylist() == []
    assert decoded.inbound.num_rows == 0
    (row,) = decoded.reports.to_pylist()
    return dict(row)


def reply(value: object) -> dict[str, Any]:
    decoded = decode(body_of(value), message_type="SmsUp")
    assert decoded.failed.to_pylist() == []
    assert decoded.reports.num_rows == 0
    (row,) = decoded.inbound.to_pylist()
    return dict(row)


def test_a_mainland_report_keeps_all_nine_fields() -> None:
    assert report(MAINLAND) == MAINLAND_ROW


def test_a_verify_report_is_a_mainland_report() -> None:
    assert report(MAINLAND, "DypnsSmsVerifyReport") == MAINLAND_ROW


def test_a_plain_body_is_taken_like_a_base64_one() -> None:
    decoded = decode(json_text(MAINLAND), body_of(MAINLAND), json_text({**MAINLAND, "x": 1}))
    assert decoded.reports.slice(0, 1).to_pylist() == [MAINLAND_ROW]
    assert decoded.counts["plain_bodies"] == 2
    assert decoded.counts["reports"] == 3


def test_only_success_biz_id_and_send_time_are_needed() -> None:
    floor = {name: MAINLAND[name] for name in ("success", "biz_id", "send_time")}
    optional = ("phone_number", "err_code", "err_msg", "out_id", "sms_size", "report_time")
    expected = {**MAINLAND_ROW, **dict.fromkeys(optional)}
    assert report(floor) == expected
    assert report({**floor, **dict.fromkeys(optional)}) == expected


def test_an_empty_phone_number_is_an_absent_one() -> None:
    assert report({**MAINLAND, "phone_number": ""}) == {**MAINLAND_ROW, "phone_number": None}


def test_a_failure_without_a_code_and_a_success_with_another_code_are_kept_as_sent() -> None:
    assert report({**MAINLAND, "success": False, "err_code": ""})["err_code"] == ""
    assert report({**MAINLAND, "err_code": "UNKNOW"})["err_code"] == "UNKNOW"


@pytest.mark.parametrize(("spelling", "success"), [("true", True), ("false", False)])
def test_success_in_quotes_is_taken_and_counted(spelling: str, success: bool) -> None:
    bodies = [{**MAINLAND, "success": spelling}, MAINLAND]
    decoded = decode(*map(body_of, bodies))
    # Canonical rows come first.
    assert decoded.reports.column("success").to_pylist() == [True, success]
    assert decoded.counts["success_as_string"] == 1


@pytest.mark.parametrize(
    ("size", "expected"),
    [("1", 1), ("0", 0), ("100", 100), (7, 7), ("2147483647", 2147483647), (None, None)],
)
def test_sms_size_is_read_from_a_string_or_a_number(size: object, expected: int | None) -> None:
    assert report({**MAINLAND, "sms_size": size})["sms_size"] == expected


def test_the_four_more_fields_of_a_cpaas_report_are_kept_as_unknown() -> None:
    extra = {
        "message_id": "x1",
        "request_id": "r1",
        "sign_name": "阿里云",
        "template_code": "SMS_1",
    }
    row = report({**MAINLAND, **extra})
    assert dict(row["unknown_fields"]) == {
        "message_id": '"x1"',
        "request_id": '"r1"',
        "sign_name": '"阿里云"',
        "template_code": '"SMS_1"',
    }
    assert row["message_id"] == "M0"


def test_an_unknown_field_keeps_its_exact_json_text() -> None:
    text = b'{"biz_id":"1^0","success":true,"send_time":"2026-11-01 12:00:00","n":1.10E+2,'
    text += b'"big":123456789012345678901234567890, "o": {"a" :[1, null,"\\u4e2d\xe6\x96\x87"]} }'
    decoded = decode(body_of(text))
    (row,) = decoded.reports.to_pylist()
    assert dict(row["unknown_fields"]) == {
        "n": "1.10E+2",
        "big": "123456789012345678901234567890",
        "o": '{"a" :[1, null,"\\u4e2d文"]}',
    }
    assert decoded.counts["unknown_fields"] == 3


def test_an_international_report_has_other_names_and_rfc_822_times() -> None:
    assert report(INTERNATIONAL) == {
        "biz_id": "123230165751989145",
        "phone_number": "6581234567",
        "success": True,
        "err_code": "success",
        "err_msg": "success",
        "out_id": None,
        "sms_size": 2,
        "send_time": datetime(2021, 11, 25, 2, 27, tzinfo=timezone.utc),
        "report_time": datetime(2021, 11, 25, 2, 27, 5, tzinfo=timezone.utc),
        "unknown_fields": [("Status", '"1"')],
        **ORIGIN,
        "origin": "mns",
    }


@pytest.mark.parametrize(("status", "success"), [("1", True), ("2", False), ("6", False)])
def test_an_international_status_is_a_verdict_and_is_kept(status: str, success: bool) -> None:
    row = report({**INTERNATIONAL, "Status": status, "TaskId": 5})
    assert row["success"] is success
    assert dict(row["unknown_fields"]) == {"Status": f'"{status}"', "TaskId": "5"}


def test_an_rfc_822_offset_counts() -> None:
    row = report({**INTERNATIONAL, "SendDate": "25 Nov 2021 10:27:00 -0130"})
    assert row["send_time"] == datetime(2021, 11, 25, 11, 57, tzinfo=timezone.utc)


def test_an_older_international_report_has_yet_other_names() -> None:
    row = report(OLDER_INTERNATIONAL)
    assert dict(row.pop("unknown_fields")) == {
        "SendStatus": '"3"',
        "NumberDetail": '{"Country": "Singapore", "Region": "", "Carrier": "X"}',
    }
    assert row == {
        "biz_id": "108170158^0",
        "phone_number": "6581234567",
        "success": True,
        "err_code": "DELIVERED",
        "err_msg": "success",
        "out_id": "order-2",
        "sms_size": 1,
        "send_time": beijing("2018-03-01 08:00:00"),
        "report_time": beijing("2018-03-01 08:00:09"),
        **ORIGIN,
        "origin": "mns",
    }


def test_an_older_international_report_may_have_numbers_and_rfc_822_times() -> None:
    change = {"SendStatus": 2, "SendDate": "Thu, 1 Mar 2018 08:00:00 +0800"}
    row = report({**OLDER_INTERNATIONAL, **change})
    assert row["success"] is False
    assert row["send_time"] == beijing("2018-03-01 08:00:00")


def test_a_field_that_marks_another_shape_does_not_change_the_shape() -> None:
    row = report({**INTERNATIONAL, "success": "maybe", "": "no column"})
    assert row["biz_id"] == INTERNATIONAL["MessageId"]
    assert row["out_id"] is None
    assert dict(row["unknown_fields"]) == {
        "Status": '"1"', "success": '"maybe"', "": '"no column"'
    }  # fmt: skip


def test_a_globe_report_has_its_own_names() -> None:
    assert report(GLOBE, "GlobeSmsReport") == {
        "biz_id": "108170159^1",
        "phone_number": "6581234567",
        "success": False,
        "err_code": "EXPIRED",
        "err_msg": "expired",
        "out_id": None,
        "sms_size": None,
        "send_time": beijing("2026-11-01 12:00:00"),
        "report_time": beijing("2026-11-01 12:00:04"),
        "unknown_fields": [],
        **ORIGIN,
        "origin": "mns",
    }


def test_a_reply_keeps_all_its_fields() -> None:
    assert reply({**REPLY, "sign_name": "阿里云", "x": [1]}) == {
        **REPLY,
        "send_time": beijing("2026-11-01 12:30:00"),
        "sign_name": "阿里云",
        "unknown_fields": [("x", "[1]")],
        **ORIGIN,
    }


def test_a_reply_may_write_its_time_without_separators() -> None:
    assert reply({**REPLY, "send_time": "20261101123000"}) == reply(REPLY)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (b'"0012"', "0012"),
        (b"1234567890", "1234567890"),
        (b"12345678901234567890123", "12345678901234567890123"),
        (b"1.23456789E9", "1.23456789E9"),
        (b"null", None),
    ],
)
def test_a_sequence_id_is_exact_text(written: bytes, expected: str | None) -> None:
    text = json_text(REPLY).replace(b'"1234567890"', written)
    assert reply(text)["sequence_id"] == expected


def test_a_pushed_array_gives_a_record_for_each_entry() -> None:
    decoded = decode(body_of([MAINLAND, REPLY, INTERNATIONAL, GLOBE, OLDER_INTERNATIONAL]))
    biz_ids = [MAINLAND["biz_id"], "123230165751989145", "108170159^1", "108170158^0"]
    assert decoded.reports.column("biz_id").to_pylist() == biz_ids
    assert decoded.inbound.column("content").to_pylist() == [REPLY["content"]]
    assert decoded.counts["messages"] == decoded.counts["decoded_messages"] == 1


def test_a_pushed_array_with_one_bad_entry_fails_whole() -> None:
    decoded = decode(body_of([MAINLAND, {**MAINLAND, "success": None}, REPLY]))
    assert decoded.reports.num_rows == decoded.inbound.num_rows == 0
    assert decoded.failed.column("reason").to_pylist() == ["missing_field"]
    assert decoded.counts["failed_messages"] == 1
    assert decoded.counts["reports"] == 0


def test_every_output_has_its_contract_columns_even_when_empty() -> None:
    decoded = decode()
    assert decoded.reports.schema == contract("delivery_report").arrow
    assert decoded.inbound.schema == contract("inbound_sms").arrow
    assert decoded.failed.schema == contract("failed_event").arrow
    assert decoded.counts["messages"] == 0


def test_canonical_rows_stay_canonical_among_thousands_of_others() -> None:
    # More than one slice, the odd ones at its edges.
    bodies = [body_of({**MAINLAND, "biz_id": f"{n}^0"}) for n in range(4100)]
    odd = {
        0: body_of({**MAINLAND, "biz_id": "0^0", "x": 1}),
        1: b"%",
        1999: body_of(json_text({**MAINLAND, "biz_id": "1999^0", "err_msg": 'a "quoted" word'})),
        2000: body_of({**MAINLAND, "biz_id": "2000^0", "report_time": "never"}),
        2001: body_of(b'{"biz_id":"a",' + json_text({**MAINLAND, "biz_id": "2001^0"})[1:]),
        4099: body_of({**MAINLAND, "biz_id": "4099^0", "out_id": None}),
    }
    for row, body in odd.items():
        bodies[row] = body
    decoded = decode(*bodies)
    assert decoded.failed.column("message_id").to_pylist() == ["M1", "M2000", "M2001"]
    rows = decoded.reports.select(["biz_id", "message_id"]).to_pylist()
    assert all(f"M{row['biz_id'][:-2]}" == row["message_id"] for row in rows)
    assert [row["message_id"] for row in rows[-3:]] == ["M0", "M1999", "M4099"]
    assert len(rows) == 4097
