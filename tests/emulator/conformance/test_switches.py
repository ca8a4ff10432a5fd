"""Where the documents are silent or disagree, a flag decides: what it takes, and that it arrives."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from emulator.clock import Clock, beijing_day
from emulator.open_questions import OpenQuestions
from emulator.settings import EmulatorSettings, parse_settings
from tests.emulator.admin_caller import Admin
from tests.emulator.conformance.sources import case, source
from tests.emulator.mns_caller import MnsCaller
from tests.emulator.rpc_caller import call_rpc, with_token
from tests.emulator_process import EmulatorProcess

FLAGS = [field.name for field in fields(OpenQuestions)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        case("27501", "AccessDenied", "expired_token_code", "AccessDenied"),
        case("27501", "InvalidAccessKeyId", "expired_token_code", "InvalidAccessKeyId"),
        case("inferred", "InvalidSecurityToken", "expired_token_code", "InvalidSecurityToken"),
        case("inferred", "SecurityTokenExpired", "expired_token_code", "SecurityTokenExpired"),
        case("27501", "408", "time_expired_status", 408),
        case("27487", "400", "time_expired_status", 400),
        case("35138", "ReceiptHandleError", "dead_handle_code", "ReceiptHandleError"),
        case("27477", "MessageNotExist", "dead_handle_code", "MessageNotExist"),
        case("observed", "InvalidDigest", "wrong_digest_code", "InvalidDigest"),
        case("27501", "InvalidDegist", "wrong_digest_code", "InvalidDegist"),
        case("observed", "AccessDeniedByRamPolicy", "ram_denial_code", "AccessDeniedByRamPolicy"),
        case("27501", "AccessDenied for what is denied", "ram_denial_code", "AccessDenied"),
        case("SDK", "zero is a timeout", "allow_zero_visibility", True),
        case("protocol 2", "tokens read attributes", "allow_token_attributes", True),
        case("SDK", "only XML is XML", "check_content_type", True),
        case("protocol 1.7", "nothing is counted", "zero_depths", True),
        case("27501", "names rest for a minute", "deleted_queue_secs", 60),
        case("128343", "3000 requests per second", "queue_qps", 3000),
        case("protocol 4", "totals of 2017", "details_of_2017", True),
    ],
)
def test_a_flag_is_a_setting(name: str, value: Any) -> None:
    flag = f"--{name}" if value is True else f"--{name}={value}"
    assert parse_settings([flag]).open_questions == OpenQuestions(**{name: value})


@source("27501, 35138, 35142")
def test_without_flags_the_tables_and_what_was_observed_hold() -> None:
    assert parse_settings([]) == EmulatorSettings()
    assert EmulatorSettings().open_questions == OpenQuestions(
        expired_token_code="AccessDenied",
        time_expired_status=408,
        dead_handle_code="ReceiptHandleError",
        wrong_digest_code="InvalidDigest",
        ram_denial_code="AccessDeniedByRamPolicy",
        allow_zero_visibility=False,
        allow_token_attributes=False,
        check_content_type=False,
        zero_depths=False,
        deleted_queue_secs=0,
        queue_qps=0,
        details_of_2017=False,
    )


@pytest.mark.parametrize(
    ("flag", "complaint"),
    [
        case("inferred", "another code", "--expired_token_code=Expired", "invalid choice"),
        case("27501", "another status", "--time_expired_status=403", "invalid choice"),
        case("27477", "another answer", "--dead_handle_code=QueueNotExist", "invalid choice"),
        case("27501", "a third spelling", "--wrong_digest_code=InvalidDigst", "invalid choice"),
        case("27501", "another denial", "--ram_denial_code=Forbidden.RAM", "invalid choice"),
        case("inferred", "a name that rests for long", "--deleted_queue_secs=86401", "is not in 0"),
        case("inferred", "less than nothing", "--queue_qps=-1", "is not in 0"),
    ],
)
def test_what_no_source_says_is_no_choice(
    flag: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_settings([flag])
    assert complaint in capsys.readouterr().err


@source("inferred")
def test_the_help_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_settings(["--help"])
    told = capsys.readouterr().out
    assert [name for name in FLAGS if f"--{name}" not in told] == []


@pytest.mark.integration
@source("27477, 27487, SDK")
def test_the_flags_reach_the_service(otherwise: EmulatorProcess) -> None:
    mns, token = MnsCaller(otherwise), with_token(otherwise)
    mns.create("q")
    late = mns.call("GET", "/queues", headers={"date": "Thu, 09 Jul 2015 03:01:34 GMT"})
    assert late.refusal == (400, "TimeExpired")
    mns.send("q", "a")
    assert mns.attributes("q").text("ActiveMessages") == "0"
    handle = mns.receive("q").text("ReceiptHandle")
    assert mns.change_visibility("q", handle, 0).status == 200
    assert mns.delete("q", handle).refusal == (404, "MessageNotExist")
    json = mns.call("GET", "/queues", headers={"content-type": "application/json"})
    assert json.refusal == (400, "InvalidContentType")
    undigested = mns.call("GET", "/queues", headers={"content-md5": "%"})
    assert undigested.refusal == (400, "InvalidDegist")
    assert token.attributes(otherwise.report_queue).status == 200
    assert token.receive(otherwise.reply_queue).refusal == (403, "AccessDenied")
    Admin(otherwise).advance(600)
    assert token.receive(otherwise.report_queue).refusal == (403, "SecurityTokenExpired")
    details = call_rpc(otherwise, "QuerySendDetails", PhoneNumber="13800000001",
                       SendDate=beijing_day(Clock().now_ms()), PageSize="1", CurrentPage="1")[1]  # fmt: skip
    assert (details["TotalCount"], details["TotalPage"]) == (0, 0)
