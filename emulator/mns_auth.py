"""Who sends this MNS request, and may they? Signature v2, clock skew, temporary keys."""

from __future__ import annotations

import base64
import hashlib
import re
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final, NamedTuple

from emulator.access import Keyring
from emulator.clock import NO_SKEW, Skew
from emulator.mns_errors import MnsError
from emulator.open_questions import OpenQuestions
from emulator.running_plan import RequestFaults
from emulator.signatures import mns_signature, mns_string_to_sign

VERSION: Final = "2015-06-06"
# An endpoint begins with the id of the account whose queues it serves (docs 27485, 27487).
_ACCOUNT_HOST: Final = re.compile(r"(?i:([0-9]+)\.mns\.[a-z0-9-]+\.aliyuncs\.com)(:[0-9]+)?")
# The queues of receipts belong to Alibaba: docs 101641 (mainland), smsreport-mns-intl.
_SMS_ACCOUNTS: Final = ("1943695596114318", "1493622401794734")
_ALLOWED_SKEW_MS: Final = 15 * 60 * 1000
_RFC_1123: Final = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} "
    r"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} ([0-9]{2}:){2}[0-9]{2} GMT"
)


class MnsRequest(NamedTuple):
    """One HTTP request: ``target`` is path and query exactly as sent; header names lower-case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def target(self) -> str:
        """The signed resource."""
        return f"{self.path}?{self.query}" if self.query else self.path


class Caller(NamedTuple):
    """Who asks: the account itself (``queue_name`` None), or a token for one queue."""

    queue_name: str | None

    def may_consume(self, queue_name: str) -> bool:
        """Whether this caller may receive from and delete on that queue."""
        return self.queue_name is None or self.queue_name == queue_name


class MnsAuthenticator:
    """Verifies requests as the service does, in its order of complaints."""

    def __init__(self, keyring: Keyring, account_id: str, open_questions: OpenQuestions) -> None:
        """Check against ``keyring``.

        Args:
            keyring: the keys that exist.
            account_id: whose key the account's own is.
            open_questions: how to answer them.
        """
        self._keyring = keyring
        self._account_id = account_id
        self._open = open_questions

    def authenticate(
        self,
        request: MnsRequest,
        now_ms: int,
        *,
        skew: Skew = NO_SKEW,
        faults: RequestFaults | None = None,
    ) -> Caller:
        """Return who asks; raises :class:`MnsError` when the request must be refused.

        Args:
            request: what was sent.
            now_ms: the current time.
            skew: by what the server's clock may differ from the client's.
            faults: what the fault plan does to this request.
        """
        headers = request.headers
        key_id, signature = _credentials(headers)
        _require_version(headers)
        if self._open.check_content_type:
            _require_xml(headers)
        self._require_fresh_date(headers, now_ms, skew)
        token = self._keyring.token(key_id)
        secret = token.key_secret if token else self._keyring.account_secret(key_id)
        if secret is None:
            raise MnsError("InvalidAccessKeyId")
        self._require_owner(headers.get("host", ""), is_token=token is not None)
        string_to_sign = mns_string_to_sign(request.method, request.target, headers)
        if mns_signature(secret, string_to_sign) != signature:
            raise MnsError("SignatureDoesNotMatch")
        digest = headers.get("content-md5")
        if digest is not None:
            self._require_digest(digest, request.body)
        if token is None:
            return Caller(queue_name=None)
        if headers.get("security-token") != token.security_token:
            raise MnsError(self._open.expired_token_code)
        if now_ms >= token.expires_at_ms:
            raise MnsError(self._open.expired_token_code)
        if faults is not None and faults.revokes_token(now_ms):
            self._keyring.revoke(key_id, now_ms)
            raise MnsError(self._open.expired_token_code)
        return Caller(token.queue_name)

    def _require_fresh_date(self, headers: dict[str, str], now_ms: int, skew: Skew) -> None:
        date = headers.get("date") or headers.get("x-mns-date")
        if not date:
            raise MnsError("MissingDateHeader")
        date_ms = _date_ms(date)
        if date_ms is None:
            raise MnsError("InvalidDateHeader")
        if abs(skew.lateness_ms(date_ms, now_ms)) > _ALLOWED_SKEW_MS:
            raise MnsError("TimeExpired", status=self._open.time_expired_status)

    def _require_owner(self, host: str, *, is_token: bool) -> None:
        """Refuse the key of one account at the address of another, whatever it was signed with.

        That the signature comes second is observed. An address that names no account, as that of a
        local emulator, is everybody's.
        """
        named = _ACCOUNT_HOST.fullmatch(host)
        owners = _SMS_ACCOUNTS if is_token else (self._account_id,)
        if named is not None and named[1] not in owners:
            raise MnsError("AccessDenied")

    def _require_digest(self, digest: str, body: bytes) -> None:
        """Take both forms: the RFC's, and the SDKs' base64 of the hex text."""
        try:
            given = base64.b64decode(digest, validate=True)
        except ValueError:  # of which binascii.Error is one; the other is for text beyond ASCII
            raise MnsError(self._open.wrong_digest_code) from None
        md5 = hashlib.md5(body)
        if given not in (md5.digest(), md5.hexdigest().encode()):
            raise MnsError(self._open.wrong_digest_code)


def _credentials(headers: dict[str, str]) -> tuple[str, str]:
    authorization = headers.get("authorization")
    if not authorization:
        raise MnsError("MissingAuthorizationHeader")
    scheme, _, credentials = authorization.partition(" ")
    key_id, colon, signature = credentials.strip().partition(":")
    if scheme != "MNS" or not (key_id and colon and signature):
        raise MnsError("InvalidAuthorizationHeader")
    return key_id, signature


def _require_version(headers: dict[str, str]) -> None:
    version = headers.get("x-mns-version")
    if version is None:
        raise MnsError("MissingVersionHeader")
    if version != VERSION:
        raise MnsError("InvalidVersionHeader")


def _require_xml(headers: dict[str, str]) -> None:
    content_type = headers.get("content-type")
    if content_type is not None:
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type not in ("text/xml", "application/xml"):
            raise MnsError("InvalidContentType")


@lru_cache(maxsize=64)  # a busy client sends the same second many times
def _date_ms(date: str) -> int | None:
    if not _RFC_1123.fullmatch(date):
        return None
    try:
        return int(parsedate_to_datetime(date).timestamp() * 1000)
    except ValueError:
        return None
