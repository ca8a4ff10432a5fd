"""Who calls the RPC gateway (dybaseapi, dysmsapi)? Signature v1 and ACS3, time stamps, nonces."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

from emulator.access import Keyring
from emulator.clock import NO_SKEW, Skew
from emulator.signatures import (
    acs3_signature,
    acs3_string_to_sign,
    rpc_signature,
    rpc_string_to_sign,
)

API_VERSION: Final = "2017-05-25"
_ALLOWED_SKEW_MS: Final = 15 * 60 * 1000
_TIMESTAMP: Final = re.compile(r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z")
_ACS3: Final = "ACS3-HMAC-SHA256"
_ACS3_SIGNED: Final = frozenset(
    (
        "host", "x-acs-action", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce",
        "x-acs-version",
    )
)  # fmt: skip
_FORM: Final = "application/x-www-form-urlencoded"

_ERRORS: Final[dict[str, tuple[int, str]]] = {
    "Forbidden.RAM": (403, "User not authorized to operate on the specified resource."),
    "IncompleteSignature": (400, "The request signature does not conform to Aliyun standards."),
    "InternalError": (
        500,
        "The request processing has failed due to some unknown error, exception or failure.",
    ),
    "InvalidAccessKeyId.Inactive": (400, "Specified access key is disabled."),
    "InvalidAccessKeyId.NotFound": (404, "Specified access key is not found."),
    "InvalidAction.NotFound": (
        404,
        "Specified api is not found, please check your url and method.",
    ),
    "InvalidTimeStamp.Expired": (400, "Specified time stamp or date value is expired."),
    "InvalidTimeStamp.Format": (400, "Specified time stamp or date value is not well formatted."),
    "InvalidVersion": (400, "Specified parameter Version is not valid."),
    "Missing": (400, "{0} is mandatory for this action."),
    "ServiceUnavailable": (503, "The request has failed due to a temporary failure of the server."),
    # The Python core client insists on what stands behind the colon.
    "SignatureDoesNotMatch": (
        400,
        "Specified signature is not matched with our calculation. server string to sign is:{0}",
    ),
    "SignatureNonceUsed": (400, "Specified signature nonce was used already."),
    "Throttling": (400, "Request was denied due to request throttling."),
    "Throttling.User": (400, "Request was denied due to user flow control."),
}


class RpcError(Exception):
    """Raised by the gateway: an HTTP error, before any service has seen the call."""

    def __init__(self, code: str, subject: str = "") -> None:
        """Refuse with ``code``; ``subject`` is the missing parameter or the string to sign."""
        super().__init__(code)
        self.status, text = _ERRORS[code]
        self.code = f"Missing{subject}" if code == "Missing" else code
        self.message = text.format(subject)


class RpcRequest(NamedTuple):
    """One HTTP request to the gateway; header names in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


class RpcCall(NamedTuple):
    """A verified call."""

    action: str
    parameters: Mapping[str, str]


class RpcAuthenticator:
    """Verifies calls of either signature family and remembers their nonces."""

    def __init__(self, keyring: Keyring) -> None:
        """Only the account's own key may call."""
        self._keyring = keyring
        self._nonces: set[str] = set()
        self._nonce_order: deque[tuple[int, str]] = deque()

    def authenticate(self, request: RpcRequest, now_ms: int, skew: Skew = NO_SKEW) -> RpcCall:
        """Return the call; raises :class:`RpcError` when the gateway refuses it.

        Args:
            request: what was sent.
            now_ms: the current time.
            skew: by what the server's clock may differ from the client's.
        """
        query = parse_qsl(request.query, keep_blank_values=True)
        form: list[tuple[str, str]] = []
        if request.headers.get("content-type", "").startswith(_FORM):
            form = parse_qsl(request.body.decode(errors="replace"), keep_blank_values=True)
        if request.headers.get("authorization", "").startswith(_ACS3):
            return self._acs3(request, query, form, now_ms, skew)
        return self._v1(request, [*query, *form], now_ms, skew)

    def _v1(
        self,
        request: RpcRequest,
        parameters: list[tuple[str, str]],
        now_ms: int,
        skew: Skew,
    ) -> RpcCall:
        given = dict(parameters)
        for name in ("AccessKeyId", "Action", "Version", "Timestamp", "SignatureNonce"):
            if not given.get(name):
                raise RpcError("Missing", name)
        signature = given.pop("Signature", None)
        if signature is None:
            raise RpcError("Missing", "Signature")
        if given.get("SignatureMethod") != "HMAC-SHA1" or given.get("SignatureVersion") != "1.0":
            raise RpcError("IncompleteSignature")
        secret = self._secret(given["AccessKeyId"])
        _require_fresh(given["Timestamp"], now_ms, skew)
        string_to_sign = rpc_string_to_sign(request.method, given.items())
        if rpc_signature(secret, string_to_sign) != signature:
            raise RpcError("SignatureDoesNotMatch", string_to_sign)
        self._require_new_nonce(given["SignatureNonce"], now_ms)
        return _call(given["Action"], given["Version"], given)

    def _acs3(
        self,
        request: RpcRequest,
        query: list[tuple[str, str]],
        form: list[tuple[str, str]],
        now_ms: int,
        skew: Skew,
    ) -> RpcCall:
        headers = request.headers
        credentials = dict(
            part.strip().partition("=")[::2]
            for part in headers["authorization"][len(_ACS3) :].split(",")
        )
        signed = credentials.get("SignedHeaders", "").split(";")
        for name in ("x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce"):
            if not headers.get(name):
                raise RpcError("Missing", name)
        if not _ACS3_SIGNED.issubset(signed):
            raise RpcError("IncompleteSignature")
        secret = self._secret(credentials.get("Credential", ""))
        _require_fresh(headers["x-acs-date"], now_ms, skew)
        body_hash = hashlib.sha256(request.body).hexdigest()
        string_to_sign = acs3_string_to_sign(request.method, request.path, query, headers, signed)
        expected = acs3_signature(secret, string_to_sign)
        if (
            headers.get("x-acs-content-sha256") != body_hash
            or credentials.get("Signature") != expected
        ):
            raise RpcError("SignatureDoesNotMatch", string_to_sign)
        self._require_new_nonce(headers["x-acs-signature-nonce"], now_ms)
        return _call(headers["x-acs-action"], headers["x-acs-version"], dict([*query, *form]))

    def _secret(self, key_id: str) -> str:
        secret = self._keyring.account_secret(key_id)
        if secret is None:
            raise RpcError("InvalidAccessKeyId.NotFound")
        return secret

    def _require_new_nonce(self, nonce: str, now_ms: int) -> None:
        # A nonce needs no memory longer than its time stamp is accepted.
        while self._nonce_order and self._nonce_order[0][0] < now_ms - 2 * _ALLOWED_SKEW_MS:
            self._nonces.discard(self._nonce_order.popleft()[1])
        if nonce in self._nonces:
            raise RpcError("SignatureNonceUsed")
        self._nonces.add(nonce)
        self._nonce_order.append((now_ms, nonce))


def _call(action: str, version: str, parameters: Mapping[str, str]) -> RpcCall:
    if version != API_VERSION:
        raise RpcError("InvalidVersion")
    return RpcCall(action, parameters)


def _require_fresh(timestamp: str, now_ms: int, skew: Skew) -> None:
    if not _TIMESTAMP.fullmatch(timestamp):
        raise RpcError("InvalidTimeStamp.Format")
    try:
        at = datetime.fromisoformat(timestamp[:-1]).replace(tzinfo=timezone.utc)
    except ValueError:
        raise RpcError("InvalidTimeStamp.Format") from None
    if abs(skew.lateness_ms(int(at.timestamp()) * 1000, now_ms)) > _ALLOWED_SKEW_MS:
        raise RpcError("InvalidTimeStamp.Expired")
