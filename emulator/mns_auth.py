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
from emulator.running_plan import RequestFaults
from emulator.signatures import mns_signature, mns_string_to_sign

VERSION: Final = "2015-06-06"
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

    def __init__(
        self, keyring: Keyring, expired_token_code: str, time_expired_status: int = 408
    ) -> None:
        """Check against ``keyring``.

        Args:
            keyring: the keys that exist.
            expired_token_code: how an expired token is refused; no document says.
            time_expired_status: 408 by the table of errors (27501), 400 by the page about
                signatures (27487).
        """
        self._keyring = keyring
        self._expired_token_code = expired_token_code
        self._time_expired_status = time_expired_status

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
        self._require_fresh_date(headers, now_ms, skew)
        token = self._keyring.token(key_id)
        secret = token.key_secret if token else self._keyring.account_secret(key_id)
        if secret is None:
            raise MnsError("InvalidAccessKeyId")
        string_to_sign = mns_string_to_sign(request.method, request.target, headers)
        if mns_signature(secret, string_to_sign) != signature:
            raise MnsError("SignatureDoesNotMatch")
        digest = headers.get("content-md5")
        if digest is not None:
            _require_digest(digest, request.body)
        if token is None:
            return Caller(queue_name=None)
        if headers.get("security-token") != token.security_token:
            raise MnsError("InvalidSecurityToken")
        if now_ms >= token.expires_at_ms:
            raise MnsError(self._expired_token_code)
        if faults is not None and faults.revokes_token(now_ms):
            self._keyring.revoke(key_id, now_ms)
            raise MnsError(self._expired_token_code)
        return Caller(token.queue_name)

    def _require_fresh_date(self, headers: dict[str, str], now_ms: int, skew: Skew) -> None:
        date = headers.get("date") or headers.get("x-mns-date")
        if not date:
            raise MnsError("MissingDateHeader")
        date_ms = _date_ms(date)
        if date_ms is None:
            raise MnsError("InvalidDateHeader")
        if abs(skew.lateness_ms(date_ms, now_ms)) > _ALLOWED_SKEW_MS:
            raise MnsError("TimeExpired", status=self._time_expired_status)


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


@lru_cache(maxsize=64)  # a busy client sends the same second many times
def _date_ms(date: str) -> int | None:
    if not _RFC_1123.fullmatch(date):
        return None
    try:
        return int(parsedate_to_datetime(date).timestamp() * 1000)
    except ValueError:
        return None


def _require_digest(digest: str, body: bytes) -> None:
    """Take both forms: the RFC's, and the SDKs' base64 of the hex text."""
    try:
        given = base64.b64decode(digest, validate=True)
    except ValueError:  # of which binascii.Error is one; the other is for text beyond ASCII
        raise MnsError("InvalidDigest") from None
    md5 = hashlib.md5(body)
    if given not in (md5.digest(), md5.hexdigest().encode()):
        raise MnsError("InvalidDigest")
