"""Sign MNS requests (signature version 2, doc 27487). No I/O and no clock.

Content-MD5 is left out: it is optional, and clients disagree on its form.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from typing import Final

MNS_VERSION: Final = "2015-06-06"


def string_to_sign(method: str, target: str, headers: Mapping[str, str]) -> str:
    """Lay out the request exactly as the service will before it signs.

    Args:
        method: HTTP method, upper case.
        target: path and query exactly as they go on the request line.
        headers: the request's headers by lower-case name; the names starting with ``x-mns-``,
            ``content-md5``, ``content-type`` and ``date`` are signed.
    """
    mns_headers = "".join(
        f"{name}:{headers[name]}\n" for name in sorted(headers) if name.startswith("x-mns-")
    )
    return (
        f"{method}\n{headers.get('content-md5', '')}\n{headers.get('content-type', '')}\n"
        f"{headers['date']}\n{mns_headers}{target}"
    )


def authorization(
    access_key_id: str, access_key_secret: str, method: str, target: str, headers: Mapping[str, str]
) -> str:
    """Return the Authorization header of a request."""
    to_sign = string_to_sign(method, target, headers).encode()
    digest = hmac.digest(access_key_secret.encode(), to_sign, "sha1")
    return f"MNS {access_key_id}:{base64.b64encode(digest).decode('ascii')}"
