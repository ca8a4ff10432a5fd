"""What only HTTP can show: request targets, headers as they travel, connections."""

from __future__ import annotations

import http.client
import re
from contextlib import closing
from email.utils import parsedate_to_datetime
from uuid import uuid4

import pytest

from tests.emulator.conformance.sources import case, source
from tests.emulator.mns_caller import Key, MnsCaller, finish, signed_headers
from tests.emulator.rpc_caller import call_rpc
from tests.emulator_process import EmulatorProcess

pytestmark = pytest.mark.integration

EMPTY = (404, "MessageNotExist")
MISMATCH = (403, "SignatureDoesNotMatch")
NO_OPERATION = (400, "InvalidRequestURL")
NOW = "?waitseconds=0"


@pytest.mark.parametrize(
    ("signed", "sent", "refusal"),
    [
        case("SDK", "the absolute form", "Q/messages", "URLQ/messages", EMPTY),
        case("SDK", "with a query", f"Q/messages{NOW}", f"URLQ/messages{NOW}", EMPTY),
        case("SDK", "another authority", "Q/messages", "http://example.comQ/messages", EMPTY),
        case("27487", "the authority signed, too", "URLQ/messages", "URLQ/messages", MISMATCH),
        case("27487", "another path", "Q/messages", "URLQ/message", MISMATCH),
        case("27487", "another query", "Q/messages", f"URLQ/messages{NOW}", MISMATCH),
        case("27487", "an escaped path", "Q/messages", "Q/%6Dessages", MISMATCH),
        case("27501", "an escape is no letter", "Q/%6Dessages", "Q/%6Dessages", NO_OPERATION),
        case("27487", "escapes keep their case", "Q/messages?a=%2b", "Q/messages?a=%2B", MISMATCH),
    ],
)
def test_the_target_counts_as_it_travels(  # noqa: PLR0913 (fixtures)
    mns: MnsCaller,
    queue: str,
    emulator: EmulatorProcess,
    *,
    signed: str,
    sent: str,
    refusal: tuple[int, str],
) -> None:
    signed, sent = (
        target.replace("URL", emulator.url).replace("Q", f"/queues/{queue}", 1)
        for target in (signed, sent)
    )
    assert mns.call("GET", signed, sent_target=sent).refusal == refusal


@pytest.mark.parametrize(
    ("name", "value"),
    [
        case("27485", "another host", "host", "1000000000000001.mns.cn-hangzhou.aliyuncs.com"),
        case("SDK", "a length on GET", "content-length", "0"),
        case("SDK", "an agent", "user-agent", "aliyun-sdk-python/1.3.0"),
        case("SDK", "keep-alive", "connection", "Keep-Alive"),
    ],
)
def test_a_header_is_accepted(mns: MnsCaller, queue: str, name: str, value: str) -> None:
    assert mns.call("GET", f"/queues/{queue}/messages", headers={name: value}).refusal == EMPTY


@source("27500")
def test_the_host_id_is_the_host_that_was_called(mns: MnsCaller, queue: str) -> None:
    host = "1943695596114318.mns.cn-hangzhou.aliyuncs.com"
    reply = mns.call("GET", f"/queues/{queue}/messages", headers={"host": host})
    assert reply.refusal == (403, "AccessDenied"), "these queues are Alibaba's"
    assert reply.text("HostId") == f"http://{host}"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        case("observed", "a success", "GET", "/queues/{q}", 200),
        case("observed", "no content", "PUT", "/queues/{q}", 204),
        case("observed", "a refusal", "GET", "/queues/{q}/messages", 404),
        case("observed", "a stranger's path", "GET", "/queues/{q}/x", 400),
    ],
)
def test_an_answer_has_the_services_headers(
    mns: MnsCaller, queue: str, method: str, path: str, status: int
) -> None:
    reply = mns.call(method, path.format(q=queue))
    assert reply.status == status
    # Names as they travel: the Python client reads the request id from a case-sensitive dict.
    assert re.fullmatch("[0-9A-F]{24}", reply.headers["x-mns-request-id"])
    assert reply.headers["x-mns-version"] == "2015-06-06"
    assert reply.headers["content-type"] == "text/xml;charset=utf-8"
    assert reply.headers["server"] == "AliyunMNS"
    assert int(reply.headers.get("content-length", 0)) == len(reply.body)
    parsedate_to_datetime(reply.headers["date"])


@source("observed")
def test_each_request_has_an_id_of_its_own(mns: MnsCaller, queue: str) -> None:
    replies = [mns.receive(queue) for _ in range(10)]
    ids = {reply.headers["x-mns-request-id"] for reply in replies}
    assert ids == {reply.text("RequestId") for reply in replies}
    assert len(ids) == 10


@source("SDK")
def test_a_connection_serves_many_requests(emulator: EmulatorProcess, queue: str) -> None:
    key = Key(emulator.key_id, emulator.key_secret)
    target = f"/queues/{queue}/messages"
    body = b"<Message><MessageBody>a</MessageBody></Message>"
    with closing(http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=20)) as connection:
        statuses = []
        for method, data in (
            ("GET", b""),
            ("POST", body),
            ("GET", b""),
            ("POST", b"<"),
            ("GET", b""),
        ):
            connection.request(
                method, target, data or None, signed_headers(method, target, data, {}, key)
            )
            statuses.append(finish(connection).status)
    assert statuses == [404, 201, 200, 400, 404]


@source("protocol 2")
def test_a_refusal_of_the_gateway_is_json_with_four_texts(emulator: EmulatorProcess) -> None:
    status, answer = call_rpc(emulator, "SendPostcard")
    assert status == 404
    assert set(answer) == {"RequestId", "HostId", "Code", "Message"}
    assert answer["HostId"] == f"127.0.0.1:{emulator.port}"


@source("protocol 2")
def test_a_nonce_is_good_for_one_call(emulator: EmulatorProcess) -> None:
    nonce = str(uuid4())
    outcomes = [
        call_rpc(emulator, "QueryTokenForMnsQueue", MessageType="SmsUp", SignatureNonce=nonce)
        for _ in range(2)
    ]
    assert [(status, answer["Code"]) for status, answer in outcomes] == [
        (200, "OK"),
        (400, "SignatureNonceUsed"),
    ]
