"""Account keys, and the queue tokens that they buy: where they come from.

Account keys come from Alibaba's own chain (environment, CLI profile, credentials file, ECS role);
with them ``QueryTokenForMnsQueue`` hands out the short-lived token that reads a queue.
"""

from __future__ import annotations

import threading
from typing import Final
from urllib.parse import urlsplit

from alibabacloud_credentials.exceptions import CredentialException
from alibabacloud_dybaseapi20170525.client import Client as DybaseapiClient
from alibabacloud_dybaseapi20170525.models import QueryTokenForMnsQueueRequest
from alibabacloud_tea_openapi.utils_models import Config
from alibabacloud_tea_util.models import RuntimeOptions
from Tea.exceptions import TeaException

from pipeline.account import account, no_keys
from pipeline.mns import faults, wire
from pipeline.mns.settings import message_type_of
from pipeline.mns.tokens import TokenAnswer
from pipeline.mns.transport import UnreachableError

# A call that takes longer than these two together would add to the wait after an outage.
_CONNECT_TIMEOUT_MS: Final = 2_000
_READ_TIMEOUT_MS: Final = 3_000
# What the client meets when it takes an answer apart that is none.
_GARBAGE: Final = (ValueError, TypeError, LookupError, AttributeError)


class TokenService:
    """``QueryTokenForMnsQueue`` through Alibaba's own client, with the account's keys.

    Safe to share between threads; queues do not wait for each other.
    """

    def __init__(self, endpoint: str) -> None:
        """Take the service's ``http(s)://host[:port]``; reads no keys yet."""
        self._endpoint = endpoint.rstrip("/")
        self._client: DybaseapiClient | None = None
        self._connecting = threading.Lock()

    def fetch(self, queue_name: str) -> TokenAnswer:
        """Ask for the token of one queue; takes 5 s at most, and tries once."""
        request = QueryTokenForMnsQueueRequest(
            message_type=message_type_of(queue_name), queue_name=queue_name
        )
        runtime = RuntimeOptions(
            autoretry=False, connect_timeout=_CONNECT_TIMEOUT_MS, read_timeout=_READ_TIMEOUT_MS
        )
        try:
            client = self._connected()
            answer = client.query_token_for_mns_queue_with_options(request, runtime).body
        except Exception as failure:  # noqa: BLE001 - garbage makes Alibaba's client raise anything
            raise self._fault(queue_name, failure) from None
        if answer.code != "OK":
            raise faults.token_fault(self._endpoint, queue_name, wire.known_code(answer.code))
        token = answer.message_token_dto
        keys = token and (token.access_key_id, token.access_key_secret, token.security_token)
        if not keys or not all(isinstance(key, str) and key for key in keys):
            raise UnreachableError(f"No usable answer from {self._endpoint}")
        return TokenAnswer(*keys, str(token.expire_time or ""))

    def _fault(self, queue_name: str, failure: Exception) -> Exception:
        # The client wraps what it met; its own text, which holds the request line, is not passed on.
        met = getattr(failure, "inner_exception", failure)
        if isinstance(met, CredentialException):
            return no_keys()
        code = failure.code if isinstance(failure, TeaException) else None
        if code:
            return faults.token_fault(self._endpoint, queue_name, wire.known_code(code))
        if isinstance(met, _GARBAGE):
            return UnreachableError(f"No usable answer from {self._endpoint}")
        return UnreachableError(f"Nobody answers at {self._endpoint}")

    def _connected(self) -> DybaseapiClient:
        with self._connecting:
            if self._client is None:
                parts = urlsplit(self._endpoint)
                self._client = DybaseapiClient(
                    Config(credential=account(), endpoint=parts.netloc, protocol=parts.scheme)
                )
            return self._client
