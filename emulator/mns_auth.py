"""Who sends this MNS request, and may they? Signature v2, clock skew, temporary keys."""

from __future__ import annotations

import base64
import binascii
import hashlib
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final, NamedTuple

from emulator.access import Keyring
from emulator.mns_errors import MnsError
from emulator.signatures import mns_signature, mns_string_to_sign

VERSION: Final = "2015-06-06"
_ALLOWED_SKEW_MS: Final = 15 * 60 * 1000


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

    def __init__(self, keyring: Keyring, expired_token_code: str) -> None:
        """Check against ``keyring``; ``expired_token_code`` is undocumented, hence a setting."""
        self._keyring = keyring
        self._expired_token_code = expired_token_code

    def authenticate(self, request: MnsRequest, now_ms: int) -> Caller:
        """Return who asks; raises :class:`MnsError` when the request must be refused."""
        headers = request.headers
        key_id, signature = _credentials(headers)
        _require_version(headers)
        _require_fresh_date(headers, now_ms)
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
        return Caller(token.queue_name)


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


def _require_fresh_date(headers: dict[str, str], now_ms: int) -> None:
    date = headers.get("date") or headers.get("x-mns-date")
    if not date:
        raise MnsError("MissingDateHeader")
    date_ms = _date_ms(date)
    if date_ms is None:
        raise MnsError("InvalidDateHeader")
    if abs(now_ms - date_ms) > _ALLOWED_SKEW_MS:
        raise MnsError("TimeExpired")


@lru_cache(maxsize=64)  # a busy client sends the same second many times
def _date_ms(date: str) -> int | None:
    try:
        return int(parsedate_to_datetime(date).timestamp() * 1000)
    except ValueError:
        return None


def _require_digest(digest: str, body: bytes) -> None:
    """Take both forms: the RFC's, and the SDKs' base64 of the hex text."""
    try:
        given = base64.b64decode(digest, validate=True)
    except binascii.Error:
        raise MnsError("InvalidDigest") from None
    md5 = hashlib.md5(body)
    if given not in (md5.digest(), md5.hexdigest().encode()):
        raise MnsError("InvalidDigest")
