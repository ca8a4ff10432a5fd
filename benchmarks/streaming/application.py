"""An application and its carrier at a steady rate: every SMS is logged, then reported once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

from mns.account import Account
from mns.queue import Message

from benchmarks.streaming.jobs import ENVIRONMENT, QUEUES

_BEIJING: Final = timezone(timedelta(hours=8))
_BATCH: Final = 16  # BatchSendMessage takes no more
_TICK_SECS: Final = 0.1


class Application(threading.Thread):
    """Logs sends and puts their reports on the queue; ``message_ids`` are those that it has put there.

    Args:
        endpoint: of the emulator.
        send_log: the directory of the send log.
        per_sec: SMS per second.
    """

    def __init__(self, endpoint: str, send_log: Path, per_sec: float) -> None:
        super().__init__(name="application", daemon=True)
        self.message_ids: set[str] = set()
        self._log = send_log / "application.jsonl"
        self._per_sec = per_sec
        self._sms = 0
        self._stopping = threading.Event()
        account = Account(
            endpoint,
            ENVIRONMENT["ALIBABA_CLOUD_ACCESS_KEY_ID"],
            ENVIRONMENT["ALIBABA_CLOUD_ACCESS_KEY_SECRET"],
        )
        self._client = account.get_client()
        self._queue = account.get_queue(QUEUES[0])

    def run(self) -> None:
        """Send until told to stop, a tenth of a second's worth at a time."""
        began, sent = time.monotonic(), 0
        while not self._stopping.wait(_TICK_SECS):
            due = int((time.monotonic() - began) * self._per_sec)
            self.send(due - sent)
            sent = due

    def stop(self) -> None:
        """Finish what was begun, then end."""
        self._stopping.set()
        if self.is_alive():
            self.join()
        self._client.close_connection()

    def send(self, count: int) -> None:
        """Send SMS, log them and have them reported."""
        first, self._sms = self._sms, self._sms + count
        write_sends(self._log, range(first, self._sms))
        bodies = [_report(number) for number in range(first, self._sms)]
        for start in range(0, len(bodies), _BATCH):
            messages = [Message(body) for body in bodies[start : start + _BATCH]]
            self.message_ids |= {
                sent.message_id for sent in self._queue.batch_send_message(messages)
            }


def write_sends(log: Path, numbers: Sequence[int]) -> None:
    """Append the sends of SMS by number to a file of the send log."""
    with log.open("a", encoding="utf-8") as file:
        file.writelines(_log_lines(numbers))


def _log_lines(numbers: Sequence[int]) -> Iterator[str]:
    requested_at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    for number in numbers:
        entry = {
            "biz_id": _biz_id(number),
            "phone_number": _phone(number),
            "out_id": f"order-{number}",
            "sign_name": "阿里云通信",
            "template_code": f"SMS_{15305000 + number % 7}",
            "template_param": json.dumps({"code": f"{_scrambled(number) % 10**6:06}"}),
            "campaign": "login",
            "tags": {"team": "growth"},
            "requested_at": requested_at,
            "request_id": f"{_scrambled(number):016X}{_scrambled(number + 1):016X}",
        }
        yield json.dumps(entry, ensure_ascii=False) + "\n"


def _report(number: int) -> str:
    now = datetime.now(_BEIJING).strftime("%Y-%m-%d %H:%M:%S")
    fields = {
        "send_time": now,
        "report_time": now,
        "success": True,
        "err_code": "DELIVERED",
        "err_msg": "用户接收成功",
        "phone_number": _phone(number),
        "sms_size": "1",
        "biz_id": _biz_id(number),
        "out_id": f"order-{number}",
    }
    return json.dumps(fields, ensure_ascii=False)


def _biz_id(number: int) -> str:
    return f"{_scrambled(number + 3) % 10**18:018}^0"


def _phone(number: int) -> str:
    return f"1{_scrambled(number + 4) % 10**10:010}"


def _scrambled(number: int) -> int:
    # What differs between SMS shall not compress.
    return (number * 0x9E3779B97F4A7C15 ^ (number << 17) ^ 0x5DEECE66D) * 0xBF58476D1CE4E5B9 % 2**64
