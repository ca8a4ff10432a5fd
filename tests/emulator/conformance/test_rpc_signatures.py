"""The RPC gateway: signature v1, ACS3 (v3), time stamps, nonces, what is mandatory."""

from __future__ import annotations

import pytest

from tests.emulator.conformance.cloud import Cloud, encode, form, sign_v1, sign_v3
from tests.emulator.conformance.sources import case, source

TOKEN = "QueryTokenForMnsQueue"
MISMATCH = (400, "SignatureDoesNotMatch")
INCOMPLETE = (400, "IncompleteSignature")
BAD_FORMAT = (400, "InvalidTimeStamp.Format")
OK = (200, "OK")
NO_KEY = (404, "InvalidAccessKeyId.NotFound")
NO_ACTION = (404, "InvalidAction.NotFound")
BAD_VERSION = (400, "InvalidVersion")
OWNER = {"OwnerId": "1", "ResourceOwnerAccount": "a", "ResourceOwnerId": "2"}


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        case("protocol 2", "a key that does not exist", {"AccessKeyId": "nobody"}, NO_KEY),
        case("protocol 2", "a wrong signature", {"Signature": "d3Jvbmc="}, MISMATCH),
        case("protocol 2", "an empty signature", {"Signature": ""}, MISMATCH),
        case("protocol 2", "another method", {"SignatureMethod": "HMAC-MD5"}, INCOMPLETE),
        case("protocol 2", "no method", {"SignatureMethod": None}, INCOMPLETE),
        case("protocol 2", "another version of it", {"SignatureVersion": "2.0"}, INCOMPLETE),
        case("protocol 2", "no version of it", {"SignatureVersion": None}, INCOMPLETE),
        case("48054", "no key", {"AccessKeyId": None}, (400, "MissingAccessKeyId")),
        case("48054", "an empty key", {"AccessKeyId": ""}, (400, "MissingAccessKeyId")),
        case("48054", "no action", {"Action": None}, (400, "MissingAction")),
        case("48054", "no version", {"Version": None}, (400, "MissingVersion")),
        case("48054", "no time stamp", {"Timestamp": None}, (400, "MissingTimestamp")),
        case("48054", "no nonce", {"SignatureNonce": None}, (400, "MissingSignatureNonce")),
        case("protocol 2", "the version of the international site", {"Version": "2018-05-01"}, BAD_VERSION),
        case("48054", "an action of no product", {"Action": "QueryToken"}, NO_ACTION),
        case("48054", "an action in lower case", {"Action": "sendsms"}, NO_ACTION),
        case("48054", "a time without a zone", {"Timestamp": "2026-09-21T14:13:20"}, BAD_FORMAT),
        case("48054", "another zone", {"Timestamp": "2026-09-21T22:13:20+08:00"}, BAD_FORMAT),
        case("48054", "parts of seconds", {"Timestamp": "2026-09-21T14:13:20.000Z"}, BAD_FORMAT),
        case("48054", "single digits", {"Timestamp": "2026-9-21T14:13:20Z"}, BAD_FORMAT),
        case("48054", "no such day", {"Timestamp": "2026-02-31T14:13:20Z"}, BAD_FORMAT),
        case("48054", "a date as of MNS", {"Timestamp": "Mon, 21 Sep 2026 14:13:20 GMT"}, BAD_FORMAT),
        case("SDK", "as Python", {"SignatureType": "", "RegionId": "cn-hangzhou"}, OK),
        case("SDK", "who owns the resource", OWNER, OK),
        case("SDK", "a queue's name", {"QueueName": "Alicom-Queue-1000000000000001-SmsReport"}, OK),
        case("protocol 2", "characters to encode", {"Extra": "a b*c~d^e/f+g%h=i&j你👍"}, OK),
    ],
)  # fmt: skip
def test_a_v1_call_is_checked(
    cloud: Cloud, given: dict[str, str | None], outcome: tuple[int, str]
) -> None:
    assert cloud.rpc.call(TOKEN, MessageType="SmsReport", **given).outcome == outcome


@pytest.mark.parametrize(
    ("late_secs", "outcome"),
    [
        case("protocol 2", "15 minutes old", -900, OK),
        case("protocol 2", "15 minutes and a second old", -901, (400, "InvalidTimeStamp.Expired")),
        case("protocol 2", "15 minutes ahead", 900, OK),
        case("protocol 2", "15 minutes and a second ahead", 901, (400, "InvalidTimeStamp.Expired")),
    ],
)
@pytest.mark.parametrize("version", ["v1", "v3"])
def test_a_clock_may_be_15_minutes_off(
    cloud: Cloud, version: str, late_secs: int, outcome: tuple[int, str]
) -> None:
    rpc, at = cloud.rpc, cloud.rpc.timestamp(late_secs)
    if version == "v1":
        reply = rpc.call(TOKEN, MessageType="SmsReport", Timestamp=at)
    else:
        query = "MessageType=SmsReport"
        reply = rpc.send("POST", query, rpc.v3(TOKEN, query, x_acs_date=at))
    assert reply.outcome == outcome


@pytest.mark.parametrize(
    ("signed_as", "method", "in_body"),
    [
        case("SDK", "a query, as Node", "GET", "GET", False),
        case("SDK", "a POST with a query, as Python", "POST", "POST", False),
        case("SDK", "a form, as Node with POST", "POST", "POST", True),
        case("protocol 2", "a GET that was signed as a POST", "POST", "GET", False),
        case("protocol 2", "a POST that was signed as a GET", "GET", "POST", True),
    ],
)
def test_the_method_is_signed(cloud: Cloud, signed_as: str, method: str, in_body: bool) -> None:
    parameters = cloud.rpc.v1(TOKEN, MessageType="SmsReport")
    text = form({"Signature": sign_v1(parameters, signed_as), **parameters})
    if in_body:
        headers = {"content-type": "application/x-www-form-urlencoded; charset=UTF-8"}
        reply = cloud.rpc.send(method, "", headers, text.encode())
    else:
        reply = cloud.rpc.send(method, text)
    assert reply.outcome == (OK if signed_as == method else MISMATCH)


@source("protocol 2")
def test_the_order_of_the_parameters_does_not_matter(cloud: Cloud) -> None:
    parameters = cloud.rpc.v1(TOKEN, MessageType="SmsReport")
    parameters["Signature"] = sign_v1(parameters)
    backwards = "&".join(f"{n}={encode(parameters[n])}" for n in sorted(parameters, reverse=True))
    assert cloud.rpc.send("GET", backwards).outcome == OK


@pytest.mark.parametrize(
    ("name", "value"),
    [
        case("protocol 2", "a changed parameter", "MessageType", "SmsUp"),
        case("protocol 2", "one more", "OwnerId", "1"),
        case("protocol 2", "another action", "Action", "SendSms"),
    ],
)
def test_a_v1_call_is_changed_after_signing(cloud: Cloud, name: str, value: str) -> None:
    parameters = cloud.rpc.v1(TOKEN, MessageType="SmsReport")
    signature = sign_v1(parameters)
    query = form({**parameters, "Signature": signature, name: value})
    assert cloud.rpc.send("GET", query).outcome == MISMATCH


@source("SDK")
def test_a_mismatch_tells_the_string_to_sign(cloud: Cloud) -> None:
    # The Python client compares it with its own, to say whether the secret is wrong.
    parameters = cloud.rpc.v1(TOKEN, MessageType="SmsReport")
    query = form({**parameters, "Signature": sign_v1(parameters, secret="wrong")})
    message = cloud.rpc.send("GET", query).json["Message"]
    assert message.endswith(f"server string to sign is:GET&%2F&{encode(form(parameters))}")


# v3


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        case("SDK", "a v3 call", {}, OK),
        case("SDK", "a port in the host", {"host": "127.0.0.1:8650"}, OK),
        case("SDK", "more signed headers", {"content_type": "application/json"}, OK),
        case("48054", "no action", {"x_acs_action": None}, (400, "Missingx-acs-action")),
        case("48054", "no version", {"x_acs_version": None}, (400, "Missingx-acs-version")),
        case("48054", "no date", {"x_acs_date": None}, (400, "Missingx-acs-date")),
        case("48054", "no nonce", {"x_acs_signature_nonce": None}, (400, "Missingx-acs-signature-nonce")),
        case("48054", "an empty nonce", {"x_acs_signature_nonce": ""}, (400, "Missingx-acs-signature-nonce")),
        case("SDK", "no host", {"host": None}, INCOMPLETE),
        case("SDK", "no hash of the body", {"x_acs_content_sha256": None}, INCOMPLETE),
        case("SDK", "another body's hash", {"x_acs_content_sha256": "0" * 64}, MISMATCH),
        case("48054", "a date as of MNS", {"x_acs_date": "Mon, 21 Sep 2026 14:13:20 GMT"}, BAD_FORMAT),
        case("48054", "another version", {"x_acs_version": "2018-05-01"}, BAD_VERSION),
        case("48054", "an unknown action", {"x_acs_action": "QueryToken"}, NO_ACTION),
    ],
)  # fmt: skip
def test_a_v3_call_is_checked(
    cloud: Cloud, headers: dict[str, str | None], outcome: tuple[int, str]
) -> None:
    query = "MessageType=SmsReport"
    signed = cloud.rpc.v3(TOKEN, query, **headers)
    assert cloud.rpc.send("POST", query, signed).outcome == outcome


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [
        case("SDK", "a key that does not exist", "Credential=account-key", "Credential=nobody", NO_KEY),
        case("SDK", "no key", "Credential=account-key", "", NO_KEY),
        case("SDK", "no signature", ",Signature=", ",S=", MISMATCH),
        case("SDK", "another signature", ",Signature=", ",Signature=00", MISMATCH),
        case("SDK", "an action that is not signed", ";x-acs-action", "", INCOMPLETE),
        case("SDK", "nothing signed", "SignedHeaders=", "Headers=", INCOMPLETE),
    ],
)  # fmt: skip
def test_a_v3_authorization_is_checked(
    cloud: Cloud, old: str, new: str, outcome: tuple[int, str]
) -> None:
    query = "MessageType=SmsReport"
    headers = cloud.rpc.v3(TOKEN, query)
    assert headers["authorization"].count(old) == 1
    headers["authorization"] = headers["authorization"].replace(old, new)
    assert cloud.rpc.send("POST", query, headers).outcome == outcome


@pytest.mark.parametrize(
    ("query", "headers", "body"),
    [
        case("SDK", "the query", "MessageType=SmsUp", {}, b""),
        case("SDK", "the host", "MessageType=SmsReport", {"host": "example.com"}, b""),
        case("SDK", "the action", "MessageType=SmsReport", {"x-acs-action": "SendSms"}, b""),
        case("SDK", "the body", "MessageType=SmsReport", {}, b"x"),
    ],
)
def test_a_v3_call_is_changed_after_signing(
    cloud: Cloud, query: str, headers: dict[str, str], body: bytes
) -> None:
    signed = cloud.rpc.v3(TOKEN, "MessageType=SmsReport")
    assert cloud.rpc.send("POST", query, signed | headers, body).outcome == MISMATCH


@source("SDK")
def test_a_v3_call_with_a_wrong_secret_is_refused(cloud: Cloud) -> None:
    query = "MessageType=SmsReport"
    headers = cloud.rpc.v3(TOKEN, query)
    del headers["authorization"]
    signed = sign_v3(query, headers, secret="wrong")
    assert cloud.rpc.send("POST", query, signed).outcome == MISMATCH


# Nonces


@pytest.mark.parametrize("second", ["v1", "v3"])
@pytest.mark.parametrize("first", ["v1", "v3"])
@source("protocol 2")
def test_a_nonce_is_good_for_one_call(cloud: Cloud, first: str, second: str) -> None:
    def call(version: str) -> tuple[int, str]:
        if version == "v1":
            reply = cloud.rpc.call(TOKEN, MessageType="SmsReport", SignatureNonce="n")
        else:
            query = "MessageType=SmsReport"
            headers = cloud.rpc.v3(TOKEN, query, x_acs_signature_nonce="n")
            reply = cloud.rpc.send("POST", query, headers)
        return reply.outcome

    assert call(first) == OK
    assert call(second) == (400, "SignatureNonceUsed")


@source("inferred")
def test_a_call_that_was_refused_does_not_use_up_its_nonce(cloud: Cloud) -> None:
    given = {"MessageType": "SmsReport", "SignatureNonce": "n"}
    assert cloud.rpc.call(TOKEN, Signature="wrong", **given).outcome == MISMATCH
    assert cloud.rpc.call(TOKEN, **given).outcome == OK


@source("inferred")
def test_a_nonce_is_remembered_as_long_as_its_time_stamp_is_accepted(cloud: Cloud) -> None:
    given = {"MessageType": "SmsReport", "SignatureNonce": "n"}
    assert cloud.rpc.call(TOKEN, Timestamp=cloud.rpc.timestamp(900), **given).outcome == OK
    cloud.wait(1800)
    assert cloud.rpc.call(TOKEN, **given).outcome == (400, "SignatureNonceUsed")
    cloud.wait(1)
    assert cloud.rpc.call(TOKEN, **given).outcome == OK
