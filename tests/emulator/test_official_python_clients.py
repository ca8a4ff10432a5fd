"""Alibaba's own Python clients, unmodified, against the emulator.

They are imported inside the tests: what they warn about at import is filtered only there.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import base64
import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from emulator.clock import Clock, beijing_day
from tests.emulator_process import EmulatorProcess

pytestmark = [
    pytest.mark.integration,
    # The clients' own sins: invalid escapes, datetime.utcnow, connections left to the collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def collect_what_the_clients_leave_open() -> Iterator[None]:
    """Let their sockets be found here, and not in another module."""
    yield
    gc.collect()


@contextmanager
def mns_queue(
    emulator: EmulatorProcess, name: str, key_id: str = "", secret: str = "", token: str = ""
) -> Iterator[Any]:
    """Open a queue with aliyun-mns-sdk."""
    from mns.account import Account

    account = Account(emulator.url, key_id or emulator.key_id, secret or emulator.key_secret, token)
    try:
        yield account.get_queue(name)
    finally:
        account.mns_client.close_connection()


def send_config(emulator: EmulatorProcess) -> Any:  # noqa: ANN401 (the SDK is untyped)
    from alibabacloud_tea_openapi.models import Config

    return Config(
        access_key_id=emulator.key_id,
        access_key_secret=emulator.key_secret,
        endpoint=f"127.0.0.1:{emulator.port}",
        protocol="http",
        region_id="cn-hangzhou",
    )


def sms_client(emulator: EmulatorProcess) -> Any:  # noqa: ANN401
    from alibabacloud_dysmsapi20170525.client import Client

    return Client(send_config(emulator))


def send_one(emulator: EmulatorProcess, number: str = "13800000001", **more: str) -> Any:  # noqa: ANN401
    from alibabacloud_dysmsapi20170525.models import SendSmsRequest

    request = SendSmsRequest(
        phone_numbers=number,
        sign_name="星河商城",
        template_code="SMS_154950901",
        template_param=json.dumps({"code": "123456"}),
        **more,
    )
    return sms_client(emulator).send_sms(request).body


def test_aliyun_mns_sdk_sends_receives_and_deletes(emulator: EmulatorProcess, queue: str) -> None:
    from mns.mns_exception import MNSServerException
    from mns.queue import Message

    with mns_queue(emulator, queue) as opened:
        sent = opened.send_message(Message("你好 <&>"))
        received = opened.receive_message(0)
        assert (received.message_id, received.message_body) == (
            sent.message_id,
            "你好 <&>".encode(),
        )
        opened.delete_message(received.receipt_handle)
        with pytest.raises(MNSServerException) as empty:
            opened.receive_message(0)
        assert empty.value.type == "MessageNotExist"
        assert len(empty.value.req_id) == 24


def test_aliyun_mns_sdk_works_in_batches(emulator: EmulatorProcess, queue: str) -> None:
    from mns.mns_exception import MNSServerException
    from mns.queue import Message

    with mns_queue(emulator, queue) as opened:
        opened.batch_send_message([Message(str(number)) for number in range(16)])
        assert len(opened.batch_peek_message(16)) == 16
        handles = [message.receipt_handle for message in opened.batch_receive_message(16, 1)]
        opened.batch_delete_message(handles[:10])
        with pytest.raises(MNSServerException) as partial:
            opened.batch_delete_message(handles)
        assert partial.value.type == "ReceiptHandleError"
        assert [error["ReceiptHandle"] for error in partial.value.sub_errors] == handles[:10]


def test_aliyun_mns_sdk_changes_visibility(emulator: EmulatorProcess, queue: str) -> None:
    from mns.mns_exception import MNSServerException
    from mns.queue import Message

    with mns_queue(emulator, queue) as opened:
        opened.send_message(Message("a"))
        received = opened.receive_message(0)
        changed = opened.change_message_visibility(received.receipt_handle, 100)
        assert int(changed.next_visible_time) > received.next_visible_time
        with pytest.raises(MNSServerException, match="ReceiptHandleError"):
            opened.delete_message(received.receipt_handle)
        opened.delete_message(changed.receipt_handle)


def test_aliyun_mns_sdk_manages_queues(emulator: EmulatorProcess) -> None:
    from mns.queue import QueueMeta

    with mns_queue(emulator, "Test-Managed") as opened:
        url = opened.create(QueueMeta(vis_timeout=45))
        assert url == f"{emulator.url}/queues/Test-Managed"
        attributes = opened.get_attributes()
        assert (attributes.visibility_timeout, attributes.queue_name) == (45, "Test-Managed")
        attributes.set_visibilitytimeout(50)
        opened.set_attributes(attributes)
        assert opened.get_attributes().visibility_timeout == 50
        opened.delete()


def test_aliyun_mns_sdk_lists_queues(emulator: EmulatorProcess) -> None:
    from mns.account import Account

    account = Account(emulator.url, emulator.key_id, emulator.key_secret, "")
    urls, marker = account.list_queue(prefix="Alicom-Queue-")
    account.mns_client.close_connection()
    assert [url.rpartition("/")[2] for url in urls] == [
        emulator.report_queue,
        emulator.reply_queue,
    ]
    assert marker == ""


def test_a_token_of_the_tea_client_opens_its_queue_and_no_other(
    talkative: EmulatorProcess,
) -> None:
    from alibabacloud_dybaseapi20170525.client import Client
    from alibabacloud_dybaseapi20170525.models import QueryTokenForMnsQueueRequest
    from mns.mns_exception import MNSServerException

    biz_id = send_one(talkative).biz_id
    answer = Client(send_config(talkative)).query_token_for_mns_queue(
        QueryTokenForMnsQueueRequest(message_type="SmsReport")
    )
    assert answer.body.code == "OK"
    token = answer.body.message_token_dto
    keys = (token.access_key_id, token.access_key_secret, token.security_token)
    with mns_queue(talkative, talkative.report_queue, *keys) as opened:
        (message,) = opened.batch_receive_message(16, 1)
        assert json.loads(message.message_body)["biz_id"] == biz_id
        opened.batch_delete_message([message.receipt_handle])
    with (
        mns_queue(talkative, talkative.reply_queue, *keys) as opened,
        pytest.raises(MNSServerException, match="AccessDeniedByRamPolicy"),
    ):
        opened.receive_message(0)


def test_the_tea_client_sends_and_asks_for_details(talkative: EmulatorProcess) -> None:
    from alibabacloud_dysmsapi20170525.models import QuerySendDetailsRequest, SendBatchSmsRequest

    client = sms_client(talkative)
    sent = send_one(talkative, number="13800000003", out_id="order-1")
    assert (sent.code, sent.message) == ("OK", "OK")
    batch = client.send_batch_sms(
        SendBatchSmsRequest(
            phone_number_json='["13800000003","13800000004"]',
            sign_name_json='["星河商城","星河商城"]',
            template_code="SMS_154950902",
            template_param_json='[{"order":"1"},{"order":"2"}]',
        )
    ).body
    assert batch.code == "OK"
    today = beijing_day(Clock().now_ms())
    request = QuerySendDetailsRequest(
        phone_number="13800000003", send_date=today, page_size=10, current_page=1
    )
    details = client.query_send_details(request).body
    assert details.total_count in ("2", 2)
    rows = details.sms_send_detail_dtos.sms_send_detail_dto
    assert [(row.send_status, row.err_code, row.out_id) for row in rows] == [
        (3, "DELIVERED", "order-1"),
        (3, "DELIVERED", None),
    ]
    request.biz_id = batch.biz_id
    assert client.query_send_details(request).body.total_count in ("1", 1)


def test_the_tea_client_sees_a_refusal_as_an_answer(talkative: EmulatorProcess) -> None:
    from alibabacloud_dysmsapi20170525.models import SendSmsRequest

    request = SendSmsRequest(
        phone_numbers="not a number", sign_name="星河商城", template_code="SMS_154950901"
    )
    answer = sms_client(talkative).send_sms(request)
    assert (answer.status_code, answer.body.code) == (200, "isv.MOBILE_NUMBER_ILLEGAL")


def core_client(emulator: EmulatorProcess) -> Any:  # noqa: ANN401
    from aliyunsdkcore.client import AcsClient

    client = AcsClient(emulator.key_id, emulator.key_secret, "cn-hangzhou")
    for product in ("Dybaseapi", "Dysmsapi"):
        client.add_endpoint("cn-hangzhou", product, f"127.0.0.1:{emulator.port}")
    return client


def test_the_core_client_and_the_mns_client_in_dybaseapi_receive_reports(
    talkative: EmulatorProcess,
) -> None:
    from aliyunsdkdybaseapi.mns.account import Account
    from aliyunsdkdybaseapi.request.v20170525.QueryTokenForMnsQueueRequest import (
        QueryTokenForMnsQueueRequest,
    )
    from aliyunsdkdysmsapi.request.v20170525.SendSmsRequest import SendSmsRequest

    client = core_client(talkative)
    send = SendSmsRequest()
    send.set_PhoneNumbers("13800000001,13800000002")
    send.set_SignName("星河商城")
    send.set_TemplateCode("SMS_154950901")
    send.set_TemplateParam('{"code":"1 2*3~4"}')
    biz_id = json.loads(client.do_action_with_exception(send))["BizId"]

    request = QueryTokenForMnsQueueRequest()
    request.set_MessageType("SmsReport")
    token = json.loads(client.do_action_with_exception(request))["MessageTokenDTO"]
    account = Account(
        talkative.url, token["AccessKeyId"], token["AccessKeySecret"], token["SecurityToken"]
    )
    opened = account.get_queue(talkative.report_queue)
    messages = opened.batch_receive_message(10, 3)
    reports = [json.loads(message.message_body) for message in messages]
    assert {(r["biz_id"], r["phone_number"]) for r in reports} == {
        (biz_id, "13800000001"),
        (biz_id, "13800000002"),
    }
    opened.batch_delete_message([message.receipt_handle for message in messages])


def test_the_core_client_sees_a_gateway_error(talkative: EmulatorProcess) -> None:
    from aliyunsdkcore.acs_exception.exceptions import ServerException
    from aliyunsdkcore.client import AcsClient
    from aliyunsdkdybaseapi.request.v20170525.QueryTokenForMnsQueueRequest import (
        QueryTokenForMnsQueueRequest,
    )

    client = AcsClient(talkative.key_id, "wrong", "cn-hangzhou")
    client.add_endpoint("cn-hangzhou", "Dybaseapi", f"127.0.0.1:{talkative.port}")
    request = QueryTokenForMnsQueueRequest()
    request.set_MessageType("SmsReport")
    with pytest.raises(ServerException) as refused:
        client.do_action_with_exception(request)
    # The client compares the two strings to sign; where they agree, only the secret can be wrong.
    assert refused.value.get_error_code() == "InvalidAccessKeySecret"
    assert refused.value.get_http_status() == 400


def test_a_reply_is_on_the_other_queue(talkative: EmulatorProcess) -> None:
    send_one(talkative, sms_up_extend_code="07")
    with mns_queue(talkative, talkative.reply_queue) as opened:
        opened.set_encoding(False)
        reply = json.loads(base64.b64decode(opened.receive_message(3).message_body))
    assert set(reply) == {"phone_number", "send_time", "content", "dest_code", "sequence_id"}
    assert reply["dest_code"].endswith("07")
