"""Every fault as a client of a running emulator meets it; what was done is told by the queue."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from contextlib import closing
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.emulator.admin_caller import Admin, Json
from tests.emulator.mns_caller import MnsCaller, finish
from tests.emulator.rpc_caller import call_rpc, query_token, with_token
from tests.emulator_process import EmulatorProcess

pytestmark = pytest.mark.integration

TAKE = "numOfMessages=16"


@pytest.fixture
def emulator(disturbed: EmulatorProcess) -> EmulatorProcess:
    """The emulator that ``mns`` calls."""
    return disturbed


def take(mns: MnsCaller, queue: str) -> tuple[list[str], list[str]]:
    """Receive all that is there; return bodies and handles."""
    reply = mns.receive(queue, TAKE)
    return reply.texts("MessageBody"), reply.texts("ReceiptHandle")


@pytest.mark.parametrize(
    ("rule", "refusal"),
    [
        ({"fault": "internal_error"}, (500, "InternalError")),
        ({"fault": "unavailable"}, (503, "ServiceUnavailable")),
        ({"fault": "qps_limit"}, (400, "QpsLimitExceeded")),
        ({"fault": "forbidden"}, (403, "AccessDenied")),
        *(
            ({"fault": "forbidden", "code": code}, (403, code))
            for code in (
                "AccessDeniedByRamPolicy",
                "InvalidAccessKeyId",
                "InvalidSecurityToken",
                "SecurityTokenExpired",
                "SignatureDoesNotMatch",
            )
        ),
    ],
)
def test_a_refused_request_is_not_done(
    rule: Json, refusal: tuple[int, str], mns: MnsCaller, admin: Admin, stocked: str
) -> None:
    admin.set_rules({"times": 1, **rule})
    assert mns.receive(stocked, TAKE).refusal == refusal
    assert admin.depths(stocked) == (3, 0, 0)
    assert admin.injected() == [1]
    assert mns.receive(stocked, TAKE).status == 200


def test_a_reset_before_the_request_leaves_everything_as_it_was(
    mns: MnsCaller, admin: Admin, stocked: str
) -> None:
    admin.set_rules({"fault": "reset_before"})
    with pytest.raises(ConnectionResetError) as reset:
        mns.send(stocked, "d")
    # A connection that is merely closed looks like this to Python.
    assert not isinstance(reset.value, http.client.RemoteDisconnected)
    assert admin.depths(stocked) == (3, 0, 0)


def test_a_reset_after_the_request_keeps_what_was_done(
    mns: MnsCaller, admin: Admin, stocked: str
) -> None:
    _, handles = take(mns, stocked)
    admin.set_rules({"fault": "reset_after", "operations": ["delete", "send"]})
    with pytest.raises(ConnectionResetError) as reset:
        mns.batch_delete(stocked, handles[:2])
    assert not isinstance(reset.value, http.client.RemoteDisconnected)
    assert admin.depths(stocked) == (0, 1, 0)
    with pytest.raises(ConnectionResetError):
        mns.send(stocked, "d")
    assert admin.depths(stocked) == (1, 1, 0)


def test_a_renewal_whose_answer_is_lost_has_changed_the_handle(
    mns: MnsCaller, admin: Admin, stocked: str
) -> None:
    _, handles = take(mns, stocked)
    admin.set_rules({"fault": "reset_after", "operations": ["renew"]})
    with pytest.raises(ConnectionResetError):
        mns.change_visibility(stocked, handles[0], 60)
    assert mns.delete(stocked, handles[0]).code == "ReceiptHandleError"
    assert mns.delete(stocked, handles[1]).status == 204


def test_half_an_answer_is_the_first_half(mns: MnsCaller, admin: Admin, stocked: str) -> None:
    admin.set_rules({"fault": "half_answer"})
    with pytest.raises(http.client.IncompleteRead) as cut:
        mns.receive(stocked, TAKE)
    assert cut.value.partial.startswith(b"<?xml")
    assert cut.value.expected is not None
    assert abs(len(cut.value.partial) - cut.value.expected) <= 1
    assert admin.depths(stocked) == (0, 3, 0)


def test_half_an_answer_without_a_body_is_half_a_head(
    mns: MnsCaller, admin: Admin, stocked: str
) -> None:
    _, handles = take(mns, stocked)
    admin.set_rules({"fault": "half_answer"})
    # Half a head may still parse; then a header at the end of it is missing or cut.
    reply = mns.delete(stocked, handles[0])
    assert len(reply.headers.get("x-mns-request-id", "")) < 24
    assert admin.depths(stocked) == (0, 2, 0)


@pytest.mark.parametrize(("applied", "depths"), [(False, (3, 0, 0)), (True, (0, 3, 0))])
def test_garbage_is_neither_xml_nor_json(
    applied: bool, depths: tuple[int, int, int], mns: MnsCaller, admin: Admin, stocked: str
) -> None:
    admin.set_rules({"fault": "garbage_answer", "applied": applied})
    reply = mns.receive(stocked, TAKE)
    assert (reply.status, reply.body[:1]) == (200, b"\0")
    assert admin.depths(stocked) == depths


def test_a_slow_answer_is_to_a_request_that_was_done_at_once(
    mns: MnsCaller, admin: Admin, stocked: str
) -> None:
    admin.set_rules({"fault": "slow", "delay_secs": 0.3})
    began = time.monotonic()
    with closing(mns.begin("GET", f"/queues/{stocked}/messages?{TAKE}")) as open_:
        while admin.depths(stocked) != (0, 3, 0):
            assert time.monotonic() < began + 10
        assert finish(open_).status == 200
    assert time.monotonic() - began >= 0.3


def test_a_full_queue_says_that_it_is_empty(mns: MnsCaller, admin: Admin, stocked: str) -> None:
    admin.set_rules({"fault": "empty", "times": 1})
    assert mns.receive(stocked, f"{TAKE}&waitseconds=30").refusal == (404, "MessageNotExist")
    assert admin.depths(stocked) == (3, 0, 0)
    assert take(mns, stocked)[0] == ["a", "b", "c"]


def test_fewer_messages_come_than_are_there(mns: MnsCaller, admin: Admin, stocked: str) -> None:
    admin.set_rules({"fault": "fewer", "most": 2})
    assert take(mns, stocked)[0] == ["a", "b"]
    assert take(mns, stocked)[0] == ["c"]


def test_messages_come_in_another_order(mns: MnsCaller, admin: Admin, stocked: str) -> None:
    for body in "defghij":
        mns.send(stocked, body)
    admin.set_rules({"fault": "shuffle"})
    bodies, _ = take(mns, stocked)
    assert bodies != sorted(bodies)
    assert sorted(bodies) == list("abcdefghij")


def test_messages_are_handed_out_again(mns: MnsCaller, admin: Admin, stocked: str) -> None:
    admin.set_rules({"fault": "redeliver", "share_of_entries": 0.5, "times": 1})
    first, first_handles = take(mns, stocked)
    again, new_handles = take(mns, stocked)
    assert (len(first), len(again)) == (3, 2)
    assert [body for body in first if body in again] == again
    old = [first_handles[first.index(body)] for body in again]
    errors = mns.batch_delete(stocked, old)
    assert errors.status == 404
    assert sorted(errors.texts("ReceiptHandle")) == sorted(old)
    (kept,) = set(first_handles) - set(old)
    assert mns.batch_delete(stocked, [kept, *new_handles]).status == 204
    assert admin.depths(stocked) == (0, 0, 0)


def test_a_received_lease_ends_before_its_time(mns: MnsCaller, admin: Admin, stocked: str) -> None:
    admin.set_rules({"fault": "early_expiry", "secs": 5, "operations": ["receive"]})
    reply = mns.receive(stocked, TAKE)
    left_ms = int(reply.texts("NextVisibleTime")[0]) - admin.get("/clock")["now_ms"]
    assert left_ms > 20_000
    first, *others = reply.texts("ReceiptHandle")
    renewed = mns.change_visibility(stocked, first, 30).text("ReceiptHandle")
    admin.advance(6)
    assert sorted(mns.batch_delete(stocked, others).texts("ReceiptHandle")) == sorted(others)
    assert mns.delete(stocked, renewed).status == 204


def test_a_renewed_lease_ends_before_its_time(mns: MnsCaller, admin: Admin, stocked: str) -> None:
    admin.set_rules({"fault": "early_expiry", "secs": 5, "operations": ["renew"]})
    first, *others = take(mns, stocked)[1]
    renewed = mns.change_visibility(stocked, first, 30).text("ReceiptHandle")
    admin.advance(6)
    assert mns.delete(stocked, renewed).code == "ReceiptHandleError"
    assert mns.batch_delete(stocked, others).status == 204


def test_a_long_poll_is_not_allowed_to_wait(mns: MnsCaller, admin: Admin, stocked: str) -> None:
    take(mns, stocked)
    admin.set_rules({"fault": "no_wait"})
    assert mns.receive(stocked, "waitseconds=30").code == "MessageNotExist"
    assert admin.injected() == [1]


def test_part_of_a_batch_is_not_deleted(mns: MnsCaller, admin: Admin, stocked: str) -> None:
    _, handles = take(mns, stocked)
    admin.set_rules({"fault": "partial_delete", "share_of_entries": 0.3, "code": "InternalError"})
    reply = mns.batch_delete(stocked, handles)
    assert (reply.status, reply.texts("ErrorCode")) == (404, ["InternalError"])
    assert admin.depths(stocked) == (0, 1, 0)
    refused = reply.text("ReceiptHandle")
    assert mns.delete(stocked, refused).refusal == (500, "InternalError")
    admin.end_rules()
    assert mns.delete(stocked, refused).status == 204


def test_a_delete_is_forgotten(mns: MnsCaller, admin: Admin, stocked: str) -> None:
    _, handles = take(mns, stocked)
    admin.set_rules({"fault": "lost_delete"})
    assert mns.batch_delete(stocked, handles).status == 204
    assert admin.depths(stocked) == (0, 3, 0)
    admin.advance(30)
    assert take(mns, stocked)[0] == ["a", "b", "c"]


def test_a_revoked_token_stays_dead_and_the_next_one_works(
    emulator: EmulatorProcess, admin: Admin
) -> None:
    old, other = with_token(emulator), with_token(emulator)
    admin.set_rules({"fault": "token_revoked", "skip": 1, "times": 1})
    peeks = [old.receive(emulator.report_queue, "peekonly=true").code for _ in range(3)]
    assert peeks == ["MessageNotExist", "AccessDenied", "AccessDenied"]
    for mns in (other, with_token(emulator)):
        assert mns.receive(emulator.report_queue, "peekonly=true").code == "MessageNotExist"
    assert admin.injected() == [1]


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        ({"fault": "throttling"}, (400, "Throttling.User")),
        ({"fault": "unavailable"}, (503, "ServiceUnavailable")),
        ({"fault": "internal_error"}, (500, "InternalError")),
        ({"fault": "forbidden"}, (403, "Forbidden.RAM")),
        ({"fault": "forbidden", "code": "InvalidAccessKeyId.Inactive"},
         (400, "InvalidAccessKeyId.Inactive")),
        ({"fault": "refusal"}, (200, "isp.SYSTEM_ERROR")),
        ({"fault": "clock_skew", "secs": 901}, (400, "InvalidTimeStamp.Expired")),
    ],
)  # fmt: skip
def test_the_token_service_fails_while_all_else_goes_on(
    rule: Json, outcome: tuple[int, str], emulator: EmulatorProcess, admin: Admin
) -> None:
    mns = with_token(emulator)
    admin.set_rules({"operations": ["token"], "queues": ["*-SmsReport"], **rule})
    status, told = query_token(emulator)
    assert (status, told["Code"]) == outcome
    assert query_token(emulator, "SmsUp")[0] == 200
    assert mns.receive(emulator.report_queue).refusal == (404, "MessageNotExist")


def test_the_rpc_gateway_breaks_connections_too(emulator: EmulatorProcess, admin: Admin) -> None:
    sms = {"PhoneNumbers": "13800000001", "SignName": "s", "TemplateCode": "SMS_1"}
    before = admin.get("")["accepted_sms"]
    admin.set_rules(
        {"fault": "reset_after", "operations": ["rpc"], "times": 1},
        {"fault": "half_answer", "operations": ["rpc"]},
    )
    with pytest.raises(ConnectionResetError):
        call_rpc(emulator, "SendSms", **sms)
    with pytest.raises(http.client.IncompleteRead):
        call_rpc(emulator, "SendSms", **sms)
    assert admin.get("")["accepted_sms"] == before + 2


def test_a_stop_does_not_wait_for_slow_answers(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"rules": [{"fault": "slow", "delay_secs": 30, "operations": ["receive"]}]}')
    emulator = start_emulator(f"--faults={plan}")
    with closing(
        MnsCaller(emulator).begin("GET", f"/queues/{emulator.report_queue}/messages")
    ) as slow:
        while Admin(emulator).injected() != [1]:
            pass
        assert emulator.stop() == 0
        assert finish(slow).code == "MessageNotExist"


@pytest.mark.parametrize(("secs", "code"), [(901, "TimeExpired"), (-901, "TimeExpired")])
def test_a_server_whose_clock_is_off_refuses_dates_and_tells_its_own(
    secs: int, code: str, mns: MnsCaller, admin: Admin, stocked: str
) -> None:
    admin.set_rules({"fault": "clock_skew", "secs": secs})
    reply = mns.receive(stocked, TAKE)
    assert reply.refusal == (408, code)
    told = parsedate_to_datetime(reply.headers["date"]).timestamp()
    assert abs(told - admin.get("/clock")["now_ms"] / 1000 - secs) < 5


def test_a_small_skew_moves_the_date_and_nothing_else(
    mns: MnsCaller, admin: Admin, stocked: str
) -> None:
    admin.set_rules({"fault": "clock_skew", "secs": 600})
    reply = mns.receive(stocked, TAKE)
    now_ms = admin.get("/clock")["now_ms"]
    assert parsedate_to_datetime(reply.headers["date"]).timestamp() * 1000 > now_ms + 500_000
    assert int(reply.texts("NextVisibleTime")[0]) < now_ms + 31_000
