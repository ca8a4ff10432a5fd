"""Where the documents are silent or disagree, a flag decides: what it takes, and that it arrives."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emulator.settings import EmulatorSettings, parse_settings
from tests.emulator.admin_caller import Admin
from tests.emulator.conformance.sources import case, source
from tests.emulator.mns_caller import MnsCaller
from tests.emulator.rpc_caller import with_token
from tests.emulator_process import EmulatorProcess


@pytest.mark.parametrize(
    ("flag", "setting", "value"),
    [
        case(
            "27501",
            "AccessDenied",
            "--expired_token_code=AccessDenied",
            "expired_token_code",
            "AccessDenied",
        ),
        case(
            "27501",
            "InvalidAccessKeyId",
            "--expired_token_code=InvalidAccessKeyId",
            "expired_token_code",
            "InvalidAccessKeyId",
        ),
        case("27501", "408", "--time_expired_status=408", "time_expired_status", 408),
        case("27487", "400", "--time_expired_status=400", "time_expired_status", 400),
        case(
            "35138",
            "ReceiptHandleError",
            "--dead_handle_code=ReceiptHandleError",
            "dead_handle_code",
            "ReceiptHandleError",
        ),
        case(
            "27477",
            "MessageNotExist",
            "--dead_handle_code=MessageNotExist",
            "dead_handle_code",
            "MessageNotExist",
        ),
        case("SDK", "zero is a timeout", "--allow_zero_visibility", "allow_zero_visibility", True),
    ],
)
def test_a_flag_is_a_setting(flag: str, setting: str, value: object) -> None:
    assert getattr(parse_settings([flag]), setting) == value


@source("27501, 35138, 35142")
def test_without_flags_the_tables_hold() -> None:
    settings = EmulatorSettings()
    assert parse_settings([]) == settings
    assert settings.expired_token_code == "AccessDenied"
    assert settings.time_expired_status == 408
    assert settings.dead_handle_code == "ReceiptHandleError"
    assert not settings.allow_zero_visibility


@pytest.mark.parametrize(
    "flag",
    [
        case("inferred", "another code", "--expired_token_code=Expired"),
        case("27501", "another status", "--time_expired_status=403"),
        case("27477", "another answer", "--dead_handle_code=QueueNotExist"),
    ],
)
def test_what_no_source_says_is_no_choice(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_settings([flag])
    assert "invalid choice" in capsys.readouterr().err


@source("inferred")
def test_the_help_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_settings(["--help"])
    told = capsys.readouterr().out
    for flag in (
        "--expired_token_code", "--time_expired_status", "--dead_handle_code",
        "--allow_zero_visibility",
    ):  # fmt: skip
        assert flag in told


@pytest.mark.integration
@source("27477, 27487, SDK")
def test_the_flags_reach_the_service(start_emulator: Callable[..., EmulatorProcess]) -> None:
    emulator = start_emulator(
        "--expired_token_code=SecurityTokenExpired",
        "--time_expired_status=400",
        "--dead_handle_code=MessageNotExist",
        "--allow_zero_visibility",
    )
    mns, token = MnsCaller(emulator), with_token(emulator)
    mns.create("q")
    late = mns.call("GET", "/queues", headers={"date": "Thu, 09 Jul 2015 03:01:34 GMT"})
    assert late.refusal == (400, "TimeExpired")
    mns.send("q", "a")
    handle = mns.receive("q").text("ReceiptHandle")
    assert mns.change_visibility("q", handle, 0).status == 200
    assert mns.delete("q", handle).refusal == (404, "MessageNotExist")
    Admin(emulator).advance(600)
    assert token.receive(emulator.report_queue).refusal == (403, "SecurityTokenExpired")
