"""Account keys and queue tokens: where they come from, how long they last, when to replace them.

Account keys come from Alibaba's own chain (environment, CLI profile, credentials file, ECS role);
with them ``QueryTokenForMnsQueue`` hands out the short-lived token that reads a queue.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from alibabacloud_credentials.client import Client as CredentialsChain
from alibabacloud_credentials.exceptions import CredentialException
from alibabacloud_credentials.models import Config as CredentialsConfig
from alibabacloud_dybaseapi20170525.client import Client as DybaseapiClient
from alibabacloud_dybaseapi20170525.models import QueryTokenForMnsQueueRequest
from alibabacloud_tea_openapi.utils_models import Config
from alibabacloud_tea_util.models import RuntimeOptions
from Tea.exceptions import TeaException

from pipeline.errors import TransientError
from pipeline.mns import faults
from pipeline.mns.backoff import Draw, backoff_secs
from pipeline.mns.settings import message_type_of
from pipeline.mns.transport import UnreachableError
from transforms.moments import BEIJING

# Alibaba's own Java client refreshes this long before the end.
_REFRESH_MARGIN: Final = timedelta(minutes=2)
# The Node client's assumption (10 min, refreshed at 8), for a time that cannot be read.
_ASSUMED_LIFETIME: Final = timedelta(minutes=10)
# A token that claims to last longer is asked for again anyway: the claim may be a time zone off.
_LONGEST_TRUST: Final = timedelta(hours=1)
# The first receive is to follow within 5 s of the token service's return.
_LONGEST_PAUSE_SECS: Final = 3.0
_TIMEOUT_MS: Final = 5_000


class TokenAnswer(NamedTuple):
    """What the token service says, unread; ``expire_time`` is Beijing time without offset."""

    access_key_id: str
    access_key_secret: str
    security_token: str
    expire_time: str

    def __repr__(self) -> str:
        """Keep the secrets out of logs."""
        return f"TokenAnswer(expire_time={self.expire_time!r})"


@dataclass(frozen=True)
class QueueToken:
    """The keys that sign requests to one queue, and when to replace them."""

    access_key_id: str = field(repr=False)
    access_key_secret: str = field(repr=False)
    security_token: str = field(repr=False)
    refresh_at: datetime
    expires_at: datetime


def read_token(answer: TokenAnswer, fetched_at: datetime) -> QueueToken:
    """Decide when to replace a token: 2 minutes before its end, a short one at half its life."""
    lifetime = _lifetime(answer.expire_time, fetched_at)
    margin = min(_REFRESH_MARGIN, lifetime / 2)
    return QueueToken(
        answer.access_key_id,
        answer.access_key_secret,
        answer.security_token,
        refresh_at=fetched_at + lifetime - margin,
        expires_at=fetched_at + lifetime,
    )


def _lifetime(expire_time: str, fetched_at: datetime) -> timedelta:
    try:
        expires_at = datetime.strptime(expire_time, "%Y-%m-%d %H:%M:%S").replace(tzinfo=BEIJING)
    except ValueError:
        return _ASSUMED_LIFETIME
    lifetime = expires_at - fetched_at
    # Born expired: one of the two clocks is wrong, and the token is probably good.
    return min(lifetime, _LONGEST_TRUST) if lifetime > timedelta() else _ASSUMED_LIFETIME


class _Slot:
    """The token of one queue."""

    def __init__(self) -> None:
        self.refreshing = threading.Lock()
        self.token: QueueToken | None = None
        self.rejected = False
        self.failures = 0
        self.retry_at: datetime | None = None
        self.fault: TransientError | None = None


class QueueTokens:
    """The tokens of several queues, each replaced in time; safe to share between threads.

    A token that still works goes on being used while its replacement fails. Requests signed with
    the old one may finish: nothing is closed when a token is replaced.
    """

    def __init__(
        self, fetch: Callable[[str], TokenAnswer], clock: Callable[[], datetime], draw: Draw
    ) -> None:
        """Take how to fetch a queue's token, what time it is (aware) and a source of jitter."""
        self._fetch = fetch
        self._clock = clock
        self._draw = draw
        self._slots: dict[str, _Slot] = {}
        self._growing = threading.Lock()

    def current(self, queue_name: str) -> QueueToken:
        """Return a token for a queue, fetched anew when it is time.

        Raises ``TransientError`` when there is none and the service cannot give one now, or a
        ``CredentialsError`` when it will not.
        """
        slot = self._slots.get(queue_name) or self._new_slot(queue_name)
        token, now = slot.token, self._clock()
        if token is not None and not slot.rejected:
            if now < token.refresh_at:
                return token
            if now < token.expires_at:
                # One thread refreshes, the others go on with what works.
                if not slot.refreshing.acquire(blocking=False):
                    return token
                try:
                    return self._refresh(queue_name, slot, token)
                finally:
                    slot.refreshing.release()
        with slot.refreshing:
            return self._refresh(queue_name, slot, token)

    def reject(self, queue_name: str, token: QueueToken) -> None:
        """Note that a queue refused a token, so that the next call fetches another."""
        slot = self._slots[queue_name]
        with slot.refreshing:
            if slot.token is token:
                slot.rejected = True

    def _new_slot(self, queue_name: str) -> _Slot:
        with self._growing:
            return self._slots.setdefault(queue_name, _Slot())

    def _refresh(self, queue_name: str, slot: _Slot, stale: QueueToken | None) -> QueueToken:
        if slot.token is not None and slot.token is not stale:
            return slot.token  # another thread was faster
        now = self._clock()
        usable = stale is not None and not slot.rejected and now < stale.expires_at
        if slot.fault is not None and slot.retry_at is not None and _is_soon(slot.retry_at, now):
            if usable and stale is not None:
                return stale
            raise type(slot.fault)(str(slot.fault))
        try:
            answer = self._fetch(queue_name)
        except TransientError as fault:
            slot.failures += 1
            pause = backoff_secs(slot.failures, 0.5, _LONGEST_PAUSE_SECS, self._draw)
            slot.retry_at, slot.fault = now + timedelta(seconds=pause), fault
            if usable and stale is not None:
                return stale
            raise
        slot.token, slot.rejected = read_token(answer, self._clock()), False
        slot.failures, slot.retry_at, slot.fault = 0, None, None
        return slot.token


def _is_soon(retry_at: datetime, now: datetime) -> bool:
    """Whether a pause is on; one that seems to take longer than any was begun before the clock was set."""
    return timedelta() < retry_at - now <= timedelta(seconds=_LONGEST_PAUSE_SECS)


class TokenService:
    """``QueryTokenForMnsQueue`` through Alibaba's own client, with the account's keys."""

    def __init__(self, endpoint: str) -> None:
        """Take the service's ``http(s)://host[:port]``; reads no keys yet."""
        self._endpoint = endpoint.rstrip("/")
        self._client: DybaseapiClient | None = None
        self._calling = threading.Lock()

    def fetch(self, queue_name: str) -> TokenAnswer:
        """Ask for the token of one queue."""
        request = QueryTokenForMnsQueueRequest(
            message_type=message_type_of(queue_name), queue_name=queue_name
        )
        runtime = RuntimeOptions(
            autoretry=False, connect_timeout=_TIMEOUT_MS, read_timeout=_TIMEOUT_MS
        )
        try:
            with self._calling:
                response = self._connected().query_token_for_mns_queue_with_options(
                    request, runtime
                )
        except CredentialException:
            raise faults.no_keys() from None
        except TeaException as error:
            # The client's own text holds the request line; only the code is passed on.
            if isinstance(getattr(error, "inner_exception", None), CredentialException):
                raise faults.no_keys() from None
            if not error.code:
                raise UnreachableError(f"Nobody answers at {self._endpoint}") from None
            raise faults.token_fault(self._endpoint, queue_name, str(error.code)) from None
        except (OSError, ValueError):
            raise UnreachableError(f"No usable answer from {self._endpoint}") from None
        answer = response.body
        if answer.code != "OK" or answer.message_token_dto is None:
            raise faults.token_fault(self._endpoint, queue_name, str(answer.code))
        token = answer.message_token_dto
        return TokenAnswer(
            token.access_key_id,
            token.access_key_secret,
            token.security_token,
            token.expire_time or "",
        )

    def _connected(self) -> DybaseapiClient:
        if self._client is None:
            parts = urlsplit(self._endpoint)
            self._client = DybaseapiClient(
                Config(credential=_account(), endpoint=parts.netloc, protocol=parts.scheme)
            )
        return self._client


def _account() -> CredentialsChain:
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


@cache
def _chain() -> CredentialsChain:
    """Return the one chain of this process: each starts a thread that never ends."""
    # It logs a traceback for every place without keys; one sentence says it here.
    logging.getLogger("credentials").setLevel(logging.CRITICAL)
    chain = CredentialsChain()
    chain.get_credential()
    return chain
