"""The three signatures of Alibaba's services, as functions of values. Nothing here reads a clock.

* MNS v2 (doc 27487): HMAC-SHA1 over the request target exactly as sent.
* RPC v1: HMAC-SHA1 over the sorted parameters, key ``secret&``.
* ACS3 (v3): HMAC-SHA256 over a canonical request, key ``secret``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from urllib.parse import quote


def mns_string_to_sign(method: str, target: str, headers: Mapping[str, str]) -> str:
    """Lay out an MNS request as the service does before it signs.

    Args:
        method: the HTTP method in upper case.
        target: path and query exactly as on the request line, without scheme and authority.
        headers: the request headers, names in lower case.
    """
    date = headers.get("date") or headers.get("x-mns-date", "")
    mns_headers = sorted([name for name in headers if name[:6] == "x-mns-"])
    lines = "".join([f"{name}:{headers[name]}\n" for name in mns_headers])
    md5, content_type = headers.get("content-md5", ""), headers.get("content-type", "")
    return f"{method}\n{md5}\n{content_type}\n{date}\n{lines}{target}"


def mns_signature(secret: str, string_to_sign: str) -> str:
    """Return the base64 HMAC-SHA1 that belongs behind ``MNS <key id>:``."""
    digest = hmac.digest(secret.encode(), string_to_sign.encode(), "sha1")
    return base64.b64encode(digest).decode()


def percent_encode(text: str) -> str:
    """Encode as RFC 3986 wants it: everything but ``A-Za-z0-9-_.~``."""
    return quote(text, safe="-_.~")


def canonical_query(parameters: Iterable[tuple[str, str]]) -> str:
    """Return the parameters sorted by name, encoded and joined."""
    return "&".join(
        f"{percent_encode(name)}={percent_encode(value)}" for name, value in sorted(parameters)
    )


def rpc_string_to_sign(method: str, parameters: Iterable[tuple[str, str]]) -> str:
    """Lay out an RPC v1 call; ``parameters`` must not hold ``Signature`` itself."""
    return f"{method}&%2F&{percent_encode(canonical_query(parameters))}"


def rpc_signature(secret: str, string_to_sign: str) -> str:
    """Return the base64 HMAC-SHA1 that belongs into the parameter ``Signature``."""
    digest = hmac.digest(f"{secret}&".encode(), string_to_sign.encode(), "sha1")
    return base64.b64encode(digest).decode()


def acs3_string_to_sign(
    method: str,
    path: str,
    query: Iterable[tuple[str, str]],
    headers: Mapping[str, str],
    signed_headers: Iterable[str],
) -> str:
    """Lay out an ACS3 request as the gateway does before it signs.

    Args:
        method: the HTTP method in upper case.
        path: the request path.
        query: the decoded query parameters.
        headers: the request headers, names in lower case; ``x-acs-content-sha256`` is among them.
        signed_headers: the names that the client says it signed, in lower case.
    """
    names = sorted(signed_headers)
    canonical = "\n".join(
        [
            method,
            path,
            canonical_query(query),
            "".join(f"{name}:{headers.get(name, '').strip()}\n" for name in names),
            ";".join(names),
            headers.get("x-acs-content-sha256", ""),
        ]
    )
    return f"ACS3-HMAC-SHA256\n{hashlib.sha256(canonical.encode()).hexdigest()}"


def acs3_signature(secret: str, string_to_sign: str) -> str:
    """Return the hex HMAC-SHA256 that belongs behind ``Signature=``."""
    return hmac.new(secret.encode(), string_to_sign.encode(), "sha256").hexdigest()
