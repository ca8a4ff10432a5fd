"""Answers of QuerySendDetails, as they are archived and read back."""

import json
from datetime import datetime, timezone
from typing import Any

import pyarrow as pa
import pytest

from schemas.contracts import contract
from tests.decode.samples import FAILED_AT
from transforms.decode import DecodedMessages, decode_messages
from transforms.decode_query import Question, asked_key, query_message
from transforms.keys import event_id

ASKED_AT = datetime(2026, 11, 2, 4, tzinfo=timezone.utc)
QUESTION = Question(
    "900619746936498440^0", "13800001111", datetime(2026, 11, 1, 3, 59, tzinfo=timezone.utc)
)
# 419277.
DELIVERED: dict[str, Any] = {
    "PhoneNum": "13800001111",
    "SendStatus": 3,
    "ErrCode": "DELIVERED",
    "TemplateCode": "SMS_1",
    "Content": "【Example】your code is 1234",
    "SendDate": "2026-11-01 12:00:00",
    "ReceiveDate": "2026-11-01 12:00:03",
    "OutId": "order-1",
}
AWAITING: dict[str, Any] = {
    "PhoneNum": "13800001111",
    "SendStatus": 1,
    "SendDate": "2026-11-01 12:00:00",
}


def decoded(*details: dict[str, Any]) -> DecodedMessages:
    return decoded_body(query_message(QUESTION, details, ASKED_AT).body)


def decoded_body(body: bytes) -> DecodedMessages:
    message = query_message(QUESTION, [], ASKED_AT)._replace(body=body)
    rows = pa.RecordBatch.from_pylist([message._asdict()], schema=contract("mns_message").arrow)
    return decode_messages(rows, FAILED_AT)


def test_a_verdict_is_a_report_and_an_answer() -> None:
    outcome = decoded(DELIVERED)
    (report,) = outcome.reports.to_pylist()
    assert report == {
        "biz_id": "900619746936498440^0",
        "phone_number": "13800001111",
        "success": True,
        "err_code": "DELIVERED",
        "err_msg": None,
        "out_id": "order-1",
        "sms_size": None,
        "send_time": datetime(2026, 11, 1, 4, tzinfo=timezone.utc),
        "report_time": datetime(2026, 11, 1, 4, 0, 3, tzinfo=timezone.utc),
        "unknown_fields": [],
        "message_id": query_message(QUESTION, [], ASKED_AT).message_id,
        "enqueued_at": ASKED_AT,
        "origin": "query",
    }
    (answer,) = outcome.answers.to_pylist()
    assert answer["answer"] == "delivered"
    assert answer["event_id"] == event_id(QUESTION.biz_id, QUESTION.phone_number)
    assert answer["requested_at"] == QUESTION.requested_at


@pytest.mark.parametrize(
    ("details", "answer", "reports"),
    [
        ([], "unknown", 0),
        ([AWAITING], "awaiting", 0),
        ([DELIVERED | {"SendStatus": "2", "ErrCode": "MK:0001"}], "failed", 1),
        ([AWAITING, DELIVERED | {"SendStatus": 2}], "failed", 1),
        ([DELIVERED | {"SendStatus": 2}, DELIVERED], "delivered", 2),
        ([AWAITING | {"ReceiveDate": ""}], "awaiting", 0),
    ],
)
def test_what_alibaba_knows_in_a_word(
    details: list[dict[str, Any]], answer: str, reports: int
) -> None:
    outcome = decoded(*details)
    assert outcome.answers.column("answer").to_pylist() == [answer]
    assert outcome.reports.num_rows == reports
    assert outcome.failed.num_rows == 0


_ASKED = b'"biz_id": "b", "phone_number": "1", "requested_at_ms": 1'


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[]", "unknown_shape"),
        (b'{"details": 1}', "unknown_shape"),
        (b'{"details": [1], %s}' % _ASKED, "unknown_shape"),
        (b'{"details": [], "phone_number": "1", "requested_at_ms": 1}', "empty_identifier"),
        (b'{"details": [], %s}' % _ASKED.replace(b"1", b"-1"), "malformed_number"),
        (b'{"details": [], %s}' % _ASKED.replace(b": 1", b": 1e9"), "malformed_number"),
        (b'{"details": [], %s}' % _ASKED.replace(b": 1", b": 999999999999999"), "malformed_number"),
        (b'{"details": [{"SendStatus": 4}], %s}' % _ASKED, "unknown_status"),
        (b'{"details": [{"SendStatus": 3}], %s}' % _ASKED, "missing_field"),
        (b"not json", "malformed_base64"),
    ],
)
def test_what_is_no_answer_is_a_failed_event(body: bytes, reason: str) -> None:
    outcome = decoded_body(body)
    (failed,) = outcome.failed.to_pylist()
    assert (failed["reason"], failed["schema_name"]) == (reason, "query_answer")
    assert outcome.answers.num_rows == outcome.reports.num_rows == 0


def test_a_refusal_is_an_answer_without_a_report() -> None:
    message = query_message(QUESTION, [], ASKED_AT, refusal="isv.MOBILE_NUMBER_ILLEGAL")
    outcome = decoded_body(message.body)
    assert outcome.answers.column("answer").to_pylist() == ["refused"]
    assert outcome.reports.num_rows == outcome.failed.num_rows == 0


@pytest.mark.parametrize("details", [[], [DELIVERED], [{"SendStatus": 4}], ["no row"]])
def test_whom_an_answer_is_about_is_told_even_if_it_cannot_be_used(details: list[Any]) -> None:
    body = query_message(QUESTION, [], ASKED_AT).body.replace(b"[]", json.dumps(details).encode())
    assert asked_key(body) == QUESTION[:2]


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b'{"biz_id": "1"}', b"\xff"])
def test_what_is_no_answer_is_about_nobody(body: bytes) -> None:
    assert asked_key(body) is None


def test_every_asking_is_a_message_of_its_own() -> None:
    later = ASKED_AT.replace(hour=5)
    ids = {query_message(QUESTION, [], at).message_id for at in (ASKED_AT, ASKED_AT, later)}
    assert len(ids) == 2
