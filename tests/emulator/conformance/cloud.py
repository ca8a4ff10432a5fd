"""Alibaba's services in this process, without HTTP: as fast as a function, at any time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import formatdate
from typing import Any, NamedTuple
from urllib.parse import quote

from emulator import mns_xml
from emulator.access import Keyring
from emulator.carrier import Carrier, CarrierRates
from emulator.mns import Answer, MnsService, Poll
from emulator.mns_auth import MnsAuthenticator, MnsRequest
from emulator.mns_errors import MnsError
from emulator.open_questions import OpenQuestions
from emulator.outbox import Outbox
from emulator.queues import QueueAttributes, QueueStore
from emulator.rpc import RpcService
from emulator.rpc_auth import RpcAuthenticator, RpcError, RpcRequest
from emulator.sms_center import SmsCenter
from tests.emulator.mns_caller import Headers, Key, MnsOperations, Reply, signed_headers

KEY = Key("account-key", "account-secret")
ACCOUNT_ID = "1000000000000001"
PREFIX = f"Alicom-Queue-{ACCOUNT_ID}-"
REPORTS = PREFIX + "SmsReport"
REPLIES = PREFIX + "SmsUp"
HOST = "1943695596114318.mns.cn-hangzhou.aliyuncs.com"
# 2026-09-21 22:13:20 in Beijing.
START_MS = 1_790_000_000_000
TOKEN_LIFETIME_SECS = 600

DEFAULTS = OpenQuestions()
# Every SMS is delivered and reported, at once and once.
STEADY = CarrierRates(
    delay_secs=0,
    failure=0,
    duplicate=0,
    correction=0,
    silent=0,
    lost=0,
    reply=0,
    instant=0,
    missing_phone=0,
    missing_optional=0,
)


class Cloud:
    """All services of one account. The time is ``now_ms``; it passes only by :meth:`wait`.

    Args:
        open_questions: the answers, as of the emulator's flags.
        carrier: what the carrier does, by default reports every SMS as delivered, at once.
    """

    def __init__(
        self, open_questions: OpenQuestions = DEFAULTS, carrier: CarrierRates = STEADY
    ) -> None:
        self.now_ms = START_MS
        self.keyring = Keyring(KEY.key_id, KEY.secret, TOKEN_LIFETIME_SECS * 1000, "seed")
        self.store = QueueStore("seed")
        self.outbox = Outbox(self.store)
        for name in (REPORTS, REPLIES):
            self.store.create(name, QueueAttributes(), self.now_ms)
        self.mns_service = MnsService(
            self.store,
            MnsAuthenticator(self.keyring, ACCOUNT_ID, open_questions),
            QueueAttributes(),
            open_questions,
        )
        center = SmsCenter(Carrier(carrier, "seed"), self.outbox, PREFIX, self.now_ms, "seed")
        self.rpc_authenticator = RpcAuthenticator(self.keyring)
        self.rpc_service = RpcService(self.keyring, center, PREFIX, open_questions)
        self.mns = LocalMns(self, KEY)
        self.rpc = LocalRpc(self)

    def wait(self, secs: float) -> None:
        """Let time pass."""
        self.now_ms += round(secs * 1000)
        self.outbox.deliver_due(self.now_ms)

    def token(self, queue_name: str = REPORTS) -> LocalMns:
        """Return a caller with a fresh token for that queue."""
        token = self.keyring.issue(queue_name, self.now_ms)
        return LocalMns(self, Key(token.key_id, token.key_secret, token.security_token))


class LocalMns(MnsOperations):
    """Calls the MNS service of a cloud with one key."""

    def __init__(self, cloud: Cloud, key: Key) -> None:
        self._cloud = cloud
        self.key = key

    def call(
        self,
        method: str,
        target: str,
        body: str | bytes = b"",
        headers: Headers | None = None,
    ) -> Reply:
        """Send a signed request that is answered at once."""
        data = body.encode() if isinstance(body, str) else body
        given = {"date": self._date(), **(headers or {})}
        signed = signed_headers(method, target, data, given, self.key)
        return self.call_as_it_is(method, target, data, signed)

    def call_as_it_is(
        self, method: str, target: str, body: bytes, headers: Mapping[str, str]
    ) -> Reply:
        """Send a request with these headers and no others."""
        try:
            answer = self._answer(method, target, body, headers)
        except MnsError as error:
            document = mns_xml.error_document(error, "0" * 24, f"http://{HOST}")
            return Reply(error.status, {}, document)
        assert isinstance(answer, Answer), "this request wants to wait: see poll()"
        return Reply(answer.status, dict(answer.headers), answer.body)

    def poll(self, name: str, query: str = "") -> Poll:
        """Begin a receive that finds nothing and waits."""
        target = f"/queues/{name}/messages{query and '?'}{query}"
        headers = signed_headers("GET", target, b"", {"date": self._date()}, self.key)
        answer = self._answer("GET", target, b"", headers)
        assert isinstance(answer, Poll), "this request was answered at once"
        return answer

    def _date(self) -> str:
        return formatdate(self._cloud.now_ms / 1000, usegmt=True)

    def _answer(
        self, method: str, target: str, body: bytes, headers: Mapping[str, str]
    ) -> Answer | Poll:
        path, _, query = target.partition("?")
        request = MnsRequest(method, path, query, dict(headers), body)
        return self._cloud.mns_service.answer(request, self._cloud.now_ms, f"http://{HOST}")


class RpcReply(NamedTuple):
    """An answer of the RPC gateway."""

    status: int
    json: dict[str, Any]

    @property
    def outcome(self) -> tuple[int, str]:
        return self.status, self.json["Code"]


class LocalRpc:
    """Calls the RPC gateway of a cloud with the account's key, signed here and not by the emulator."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._nonces = itertools.count()

    def timestamp(self, late_secs: float = 0) -> str:
        at = datetime.fromtimestamp(self._cloud.now_ms / 1000 + late_secs, timezone.utc)
        return f"{at:%Y-%m-%dT%H:%M:%SZ}"

    def v1(self, action: str, **given: str | None) -> dict[str, str]:
        """Return the parameters of a call, unsigned; ``given`` wins, None leaves out."""
        parameters: dict[str, str | None] = {
            "AccessKeyId": KEY.key_id,
            "Action": action,
            "Format": "JSON",
            "SignatureMethod": "HMAC-SHA1",
            "SignatureNonce": f"nonce-{next(self._nonces)}",
            "SignatureVersion": "1.0",
            "Timestamp": self.timestamp(),
            "Version": "2017-05-25",
            **given,
        }
        return {name: value for name, value in parameters.items() if value is not None}

    def call(self, action: str, **given: str | None) -> RpcReply:
        """Call with signature v1, as a GET."""
        parameters = self.v1(action, **given)
        signature = parameters.pop("Signature", sign_v1(parameters))
        return self.send("GET", form({"Signature": signature, **parameters}))

    def v3(self, action: str, query: str = "", **headers: str | None) -> dict[str, str]:
        """Return the signed headers of an ACS3 call; ``headers`` (``x_acs_date=…``) win."""
        given: dict[str, str | None] = {
            "host": "dysmsapi.aliyuncs.com",
            "x-acs-action": action,
            "x-acs-content-sha256": hashlib.sha256(b"").hexdigest(),
            "x-acs-date": self.timestamp(),
            "x-acs-signature-nonce": f"nonce-{next(self._nonces)}",
            "x-acs-version": "2017-05-25",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return sign_v3(query, {name: value for name, value in given.items() if value is not None})

    def call_v3(self, action: str, **given: str) -> RpcReply:
        """Call with an ACS3 signature."""
        query = form(given)
        return self.send("POST", query, self.v3(action, query))

    def send(
        self, method: str, query: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> RpcReply:
        """Send a request as it is."""
        request = RpcRequest(method, "/", query, headers or {}, body)
        now_ms = self._cloud.now_ms
        try:
            call = self._cloud.rpc_authenticator.authenticate(request, now_ms)
            return RpcReply(200, self._cloud.rpc_service.answer(call, "request-id", now_ms))
        except RpcError as error:
            return RpcReply(error.status, {"Code": error.code, "Message": error.message})


def encode(text: str) -> str:
    """Encode as RFC 3986 wants it."""
    return quote(text, safe="-_.~")


def form(parameters: Mapping[str, str]) -> str:
    """Return the parameters as a query or form, sorted by name."""
    return "&".join(f"{encode(name)}={encode(parameters[name])}" for name in sorted(parameters))


def sign_v1(parameters: Mapping[str, str], method: str = "GET", secret: str = KEY.secret) -> str:
    """Return the RPC signature v1 of a call."""
    text = f"{method}&%2F&{encode(form(parameters))}"
    digest = hmac.new(f"{secret}&".encode(), text.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def sign_v3(query: str, headers: Mapping[str, str], secret: str = KEY.secret) -> dict[str, str]:
    """Return the headers of a POST with all of them signed; ``query`` is sorted and encoded."""
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    body_hash = headers.get("x-acs-content-sha256", "")
    canonical = f"POST\n/\n{query}\n{lines}\n{names}\n{body_hash}"
    text = f"ACS3-HMAC-SHA256\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    authorization = (
        f"ACS3-HMAC-SHA256 Credential={KEY.key_id},SignedHeaders={names},Signature={signature}"
    )
    return {**headers, "authorization": authorization}
