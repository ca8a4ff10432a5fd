"""The simulated carrier: what becomes of an SMS, and how Alibaba words it.

Everything is drawn from one seeded generator, in the order of the sends. The messages are in the
shapes of docs 101641 and 101847, and of ask/218006.
"""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec.json

from emulator.clock import beijing_compact, beijing_text

DELIVERED: Final = "DELIVERED"
# The median of a log-normal delay is a setting; this is its spread (p99 is ten times the median).
_DELAY_SIGMA: Final = 1.0
# The share of the delay that passes before the SMS is handed to the carrier (send_time).
_QUEUEING_SHARE: Final = 0.2
_CHARACTERS_PER_SMS: Final = 70

# err_code -> (weight, err_msg). An open set in reality; an empty code occurs.
_FAILURES: Final[dict[str, tuple[int, str]]] = {
    "MK:0001": (22, "空号"),
    "UNDELIV": (14, "短信无法送达"),
    "MOBILE_NOT_ON_SERVICE": (12, "停机、空号、暂停服务、关机、不在服务区"),
    "EXPIRED": (9, "短信超过最大有效期未送达"),
    "MK:0005": (7, "手机停机"),
    "IS_CLOSE": (6, "短信通道被关停，平台会自动剔除被关停通道"),
    "MOBILE_IN_BLACK": (6, "手机号在黑名单"),
    "DB:0144": (5, "运营商黑名单"),
    "MN:0001": (5, "空号"),
    "MOBILE_SEND_LIMIT": (4, "单个号码日、月发送上限或流控，频繁发送超限"),
    "REJECTD": (3, "短信被拒绝"),
    "USER_REJECT": (3, "接收用户已退订此业务或产品未开通"),
    "CONTENT_KEYWORD": (2, "关键字拦截"),
    "MOBLLE_TERMINAL_ERROR": (1, "手机终端问题"),
    "UNKNOWN": (1, "未知错误"),
    "": (1, ""),
}
_FAILURE_CODES: Final = list(_FAILURES)
_FAILURE_WEIGHTS: Final = [weight for weight, _ in _FAILURES.values()]
_REPLIES: Final = ("TD", "T", "退订", "收到", "1", "2", "好的，谢谢", "请问几点到？", "R", "👍")


@dataclass(frozen=True)
class CarrierRates:
    """How often the carrier does what, as shares of all SMS; the delay's median in seconds."""

    delay_secs: float = 1.0
    failure: float = 0.04
    duplicate: float = 0.01
    correction: float = 0.001
    silent: float = 0.005
    lost: float = 0.005
    reply: float = 0.01
    instant: float = 0.02
    missing_phone: float = 0.001
    missing_optional: float = 0.005


class SmsOrder(NamedTuple):
    """What a SendSms call asks for, apart from the recipients."""

    sign_name: str
    template_code: str
    template_param: str | None = None
    out_id: str | None = None
    extend_code: str | None = None


class Send(NamedTuple):
    """One accepted call: what its recipients have in common."""

    biz_id: str
    request_id: str
    order: SmsOrder

    @property
    def content(self) -> str:
        """The text as QuerySendDetails shows it (the emulator knows no template texts)."""
        sign, code, param = self.order[:3]
        return f"【{sign}】{code} {param or ''}".rstrip()


class SmsRecord:
    """One SMS to one number; ``reported_at_ms`` is None when the carrier never tells."""

    __slots__ = ("err_code", "phone_number", "reported_at_ms", "send", "sent_at_ms")

    def __init__(self, send: Send, phone_number: str, sent_at_ms: int) -> None:
        self.send = send
        self.phone_number = phone_number
        self.sent_at_ms = sent_at_ms
        self.reported_at_ms: int | None = None
        self.err_code = DELIVERED


class Told(NamedTuple):
    """One message that the carrier causes."""

    message_type: str
    body: str
    due_ms: int


class Carrier:
    """Decides the fate of every SMS."""

    def __init__(self, rates: CarrierRates, seed: str) -> None:
        """Behave by ``rates``, repeatably for ``seed``."""
        self._rates = rates
        self._random = random.Random(f"{seed}/carrier")  # noqa: S311 (a simulation)
        self._sequence = 0
        self.counts: dict[str, int] = {}

    def carry(
        self, send: Send, phone_number: str, requested_at_ms: int, latest_ms: int | None = None
    ) -> tuple[SmsRecord, list[Told]]:
        """Take one SMS; return what is known about it and the messages that it will cause.

        Args:
            send: the call that it belongs to.
            phone_number: its recipient.
            requested_at_ms: when the application asked for it.
            latest_ms: no message is due later than this (history that is already over).
        """
        rates = self._rates
        draw = self._random.random
        delay_ms = self._delay_ms()
        if draw() < rates.instant:
            delay_ms = 0
            self._count("instant")
        record = SmsRecord(send, phone_number, requested_at_ms + int(delay_ms * _QUEUEING_SHARE))
        if draw() < rates.silent:
            self._count("silent")
            return record, []
        reported_at_ms = _not_after(requested_at_ms + delay_ms, latest_ms)
        record.sent_at_ms = min(record.sent_at_ms, reported_at_ms)
        record.reported_at_ms = reported_at_ms
        if draw() < rates.failure:
            self._count("failed")
            record.err_code = self._failure_code()
        told: list[Told] = []
        if draw() < rates.lost:
            self._count("lost")
        else:
            told = self._reports(record, reported_at_ms, latest_ms)
        if draw() < rates.reply and record.err_code == DELIVERED:
            self._count("replies")
            replied_at_ms = _not_after(reported_at_ms + 3 * self._delay_ms(), latest_ms)
            told.append(Told("SmsUp", self._reply(record, replied_at_ms), replied_at_ms))
        return record, told

    def _reports(self, record: SmsRecord, at_ms: int, latest_ms: int | None) -> list[Told]:
        rates = self._rates
        draw = self._random.random
        self._count("reports")
        body = self._report(record, at_ms)
        told = [Told("SmsReport", body, at_ms)]
        if draw() < rates.duplicate:
            self._count("duplicates")
            again_ms = _not_after(at_ms + self._delay_ms(), latest_ms)
            told.append(Told("SmsReport", body, again_ms))
        if draw() < rates.correction:
            self._count("corrections")
            if record.err_code == DELIVERED:
                record.err_code = self._failure_code()
            else:
                record.err_code = DELIVERED
            again_ms = _not_after(at_ms + 2 * self._delay_ms(), latest_ms)
            record.reported_at_ms = again_ms
            told.append(Told("SmsReport", self._report(record, again_ms), again_ms))
        return told

    def _report(self, record: SmsRecord, at_ms: int) -> str:
        rates = self._rates
        draw = self._random.random
        send = record.send
        err_code = record.err_code
        delivered = err_code == DELIVERED
        size = 1 + len(send.order.template_param or "") // _CHARACTERS_PER_SMS
        fields: dict[str, object] = {
            "send_time": beijing_text(record.sent_at_ms),
            "report_time": beijing_text(at_ms),
            "success": delivered,
            "err_msg": "用户接收成功" if delivered else _FAILURES[err_code][1],
            "err_code": err_code,
            "phone_number": record.phone_number,
            "sms_size": str(size),
            "biz_id": send.biz_id,
        }
        if send.order.out_id is not None:
            fields["out_id"] = send.order.out_id
        if draw() < rates.missing_phone:
            self._count("reports_without_phone")
            del fields["phone_number"]
        if draw() < rates.missing_optional:
            # Only success, biz_id and send_time were ever promised (2017 MNS documents).
            self._count("reports_without_optional")
            for name in ("report_time", "err_msg", "err_code", "sms_size", "out_id"):
                fields.pop(name, None)
        return _base64_json(fields)

    def _reply(self, record: SmsRecord, at_ms: int) -> str:
        self._sequence += 1
        sequence = 1_234_567_890 + self._sequence
        # Both time formats and both types of sequence_id are documented.
        compact, numeric = self._random.random() < 0.5, self._random.random() < 0.5  # noqa: PLR2004
        return _base64_json(
            {
                "phone_number": record.phone_number,
                "send_time": beijing_compact(at_ms) if compact else beijing_text(at_ms),
                "content": self._random.choice(_REPLIES),
                "dest_code": f"10690999{record.send.order.extend_code or ''}",
                "sequence_id": sequence if numeric else str(sequence),
            }
        )

    def _failure_code(self) -> str:
        return self._random.choices(_FAILURE_CODES, _FAILURE_WEIGHTS)[0]

    def _delay_ms(self) -> int:
        median_ms = self._rates.delay_secs * 1000
        return int(median_ms * self._random.lognormvariate(0, _DELAY_SIGMA))

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


def _base64_json(fields: dict[str, object]) -> str:
    return base64.b64encode(msgspec.json.encode(fields)).decode()


def _not_after(at_ms: int, latest_ms: int | None) -> int:
    return at_ms if latest_ms is None else min(at_ms, latest_ms)
