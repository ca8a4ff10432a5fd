"""What Alibaba's SMS API says, and what its refusals mean: to try again, this SMS, or the operator."""

import re
import socket
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from pipeline.clock import utc_now
from pipeline.errors import CredentialsError, OperatorError, TransientError
from pipeline.sms_api import NoAnswerError, RefusedQuestionError, SmsApi, ThrottledError
from tests.history.past import AWAITING, DELIVERED, FAILED, Past
from transforms.moments import BEIJING

pytestmark = pytest.mark.integration

TODAY = utc_now().astimezone(BEIJING).date()


def asked(past: Past, phone_number: str = "13800000001") -> list[Mapping[str, Any]]:
    return SmsApi(past.emulator.url).send_details("1^0", phone_number, TODAY)


def refused(past: Past, error: type[Exception], **rule: Any) -> str:
    past.set_rules(rule)
    with pytest.raises(error) as met:
        asked(past)
    assert met.type is error
    return str(met.value)


def test_an_sms_that_alibaba_does_not_know_has_no_rows(past: Past) -> None:
    assert asked(past) == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"fault": "throttling"}, ThrottledError),
        ({"fault": "throttling", "code": "Throttling"}, ThrottledError),
        ({"fault": "refusal", "code": "isv.BUSINESS_LIMIT_CONTROL"}, ThrottledError),
        ({"fault": "refusal", "code": "isp.SYSTEM_ERROR"}, TransientError),
        ({"fault": "internal_error"}, TransientError),
        ({"fault": "unavailable"}, TransientError),
        ({"fault": "reset_before"}, NoAnswerError),
        ({"fault": "half_answer"}, NoAnswerError),
        ({"fault": "garbage_answer"}, NoAnswerError),
    ],
)
def test_what_passes_by_itself_is_worth_another_try(
    past: Past, fault: dict[str, Any], error: type[Exception]
) -> None:
    # The number that was asked about stays out of the text.
    assert "13800000001" not in refused(past, error, **fault)


@pytest.mark.parametrize(
    ("fault", "error", "sentence"),
    [
        (
            {"fault": "forbidden", "code": "Forbidden.RAM"},
            CredentialsError,
            r"may not call .*\(Forbidden.RAM\): allow the RAM user the action dysms:QuerySendDetails ",
        ),
        (
            {"fault": "refusal", "code": "isp.RAM_PERMISSION_DENY"},
            CredentialsError,
            r"allow the RAM user the action dysms:QuerySendDetails ",
        ),
        (
            {"fault": "forbidden", "code": "InvalidAccessKeyId.Inactive"},
            CredentialsError,
            r"refused the account keys .*\(InvalidAccessKeyId.Inactive\): set ALIBABA_",
        ),
        (
            {"fault": "clock_skew", "secs": 3600},
            OperatorError,
            r"finds this machine's clock wrong .*: set the clock right",
        ),
        (
            {"fault": "refusal", "code": "isv.PRODUCT_UN_SUBSCRIPT"},
            OperatorError,
            r"answers nothing about this account \(isv.PRODUCT_UN_SUBSCRIPT\): .*101346",
        ),
    ],
)
def test_what_only_the_operator_can_mend_is_a_sentence_with_the_fix(
    past: Past, fault: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    told = refused(past, error, **fault)
    assert re.search(sentence, told), told
    assert "emulator-key-secret" not in told


def test_a_number_that_is_none_is_a_refusal_of_this_question(past: Past) -> None:
    with pytest.raises(RefusedQuestionError, match="isv.MOBILE_NUMBER_ILLEGAL"):
        asked(past, "12")


def test_wrong_keys(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "wrong")
    with pytest.raises(CredentialsError, match=r"SignatureDoesNotMatch.*: set ALIBABA_"):
        asked(past)


def test_an_address_where_nobody_listens(past: Past) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        api = SmsApi(f"http://127.0.0.1:{nobody.getsockname()[1]}")
        with pytest.raises(NoAnswerError, match="check --dysmsapi_endpoint and the network"):
            api.send_details("1^0", "13800000001", TODAY)
    assert past.calls() == 0


def test_the_totals_of_some_days_come_page_by_page(past: Past) -> None:
    api = SmsApi(past.emulator.url)
    days = api.send_statistics(TODAY - timedelta(days=3), TODAY, abroad=False)
    assert [day.day for day in days] == sorted({day.day for day in days})
    sums = [sum(numbers) for numbers in zip(*(day[1:] for day in days), strict=True)]
    assert sums == [DELIVERED + FAILED + AWAITING, DELIVERED, FAILED, AWAITING]
    assert api.send_statistics(TODAY, TODAY, abroad=True) == []
    with pytest.raises(RefusedQuestionError, match="isv.INVALID_PARAMETERS"):
        api.send_statistics(TODAY, TODAY - timedelta(days=1), abroad=False)
