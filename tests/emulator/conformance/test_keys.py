"""What may a key do? The account's own at its own address; a queue token with its one queue."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from emulator.open_questions import OpenQuestions
from tests.emulator.conformance.cloud import (
    ACCOUNT_ID,
    KEY,
    REPLIES,
    REPORTS,
    START_MS,
    TOKEN_LIFETIME_SECS,
    Cloud,
    LocalMns,
)
from tests.emulator.conformance.sources import case, source
from tests.emulator.mns_caller import Key

TARGET = "/queues/q/messages"
EMPTY = (404, "MessageNotExist")
BODY = b"<Message><MessageBody>a</MessageBody></Message>"
BATCH = b"<Messages>" + BODY + b"</Messages>"
DENIED = (403, "AccessDeniedByRamPolicy")
ACCESS_DENIED = (403, "AccessDenied")
MISMATCH = (403, "SignatureDoesNotMatch")
SMS_ID, SMS_INTL_ID = "1943695596114318", "1493622401794734"
FOREIGN_ID = "1000000000000002"
WRONG_SECRET = KEY._replace(secret="wrong")
# How an expired or wrong token is refused, no document says.
TOKEN_CODES = [
    case("27501", "AccessDenied", "AccessDenied"),
    case("27501", "InvalidAccessKeyId", "InvalidAccessKeyId"),
    case("inferred", "InvalidSecurityToken", "InvalidSecurityToken"),
    case("inferred", "SecurityTokenExpired", "SecurityTokenExpired"),
]


def endpoint(account_id: str, region: str = "cn-hangzhou") -> str:
    return f"{account_id}.mns.{region}.aliyuncs.com"


# Whose queues? The address begins with the id of their owner


@pytest.mark.parametrize(
    ("host", "account", "token"),
    [
        case("27485", "one's own account", endpoint(ACCOUNT_ID), EMPTY, ACCESS_DENIED),
        case("34954", "from a VPC", endpoint(ACCOUNT_ID, "cn-hangzhou-internal-vpc"), EMPTY, ACCESS_DENIED),
        case("27485", "with a port", endpoint(ACCOUNT_ID) + ":443", EMPTY, ACCESS_DENIED),
        case("27485", "in capitals", endpoint(ACCOUNT_ID).upper(), EMPTY, ACCESS_DENIED),
        case("27501", "another account", endpoint(FOREIGN_ID), ACCESS_DENIED, ACCESS_DENIED),
        case("101641", "the SMS service's", endpoint(SMS_ID), ACCESS_DENIED, EMPTY),
        case("101641", "that from a VPC", endpoint(SMS_ID, "cn-beijing-internal-vpc"), ACCESS_DENIED, EMPTY),
        case("protocol 2", "that abroad", endpoint(SMS_INTL_ID, "ap-southeast-1"), ACCESS_DENIED, EMPTY),
        case("protocol 6", "no account", "127.0.0.1:8650", EMPTY, EMPTY),
        case("inferred", "no account of Alibaba's", f"{FOREIGN_ID}.mns.example.com", EMPTY, EMPTY),
        case("inferred", "no host", None, EMPTY, EMPTY),
    ],
)  # fmt: skip
def test_a_key_is_good_for_its_accounts_queues(
    cloud: Cloud, host: str | None, account: tuple[int, str], token: tuple[int, str]
) -> None:
    for caller, refusal in ((cloud.mns, account), (cloud.token(REPORTS), token)):
        reply = caller.call("GET", f"/queues/{REPORTS}/messages", headers={"host": host})
        assert reply.refusal == refusal


@pytest.mark.parametrize(
    ("key", "late_secs", "account_id", "refusal"),
    [
        case("observed", "somebody else's queue", WRONG_SECRET, 0, FOREIGN_ID, ACCESS_DENIED),
        case("27501", "one's own queue", WRONG_SECRET, 0, ACCOUNT_ID, MISMATCH),
        case("inferred", "after the key", Key("nobody", "x"), 0, FOREIGN_ID, (403, "InvalidAccessKeyId")),
        case("inferred", "after the date", KEY, -901, FOREIGN_ID, (408, "TimeExpired")),
    ],
)  # fmt: skip
def test_the_owner_is_checked_before_the_signature(
    cloud: Cloud, key: Key, late_secs: int, account_id: str, refusal: tuple[int, str]
) -> None:
    date = formatdate(START_MS / 1000 + late_secs, usegmt=True)
    headers = {"host": endpoint(account_id), "date": date}
    assert LocalMns(cloud, key).call("GET", TARGET, headers=headers).refusal == refusal


# Tokens


@pytest.mark.parametrize(
    ("method", "target", "body", "status"),
    [
        case("101641", "receive", "GET", "", "", 404),
        case("101641", "batch receive", "GET", "?numOfMessages=16", "", 404),
        case("101641", "peek", "GET", "?peekonly=true", "", 404),
        case("101641", "delete", "DELETE", "?ReceiptHandle=8-x", "", 400),
        case("101641", "batch delete", "DELETE", "", "<ReceiptHandles/>", 400),
        case("101641", "renew", "PUT", "?receiptHandle=8-x&visibilityTimeout=5", "", 400),
    ],
)
def test_a_token_consumes_its_own_queue_and_no_other(
    cloud: Cloud, method: str, target: str, body: str, status: int
) -> None:
    token = cloud.token(REPORTS)
    # The emptiness of the queue, a dead handle or a bad document is what is complained about.
    own = token.call(method, f"/queues/{REPORTS}/messages{target}", body)
    assert (own.status, own.code != "AccessDeniedByRamPolicy") == (status, True)
    # Nothing is said about whether another queue exists.
    for name in (REPLIES, "Alicom-Queue-test-SmsReport"):
        reply = token.call(method, f"/queues/{name}/messages{target}", body)
        assert reply.refusal == DENIED


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        case("101641", "send", "POST", f"/queues/{REPORTS}/messages", BODY),
        case("101641", "send elsewhere", "POST", f"/queues/{REPLIES}/messages", BODY),
        case("101641", "batch send", "POST", f"/queues/{REPORTS}/messages", BATCH),
        case("protocol 2", "create", "PUT", "/queues/new", b""),
        case("protocol 2", "create again", "PUT", f"/queues/{REPORTS}", b""),
        case("protocol 2", "set attributes", "PUT", f"/queues/{REPORTS}?metaoverride=true", b"<Queue/>"),
        case("inferred", "get attributes", "GET", f"/queues/{REPORTS}", b""),
        case("inferred", "get attributes elsewhere", "GET", f"/queues/{REPLIES}", b""),
        case("protocol 2", "delete", "DELETE", f"/queues/{REPORTS}", b""),
        case("protocol 2", "list", "GET", "/queues", b""),
    ],
)  # fmt: skip
def test_a_token_does_nothing_else(cloud: Cloud, method: str, target: str, body: bytes) -> None:
    assert cloud.token(REPORTS).call(method, target, body).refusal == DENIED
    assert cloud.mns.attributes(REPORTS).text("ActiveMessages") == "0"


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        case("27501", "receive elsewhere", "GET", f"/queues/{REPLIES}/messages", b""),
        case("27501", "receive from no queue", "GET", "/queues/gone/messages", b""),
        case("27501", "send", "POST", f"/queues/{REPORTS}/messages", BODY),
        case("27501", "get attributes", "GET", f"/queues/{REPORTS}", b""),
        case("27501", "list", "GET", "/queues", b""),
    ],
)
def test_the_table_of_errors_knows_one_code_for_all_that_is_denied(
    method: str, target: str, body: bytes
) -> None:
    token = Cloud(OpenQuestions(ram_denial_code="AccessDenied")).token(REPORTS)
    assert token.call(method, target, body).refusal == ACCESS_DENIED


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        case("protocol 2", "its own queue's attributes", "GET", f"/queues/{REPORTS}", 200),
        case("protocol 2", "another's", "GET", f"/queues/{REPLIES}", 403),
        case("protocol 2", "and reading only", "PUT", f"/queues/{REPORTS}?metaoverride=true", 403),
        case("protocol 2", "nor deleting", "DELETE", f"/queues/{REPORTS}", 403),
    ],
)
def test_a_token_may_read_attributes_where_that_is_allowed(
    method: str, target: str, status: int
) -> None:
    token = Cloud(OpenQuestions(allow_token_attributes=True)).token(REPORTS)
    assert token.call(method, target).status == status


@source("observed")
def test_the_denial_is_the_one_that_was_captured(cloud: Cloud) -> None:
    reply = cloud.token(REPORTS).receive("Alicom-Queue-test-SmsUp")
    assert reply.refusal == DENIED
    assert reply.text("Message") == "The request is denied by ram policy."


@pytest.mark.parametrize(
    "security_token",
    [
        case("protocol 1.2", "no security token", ""),
        case("protocol 1.2", "half of it", "CAIS"),
        case("inferred", "another token's", "other"),
    ],
)
@pytest.mark.parametrize("code", TOKEN_CODES)
def test_a_temporary_key_needs_its_security_token(code: str, security_token: str) -> None:
    cloud = Cloud(OpenQuestions(expired_token_code=code))
    if security_token == "other":
        security_token = cloud.token(REPORTS).key.token
    key = cloud.token(REPORTS).key._replace(token=security_token)
    reply = LocalMns(cloud, key).receive(REPORTS)
    assert reply.refusal == (403, code)


@source("27501")
def test_a_temporary_key_needs_its_secret(cloud: Cloud) -> None:
    key = cloud.token(REPORTS).key._replace(secret=KEY.secret)
    assert LocalMns(cloud, key).receive(REPORTS).refusal == MISMATCH


@pytest.mark.parametrize("code", TOKEN_CODES)
def test_a_token_is_good_until_it_expires(code: str) -> None:
    cloud = Cloud(OpenQuestions(expired_token_code=code))
    token = cloud.token(REPORTS)
    cloud.wait(TOKEN_LIFETIME_SECS - 0.001)
    assert token.receive(REPORTS).refusal == EMPTY
    cloud.wait(0.001)
    assert token.receive(REPORTS).refusal == (403, code)


@source("protocol 2")
def test_a_new_token_leaves_the_old_one_alone(cloud: Cloud) -> None:
    old = cloud.token(REPORTS)
    cloud.wait(1)
    new = cloud.token(REPORTS)
    assert old.key != new.key
    assert old.receive(REPORTS).refusal == new.receive(REPORTS).refusal == EMPTY
