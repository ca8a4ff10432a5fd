"""The RPC actions: QueryTokenForMnsQueue, SendSms, SendBatchSms, QuerySendDetails, QuerySendStatistics.

What the gateway refuses is an HTTP error (:class:`RpcError`); what a service refuses is HTTP 200
with a Code that is not OK (:class:`ServiceRefusal`). Clients must handle both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from emulator.access import Keyring
from emulator.carrier import DELIVERED, SmsOrder, SmsRecord
from emulator.clock import BEIJING, beijing_text
from emulator.open_questions import OpenQuestions
from emulator.rpc_auth import RpcCall, RpcError
from emulator.sms_center import DayTotals, SmsCenter

Json = dict[str, object]

_MESSAGE_TYPES: Final = frozenset(
    (
        "SmsReport", "SmsUp", "GlobeSmsReport", "SignSmsReport", "TemplateSmsReport",
        "DypnsSmsVerifyReport", "MnsCardVender", "MnsCardTemplate", "VoiceReport", "VoiceRecord",
    )
)  # fmt: skip
_PHONE_NUMBER: Final = re.compile(r"\+?[0-9]{5,20}")
_TEMPLATE_CODE: Final = re.compile(r"SMS_[0-9]+")
_EXTEND_CODE: Final = re.compile(r"[0-9]{1,8}")
_MAX_RECIPIENTS: Final = 1000
_MAX_BATCH_RECIPIENTS: Final = 100
_MAX_OUT_ID: Final = 255
_MAX_PAGE_SIZE: Final = 50
_MAX_PAGE: Final = 10**9
_MAX_DIGITS: Final = 12
_DETAILS_DAYS: Final = 30
# IsGlobe (397330): 1 is the mainland, 2 everywhere else.
_SCOPES: Final = {"1": False, "2": True}
_TEMPLATE_TYPES: Final = frozenset({"0", "1", "2", "3", "7"})
_AWAITING, _FAILED, _DELIVERED = 1, 2, 3


class ServiceRefusal(Exception):  # noqa: N818 (to the transport this is a success)
    """Raised when a service refuses a call; the answer is HTTP 200 all the same."""

    def __init__(self, code: str, message: str) -> None:
        """Refuse with a code of the ``isv.`` family."""
        super().__init__(code)
        self.code = code
        self.message = message


class RpcService:
    """Answers verified calls."""

    def __init__(
        self,
        keyring: Keyring,
        center: SmsCenter,
        queue_prefix: str,
        open_questions: OpenQuestions,
    ) -> None:
        """Issue tokens from ``keyring`` for ``<queue_prefix><message type>``, send by ``center``."""
        self._keyring = keyring
        self._center = center
        self._queue_prefix = queue_prefix
        self._is_of_2017 = open_questions.details_of_2017
        self._actions = {
            "QueryTokenForMnsQueue": self._query_token,
            "SendSms": self._send_sms,
            "SendBatchSms": self._send_batch_sms,
            "QuerySendDetails": self._query_send_details,
            "QuerySendStatistics": self._query_send_statistics,
        }

    def request_id(self) -> str:
        """Make the id of a call."""
        return self._center.request_id()

    def queue_name(self, message_type: str) -> str:
        """Return the name of the queue for messages of that type."""
        return self._queue_prefix + message_type

    def answer(self, call: RpcCall, request_id: str, now_ms: int) -> Json:
        """Return the JSON answer; raises :class:`RpcError` for what the gateway checks."""
        action = self._actions.get(call.action)
        if action is None:
            raise RpcError("InvalidAction.NotFound")
        try:
            answer = action(call.parameters, now_ms)
        except ServiceRefusal as refusal:
            answer = {"Code": refusal.code, "Message": refusal.message}
        return {"Code": "OK", "Message": "OK", **answer, "RequestId": request_id}

    def _query_token(self, given: Mapping[str, str], now_ms: int) -> Json:
        message_type = _required(given, "MessageType")
        if message_type not in _MESSAGE_TYPES:
            raise ServiceRefusal("isv.INVALID_PARAMETERS", "MessageType")
        token = self._keyring.issue(self.queue_name(message_type), now_ms)
        return {
            "MessageTokenDTO": {
                "AccessKeyId": token.key_id,
                "AccessKeySecret": token.key_secret,
                "SecurityToken": token.security_token,
                "ExpireTime": beijing_text(token.expires_at_ms),
                "CreateTime": beijing_text(token.created_at_ms),
            }
        }

    def _send_sms(self, given: Mapping[str, str], now_ms: int) -> Json:
        numbers = _required(given, "PhoneNumbers").split(",")
        order = _require_order(
            SmsOrder(
                _required(given, "SignName"),
                _required(given, "TemplateCode"),
                given.get("TemplateParam") or None,
                given.get("OutId") or None,
                given.get("SmsUpExtendCode") or None,
            )
        )
        _require_numbers(numbers, _MAX_RECIPIENTS)
        send = self._center.send(order, list(dict.fromkeys(numbers)), now_ms)
        return {"BizId": send.biz_id}

    def _send_batch_sms(self, given: Mapping[str, str], now_ms: int) -> Json:
        numbers = _texts(_required(given, "PhoneNumberJson"))
        signs = _texts(_required(given, "SignNameJson"))
        template_code = _required(given, "TemplateCode")
        params: list[str | None] = [None] * len(numbers)
        if given.get("TemplateParamJson"):
            params = list(_params(given["TemplateParamJson"]))
        extends: list[str | None] = [None] * len(numbers)
        if given.get("SmsUpExtendCodeJson"):
            extends = list(_texts(given["SmsUpExtendCodeJson"]))
        if not len(numbers) == len(signs) == len(params) == len(extends):
            raise ServiceRefusal("isv.PARAM_LENGTH_LIMIT", "the arrays differ in length")
        _require_numbers(numbers, _MAX_BATCH_RECIPIENTS)
        out_id = given.get("OutId") or None
        texts = [
            (number, _require_order(SmsOrder(sign, template_code, param, out_id, extend)))
            for number, sign, param, extend in zip(numbers, signs, params, extends, strict=True)
        ]
        return {"BizId": self._center.send_batch(texts, now_ms, now_ms).biz_id}

    def _query_send_details(self, given: Mapping[str, str], now_ms: int) -> Json:
        number = _required(given, "PhoneNumber")
        day = _required(given, "SendDate")
        size = _page_number(_required(given, "PageSize"), _MAX_PAGE_SIZE)
        page = _page_number(_required(given, "CurrentPage"), _MAX_PAGE)
        _require_numbers([number], 1)
        _require_recent(day, now_ms)
        records = self._center.details(number, day, given.get("BizId") or None)
        shown = records[(page - 1) * size : page * size]
        totals: Json = {"TotalCount": str(len(records))}
        if self._is_of_2017:
            totals = {"TotalCount": len(records), "TotalPage": -(-len(records) // size)}
        return {
            **totals,
            "SmsSendDetailDTOs": {"SmsSendDetailDTO": [_detail(each, now_ms) for each in shown]},
        }

    def _query_send_statistics(self, given: Mapping[str, str], now_ms: int) -> Json:
        first, last = _day(given, "StartDate"), _day(given, "EndDate")
        is_abroad = _SCOPES.get(_required(given, "IsGlobe"))
        size = _page_number(_required(given, "PageSize"), _MAX_PAGE_SIZE)
        page = _page_number(_required(given, "PageIndex"), _MAX_PAGE)
        template_type = given.get("TemplateType") or None
        if is_abroad is None or last < first:
            raise ServiceRefusal("isv.INVALID_PARAMETERS", "IsGlobe, StartDate, EndDate")
        if template_type is not None and template_type not in _TEMPLATE_TYPES:
            raise ServiceRefusal("isv.INVALID_PARAMETERS", "TemplateType")
        totals = self._center.totals(
            first,
            last,
            now_ms,
            is_abroad=is_abroad,
            sign_name=given.get("SignName") or None,
            template_type=None if template_type is None else int(template_type),
        )
        shown = totals[(page - 1) * size : page * size]
        return {"Data": {"TargetList": list(map(_totals, shown)), "TotalSize": len(totals)}}


def _totals(day: DayTotals) -> Json:
    return {
        "SendDate": day.day,
        "TotalCount": day.delivered + day.failed + day.awaiting,
        "RespondedSuccessCount": day.delivered,
        "RespondedFailCount": day.failed,
        "NoRespondedCount": day.awaiting,
    }


def _detail(record: SmsRecord, now_ms: int) -> Json:
    send = record.send
    detail: Json = {
        "PhoneNum": record.phone_number,
        "SendStatus": _AWAITING,
        "TemplateCode": send.order.template_code,
        "Content": send.content,
        "SendDate": beijing_text(record.sent_at_ms),
    }
    if send.order.out_id is not None:
        detail["OutId"] = send.order.out_id
    if record.reported_at_ms is not None and record.reported_at_ms <= now_ms:
        detail["SendStatus"] = _DELIVERED if record.err_code == DELIVERED else _FAILED
        detail["ErrCode"] = record.err_code
        detail["ReceiveDate"] = beijing_text(record.reported_at_ms)
    return detail


def _require_order(order: SmsOrder) -> SmsOrder:
    param, out_id, extend_code = order.template_param, order.out_id, order.extend_code
    if not order.sign_name:
        raise ServiceRefusal("isv.SMS_SIGNATURE_ILLEGAL", "该账号下找不到对应签名")
    if not _TEMPLATE_CODE.fullmatch(order.template_code):
        raise ServiceRefusal("isv.SMS_TEMPLATE_ILLEGAL", "该账号下找不到对应模板")
    if param is not None and not isinstance(_json(param), dict):
        raise ServiceRefusal("isv.INVALID_JSON_PARAM", "参数格式错误，请修改为字符串值")
    if out_id is not None and len(out_id) > _MAX_OUT_ID:
        raise ServiceRefusal("isv.INVALID_PARAMETERS", "OutId")
    if extend_code is not None and not _EXTEND_CODE.fullmatch(extend_code):
        raise ServiceRefusal("isv.EXTEND_CODE_ERROR", "扩展码使用错误")
    return order


def _require_numbers(numbers: list[str], most: int) -> None:
    if len(numbers) > most:
        raise ServiceRefusal("isv.MOBILE_COUNT_OVER_LIMIT", "手机号码数量超过限制")
    if not numbers or not all(_PHONE_NUMBER.fullmatch(number) for number in numbers):
        raise ServiceRefusal("isv.MOBILE_NUMBER_ILLEGAL", "手机号码格式错误")


def _require_recent(day: str, now_ms: int) -> None:
    """Refuse days other than today and the 30 before it, in Beijing's calendar."""
    today = datetime.fromtimestamp(now_ms / 1000, BEIJING).date()
    days = {f"{today - timedelta(days=ago):%Y%m%d}" for ago in range(_DETAILS_DAYS + 1)}
    if day not in days:
        raise ServiceRefusal("isv.INVALID_PARAMETERS", "SendDate")


def _day(given: Mapping[str, str], name: str) -> str:
    """Read a day that exists, as ``20170901``."""
    text = _required(given, name)
    try:
        day = datetime.strptime(text, "%Y%m%d").replace(tzinfo=BEIJING)
    except ValueError:
        raise ServiceRefusal("isv.INVALID_PARAMETERS", name) from None
    if f"{day:%Y%m%d}" != text:  # strptime takes single digits, too
        raise ServiceRefusal("isv.INVALID_PARAMETERS", name)
    return text


def _required(given: Mapping[str, str], name: str) -> str:
    value = given.get(name)
    if not value:
        raise RpcError("Missing", name)
    return value


def _page_number(text: str, highest: int) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    if not (is_number and 1 <= int(text) <= highest):
        raise ServiceRefusal("isv.INVALID_PARAMETERS", "CurrentPage, PageSize")
    return int(text)


def _texts(text: str) -> list[str]:
    values = _json(text)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ServiceRefusal("isv.INVALID_JSON_PARAM", "参数格式错误，请修改为字符串值")
    return values


def _params(text: str) -> list[str]:
    """Read TemplateParamJson: an array of objects (or of objects as JSON text)."""
    values = _json(text)
    if not isinstance(values, list):
        raise ServiceRefusal("isv.INVALID_JSON_PARAM", "参数格式错误，请修改为字符串值")
    return [
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for value in values
    ]


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ServiceRefusal("isv.INVALID_JSON_PARAM", "参数格式错误") from None
