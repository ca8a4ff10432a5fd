"""The emulator's own endpoints: its clock, the truth about its queues, its plan."""

from __future__ import annotations

import http.client
from contextlib import closing

import pytest

from tests.emulator.admin_caller import Admin
from tests.emulator.mns_caller import MnsCaller, finish
from tests.emulator.rpc_caller import call_rpc, with_token
from tests.emulator_process import EmulatorProcess

pytestmark = pytest.mark.integration

TAKE = "numOfMessages=16"


@pytest.fixture
def emulator(disturbed: EmulatorProcess) -> EmulatorProcess:
    """The emulator that ``mns`` calls."""
    return disturbed


def test_an_advanced_clock_ends_leases_delays_and_retention(
    mns: MnsCaller, admin: Admin, stocked: str
) -> None:
    mns.receive(stocked, TAKE)
    mns.send(stocked, "d", DelaySeconds=100)
    assert admin.depths(stocked) == (0, 3, 1)
    admin.advance(30)
    assert admin.depths(stocked) == (3, 0, 1)
    admin.advance(70)
    assert admin.depths(stocked) == (4, 0, 0)
    mns.receive(stocked, TAKE)
    admin.advance(500)
    assert admin.depths(stocked) == (0, 0, 0)


def poll(mns: MnsCaller, stocked: str, admin: Admin) -> http.client.HTTPConnection:
    """Begin a long poll; it waits when this returns."""
    connection = mns.begin("GET", f"/queues/{stocked}/messages?waitseconds=30")
    admin.get("")  # what is answered after it was begun says that it is being served
    return connection


def test_a_long_poll_ends_when_its_time_is_advanced(
    mns: MnsCaller, admin: Admin, stocked: str
) -> None:
    handles = mns.receive(stocked, TAKE).texts("ReceiptHandle")
    mns.batch_delete(stocked, handles)
    with closing(poll(mns, stocked, admin)) as waiting:
        admin.advance(30)
        assert finish(waiting).code == "MessageNotExist"


def test_a_long_poll_gets_what_an_advanced_clock_reveals(
    mns: MnsCaller, admin: Admin, stocked: str
) -> None:
    mns.receive(stocked, TAKE)
    with closing(poll(mns, stocked, admin)) as waiting:
        admin.advance(29.99)
        assert finish(waiting).text("MessageBody") == "a"


def test_reports_come_and_go_with_an_advanced_clock(
    emulator: EmulatorProcess, admin: Admin
) -> None:
    before = admin.get("")
    phones = ",".join(f"1380000{number:04d}" for number in range(50))
    sms = {"PhoneNumbers": phones, "SignName": "s", "TemplateCode": "SMS_1"}
    assert call_rpc(emulator, "SendSms", **sms)[1]["Code"] == "OK"
    assert admin.get("")["delivered"] == before["delivered"]
    admin.advance(30 * 86_400)
    after = admin.get("")
    assert after["waiting"] == 0
    assert after["delivered"][emulator.report_queue] >= 50
    assert admin.depths(emulator.report_queue)[0] >= 50
    admin.advance(4 * 86_400)
    assert admin.depths(emulator.report_queue) == (0, 0, 0)


def test_a_token_dies_of_an_advanced_clock_whose_clients_do_not_know(
    emulator: EmulatorProcess, admin: Admin
) -> None:
    mns = with_token(emulator)
    admin.advance(599)
    assert mns.receive(emulator.reply_queue, "peekonly=true").code == "AccessDeniedByRamPolicy"
    admin.advance(1)
    assert mns.receive(emulator.reply_queue, "peekonly=true").code == "AccessDenied"


def test_a_new_plan_starts_to_count_anew_and_none_is_the_end_of_it(
    mns: MnsCaller, admin: Admin, stocked: str
) -> None:
    rule = {"fault": "unavailable", "queues": [stocked]}
    for _ in range(2):
        admin.set_rules(rule, {"fault": "unavailable", "queues": ["other"]})
        assert mns.receive(stocked).status == 503
        counts = [{"matched": 1, "injected": 1}, {"matched": 0, "injected": 0}]
        assert admin.get("/faults")["counts"] == counts
    admin.end_rules()
    assert mns.receive(stocked).status == 200


@pytest.mark.parametrize(
    ("path", "document", "told"),
    [
        ("/faults", {"rules": [{"fault": "slwo"}]}, "rules[0].fault must be one of"),
        ("/faults", None, "not JSON"),
        ("/clock", {"advance_secs": -1}, "advance_secs"),
        ("/clock", {"advance_secs": "1"}, "advance_secs"),
        ("/clock", {"advance_secs": True}, "advance_secs"),
        ("/clock", {"advance_ms": 1}, "advance_secs"),
        ("/clock", None, "advance_secs"),
    ],
)
def test_a_senseless_request_of_the_admin_is_refused_in_one_sentence(
    path: str, document: object, told: str, admin: Admin
) -> None:
    before_ms = admin.get("/clock")["now_ms"]
    status, answer = admin.call("PUT" if path == "/faults" else "POST", path, document)
    assert status == 400
    assert told in answer["error"]
    assert admin.get("/clock")["now_ms"] - before_ms < 60_000
    assert admin.get("/faults") == {"plan": None, "counts": []}


def test_the_truth_about_a_queue_that_is_not_there_is_404(admin: Admin) -> None:
    assert admin.call("GET", "/queues/none") == (404, {"error": "there is no queue none"})
