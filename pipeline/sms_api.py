"""What Alibaba knows of the SMS that were sent: QuerySendDetails and QuerySendStatistics, officially asked.

Both are Dysmsapi 2017-05-25 through Alibaba's own client. A call tries once: whoever asks decides how often.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from alibabacloud_credentials.exceptions import CredentialException
from alibabacloud_dysmsapi20170525.client import Client as DysmsapiClient
from alibabacloud_dysmsapi20170525.models import (
    QuerySendDetailsRequest,
    QuerySendStatisticsRequest,
)
from alibabacloud_tea_openapi.utils_models import Config
from alibabacloud_tea_util.models import RuntimeOptions
from Tea.exceptions import TeaException

from pipeline.account import KEY_CODES, KEYS_FIX, PERMISSION_CODES, account, no_keys
from pipeline.errors import CredentialsError, OperatorError, TransientError

DYSMSAPI_ENDPOINT: Final = "https://dysmsapi.aliyuncs.com"
# Both calls return at most so many rows at a time (419277).
PAGE_ROWS: Final = 50
_TIMEOUT_MS: Final = 10_000
# What passes by itself: the gateway's limit and the service's own (101346), and the service's bad moments.
_PASSING_CODES: Final = (
    "Throttling",
    "isv.BUSINESS_LIMIT_CONTROL",
    "isp.SYSTEM_ERROR",
    "ServiceUnavailable",
    "InternalError",
    "SignatureNonceUsed",
)


class RefusedQuestionError(Exception):
    """Raised when the service will not answer about this one SMS; its text is the service's error code."""


class DayTotals(NamedTuple):
    """Alibaba's own totals of one Beijing day, in SMS (QuerySendStatistics)."""

    day: date
    total: int
    delivered: int
    failed: int
    awaiting: int


class SmsApi:
    """The query side of the SMS service; safe to share between threads."""

    def __init__(self, endpoint: str = DYSMSAPI_ENDPOINT) -> None:
        """Take the service's ``http(s)://host[:port]``; reads no keys yet."""
        self._endpoint = endpoint.rstrip("/")
        self._client: DysmsapiClient | None = None
        self._connecting = threading.Lock()

    def send_details(self, biz_id: str, phone_number: str, day: date) -> list[Mapping[str, Any]]:
        """Return the rows about one SMS, as the API names their fields; none if it knows no such SMS.

        Args:
            biz_id: of the send; the rows themselves do not name it.
            phone_number: the recipient, as it was given to SendSms.
            day: the Beijing day of the send, of the last 30.

        Raises:
            TransientError: worth another try: throttled, unreachable, a bad moment.
            RefusedQuestionError: not about this SMS.
            OperatorError: only the operator can help.
        """
        rows: list[Mapping[str, Any]] = []
        page = 1
        while True:
            request = QuerySendDetailsRequest(
                phone_number=phone_number,
                send_date=day.strftime("%Y%m%d"),
                biz_id=biz_id,
                page_size=PAGE_ROWS,
                current_page=page,
            )
            body = self._asked(
                "dysms:QuerySendDetails",
                DysmsapiClient.query_send_details_with_options,
                request,
            )
            listed = body.sms_send_detail_dtos
            found = [row.to_map() for row in (listed and listed.sms_send_detail_dto) or ()]
            rows += found
            if not found or len(rows) >= int(body.total_count or 0):
                return rows
            page += 1

    def send_statistics(
        self, first: date, last: date, *, sign_name: str | None = None, abroad: bool = False
    ) -> list[DayTotals]:
        """Return Alibaba's totals of the Beijing days ``first`` to ``last``; days without SMS may be absent.

        Raises:
            TransientError: worth another try.
            OperatorError: only the operator can help.
        """
        totals: list[DayTotals] = []
        page = 1
        while True:
            request = QuerySendStatisticsRequest(
                start_date=first.strftime("%Y%m%d"),
                end_date=last.strftime("%Y%m%d"),
                is_globe=2 if abroad else 1,
                sign_name=sign_name,
                page_size=PAGE_ROWS,
                page_index=page,
            )
            data = self._asked(
                "dysms:QuerySendStatistics",
                DysmsapiClient.query_send_statistics_with_options,
                request,
            ).data
            found = (data and data.target_list) or []
            totals += map(_day_totals, found)
            if not found or len(totals) >= int(data.total_size or 0):
                return totals
            page += 1

    def _asked(self, action: str, ask: Callable[..., Any], request: object) -> Any:
        runtime = RuntimeOptions(
            autoretry=False, connect_timeout=_TIMEOUT_MS, read_timeout=_TIMEOUT_MS
        )
        try:
            body = ask(self._connected(), request, runtime).body
        except Exception as failure:  # noqa: BLE001 - garbage makes Alibaba's client raise anything
            raise self._fault(action, failure) from None
        if body.code != "OK":
            raise self._code_fault(action, str(body.code))
        return body

    def _fault(self, action: str, failure: Exception) -> Exception:
        # The client's own text holds the request line, and with it a phone number: it is not passed on.
        met = getattr(failure, "inner_exception", failure)
        if isinstance(met, CredentialException):
            return no_keys()
        code = failure.code if isinstance(failure, TeaException) else None
        if code:
            return self._code_fault(action, str(code))
        return TransientError(f"No usable answer from {self._endpoint}")

    def _code_fault(self, action: str, code: str) -> Exception:
        if code.startswith(_PASSING_CODES):
            return TransientError(f"{self._endpoint} cannot answer now ({code})")
        if code.startswith(KEY_CODES):
            return CredentialsError(
                f"Alibaba Cloud refused the account keys at {self._endpoint} ({code}): {KEYS_FIX}"
            )
        if code.startswith(PERMISSION_CODES):
            return CredentialsError(
                f"These account keys may not call {self._endpoint} ({code}): allow the RAM user the action "
                f"{action} (the policy AliyunDysmsFullAccess has it)"
            )
        if code.startswith("InvalidTimeStamp"):
            return OperatorError(
                f"{self._endpoint} finds this machine's clock wrong by more than 15 minutes ({code}): set "
                "the clock right, e.g. with NTP"
            )
        return RefusedQuestionError(code)

    def _connected(self) -> DysmsapiClient:
        with self._connecting:
            if self._client is None:
                parts = urlsplit(self._endpoint)
                self._client = DysmsapiClient(
                    Config(credential=account(), endpoint=parts.netloc, protocol=parts.scheme)
                )
            return self._client


def _day_totals(row: Any) -> DayTotals:
    day = str(row.send_date)
    return DayTotals(
        day=date(int(day[:4]), int(day[4:6]), int(day[6:8])),
        total=int(row.total_count or 0),
        delivered=int(row.responded_success_count or 0),
        failed=int(row.responded_fail_count or 0),
        awaiting=int(row.no_responded_count or 0),
    )
