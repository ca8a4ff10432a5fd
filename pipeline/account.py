"""The account's keys: where Alibaba's own chain finds them. They never leave this process."""

from __future__ import annotations

import logging
import os
from functools import cache
from typing import Final

from alibabacloud_credentials.client import Client as CredentialsChain
from alibabacloud_credentials.models import Config as CredentialsConfig

from pipeline.errors import CredentialsError

KEYS_FIX: Final = (
    "set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET to an active key of the "
    "account that sends the SMS"
)
# What a service says of keys that are wrong, and of keys that may not do something: beginnings of codes.
KEY_CODES: Final = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidSecurityToken",
    "SecurityTokenExpired",
    "InvalidAuthorizationHeader",
)
PERMISSION_CODES: Final = ("AccessDenied", "NoPermission", "Forbidden", "isp.RAM_PERMISSION_DENY")


def account() -> CredentialsChain:
    """Find the account's keys, where Alibaba's own chain looks for them and in its order.

    The environment, its first place, is read here: the chain reads it once, when it is imported.
    """
    key_id = os.environ.get("ALIBABA_CLOUD_ACCESS_KEY_ID")
    key_secret = os.environ.get("ALIBABA_CLOUD_ACCESS_KEY_SECRET")
    token = os.environ.get("ALIBABA_CLOUD_SECURITY_TOKEN")
    if not (key_id and key_secret):
        return _chain()
    return CredentialsChain(
        CredentialsConfig(
            type="sts" if token else "access_key",
            access_key_id=key_id,
            access_key_secret=key_secret,
            security_token=token,
        )
    )


def no_keys() -> CredentialsError:
    """Say that the credential chain came up empty."""
    return CredentialsError(
        "No Alibaba Cloud account keys were found in the environment, the CLI profile, the "
        f"credentials file or an ECS role: {KEYS_FIX}"
    )


@cache
def _chain() -> CredentialsChain:
    """Return the one chain of this process: each starts a thread that never ends."""
    # It logs a traceback for every place without keys; one sentence says it here.
    logging.getLogger("credentials").setLevel(logging.CRITICAL)
    chain = CredentialsChain()
    chain.get_credential()
    return chain
