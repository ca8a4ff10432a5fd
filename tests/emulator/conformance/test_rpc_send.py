"""SendSms and SendBatchSms: limits, refusals, and what the queues are told."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from tests.emulator.conformance.cloud import REPORTS, Cloud
from tests.emulator.conformance.sources import case, source

SEND = {"PhoneNumbers": "13800000001", "SignName": "星河商城", "TemplateCode": "SMS_154950901"}
BATCH = {
    "PhoneNumberJson": '["13800000001","13800000002"]',
    "SignNameJson": '["星河商城","星河支付"]',
    "TemplateCode": "SMS_154950901",
    "TemplateParamJson": '[{"code":"1"},{"code":"2"}]',
    "SmsUpExtendCodeJson": '["1","2"]',
}

ARRAYS = ("PhoneNumberJson", "SignNameJson", "TemplateParamJson", "SmsUpExtendCodeJson")
OK = (200, "OK")
INVALID = (200, "isv.INVALID_PARAMETERS")
ILLEGAL = (200, "isv.MOBILE_NUMBER_ILLEGAL")
TOO_MANY = (200, "isv.MOBILE_COUNT_OVER_LIMIT")
NO_TEMPLATE = (200, "isv.SMS_TEMPLATE_ILLEGAL")
BAD_JSON = (200, "isv.INVALID_JSON_PARAM")
BAD_EXTEND_CODE = (200, "isv.EXTEND_CODE_ERROR")
LENGTHS = (200, "isv.PARAM_LENGTH_LIMIT")


def numbers(count: int) -> list[str]:
    return [f"138{number:08d}" for number in range(count)]


def reports(cloud: Cloud) -> list[dict[str, Any]]:
    cloud.wait(0)
    found = []
    while (reply := cloud.mns.receive(REPORTS, "numOfMessages=16")).status == 200:
        found += [
            json.loads(base64.b64decode(b, validate=True)) for b in reply.texts("MessageBody")
        ]
    return found


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        case("protocol 4", "no number", {"PhoneNumbers": None}, (400, "MissingPhoneNumbers")),
        case("protocol 4", "an empty number", {"PhoneNumbers": ""}, (400, "MissingPhoneNumbers")),
        case("protocol 4", "no sign", {"SignName": None}, (400, "MissingSignName")),
        case("protocol 4", "no template", {"TemplateCode": None}, (400, "MissingTemplateCode")),
        case("protocol 4", "letters in a number", {"PhoneNumbers": "1380000000x"}, ILLEGAL),
        case("protocol 4", "an empty one of two", {"PhoneNumbers": "13800000001,"}, ILLEGAL),
        case("protocol 4", "a space between", {"PhoneNumbers": "13800000001, 13800000002"}, ILLEGAL),
        case("protocol 4", "1001 numbers", {"PhoneNumbers": ",".join(numbers(1001))}, TOO_MANY),
        case("protocol 4", "a template of no form", {"TemplateCode": "154950901"}, NO_TEMPLATE),
        case("protocol 4", "a parameter that is no JSON", {"TemplateParam": "code=1"}, BAD_JSON),
        case("protocol 4", "a parameter that is no object", {"TemplateParam": '["1"]'}, BAD_JSON),
        case("inferred", "a parameter without a bottom", {"TemplateParam": "[" * 10_000}, BAD_JSON),
        case("protocol 4", "an OutId of 256 characters", {"OutId": "x" * 256}, INVALID),
        case("protocol 4", "an extend code of letters", {"SmsUpExtendCode": "a"}, BAD_EXTEND_CODE),
    ],
)  # fmt: skip
def test_a_send_is_refused(
    cloud: Cloud, given: dict[str, str | None], outcome: tuple[int, str]
) -> None:
    reply = cloud.rpc.call("SendSms", **{**SEND, **given})
    assert reply.outcome == outcome
    assert "BizId" not in reply.json
    assert reports(cloud) == []


@pytest.mark.parametrize(
    "given",
    [
        case("protocol 4", "nothing but the necessary", {}),
        case("protocol 4", "parameters", {"TemplateParam": '{"code":"1"}'}),
        case("protocol 4", "an OutId of 255 characters", {"OutId": "x" * 255}),
        case("protocol 4", "an extend code", {"SmsUpExtendCode": "01"}),
        case("protocol 4", "a number abroad", {"PhoneNumbers": "8521245567"}),
        case("protocol 4", "a number with a plus", {"PhoneNumbers": "+8613800000001"}),
        case("protocol 4", "empty options", {"OutId": "", "TemplateParam": "", "SmsUpExtendCode": ""}),
    ],
)  # fmt: skip
def test_a_send_is_accepted(cloud: Cloud, given: dict[str, str]) -> None:
    reply = cloud.rpc.call("SendSms", **{**SEND, **given})
    assert reply.outcome == OK
    assert set(reply.json) == {"Code", "Message", "BizId", "RequestId"}


@source("protocol 4")
def test_1000_numbers_are_one_send_and_1000_reports(cloud: Cloud) -> None:
    recipients = numbers(1000)
    send = {**SEND, "PhoneNumbers": ",".join(recipients)}
    reply = cloud.rpc.call("SendSms", **send)
    told = reports(cloud)
    assert {report["biz_id"] for report in told} == {reply.json["BizId"]}
    assert sorted(report["phone_number"] for report in told) == recipients


@source("protocol 4")
def test_a_biz_id_is_a_number_a_caret_and_a_number(cloud: Cloud) -> None:
    biz_ids = [cloud.rpc.call("SendSms", **SEND).json["BizId"] for _ in range(10)]
    assert all(re.fullmatch(r"\d{18}\^\d", biz_id) for biz_id in biz_ids)
    assert len(set(biz_ids)) == 10


@source("protocol 4")
def test_a_send_is_not_idempotent(cloud: Cloud) -> None:
    for _ in range(2):
        cloud.rpc.call("SendSms", **SEND, OutId="order-1")
    assert len(reports(cloud)) == 2


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        case("protocol 4", "a batch", {}, OK),
        case("protocol 4", "without parameters", {"TemplateParamJson": None}, OK),
        case("protocol 4", "without extend codes", {"SmsUpExtendCodeJson": None}, OK),
        case("SDK", "parameters as texts", {"TemplateParamJson": '["{}","{}"]'}, OK),
        case("protocol 4", "one number more", {"PhoneNumberJson": json.dumps(numbers(3))}, LENGTHS),
        case("protocol 4", "one sign less", {"SignNameJson": '["星河商城"]'}, LENGTHS),
        case("protocol 4", "one parameter less", {"TemplateParamJson": '[{"code":"1"}]'}, LENGTHS),
        case("protocol 4", "one code less", {"SmsUpExtendCodeJson": '["1"]'}, LENGTHS),
        case("protocol 4", "no array", {"PhoneNumberJson": '"13800000001"'}, BAD_JSON),
        case("protocol 4", "numbers of no text", {"PhoneNumberJson": "[13800000001,2]"}, BAD_JSON),
        case("protocol 4", "no JSON", {"SignNameJson": "星河商城,星河支付"}, BAD_JSON),
        case("protocol 4", "parameters of no object", {"TemplateParamJson": "{}"}, BAD_JSON),
        case("protocol 4", "nobody", dict.fromkeys(ARRAYS, "[]"), ILLEGAL),
        case("protocol 4", "no numbers", {"PhoneNumberJson": None}, (400, "MissingPhoneNumberJson")),
        case("protocol 4", "no signs", {"SignNameJson": None}, (400, "MissingSignNameJson")),
        case("protocol 4", "no template", {"TemplateCode": None}, (400, "MissingTemplateCode")),
    ],
)  # fmt: skip
def test_a_batch_needs_arrays_of_equal_length(
    cloud: Cloud, given: dict[str, str | None], outcome: tuple[int, str]
) -> None:
    reply = cloud.rpc.call("SendBatchSms", **{**BATCH, **given})
    assert reply.outcome == outcome
    assert ("BizId" in reply.json) == (outcome == OK)
    assert len(reports(cloud)) == (2 if outcome == OK else 0)


@pytest.mark.parametrize(
    ("count", "code"),
    [
        case("protocol 4", "100 numbers", 100, "OK"),
        case("protocol 4", "101 numbers", 101, "isv.MOBILE_COUNT_OVER_LIMIT"),
    ],
)
def test_a_batch_has_100_numbers_at_most(cloud: Cloud, count: int, code: str) -> None:
    given = {
        "PhoneNumberJson": json.dumps(numbers(count)),
        "SignNameJson": json.dumps(["星河商城"] * count),
        "TemplateCode": "SMS_154950901",
    }
    assert cloud.rpc.call("SendBatchSms", **given).outcome == (200, code)
    assert len(reports(cloud)) == (count if code == "OK" else 0)


@source("protocol 4")
def test_a_batch_is_one_send_with_one_out_id(cloud: Cloud) -> None:
    biz_id = cloud.rpc.call("SendBatchSms", **BATCH, OutId="batch-1").json["BizId"]
    told = [(r["biz_id"], r["phone_number"], r["out_id"]) for r in reports(cloud)]
    assert sorted(told) == [(biz_id, f"1380000000{n}", "batch-1") for n in (1, 2)]


# What the queue is told


@source("101641")
def test_a_report_has_nine_fields_of_these_types(cloud: Cloud) -> None:
    cloud.rpc.call("SendSms", **SEND, OutId="order-1")
    (report,) = reports(cloud)
    types = {name: type(value) for name, value in report.items()}
    assert types.pop("success") is bool
    assert types == dict.fromkeys(
        (
            "phone_number", "biz_id", "out_id", "send_time", "report_time", "err_code", "err_msg",
            "sms_size",
        ),
        str,
    )  # fmt: skip
    assert (report["success"], report["err_code"], report["sms_size"]) == (True, "DELIVERED", "1")


@source("observed")
def test_a_report_has_no_out_id_when_none_was_set(cloud: Cloud) -> None:
    cloud.rpc.call("SendSms", **SEND)
    assert "out_id" not in reports(cloud)[0]


@source("101641")
def test_a_reports_times_are_beijing_times(cloud: Cloud) -> None:
    cloud.rpc.call("SendSms", **SEND)
    (report,) = reports(cloud)
    assert report["send_time"] == report["report_time"] == "2026-09-21 22:13:20"
