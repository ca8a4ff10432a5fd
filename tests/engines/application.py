"""An application: it sends SMS through Alibaba's API, publishes its send log, and keeps its own books."""

import json
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack, closing
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from pipeline.send_log_topic import SendLogTopic
from tests.emulator.rpc_caller import call_rpc
from tests.emulator_process import EmulatorProcess
from tests.engines.load import Books, event_id

BEIJING: Final = timezone(timedelta(hours=8))
_AWAITING: Final = 1  # SendStatus of QuerySendDetails
# A carrier that reports within three seconds and never fails at once: every failure is a correction, so that
# QuerySendDetails, which knows the last outcome alone, tells them all.
CARRIER: Final = (
    "--carrier_delay_secs=0.05",
    "--carrier_failure_rate=0",
    "--carrier_duplicate_rate=0.1",
    "--carrier_correction_rate=0.1",
    "--carrier_silent_rate=0.1",
    "--carrier_lost_rate=0",
    "--carrier_reply_rate=0.1",
    "--carrier_missing_phone_rate=0",
    "--carrier_missing_optional_rate=0",
)


class Application:
    """Sends to two recipients at a time; the n-th call is logged in the n-th topic, in turn.

    Of 20 calls one is never logged, one is logged twice, and one in all topics.
    """

    def __init__(self, emulator: EmulatorProcess, topics: Sequence[str]) -> None:
        self._emulator = emulator
        self._topics = topics
        self._sends: list[tuple[str, str, bool]] = []  # biz_id, phone_number, is logged

    def send(self, calls: int) -> None:
        """Call ``SendSms``, and log it."""
        with ExitStack() as stack:
            logs = [stack.enter_context(closing(SendLogTopic(topic))) for topic in self._topics]
            for number in range(calls):
                kind = number % 20
                chosen = [logs[number % len(logs)]]
                match kind:
                    case 1:
                        chosen = []
                    case 2:
                        chosen *= 2
                    case 3:
                        chosen = logs
                self._send_one(number, chosen)

    def _send_one(self, number: int, logs: Sequence[SendLogTopic]) -> None:
        phones = [f"138{2 * number + each:08d}" for each in (0, 1)]
        requested_at = datetime.now(timezone.utc)
        order = {"SignName": "例子", "TemplateCode": "SMS_1", "OutId": f"order-{number}"}
        status, answer = call_rpc(self._emulator, "SendSms", PhoneNumbers=",".join(phones), **order)
        assert (status, answer["Code"]) == (200, "OK")
        for log in logs:
            log.append(
                biz_id=answer["BizId"],
                phone_number=phones,
                requested_at=requested_at,
                sign_name="例子",
                template_code="SMS_1",
                out_id=f"order-{number}",
                campaign="spring",
                tags={"team": "growth"},
            )
        self._sends += [(answer["BizId"], phone, bool(logs)) for phone in phones]

    def has_all_reports(self) -> bool:
        """Whether the carrier has put all on the queues that it ever will."""
        return bool(self._told()["waiting"] == 0)

    def books(self) -> Books:
        """Ask Alibaba what has become of every SMS."""
        books = Books(sms=len(self._sends), replies=self._told()["carrier"]["replies"])
        day = f"{datetime.now(BEIJING):%Y%m%d}"
        for biz_id, phone, is_logged in self._sends:
            books.logged += is_logged
            key = event_id(biz_id, phone)
            detail = self._detail(biz_id, phone, day)
            if detail["SendStatus"] != _AWAITING:
                code = detail["ErrCode"]
                books.outcomes |= {(key, "DELIVERED"), (key, code)}
                books.last_outcome[key] = code
                books.matches[key] = "matched" if is_logged else "orphan"
            elif is_logged:
                books.unreported.add(key)
        return books

    def _detail(self, biz_id: str, phone: str, day: str) -> dict[str, Any]:
        _, answer = call_rpc(
            self._emulator,
            "QuerySendDetails",
            PhoneNumber=phone,
            BizId=biz_id,
            SendDate=day,
            PageSize="10",
            CurrentPage="1",
        )
        (detail,) = answer["SmsSendDetailDTOs"]["SmsSendDetailDTO"]
        assert isinstance(detail, dict)
        return detail

    def _told(self) -> Any:  # noqa: ANN401 (JSON)
        with urllib.request.urlopen(f"{self._emulator.url}/emulator") as answer:  # noqa: S310
            return json.load(answer)
