"""The RPC gateway over real HTTP, both signature families, refusals of both kinds."""

from __future__ import annotations

import hashlib
import http.client
import json
from datetime import datetime, timedelta, timezone
from typing import NamedTuple
from urllib.parse import urlencode
from uuid import uuid4

import pytest

from emulator.clock import BEIJING
from emulator.signatures import (
    acs3_signature,
    acs3_string_to_sign,
    rpc_signature,
    rpc_string_to_sign,
)
from tests.emulator.mns_caller import MnsCaller
from tests.emulator_process import EmulatorProcess

pytestmark = pytest.mark.integration

SEND = {
    "Action": "SendSms",
    "PhoneNumbers": "13800000001",
    "SignName": "星河商城",
    "TemplateCode": "SMS_154950901",
}
TOKEN = {"Action": "QueryTokenForMnsQueue", "MessageType": "SmsReport"}


class Reply(NamedTuple):
    status: int
    json: dict[str, str]

    @property
    def outcome(self) -> tuple[int, str]:
        return self.status, self.json["Code"]


def timestamp(ago: timedelta = timedelta()) -> str:
    return (datetime.now(timezone.utc) - ago).strftime("%Y-%m-%dT%H:%M:%SZ")


def request(
    emulator: EmulatorProcess, method: str, target: str, body: bytes, headers: dict[str, str]
) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=20)
    try:
        connection.request(method, target, body or None, headers)
        response = connection.getresponse()
        return Reply(response.status, json.loads(response.read()))
    finally:
        connection.close()


def call(emulator: EmulatorProcess, given: dict[str, str], method: str = "GET") -> Reply:
    """Call with an RPC v1 signature; ``given`` wins over what is usual."""
    parameters = {
        "AccessKeyId": emulator.key_id,
        "Format": "JSON",
        "SignatureMethod": "HMAC-SHA1",
        "SignatureNonce": str(uuid4()),
        "SignatureVersion": "1.0",
        "Timestamp": timestamp(),
        "Version": "2017-05-25",
        **given,
    }
    text = rpc_string_to_sign(method, parameters.items())
    signed = urlencode({"Signature": rpc_signature(emulator.key_secret, text), **parameters})
    if method == "GET":
        return request(emulator, "GET", f"/?{signed}", b"", {})
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return request(emulator, "POST", "/", signed.encode(), headers)


def call_v3(
    emulator: EmulatorProcess, given: dict[str, str], headers: dict[str, str] | None = None
) -> Reply:
    """Call with an ACS3 signature."""
    query = [(name, value) for name, value in given.items() if name != "Action"]
    signed = {
        "host": f"127.0.0.1:{emulator.port}",
        "x-acs-action": given["Action"],
        "x-acs-content-sha256": hashlib.sha256(b"").hexdigest(),
        "x-acs-date": timestamp(),
        "x-acs-signature-nonce": str(uuid4()),
        "x-acs-version": "2017-05-25",
        **(headers or {}),
    }
    text = acs3_string_to_sign("POST", "/", query, signed, list(signed))
    signature = acs3_signature(emulator.key_secret, text)
    names = ";".join(sorted(signed))
    signed["authorization"] = (
        f"ACS3-HMAC-SHA256 Credential={emulator.key_id},SignedHeaders={names},Signature={signature}"
    )
    return request(emulator, "POST", f"/?{urlencode(query)}", b"", signed)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_call_is_understood_as_query_and_as_form(emulator: EmulatorProcess, method: str) -> None:
    assert call(emulator, TOKEN, method).outcome == (200, "OK")


def test_a_v3_call_is_understood(emulator: EmulatorProcess) -> None:
    assert call_v3(emulator, TOKEN).outcome == (200, "OK")


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ({"AccessKeyId": "nobody"}, 404, "InvalidAccessKeyId.NotFound"),
        ({"AccessKeyId": ""}, 400, "MissingAccessKeyId"),
        ({"Signature": "wrong"}, 400, "SignatureDoesNotMatch"),
        ({"SignatureMethod": "HMAC-MD5"}, 400, "IncompleteSignature"),
        ({"Timestamp": timestamp(timedelta(minutes=16))}, 400, "InvalidTimeStamp.Expired"),
        ({"Timestamp": "now"}, 400, "InvalidTimeStamp.Format"),
        ({"Version": "2018-05-01"}, 400, "InvalidVersion"),
        ({"Action": "QueryToken"}, 404, "InvalidAction.NotFound"),
        ({"MessageType": ""}, 400, "MissingMessageType"),
    ],
)
def test_the_gateway_refuses_with_an_http_error(
    emulator: EmulatorProcess, given: dict[str, str], status: int, code: str
) -> None:
    reply = call(emulator, TOKEN | given)
    assert reply.outcome == (status, code)
    assert set(reply.json) == {"RequestId", "HostId", "Code", "Message"}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-acs-date": timestamp(timedelta(minutes=16))}, "InvalidTimeStamp.Expired"),
        ({"x-acs-version": "2018-05-01"}, "InvalidVersion"),
        ({"x-acs-content-sha256": "0" * 64}, "SignatureDoesNotMatch"),
        ({"x-acs-signature-nonce": ""}, "Missingx-acs-signature-nonce"),
    ],
)
def test_the_gateway_refuses_v3_calls_too(
    emulator: EmulatorProcess, headers: dict[str, str], code: str
) -> None:
    assert call_v3(emulator, TOKEN, headers).outcome == (400, code)


def test_a_nonce_is_good_for_one_call(emulator: EmulatorProcess) -> None:
    nonce = {"SignatureNonce": str(uuid4())}
    assert call(emulator, TOKEN | nonce).outcome == (200, "OK")
    assert call(emulator, TOKEN | nonce).outcome == (400, "SignatureNonceUsed")


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"PhoneNumbers": "12-34"}, "isv.MOBILE_NUMBER_ILLEGAL"),
        ({"PhoneNumbers": ",".join(["13800000001"] * 1001)}, "isv.MOBILE_COUNT_OVER_LIMIT"),
        ({"TemplateCode": "154950901"}, "isv.SMS_TEMPLATE_ILLEGAL"),
        ({"TemplateParam": "{"}, "isv.INVALID_JSON_PARAM"),
        ({"TemplateParam": "[]"}, "isv.INVALID_JSON_PARAM"),
        ({"TemplateParam": "[" * 100_000}, "isv.INVALID_JSON_PARAM"),
        ({"OutId": "x" * 256}, "isv.INVALID_PARAMETERS"),
        ({"SmsUpExtendCode": "x"}, "isv.EXTEND_CODE_ERROR"),
    ],
)
def test_the_service_refuses_with_http_200(
    emulator: EmulatorProcess, given: dict[str, str], code: str
) -> None:
    reply = call(emulator, SEND | given, "POST")
    assert reply.outcome == (200, code)
    assert "BizId" not in reply.json


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"PhoneNumberJson": '["13800000001","13800000002"]'}, "isv.PARAM_LENGTH_LIMIT"),
        ({"PhoneNumberJson": '"13800000001"'}, "isv.INVALID_JSON_PARAM"),
        ({"SignNameJson": "[1]"}, "isv.INVALID_JSON_PARAM"),
        ({"TemplateParamJson": "{}"}, "isv.INVALID_JSON_PARAM"),
        ({}, "OK"),
    ],
)
def test_a_batch_needs_arrays_of_equal_length(
    emulator: EmulatorProcess, given: dict[str, str], code: str
) -> None:
    usual = {
        "Action": "SendBatchSms",
        "PhoneNumberJson": '["13800000001"]',
        "SignNameJson": '["星河商城"]',
        "TemplateCode": "SMS_154950901",
        "TemplateParamJson": '[{"code":"1"}]',
        "SmsUpExtendCodeJson": '["1"]',
    }
    assert call(emulator, usual | given).outcome == (200, code)


@pytest.mark.parametrize(
    "given",
    [
        {"PageSize": "51"},
        {"CurrentPage": "0"},
        {"CurrentPage": "9" * 5000},
        {"SendDate": "2026-11-01"},
        {"SendDate": "20200101"},
    ],
)
def test_a_query_outside_the_limits_is_refused(
    emulator: EmulatorProcess, given: dict[str, str]
) -> None:
    query = {
        "Action": "QuerySendDetails",
        "PhoneNumber": "13800000001",
        "SendDate": datetime.now(BEIJING).strftime("%Y%m%d"),
        "PageSize": "50",
        "CurrentPage": "1",
    }
    assert call(emulator, query).outcome == (200, "OK")
    assert call(emulator, query | given).outcome == (200, "isv.INVALID_PARAMETERS")


def test_a_biz_id_looks_like_alibabas(emulator: EmulatorProcess) -> None:
    first, second = (call(emulator, SEND).json["BizId"] for _ in range(2))
    assert first != second
    number, _, part = first.partition("^")
    assert (len(number), number.isdigit(), part) == (18, True, "0")


def test_a_token_consumes_its_queue_and_does_nothing_else(emulator: EmulatorProcess) -> None:
    token: dict[str, str] = call(emulator, TOKEN).json["MessageTokenDTO"]  # type: ignore[assignment]
    mns = MnsCaller(
        emulator, token["AccessKeyId"], token["AccessKeySecret"], token["SecurityToken"]
    )
    own = emulator.report_queue
    assert mns.receive(own, "peekonly=true").status in (200, 404)
    refused = [
        mns.send(own, "a"),
        mns.create(own),
        mns.call("GET", f"/queues/{own}"),
        mns.call("GET", "/queues"),
        mns.call("DELETE", f"/queues/{own}"),
        mns.receive(emulator.reply_queue),
        # Nothing is said about whether a foreign queue exists.
        mns.receive("Alicom-Queue-test-SmsUp"),
    ]
    assert {(reply.status, reply.code) for reply in refused} == {(403, "AccessDeniedByRamPolicy")}
    alone = MnsCaller(emulator, token["AccessKeyId"], token["AccessKeySecret"])
    assert alone.receive(own).code == "InvalidSecurityToken"


def test_a_tokens_times_are_beijing_times(emulator: EmulatorProcess) -> None:
    token: dict[str, str] = call(emulator, TOKEN).json["MessageTokenDTO"]  # type: ignore[assignment]
    created, expires = (
        datetime.strptime(token[name], "%Y-%m-%d %H:%M:%S").replace(tzinfo=BEIJING)
        for name in ("CreateTime", "ExpireTime")
    )
    assert expires - created == timedelta(minutes=10)
    assert abs(datetime.now(BEIJING) - created) < timedelta(minutes=1)
