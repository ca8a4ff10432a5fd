"""A simulated application: it sends SMS through the same code as SendSms and logs its sends."""

from __future__ import annotations

import base64
import heapq
import itertools
from collections.abc import Callable, Iterator
from random import Random
from typing import Final, NamedTuple

import msgspec.json

from emulator.carrier import Send, SmsOrder
from emulator.clock import utc_text
from emulator.outbox import Outbox
from emulator.send_log import SendLogWriter
from emulator.settings import TrafficSettings
from emulator.sms_center import SmsCenter

# History without --traffic_days happened in these minutes before the start.
_LEAST_HISTORY_MS: Final = 10 * 60 * 1000
_FLUSH_LINES: Final = 20_000
# Shares of sends: to many numbers in one call; never logged (the application crashed in between);
# logged late (a live report then comes before its log line).
_UNLOGGED: Final = 0.002
_LOGGED_LATE: Final = 0.02
_LATE_MS: Final = 5_000
_PREFIXES: Final = ("135", "138", "139", "150", "158", "176", "186", "188", "198")


class _Kind(NamedTuple):
    """One kind of SMS that the application sends."""

    weight: int
    sign_name: str
    template_code: str
    campaign: str | None
    tags: dict[str, str]
    param: Callable[[Random], dict[str, str]]
    most_recipients: int = 1
    extend_code: str | None = None


def _login_code(random: Random) -> dict[str, str]:
    return {"code": f"{random.randrange(1_000_000):06d}"}


def _order_number(random: Random) -> dict[str, str]:
    return {"order": f"{random.randrange(10**10):010d}", "carrier": random.choice(("顺丰", "中通"))}


def _offer(random: Random) -> dict[str, str]:
    return {"discount": random.choice(("八折", "九折", "满200减50"))}


def _amount(random: Random) -> dict[str, str]:
    return {"amount": f"{random.randrange(100, 500_000) / 100:.2f}"}


def _appointment(random: Random) -> dict[str, str]:
    return {"time": f"{random.randrange(9, 18)}:{random.choice(('00', '30'))}", "room": "3-201"}


_KINDS: Final = (
    _Kind(46, "星河商城", "SMS_154950901", None, {"team": "identity"}, _login_code),
    _Kind(20, "星河商城", "SMS_154950902", "order-shipped", {"team": "orders"}, _order_number),
    _Kind(8, "星河支付", "SMS_154950903", "payment-received", {"team": "pay", "tier": "1"}, _amount),
    _Kind(4, "星河支付", "SMS_154950904", "bill-due", {"team": "pay"}, _amount, 20),
    _Kind(1, "星河会员", "SMS_154950905", "spring-sale", {"team": "growth", "wave": "a"}, _offer,
          400, "01"),
    _Kind(1, "星河会员", "SMS_154950906", "win-back", {"team": "growth", "wave": "b"}, _offer,
          120, "02"),
    _Kind(6, "星河医疗", "SMS_154950907", "appointment", {}, _appointment, 1, "07"),
)  # fmt: skip
_WEIGHTS: Final = [kind.weight for kind in _KINDS]


class Traffic:
    """The application. ``counts`` says what it did, for whoever checks the books."""

    def __init__(
        self,
        settings: TrafficSettings,
        center: SmsCenter,
        outbox: Outbox,
        queue_prefix: str,
        seed: str,
    ) -> None:
        """Send by ``center``; garbage goes straight to the queues of ``queue_prefix``."""
        self._settings = settings
        self._center = center
        self._outbox = outbox
        self._queue_prefix = queue_prefix
        self._random = Random(f"{seed}/traffic")  # noqa: S311 (a simulation)
        self._log = None if settings.send_log is None else SendLogWriter(settings.send_log)
        self._late: list[tuple[int, int, int, list[bytes]]] = []
        self._order = itertools.count()
        self._live_since_ms = 0
        self._live_sms = 0
        self.counts = {"sms": 0, "sends": 0, "logged_sms": 0, "unlogged_sms": 0, "garbage": 0}

    @property
    def is_live(self) -> bool:
        """Whether the application goes on sending while the emulator runs."""
        return self._settings.per_sec > 0

    def preload(self, now_ms: int) -> None:
        """Send ``settings.sms`` SMS, spread over the past; all their messages are there at once."""
        total = self._settings.sms
        span_ms = max(int(self._settings.days * 86_400_000), _LEAST_HISTORY_MS)
        since_ms = now_ms - span_ms
        sent = 0
        # No single call may be most of a small history.
        most = max(2, total // 50)
        while sent < total:
            requested_at_ms = since_ms + int(span_ms * (sent + self._random.random()) / total)
            requested_at_ms = min(requested_at_ms, now_ms)
            sent += self._send(requested_at_ms, now_ms, min(most, total - sent), over=True)
        for body, message_type in itertools.islice(_garbage(), self._settings.garbage):
            due_ms = since_ms + self._random.randrange(span_ms)
            self._outbox.post(self._queue_prefix + message_type, body, due_ms, now_ms)
            self.counts["garbage"] += 1
        if self._log is not None:
            self._log.flush()

    def start_live(self, now_ms: int) -> None:
        """Begin the continuous mode."""
        self._live_since_ms = now_ms

    def send_due(self, now_ms: int) -> None:
        """Send what the rate asks for since the last call, then write the log lines that are due."""
        due = int((now_ms - self._live_since_ms) * self._settings.per_sec / 1000)
        most = max(2, int(self._settings.per_sec))
        while self._live_sms < due:
            self._live_sms += self._send(now_ms, now_ms, most, over=False)
        if self._log is None:
            return
        while self._late and self._late[0][0] <= now_ms:
            _, _, requested_at_ms, lines = heapq.heappop(self._late)
            self._log.add(requested_at_ms, lines)
        self._log.flush()

    def close(self) -> None:
        """Write the log lines that are still held back: this application stops in good order."""
        if self._log is not None:
            for _, _, requested_at_ms, lines in sorted(self._late):
                self._log.add(requested_at_ms, lines)
            self._late.clear()
            self._log.flush()

    def _send(self, requested_at_ms: int, now_ms: int, most: int, *, over: bool) -> int:
        random = self._random
        (kind,) = random.choices(_KINDS, _WEIGHTS)
        count = 1
        if kind.most_recipients > 1:
            count = min(most, random.randint(2, kind.most_recipients))
        serial = self.counts["sends"] + 1
        order = SmsOrder(
            kind.sign_name,
            kind.template_code,
            msgspec.json.encode(kind.param(random)).decode(),
            f"app-{serial}" if serial % 5 else None,
            kind.extend_code,
        )
        phones = list(dict.fromkeys(self._phone_number() for _ in range(count)))
        send = self._center.send_batch(
            [(phone, order) for phone in phones], requested_at_ms, now_ms, over=over
        )
        self.counts["sends"] = serial
        self.counts["sms"] += len(phones)
        if random.random() < _UNLOGGED:
            self.counts["unlogged_sms"] += len(phones)
            return len(phones)
        self.counts["logged_sms"] += len(phones)
        if self._log is not None:
            lines = list(_log_lines(kind, send, phones, requested_at_ms))
            if not over and random.random() < _LOGGED_LATE:
                late_ms = now_ms + random.randrange(_LATE_MS)
                heapq.heappush(self._late, (late_ms, next(self._order), requested_at_ms, lines))
            else:
                self._log.add(requested_at_ms, lines)
                if self._log.held >= _FLUSH_LINES:
                    self._log.flush()
        return len(phones)

    def _phone_number(self) -> str:
        random = self._random  # twice random() is much faster than choice() and randrange()
        prefix = _PREFIXES[int(random.random() * len(_PREFIXES))]
        return f"{prefix}{int(random.random() * 100_000_000):08d}"


def _log_lines(kind: _Kind, send: Send, phones: list[str], requested_at_ms: int) -> Iterator[bytes]:
    order = send.order
    entry: dict[str, object] = {
        "biz_id": send.biz_id,
        "phone_number": "",
        "out_id": order.out_id,
        "sign_name": order.sign_name,
        "template_code": order.template_code,
        "template_param": order.template_param,
        "sms_up_extend_code": order.extend_code,
        "campaign": kind.campaign,
        "tags": kind.tags,
        "requested_at": utc_text(requested_at_ms),
        "request_id": send.request_id,
    }
    present = {name: value for name, value in entry.items() if value is not None}
    for phone in phones:
        present["phone_number"] = phone
        yield msgspec.json.encode(present)


def _garbage() -> Iterator[tuple[str, str]]:
    """Yield bodies that no reader can take for a report or a reply, with their message type."""
    at = '"send_time":"2026-11-01 00:00:00"'
    jsons = (
        "{}",
        "null",
        "42",
        '"text"',
        '{"biz_id":',
        f'{{"success":true,{at}}}',
        f'{{"success":null,"biz_id":"1^0",{at}}}',
        f'{{"success":"maybe","biz_id":"1^0",{at}}}',
        f'{{"success":true,"biz_id":{{"a":1}},{at}}}',
        '{"success":true,"biz_id":"1^0","send_time":"yesterday"}',
        '{"success":true,"biz_id":"1^0","send_time":"2026-02-30 00:00:00"}',
        "[" * 20_000,
    )
    raw = (b"\xff\xfe\x00garbage", b"\x1f\x8b\x08\x00\x00\x00\x00\x00", b"\xe4\xb8")
    texts = ("neither base64 nor JSON!", "<script>alert('&')</script> ]]>", "e30", "===")
    encoded = [base64.b64encode(body).decode() for body in (*(j.encode() for j in jsons), *raw)]
    yield from itertools.cycle(itertools.product([*encoded, *texts], ("SmsReport", "SmsUp")))
