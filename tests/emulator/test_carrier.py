from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from emulator.carrier import Carrier, CarrierRates, Send, SmsOrder, Told
from emulator.clock import beijing_compact, beijing_text
from emulator.outbox import Outbox
from emulator.queues import QueueAttributes, QueueStore
from emulator.sms_center import SmsCenter

NOW = 1_790_000_000_000
DAY = 86_400_000
QUIET: Mapping[str, float] = {
    "failure": 0,
    "duplicate": 0,
    "correction": 0,
    "silent": 0,
    "lost": 0,
    "reply": 0,
    "instant": 0,
    "missing_phone": 0,
    "missing_optional": 0,
}
ORDER = SmsOrder("星河商城", "SMS_1", '{"code":"1"}', "order-1", "07")
SEND = Send("900619746936498440^0", "request", ORDER)


def carrier(**rates: float) -> Carrier:
    return Carrier(CarrierRates(**{**QUIET, **rates}), "seed")


def decode(told: Told) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(base64.b64decode(told.body, validate=True))
    return body


def test_a_report_has_the_nine_documented_fields() -> None:
    record, (told,) = carrier().carry(SEND, "13800000001", NOW)
    assert told.message_type == "SmsReport"
    assert told.due_ms == record.reported_at_ms
    assert NOW <= record.sent_at_ms <= told.due_ms
    assert decode(told) == {
        "phone_number": "13800000001",
        "success": True,
        "biz_id": "900619746936498440^0",
        "out_id": "order-1",
        "send_time": beijing_text(record.sent_at_ms),
        "report_time": beijing_text(told.due_ms),
        "err_code": "DELIVERED",
        "err_msg": "用户接收成功",
        "sms_size": "1",
    }


def test_the_delay_has_the_median_that_was_asked_for() -> None:
    unhurried = carrier(delay_secs=8)
    delays = sorted(unhurried.carry(SEND, "1", NOW)[1][0].due_ms - NOW for _ in range(999))
    assert 7_000 < delays[499] < 9_000


def test_a_failure_is_reported_with_a_code() -> None:
    failing = carrier(failure=1)
    reports = [decode(failing.carry(SEND, "1", NOW)[1][0]) for _ in range(300)]
    assert {report["success"] for report in reports} == {False}
    assert {"MK:0001", "UNDELIV", "MOBLLE_TERMINAL_ERROR"} <= {r["err_code"] for r in reports}


def test_a_duplicate_is_the_same_report_twice() -> None:
    _, (first, second) = carrier(duplicate=1).carry(SEND, "1", NOW)
    assert first.body == second.body
    assert second.due_ms >= first.due_ms


def test_a_correction_tells_another_outcome_later() -> None:
    record, (first, second) = carrier(correction=1).carry(SEND, "1", NOW)
    assert decode(first)["success"] is not decode(second)["success"]
    assert second.due_ms >= first.due_ms
    assert record.err_code == decode(second)["err_code"]


def test_a_silent_carrier_tells_nobody_and_a_lost_report_is_known_to_the_query_api() -> None:
    silent, nothing = carrier(silent=1).carry(SEND, "1", NOW)
    assert (silent.reported_at_ms, nothing) == (None, [])
    lost, nothing = carrier(lost=1).carry(SEND, "1", NOW)
    assert lost.reported_at_ms is not None
    assert nothing == []


def test_optional_fields_can_be_missing() -> None:
    assert set(
        decode(carrier(missing_optional=1, missing_phone=1).carry(SEND, "1", NOW)[1][0])
    ) == {
        "success",
        "biz_id",
        "send_time",
    }


def test_replies_come_in_every_documented_form() -> None:
    chatty = carrier(reply=1)
    replies = [chatty.carry(SEND, "13800000001", NOW)[1][1] for _ in range(50)]
    bodies = [decode(reply) for reply in replies]
    assert {reply.message_type for reply in replies} == {"SmsUp"}
    assert {len(body["send_time"]) for body in bodies} == {14, 19}
    assert {type(body["sequence_id"]) for body in bodies} == {int, str}
    for reply, body in zip(replies, bodies, strict=True):
        assert body["send_time"] in (beijing_text(reply.due_ms), beijing_compact(reply.due_ms))


def test_history_is_over_by_now() -> None:
    slow = carrier(delay_secs=3600, duplicate=1, correction=1, reply=1)
    for _ in range(50):
        record, told = slow.carry(SEND, "1", NOW - 1000, latest_ms=NOW)
        assert len(told) >= 3
        assert max(each.due_ms for each in told) <= NOW
        assert record.sent_at_ms <= NOW


def center(**rates: float) -> tuple[SmsCenter, Outbox, QueueStore]:
    store = QueueStore("seed")
    for name in ("Q-SmsReport", "Q-SmsUp"):
        store.create(name, QueueAttributes(), NOW - 10 * DAY)
    outbox = Outbox(store)
    return SmsCenter(carrier(**rates), outbox, "Q-", NOW, "seed"), outbox, store


def messages(store: QueueStore, now_ms: int) -> int:
    queue = store.get("Q-SmsReport")
    assert queue is not None
    return queue.depths(now_ms).active


def test_an_instant_report_is_on_the_queue_before_the_send_returns() -> None:
    sms, outbox, store = center(instant=1)
    sms.send(ORDER, ["13800000001"], NOW)
    assert (messages(store, NOW), len(outbox)) == (1, 0)


def test_a_report_is_delivered_when_it_is_due_and_not_before() -> None:
    sms, outbox, store = center()
    sms.send(ORDER, ["13800000001"], NOW)
    due_ms = outbox.next_due_ms()
    assert due_ms is not None
    outbox.deliver_due(due_ms - 1)
    assert messages(store, due_ms) == 0
    outbox.deliver_due(due_ms)
    assert (messages(store, due_ms), outbox.next_due_ms()) == (1, None)


def test_old_history_is_enqueued_late_enough_to_be_read() -> None:
    sms, _, store = center()
    sms.send_batch([("13800000001", ORDER)], NOW - 7 * DAY, NOW, over=True)
    queue = store.get("Q-SmsReport")
    assert queue is not None
    (seen,) = queue.peek(16, NOW)
    assert seen.enqueued_at_ms == NOW - 3 * DAY
    assert queue.peek(16, NOW + DAY // 2) == [seen]


def test_details_are_found_by_beijing_day_and_biz_id() -> None:
    sms, _, _ = center()
    midnight_ms = NOW - (NOW + 8 * 3_600_000) % DAY
    first = sms.send(ORDER, ["1", "2"], midnight_ms - 1)
    second = sms.send(ORDER, ["1"], midnight_ms + 1)
    yesterday, today = beijing_compact(midnight_ms - 1)[:8], beijing_compact(midnight_ms)[:8]
    # The first SMS was handed to the carrier after midnight, when its delay reached over it.
    found = sms.details("1", yesterday, None) + sms.details("1", today, None)
    assert [record.send.biz_id for record in found] == [first.biz_id, second.biz_id]
    assert [r.send.biz_id for r in sms.details("1", today, second.biz_id)] == [second.biz_id]
    assert sms.details("3", today, None) == []
