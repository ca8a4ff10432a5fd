"""What PyPI's RPC clients make of the emulator: alibabacloud_* (ACS3) and aliyun-python-sdk-* (v1).

The clients are imported inside functions: what they warn about at import is filtered only there.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from emulator.clock import BEIJING
from tests.emulator.conformance.sources import case, source
from tests.emulator.mns_caller import Key
from tests.emulator_process import EmulatorProcess

pytestmark = [
    pytest.mark.integration,
    # The clients' own sins: invalid escapes, datetime.utcnow, connections left to the collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SEND = {"phone_numbers": "13800000009", "sign_name": "星河商城", "template_code": "SMS_154950901"}
INVALID = "isv.INVALID_PARAMETERS"
ILLEGAL = "isv.MOBILE_NUMBER_ILLEGAL"
TOO_MANY = "isv.MOBILE_COUNT_OVER_LIMIT"
BAD_JSON = "isv.INVALID_JSON_PARAM"
TOKEN = {"message_type": "SmsUp"}
NO_KEY = "InvalidAccessKeyId.NotFound"
MISMATCH = "SignatureDoesNotMatch"


def numbers(count: int) -> str:
    return ",".join(f"139{number:08d}" for number in range(count))


def day(ago: int = 0) -> str:
    return f"{datetime.now(BEIJING) - timedelta(days=ago):%Y%m%d}"


@pytest.fixture(scope="module", autouse=True)
def collect_what_the_clients_leave_open() -> Iterator[None]:
    """Let their sockets be found here, and not in another module."""
    yield
    gc.collect()


def config(emulator: EmulatorProcess, key: Key | None = None) -> Any:
    from alibabacloud_tea_openapi.models import Config

    return Config(
        access_key_id=key.key_id if key else emulator.key_id,
        access_key_secret=key.secret if key else emulator.key_secret,
        endpoint=f"127.0.0.1:{emulator.port}",
        protocol="http",
        region_id="cn-hangzhou",
    )


def tea(emulator: EmulatorProcess, action: str, **fields: object) -> Any:
    """Call an action of Dysmsapi with the tea client; return the body of the answer."""
    from alibabacloud_dysmsapi20170525 import models
    from alibabacloud_dysmsapi20170525.client import Client

    names = "".join(part.capitalize() for part in action.split("_"))
    request = getattr(models, f"{names}Request")(**fields)
    return getattr(Client(config(emulator)), action)(request).body


# Refused by the service: HTTP 200, a Code that is not OK


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        case("protocol 4", "a send", {}, "OK"),
        case("protocol 4", "1000 numbers", {"phone_numbers": numbers(1000)}, "OK"),
        case("protocol 4", "1001 numbers", {"phone_numbers": numbers(1001)}, TOO_MANY),
        case("protocol 4", "no number", {"phone_numbers": "nobody"}, ILLEGAL),
        case("protocol 4", "no template", {"template_code": "1"}, "isv.SMS_TEMPLATE_ILLEGAL"),
        case("protocol 4", "no JSON", {"template_param": "{"}, BAD_JSON),
        case("protocol 4", "an OutId of 256", {"out_id": "x" * 256}, INVALID),
        case("protocol 4", "an extend code", {"sms_up_extend_code": "x"}, "isv.EXTEND_CODE_ERROR"),
    ],
)
def test_the_tea_client_sends(emulator: EmulatorProcess, fields: dict[str, str], code: str) -> None:
    answer = tea(emulator, "send_sms", **{**SEND, **fields})
    assert answer.code == code
    assert (answer.biz_id is not None) == (code == "OK")


@pytest.mark.parametrize(
    ("phones", "signs", "code"),
    [
        case("protocol 4", "a batch", numbers(2), ["a", "b"], "OK"),
        case("protocol 4", "100 numbers", numbers(100), ["a"] * 100, "OK"),
        case("protocol 4", "101 numbers", numbers(101), ["a"] * 101, TOO_MANY),
        case("protocol 4", "a sign less", numbers(2), ["a"], "isv.PARAM_LENGTH_LIMIT"),
        case("protocol 4", "no array", numbers(2), "a", BAD_JSON),
    ],
)
def test_the_tea_client_sends_a_batch(
    emulator: EmulatorProcess, phones: str, signs: object, code: str
) -> None:
    fields = {"phone_number_json": phones.split(","), "sign_name_json": signs}
    given = {name: json.dumps(value) for name, value in fields.items()}
    answer = tea(emulator, "send_batch_sms", template_code="SMS_154950901", **given)
    assert answer.code == code
    assert (answer.biz_id is not None) == (code == "OK")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        case("419277", "today", {}, "OK"),
        case("419277", "30 days ago", {"send_date": 30}, "OK"),
        case("419277", "31 days ago", {"send_date": 31}, INVALID),
        case("419277", "tomorrow", {"send_date": -1}, INVALID),
        case("419277", "pages of 50", {"page_size": 50}, "OK"),
        case("419277", "pages of 51", {"page_size": 51}, INVALID),
        case("419277", "page 0", {"current_page": 0}, INVALID),
        case("419277", "two numbers", {"phone_number": "13800000009,1"}, ILLEGAL),
    ],
)  # fmt: skip
def test_the_tea_client_asks_for_details(
    emulator: EmulatorProcess, fields: dict[str, Any], code: str
) -> None:
    given = {"phone_number": "13800000009", "page_size": 10, "current_page": 1, **fields}
    given["send_date"] = day(given.get("send_date", 0))
    assert tea(emulator, "query_send_details", **given).code == code


# Refused by the gateway: an HTTP error


@pytest.mark.parametrize(
    ("key", "fields", "code"),
    [
        case("protocol 2", "a wrong secret", {"secret": "wrong"}, TOKEN, MISMATCH),
        case("protocol 2", "an unknown key", {"key_id": "nobody"}, TOKEN, NO_KEY),
        case("protocol 2", "no message type", {}, {}, "MissingMessageType"),
    ],
)  # fmt: skip
def test_the_tea_client_raises_what_the_gateway_refuses(
    emulator: EmulatorProcess, key: dict[str, str], fields: dict[str, str], code: str
) -> None:
    from alibabacloud_dybaseapi20170525.client import Client
    from alibabacloud_dybaseapi20170525.models import QueryTokenForMnsQueueRequest
    from Tea.exceptions import TeaException

    wrong = Key(emulator.key_id, emulator.key_secret)._replace(**key)
    client = Client(config(emulator, wrong))
    with pytest.raises(TeaException) as refused:
        client.query_token_for_mns_queue(QueryTokenForMnsQueueRequest(**fields))
    assert refused.value.code == code


def core(
    emulator: EmulatorProcess, action: str, key: Key | None, parameters: dict[str, str]
) -> Any:
    """Call an action with the core client; return the JSON answer."""
    from aliyunsdkcore.client import AcsClient
    from aliyunsdkcore.request import CommonRequest

    client = AcsClient(*(key or Key(emulator.key_id, emulator.key_secret))[:2], "cn-hangzhou")
    request = CommonRequest(
        domain=f"127.0.0.1:{emulator.port}", version="2017-05-25", action_name=action
    )
    request.set_method("POST")
    for name, value in parameters.items():
        request.add_query_param(name, value)
    return json.loads(client.do_action_with_exception(request))


@pytest.mark.parametrize(
    ("message_type", "code"),
    [
        case("protocol 2", "a token", "SmsReport", "OK"),
        case("inferred", "a token for nothing", "Nothing", INVALID),
    ],
)
def test_the_core_client_returns_what_the_service_says(
    emulator: EmulatorProcess, message_type: str, code: str
) -> None:
    given = {"MessageType": message_type}
    assert core(emulator, "QueryTokenForMnsQueue", None, given)["Code"] == code


@pytest.mark.parametrize(
    ("key", "action", "status", "code"),
    [
        case("protocol 2", "a wrong secret", {"secret": "wrong"}, "SendSms", 400, MISMATCH),
        case("protocol 2", "an unknown key", {"key_id": "nobody"}, "SendSms", 404, NO_KEY),
        case("48054", "an unknown action", {}, "SendPostcard", 404, "InvalidAction.NotFound"),
        case("48054", "a parameter is missing", {}, "SendSms", 400, "MissingPhoneNumbers"),
    ],
)  # fmt: skip
def test_the_core_client_raises_what_the_gateway_refuses(
    emulator: EmulatorProcess, key: dict[str, str], action: str, status: int, code: str
) -> None:
    from aliyunsdkcore.acs_exception.exceptions import ServerException

    wrong = Key(emulator.key_id, emulator.key_secret)._replace(**key)
    with pytest.raises(ServerException) as refused:
        core(emulator, action, wrong, {})
    assert (refused.value.get_http_status(), refused.value.get_error_code()) == (status, code)


# The small MNS client within aliyun-python-sdk-dybaseapi: absolute targets, relative signatures


@pytest.mark.parametrize(
    ("operation", "argument", "code"),
    [
        case("35137", "an empty queue", "batch_receive_message", 16, "MessageNotExist"),
        case("protocol 1.7", "a batch of 17", "batch_receive_message", 17, "InvalidArgument"),
        case("protocol 1.7", "a batch of 0", "batch_receive_message", 0, "InvalidArgument"),
        case("35139", "a dead handle", "batch_delete_message", ["8-x"], "ReceiptHandleError"),
        case("35139", "17 handles", "batch_delete_message", ["8-x"] * 17, "InvalidArgument"),
    ],
)
def test_the_small_client_raises_what_the_service_answers(
    emulator: EmulatorProcess, queue: str, operation: str, argument: object, code: str
) -> None:
    from aliyunsdkdybaseapi.mns.account import Account
    from aliyunsdkdybaseapi.mns.mns_exception import MNSServerException

    account = Account(emulator.url, emulator.key_id, emulator.key_secret)
    with pytest.raises(MNSServerException) as refused:
        getattr(account.get_queue(queue), operation)(argument)
    assert refused.value.type == code


@source("protocol 6")
def test_the_small_client_is_refused_with_a_wrong_secret(
    emulator: EmulatorProcess, queue: str
) -> None:
    from aliyunsdkdybaseapi.mns.account import Account
    from aliyunsdkdybaseapi.mns.mns_exception import MNSServerException

    account = Account(emulator.url, emulator.key_id, "wrong")
    with pytest.raises(MNSServerException) as refused:
        account.get_queue(queue).batch_receive_message(16)
    assert refused.value.type == "SignatureDoesNotMatch"
