"""What Alibaba knows of the SMS that were sent: QuerySendDetails and QuerySendStatistics, officially asked.

Both are Dysmsapi 2017-05-25 through Alibaba's own client. A call tries once: whoever asks decides how often.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final, NamedTuple, TypeVar
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
from transforms.moments import BEIJING

DYSMSAPI_ENDPOINT: Final = "https://dysmsapi.aliyuncs.com"
# How far back QuerySendDetails answers (419277).
QUERY_DAYS: Final = 30
# Calls a second that it takes from one account, whatever asks them (419277).
MOST_QUERIES_PER_SEC: Final = 5000
# Both calls return at most so many rows at a time (419277, 397330).
_PAGE_ROWS: Final = 50
_CONNECT_TIMEOUT_MS: Final = 3_000
_READ_TIMEOUT_MS: Final = 10_000
_SERVER_ERRORS: Final = range(500, 600)
# Alibaba's client spells out that an answer has no code.
_NO_CODE: Final = ("", "None")
_Read = TypeVar("_Read")


class NoAnswerError(TransientError):
    """Raised when no answer came, or none that can be read."""


class ThrottledError(TransientError):
    """Raised when the account has asked too much of the service; a pause helps."""


class RefusedQuestionError(Exception):
    """Raised when the service will not answer about this one SMS; its text is the service's error code."""


# What the beginning of a code means (101346), the first that fits: what to raise, and the sentence.
_FAULTS: Final[Sequence[tuple[Sequence[str], type[Exception], str]]] = (
    (
        ("Throttling", "isv.BUSINESS_LIMIT_CONTROL"),
        ThrottledError,
        "{endpoint} takes no more calls of this account for now ({code}): lower --qps",
    ),
    (
        ("isp.SYSTEM_ERROR", "ServiceUnavailable", "InternalError", "SignatureNonceUsed"),
        TransientError,
        "{endpoint} cannot answer now ({code}): try again later",
    ),
    (
        KEY_CODES,
        CredentialsError,
        f"Alibaba Cloud refused the account keys at {{endpoint}} ({{code}}): {KEYS_FIX}.",
    ),
    (
        PERMISSION_CODES,
        CredentialsError,
        "These account keys may not call {endpoint} ({code}): allow the RAM user the action {action} (the "
        "policy AliyunDysmsFullAccess has it).",
    ),
    (
        ("InvalidTimeStamp",),
        OperatorError,
        "{endpoint} finds this machine's clock wrong by more than 15 minutes ({code}): set the clock right, "
        "e.g. with NTP.",
    ),
    (
        # Said of every SMS of the account, not of one.
        (
            "isv.OUT_OF_SERVICE", "isv.PRODUCT_UN", "isv.ACCOUNT_", "isv.DENY_IP_RANGE", "InvalidAction",
            "InvalidVersion",
        ),
        OperatorError,
        "{endpoint} answers nothing about this account ({code}): read about the code at "
        "https://help.aliyun.com/document_detail/101346.html, and check --dysmsapi_endpoint.",
    ),
)  # fmt: skip


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

        The text of the SMS is left out: nobody asked for it, and it may hold a one-time password.

        Args:
            biz_id: of the send; the rows themselves do not name it.
            phone_number: the recipient, as it was given to SendSms.
            day: the Beijing day of the send, of the last 30.

        Raises:
            TransientError: worth another try: throttled, unreachable, a bad moment.
            RefusedQuestionError: not about this SMS.
            OperatorError: only the operator can help.
        """
        return self._all_pages(
            lambda page: QuerySendDetailsRequest(
                phone_number=phone_number,
                send_date=day.strftime("%Y%m%d"),
                biz_id=biz_id,
                page_size=_PAGE_ROWS,
                current_page=page,
            ),
            "dysms:QuerySendDetails",
            DysmsapiClient.query_send_details_with_options,
            _details,
        )

    def send_statistics(
        self,
        first: date,
        last: date,
        *,
        abroad: bool,
        sign_name: str | None = None,
        template_type: int | None = None,
    ) -> list[DayTotals]:
        """Return Alibaba's totals of the Beijing days ``first`` to ``last``; days without SMS may be absent.

        Args:
            first: the first day.
            last: the last day.
            abroad: of the SMS to other places than the mainland, instead of those to the mainland.
            sign_name: of one sign only.
            template_type: of the templates of one type only, as Alibaba numbers them.

        Raises:
            TransientError: worth another try.
            RefusedQuestionError: not of these days, or of no such sign.
            OperatorError: only the operator can help.
        """
        return self._all_pages(
            lambda page: QuerySendStatisticsRequest(
                start_date=first.strftime("%Y%m%d"),
                end_date=last.strftime("%Y%m%d"),
                is_globe=2 if abroad else 1,
                sign_name=sign_name,
                template_type=template_type,
                page_size=_PAGE_ROWS,
                page_index=page,
            ),
            "dysms:QuerySendStatistics",
            DysmsapiClient.query_send_statistics_with_options,
            _statistics,
        )

    def _all_pages(
        self,
        request: Callable[[int], object],
        action: str,
        ask: Callable[..., Any],
        read: Callable[[Any], tuple[list[_Read], int]],
    ) -> list[_Read]:
        rows: list[_Read] = []
        for page in itertools.count(1):
            found, total = self._asked(action, ask, request(page), read)
            rows += found
            if not found or len(rows) >= total:
                break
        return rows

    def _asked(
        self, action: str, ask: Callable[..., Any], request: object, read: Callable[[Any], _Read]
    ) -> _Read:
        runtime = RuntimeOptions(
            autoretry=False, connect_timeout=_CONNECT_TIMEOUT_MS, read_timeout=_READ_TIMEOUT_MS
        )
        try:
            body = ask(self._connected(), request, runtime).body
            if body.code == "OK":
                return read(body)
        except Exception as failure:  # noqa: BLE001 - garbage makes Alibaba's client raise anything
            raise self._fault(action, failure) from None
        raise self._code_fault(action, str(body.code))

    def _fault(self, action: str, failure: Exception) -> Exception:
        # The client's own text holds the request line, and with it a phone number: it is not passed on.
        met = getattr(failure, "inner_exception", failure)
        if isinstance(met, CredentialException):
            return no_keys()
        code = failure.code if isinstance(failure, TeaException) else None
        fault = self._code_fault(action, str(code))
        is_bad_moment = getattr(failure, "status_code", None) in _SERVER_ERRORS
        if isinstance(fault, RefusedQuestionError) and is_bad_moment:
            return TransientError(f"{self._endpoint} cannot answer now ({code}): try again later")
        return fault

    def _code_fault(self, action: str, code: str) -> Exception:
        if code in _NO_CODE:
            return NoAnswerError(
                f"No usable answer comes from {self._endpoint}: check --dysmsapi_endpoint and the network"
            )
        for beginnings, error, sentence in _FAULTS:
            if code.startswith(tuple(beginnings)):
                return error(sentence.format(endpoint=self._endpoint, action=action, code=code))
        return RefusedQuestionError(code)

    def _connected(self) -> DysmsapiClient:
        with self._connecting:
            if self._client is None:
                parts = urlsplit(self._endpoint)
                self._client = DysmsapiClient(
                    Config(credential=account(), endpoint=parts.netloc, protocol=parts.scheme)
                )
            return self._client


def _details(body: Any) -> tuple[list[Mapping[str, Any]], int]:
    """Return the rows of a page, and how many rows there are."""
    listed = body.sms_send_detail_dtos
    rows = [row.to_map() for row in (listed and listed.sms_send_detail_dto) or ()]
    return [{name: value for name, value in row.items() if name != "Content"} for row in rows], int(
        body.total_count or 0
    )


def _statistics(body: Any) -> tuple[list[DayTotals], int]:
    """Return the days of a page, and how many there are."""
    data = body.data
    days = [_day_totals(row) for row in (data and data.target_list) or ()]
    return days, int((data and data.total_size) or 0)


def _day_totals(row: Any) -> DayTotals:
    return DayTotals(
        day=datetime.strptime(str(row.send_date), "%Y%m%d").replace(tzinfo=BEIJING).date(),
        total=int(row.total_count or 0),
        delivered=int(row.responded_success_count or 0),
        failed=int(row.responded_fail_count or 0),
        awaiting=int(row.no_responded_count or 0),
    )
