"""Alibaba's SMS service behind its API: takes sends, remembers them, tells the queues."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Final, NamedTuple

from emulator.carrier import DELIVERED, Carrier, Send, SmsOrder, SmsRecord
from emulator.clock import beijing_day
from emulator.outbox import Outbox

_MAINLAND_NUMBER: Final = re.compile(r"(\+?86|0086)?1[0-9]{10}")
# Template codes of the simulated traffic whose type is another than 1, a notification (397330).
_TEMPLATE_TYPES: Final = {"SMS_154950901": 0, "SMS_154950905": 2, "SMS_154950906": 2}
_NOTIFICATION: Final = 1


class DayTotals(NamedTuple):
    """What became of the SMS of a Beijing day (``20170901``), by the carrier's verdict."""

    day: str
    delivered: int
    failed: int
    awaiting: int


class SmsCenter:
    """Accepts SMS, hands them to the carrier and answers questions about them."""

    def __init__(
        self, carrier: Carrier, outbox: Outbox, queue_prefix: str, started_at_ms: int, seed: str
    ) -> None:
        """Report into ``<queue_prefix><message type>``.

        ``started_at_ms`` is in every biz_id: an emulator that was restarted must not repeat one.
        """
        self._carrier = carrier
        self._outbox = outbox
        self._queue_prefix = queue_prefix
        self._next_biz = started_at_ms * 100_000
        self._random = Random(f"{seed}/sms")  # noqa: S311 (ids, not secrets)
        self._records: list[SmsRecord] = []
        self._by_phone: dict[str, list[SmsRecord]] = {}
        self._indexed = 0

    @property
    def accepted(self) -> int:
        """How many SMS (recipients) were accepted."""
        return len(self._records)

    def request_id(self) -> str:
        """Make a request id: an upper-case UUID."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4)).upper()

    def send(self, order: SmsOrder, phone_numbers: Sequence[str], now_ms: int) -> Send:
        """Send one text to all numbers, now."""
        return self.send_batch([(phone, order) for phone in phone_numbers], now_ms, now_ms)

    def send_batch(
        self,
        texts: Sequence[tuple[str, SmsOrder]],
        requested_at_ms: int,
        now_ms: int,
        *,
        over: bool = False,
    ) -> Send:
        """Send each number its own text under one biz_id.

        Args:
            texts: recipients with what they get; at least one.
            requested_at_ms: when the application asked; in the past for simulated history.
            now_ms: the current time.
            over: everything that these sends cause has happened by now.
        """
        biz_id = f"{self._next_biz}^0"
        self._next_biz += 1
        request_id = self.request_id()
        send = Send(biz_id, request_id, texts[0][1])
        latest_ms = now_ms if over else None
        for phone, order in texts:
            if order is not send.order:
                send = Send(biz_id, request_id, order)
            record, told = self._carrier.carry(send, phone, requested_at_ms, latest_ms)
            self._records.append(record)
            for message_type, body, due_ms in told:
                self._outbox.post(self._queue_prefix + message_type, body, due_ms, now_ms)
        return send

    def details(self, phone_number: str, day: str, biz_id: str | None) -> list[SmsRecord]:
        """Return the SMS to a number on a Beijing day (``20170901``), oldest first."""
        for record in self._records[self._indexed :]:
            self._by_phone.setdefault(record.phone_number, []).append(record)
        self._indexed = len(self._records)
        return [
            record
            for record in self._by_phone.get(phone_number, ())
            if beijing_day(record.sent_at_ms) == day
            and (biz_id is None or record.send.biz_id == biz_id)
        ]

    def totals(  # noqa: PLR0913 (the filters of QuerySendStatistics)
        self,
        first: str,
        last: str,
        now_ms: int,
        *,
        is_abroad: bool,
        sign_name: str | None,
        template_type: int | None,
    ) -> list[DayTotals]:
        """Count the SMS of the Beijing days ``first`` to ``last`` that had any, oldest day first."""
        counts: Counter[tuple[str, str]] = Counter()
        days = set()
        for record in self._records:
            day = beijing_day(record.sent_at_ms)
            order = record.send.order
            is_asked_for = (
                first <= day <= last
                and bool(_MAINLAND_NUMBER.fullmatch(record.phone_number)) != is_abroad
                and sign_name in (None, order.sign_name)
                and template_type in (None, _template_type(order))
            )
            if is_asked_for:
                days.add(day)
                counts[day, _verdict(record, now_ms)] += 1
        return [
            DayTotals(day, *(counts[day, word] for word in ("delivered", "failed", "awaiting")))
            for day in sorted(days)
        ]


def _template_type(order: SmsOrder) -> int:
    return _TEMPLATE_TYPES.get(order.template_code, _NOTIFICATION)


def _verdict(record: SmsRecord, now_ms: int) -> str:
    if record.reported_at_ms is None or record.reported_at_ms > now_ms:
        return "awaiting"
    return "delivered" if record.err_code == DELIVERED else "failed"
