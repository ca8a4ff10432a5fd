"""Who asks? Required headers, signature v2, dates and digests (what keys are good for: test_keys)."""

from __future__ import annotations

import base64
import hashlib
from email.utils import formatdate

import pytest

from emulator.access import Keyring
from emulator.mns_auth import MnsAuthenticator, MnsRequest
from emulator.open_questions import OpenQuestions
from tests.emulator.conformance.cloud import (
    ACCOUNT_ID,
    DEFAULTS,
    KEY,
    START_MS,
    Cloud,
    LocalMns,
)
from tests.emulator.conformance.sources import case, source
from tests.emulator.mns_caller import Key, local_name, signed_headers

TARGET = "/queues/q/messages"
EMPTY = (404, "MessageNotExist")
BODY = b"<Message><MessageBody>a</MessageBody></Message>"
BODY_MD5 = hashlib.md5(BODY)
MISMATCH = (403, "SignatureDoesNotMatch")
NO_XML = (400, "InvalidContentType")
BAD_FORM = (400, "InvalidAuthorizationHeader")
V4 = (
    "MNS4-HMAC-SHA256 Credential=account-key/20260921/cn-hangzhou/mns/aliyun_v4_request,Signature=0"
)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def httpdate(late_secs: float = 0) -> str:
    return formatdate(START_MS / 1000 + late_secs, usegmt=True)


# Headers


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        case("27501", "no Authorization", {"authorization": None}, (400, "MissingAuthorizationHeader")),
        case("27501", "an empty one", {"authorization": ""}, (400, "MissingAuthorizationHeader")),
        case("27487", "a scheme alone", {"authorization": "MNS"}, BAD_FORM),
        case("27487", "no signature", {"authorization": "MNS account-key"}, BAD_FORM),
        case("27487", "an empty signature", {"authorization": "MNS account-key:"}, BAD_FORM),
        case("27487", "no key id", {"authorization": "MNS :c2ln"}, BAD_FORM),
        case("27487", "the scheme in lower case", {"authorization": "mns account-key:c2ln"}, BAD_FORM),
        case("175665", "the scheme of MQS", {"authorization": "MQS account-key:c2ln"}, BAD_FORM),
        case("SDK", "the scheme of v4", {"authorization": V4}, BAD_FORM),
        case("27501", "an unknown key", {"authorization": "MNS nobody:c2ln"}, (403, "InvalidAccessKeyId")),
        case("27501", "a wrong signature", {"authorization": "MNS account-key:c2ln"}, MISMATCH),
        case("27501", "a signature that is no base64", {"authorization": "MNS account-key:%"}, MISMATCH),
        case("27485", "no version", {"x-mns-version": None}, (400, "MissingVersionHeader")),
        case("27485", "the version of MQS", {"x-mns-version": "2014-07-08"}, (400, "InvalidVersionHeader")),
        case("27485", "an empty version", {"x-mns-version": ""}, (400, "InvalidVersionHeader")),
        case("27501", "no date", {"date": None}, (400, "MissingDateHeader")),
        case("27501", "an empty date", {"date": ""}, (400, "MissingDateHeader")),
    ],
)  # fmt: skip
def test_a_request_that_does_not_say_properly_who_asks_is_refused(
    local: LocalMns, headers: dict[str, str | None], refusal: tuple[int, str]
) -> None:
    assert local.call("GET", TARGET, headers=headers).refusal == refusal


@pytest.mark.parametrize(
    "content_type",
    [
        case("27485", "text/xml", "text/xml"),
        case("SDK", "as Python", "text/xml;charset=UTF-8"),
        case("SDK", "as Go", "application/xml"),
        case("protocol 1.2", "none", None),
        case("protocol 1.2", "anything", "application/octet-stream"),
    ],
)
@pytest.mark.parametrize("body", [b"", BODY], ids=["receive", "send"])
def test_a_content_type_is_signed_and_otherwise_ignored(
    local: LocalMns, body: bytes, content_type: str | None
) -> None:
    method = "POST" if body else "GET"
    reply = local.call(method, TARGET, body, {"content-type": content_type})
    assert reply.status == (201 if body else 404)


@pytest.mark.parametrize(
    ("content_type", "refusal"),
    [
        case("27485", "text/xml", "text/xml", EMPTY),
        case("SDK", "as Python", "text/xml;charset=UTF-8", EMPTY),
        case("SDK", "as Go", "application/xml", EMPTY),
        case("inferred", "in other letters", "Text/XML ; charset=utf-8", EMPTY),
        case("protocol 1.2", "none", None, EMPTY),
        case("SDK", "JSON", "application/json", NO_XML),
        case("SDK", "a form", "application/x-www-form-urlencoded", NO_XML),
        case("SDK", "what only begins so", "text/xmlish", NO_XML),
        case("inferred", "an empty one", "", NO_XML),
    ],
)
def test_a_content_type_is_xml_where_that_is_checked(
    content_type: str | None, refusal: tuple[int, str]
) -> None:
    mns = Cloud(OpenQuestions(check_content_type=True)).mns
    mns.create("q")
    assert mns.call("GET", TARGET, headers={"content-type": content_type}).refusal == refusal


@pytest.mark.parametrize(
    ("digest", "accepted"),
    [
        case("SDK", "base64 of the hex digits", b64(BODY_MD5.hexdigest().encode()), True),
        case("27485", "base64 of the 16 bytes", b64(BODY_MD5.digest()), True),
        case("protocol 1.4", "the hex digits themselves", BODY_MD5.hexdigest(), False),
        case("protocol 1.4", "capital hex digits", b64(BODY_MD5.hexdigest().upper().encode()), False),
        case("27501", "another body's", b64(hashlib.md5(b"b").digest()), False),
        case("27501", "half of it", b64(BODY_MD5.digest()[:8]), False),
        case("27501", "no base64", "%", False),
        case("27501", "no ASCII", "\xe9", False),
        case("27501", "empty", "", False),
    ],
)  # fmt: skip
def test_a_content_md5_is_checked(local: LocalMns, digest: str, accepted: bool) -> None:
    reply = local.call("POST", TARGET, BODY, {"content-md5": digest})
    if accepted:
        assert reply.status == 201
    else:
        assert reply.refusal == (400, "InvalidDigest")


@pytest.mark.parametrize(
    "code", [case("observed", "as the service", "InvalidDigest"), case("27501", "sic", "InvalidDegist")]
)  # fmt: skip
@pytest.mark.parametrize("digest", ["%", b64(hashlib.md5(b"b").digest())])
def test_a_wrong_digest_has_two_spellings(code: str, digest: str) -> None:
    mns = Cloud(OpenQuestions(wrong_digest_code=code)).mns
    mns.create("q")
    assert mns.call("POST", TARGET, BODY, {"content-md5": digest}).refusal == (400, code)


@source("SDK")
def test_a_digest_may_also_be_that_of_no_body(local: LocalMns) -> None:
    local.send("q", "a")
    handle = local.receive("q").text("ReceiptHandle")
    headers = {"content-md5": b64(hashlib.md5(b"").hexdigest().encode())}
    reply = local.call("DELETE", f"{TARGET}?ReceiptHandle={handle}", headers=headers)
    assert reply.status == 204


# Dates


@pytest.mark.parametrize(
    "date",
    [
        case("27485", "words", "yesterday"),
        case("27485", "ISO 8601", "2026-09-21T14:13:20Z"),
        case("27485", "another zone", "Mon, 21 Sep 2026 22:13:20 +0800"),
        case("27485", "GMT as an offset", "Mon, 21 Sep 2026 14:13:20 +0000"),
        case("27485", "no zone", "Mon, 21 Sep 2026 14:13:20"),
        case("27485", "no weekday", "21 Sep 2026 14:13:20 GMT"),
        case("27485", "RFC 850", "Monday, 21-Sep-26 14:13:20 GMT"),
        case("27485", "asctime", "Mon Sep 21 14:13:20 2026"),
        case("27485", "one digit", "Mon, 1 Sep 2026 14:13:20 GMT"),
        case("27485", "no such day", "Mon, 31 Feb 2026 14:13:20 GMT"),
        case("27485", "no such hour", "Mon, 21 Sep 2026 25:13:20 GMT"),
        case("27485", "the epoch", "1790000000"),
    ],
)
def test_a_date_is_rfc_1123_in_gmt(local: LocalMns, date: str) -> None:
    assert local.call("GET", TARGET, headers={"date": date}).refusal == (400, "InvalidDateHeader")


@pytest.mark.parametrize(
    ("late_secs", "fresh"),
    [
        case("27487", "15 minutes old", -900, True),
        case("27487", "15 minutes and a second old", -901, False),
        case("27487", "15 minutes ahead", 900, True),
        case("27487", "15 minutes and a second ahead", 901, False),
        case("27487", "years old", -1e9, False),
        case("27487", "years ahead", 1e9, False),
    ],
)
@pytest.mark.parametrize("status", [case("27501", "408", 408), case("27487", "400", 400)])
def test_a_clock_may_be_15_minutes_off(status: int, late_secs: float, fresh: bool) -> None:
    mns = Cloud(OpenQuestions(time_expired_status=status)).mns
    mns.create("q")
    reply = mns.call("GET", TARGET, headers={"date": httpdate(late_secs)})
    assert reply.refusal == (EMPTY if fresh else (status, "TimeExpired"))


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        case("27487", "instead of the date", {"date": None, "x-mns-date": httpdate()}, EMPTY),
        case("SDK", "beside the date, as Node", {"x-mns-date": httpdate()}, EMPTY),
        case("27487", "too old", {"date": None, "x-mns-date": httpdate(-901)}, (408, "TimeExpired")),
        case("27487", "no date", {"date": None, "x-mns-date": "now"}, (400, "InvalidDateHeader")),
        case("inferred", "too old beside the date", {"x-mns-date": httpdate(-901)}, EMPTY),
    ],
)  # fmt: skip
def test_a_browser_sends_x_mns_date(
    local: LocalMns, headers: dict[str, str | None], refusal: tuple[int, str]
) -> None:
    assert local.call("GET", TARGET, headers=headers).refusal == refusal


# Signatures


@source("175633")
def test_the_documents_signature_is_accepted() -> None:
    keyring = Keyring("id", "TestAccessSecret", 1, "seed")
    headers = {
        "authorization": "MNS id:uwx3yeWoILzgmvesW0BQSgfM7b8=",
        "date": "Thu, 09 Jul 2015 03:01:34 GMT",
        "x-mns-version": "2015-06-06",
    }
    request = MnsRequest("GET", "/MyQueue", "", headers, b"")
    authenticator = MnsAuthenticator(keyring, ACCOUNT_ID, DEFAULTS)
    caller = authenticator.authenticate(request, 1_436_410_894_000)
    assert caller.queue_name is None


@pytest.mark.parametrize(
    ("signed", "sent"),
    [
        case("27487", "another queue", "/queues/q/messages", "/queues/r/messages"),
        case("27487", "another path", "/queues/q", "/queues/q/messages"),
        case("27487", "a parameter more", TARGET, f"{TARGET}?numOfMessages=16"),
        case("27487", "a parameter less", f"{TARGET}?numOfMessages=16", TARGET),
        case("27487", "another value", f"{TARGET}?numOfMessages=1", f"{TARGET}?numOfMessages=16"),
        case("27487", "another order", f"{TARGET}?a=1&b=2", f"{TARGET}?b=2&a=1"),
        case("SDK", "another case", f"{TARGET}?ReceiptHandle=8", f"{TARGET}?receiptHandle=8"),
        case("SDK", "escaped on the way", f"{TARGET}?ReceiptHandle=8=", f"{TARGET}?ReceiptHandle=8%3D"),
        case("SDK", "unescaped on the way", f"{TARGET}?ReceiptHandle=8%3D", f"{TARGET}?ReceiptHandle=8="),
        case("27487", "escapes in lower case", f"{TARGET}?ReceiptHandle=%3D", f"{TARGET}?ReceiptHandle=%3d"),
        case("27487", "the absolute form", f"http://localhost{TARGET}", TARGET),
    ],
)  # fmt: skip
def test_a_signature_over_another_target_is_refused(
    local: LocalMns, signed: str, sent: str
) -> None:
    headers = signed_headers("GET", signed, b"", {"date": httpdate()}, KEY)
    reply = local.call_as_it_is("GET", sent, b"", headers)
    assert reply.refusal == MISMATCH


@pytest.mark.parametrize(
    ("name", "value", "refusal"),
    [
        case("27487", "the date", "date", httpdate(1), MISMATCH),
        case("27487", "the content type", "content-type", "text/html", MISMATCH),
        case("27487", "the digest", "content-md5", b64(hashlib.md5(b"").digest()), MISMATCH),
        case("27487", "an x-mns- header", "x-mns-user-request-id", "2", MISMATCH),
        case("27487", "one more x-mns- header", "x-mns-prefix", "a", MISMATCH),
        case("27485", "the host is not signed", "host", "example.com", EMPTY),
        case("27485", "nor the agent", "user-agent", "test", EMPTY),
        case("27485", "nor the length", "content-length", "0", EMPTY),
        case("protocol 1.2", "nor the token of an account's key", "security-token", "x", EMPTY),
    ],
)  # fmt: skip
def test_what_is_changed_after_signing(
    local: LocalMns, name: str, value: str, refusal: tuple[int, str]
) -> None:
    given = {"date": httpdate(), "x-mns-user-request-id": "1"}
    headers = signed_headers("GET", TARGET, b"", given, KEY)
    assert local.call_as_it_is("GET", TARGET, b"", headers | {name: value}).refusal == refusal


@source("27487")
def test_another_method_is_another_signature(local: LocalMns) -> None:
    headers = signed_headers("GET", TARGET, b"", {"date": httpdate()}, KEY)
    reply = local.call_as_it_is("DELETE", TARGET, b"", headers)
    assert reply.refusal == MISMATCH


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        case("27487", "a body is not signed by itself", {}, 201),
        case("27487", "but its digest is", {"content-md5": b64(BODY_MD5.digest())}, 400),
    ],
)
def test_a_body_is_changed_after_signing(
    local: LocalMns, headers: dict[str, str], status: int
) -> None:
    signed = signed_headers("POST", TARGET, BODY, {"date": httpdate(), **headers}, KEY)
    body = BODY.replace(b"a<", b"b<")
    assert local.call_as_it_is("POST", TARGET, body, signed).status == status


# What a refusal looks like


@source("27500")
def test_an_error_has_four_elements(local: LocalMns) -> None:
    reply = local.receive("q")
    assert local_name(reply.root) == "Error"
    assert [local_name(e) for e in reply.root] == ["Code", "Message", "RequestId", "HostId"]
    assert reply.text("HostId") == "http://1943695596114318.mns.cn-hangzhou.aliyuncs.com"


@source("27501")
def test_who_asks_is_settled_before_what_is_asked(cloud: Cloud) -> None:
    stranger = LocalMns(cloud, Key("nobody", "secret"))
    assert stranger.receive("gone", "numOfMessages=0").code == "InvalidAccessKeyId"
    assert stranger.call("PATCH", "/nowhere").code == "InvalidAccessKeyId"
