"""QueryTokenForMnsQueue: who gets a key for which queue, and for how long."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from emulator.clock import BEIJING
from tests.emulator.conformance.cloud import (
    PREFIX,
    START_MS,
    TOKEN_LIFETIME_SECS,
    Cloud,
    LocalMns,
)
from tests.emulator.conformance.sources import case, source
from tests.emulator.mns_caller import Key

TOKEN = "QueryTokenForMnsQueue"
INVALID = (200, "isv.INVALID_PARAMETERS")


def token_of(cloud: Cloud, message_type: str) -> LocalMns:
    token = cloud.rpc.call(TOKEN, MessageType=message_type).json["MessageTokenDTO"]
    key = Key(token["AccessKeyId"], token["AccessKeySecret"], token["SecurityToken"])
    return LocalMns(cloud, key)


@pytest.mark.parametrize(
    "message_type",
    [
        case("101641", "delivery reports", "SmsReport"),
        case("101847", "replies", "SmsUp"),
        case("197995", "abroad", "GlobeSmsReport"),
        case("128742", "signs", "SignSmsReport"),
        case("128742", "templates", "TemplateSmsReport"),
        case("protocol 3.1", "verification SMS", "DypnsSmsVerifyReport"),
        case("protocol 3.3", "card vendors", "MnsCardVender"),
        case("protocol 3.3", "card templates", "MnsCardTemplate"),
        case("protocol 2", "voice", "VoiceReport"),
    ],
)
def test_a_token_is_for_the_queue_of_its_message_type(cloud: Cloud, message_type: str) -> None:
    queue_name = PREFIX + message_type
    cloud.mns.create(queue_name)
    assert token_of(cloud, message_type).receive(queue_name).code == "MessageNotExist"


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        case("protocol 2", "no message type", {}, (400, "MissingMessageType")),
        case("protocol 2", "an empty one", {"MessageType": ""}, (400, "MissingMessageType")),
        case("inferred", "an unknown one", {"MessageType": "Smsreport"}, INVALID),
        case("inferred", "a queue's name", {"MessageType": PREFIX + "SmsUp"}, INVALID),
    ],
)  # fmt: skip
def test_there_is_no_token_for_that(
    cloud: Cloud, given: dict[str, str], outcome: tuple[int, str]
) -> None:
    reply = cloud.rpc.call(TOKEN, **given)
    assert reply.outcome == outcome
    assert "MessageTokenDTO" not in reply.json


@source("protocol 2")
def test_the_answer_is_all_texts(cloud: Cloud) -> None:
    answer = cloud.rpc.call(TOKEN, MessageType="SmsReport").json
    token = answer.pop("MessageTokenDTO")
    assert set(answer) == {"Code", "Message", "RequestId"}
    assert set(token) == {
        "AccessKeyId",
        "AccessKeySecret",
        "SecurityToken",
        "ExpireTime",
        "CreateTime",
    }
    assert all(isinstance(value, str) for value in (*answer.values(), *token.values()))


@source("protocol 2")
def test_its_times_are_beijing_times_without_an_offset(cloud: Cloud) -> None:
    token = cloud.rpc.call(TOKEN, MessageType="SmsReport").json["MessageTokenDTO"]
    created, expires = (
        datetime.strptime(token[name], "%Y-%m-%d %H:%M:%S").replace(tzinfo=BEIJING)
        for name in ("CreateTime", "ExpireTime")
    )
    assert created.timestamp() * 1000 == START_MS
    assert expires - created == timedelta(seconds=TOKEN_LIFETIME_SECS)


@source("protocol 2")
def test_the_token_expires_when_it_says(cloud: Cloud) -> None:
    token = token_of(cloud, "SmsReport")
    cloud.wait(TOKEN_LIFETIME_SECS - 0.001)
    assert token.receive(PREFIX + "SmsReport").code == "MessageNotExist"
    cloud.wait(0.001)
    assert token.receive(PREFIX + "SmsReport").code == "AccessDenied"
    assert token_of(cloud, "SmsReport").receive(PREFIX + "SmsReport").code == "MessageNotExist"


@source("protocol 2")
def test_each_call_gives_another_key(cloud: Cloud) -> None:
    assert len({token_of(cloud, "SmsReport").key.key_id for _ in range(10)}) == 10


@source("protocol 2")
def test_a_queues_token_calls_no_rpc(cloud: Cloud) -> None:
    key_id = token_of(cloud, "SmsReport").key.key_id
    reply = cloud.rpc.call(TOKEN, MessageType="SmsReport", AccessKeyId=key_id)
    assert reply.outcome == (404, "InvalidAccessKeyId.NotFound")


@source("SDK")
def test_a_v3_call_gets_a_token_just_so(cloud: Cloud) -> None:
    assert "MessageTokenDTO" in cloud.rpc.call_v3(TOKEN, MessageType="SmsReport").json
