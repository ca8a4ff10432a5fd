"""An application and its carrier for a test: they send, log, report and reply, and keep their own books."""

import json
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from hashlib import md5
from pathlib import Path
from typing import Final

from mns.account import Account
from mns.queue import Message

from tests.emulator_process import EmulatorProcess

_BEIJING: Final = timezone(timedelta(hours=8))
_ENQUEUE_CLOCK_SECS: Final = 0.002  # enqueue times are milliseconds
_BATCH: Final = 16  # BatchSendMessage takes no more
# By then the first report has left, unless something was killed meanwhile.
_AGAIN_AFTER_SECS: Final = 10.0


def event_id(biz_id: str, phone_number: str) -> str:
    return md5(f"{biz_id}|{phone_number}".encode(), usedforsecurity=False).hexdigest()


@dataclass
class Books:
    """What the outputs must hold once everything has left."""

    sms: int = 0
    logged: int = 0  # sends
    message_ids: set[str] = field(default_factory=set)
    outcomes: set[tuple[str, str]] = field(default_factory=set)  # (event id, err_code)
    last_outcome: dict[str, str] = field(default_factory=dict)  # by event id
    matches: dict[str, str] = field(default_factory=dict)  # by event id
    unreported: set[str] = field(default_factory=set)  # event ids
    replies: int = 0
    unusable: set[str] = field(default_factory=set)  # message ids


class Load(threading.Thread):
    """Sends SMS while it runs; what becomes of the n-th one depends on n alone.

    Of 20, one is never reported (as long as ``is_often_silent``), one never logged, one reported twice at
    once, one again much later, one corrected, one answered, and one comes with a message that is no report.
    """

    def __init__(self, emulator: EmulatorProcess, send_log: Path, per_sec: int) -> None:
        super().__init__(name="load", daemon=True)
        self.books = Books()
        self.is_often_silent = True
        self._send_log = send_log
        self._per_sec = per_sec
        self._stopping = threading.Event()
        self._repeats: deque[tuple[float, str]] = deque()  # when (monotonic), and the body
        account = Account(emulator.url, emulator.key_id, emulator.key_secret)
        self._client = account.get_client()
        self._queue = {
            name: account.get_queue(name) for name in (emulator.report_queue, emulator.reply_queue)
        }
        self._reports, self._replies = self._queue

    def run(self) -> None:
        while not self._stopping.wait(0.1):
            self.send(max(1, self._per_sec // 10))

    def stop(self) -> Books:
        """Finish what was begun; return the books."""
        self._stopping.set()
        if self.is_alive():
            self.join()
        self._post(self._reports, self._due_repeats(math.inf))
        self._client.close_connection()
        return self.books

    def send(self, count: int) -> None:
        """Send SMS, log them, and have them reported; corrections come in a later call."""
        bodies: list[str] = []
        corrections: list[str] = []
        unusable: list[str] = []
        lines: list[str] = []
        for _ in range(count):
            number = self.books.sms = self.books.sms + 1
            biz_id, phone = f"{900_000_000_000 + number}^0", f"138{number:08d}"
            key, kind = event_id(biz_id, phone), number % 20
            if kind != 1:
                lines.append(_log_line(biz_id, phone))
            if kind == 0 and self.is_often_silent:
                self.books.unreported.add(key)
                continue
            bodies += [self._report(key, biz_id, phone, "DELIVERED")] * (2 if kind == 2 else 1)  # noqa: PLR2004
            self.books.matches[key] = "orphan" if kind == 1 else "matched"
            if kind == 3:  # noqa: PLR2004
                corrections.append(self._report(key, biz_id, phone, "MK:0001"))
            if kind == 4:  # noqa: PLR2004
                unusable.append(f"no report {number}")
            if kind == 5:  # noqa: PLR2004
                self._post(self._replies, [_reply(number, phone)])
                self.books.replies += 1
            if kind == 6:  # noqa: PLR2004
                self._repeats.append((time.monotonic() + _AGAIN_AFTER_SECS, bodies[-1]))
        bodies += self._due_repeats(time.monotonic())
        self.books.logged += len(lines)
        with self._send_log.open("a", encoding="utf-8") as log:
            log.write("".join(lines))
        self._post(self._reports, bodies)
        self.books.unusable |= self._post(self._reports, unusable)
        time.sleep(_ENQUEUE_CLOCK_SECS)
        self._post(self._reports, corrections)

    def _due_repeats(self, now: float) -> list[str]:
        due: list[str] = []
        while self._repeats and self._repeats[0][0] <= now:
            due.append(self._repeats.popleft()[1])
        return due

    def _report(self, key: str, biz_id: str, phone: str, code: str) -> str:
        self.books.outcomes.add((key, code))
        self.books.last_outcome[key] = code
        now = datetime.now(_BEIJING).strftime("%Y-%m-%d %H:%M:%S")
        fields = {
            "send_time": now,
            "report_time": now,
            "success": code == "DELIVERED",
            "err_code": code,
            "phone_number": phone,
            "sms_size": "1",
            "biz_id": biz_id,
        }
        return json.dumps(fields)

    def _post(self, queue_name: str, bodies: Sequence[str]) -> set[str]:
        ids: set[str] = set()
        for start in range(0, len(bodies), _BATCH):
            messages = [Message(body) for body in bodies[start : start + _BATCH]]
            ids |= {
                sent.message_id for sent in self._queue[queue_name].batch_send_message(messages)
            }
        self.books.message_ids |= ids
        return ids


def _log_line(biz_id: str, phone: str) -> str:
    requested_at = datetime.now(timezone.utc).isoformat()
    entry = {
        "biz_id": biz_id,
        "phone_number": phone,
        "template_code": "SMS_1",
        "campaign": "spring",
        "tags": {"team": "growth"},
        "requested_at": requested_at,
    }
    return json.dumps(entry) + "\n"


def _reply(number: int, phone: str) -> str:
    fields = {
        "phone_number": phone,
        "send_time": datetime.now(_BEIJING).strftime("%Y-%m-%d %H:%M:%S"),
        "content": "TD",
        "sign_name": "Example",
        "dest_code": "10690",
        "sequence_id": number,
    }
    return json.dumps(fields)
