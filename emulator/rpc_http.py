"""The RPC gateway over ASGI: reads calls, writes JSON, applies faults."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from emulator.clock import Skew
from emulator.rpc_auth import RpcAuthenticator, RpcError, RpcRequest
from emulator.running_plan import Hit, RequestFaults
from emulator.wire import Exchange, Reply

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from emulator.clock import Clock
    from emulator.injector import FaultInjector
    from emulator.rpc import Json, RpcService

_HEADERS: Final = ((b"content-type", b"application/json;charset=utf-8"),)


class RpcEndpoint:
    """The ASGI application at ``/``."""

    def __init__(
        self,
        authenticator: RpcAuthenticator,
        service: RpcService,
        clock: Clock,
        injector: FaultInjector,
    ) -> None:
        """Serve ``service`` to those whom ``authenticator`` knows."""
        self._authenticator = authenticator
        self._service = service
        self._clock = clock
        self._injector = injector

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        exchange = Exchange(scope, receive, send)
        given = RpcRequest(
            scope["method"],
            scope["path"],
            scope["query_string"].decode("latin-1"),
            {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
            await exchange.body(),
        )
        request_id = self._service.request_id()
        plan = self._injector.plan
        if plan is None:
            await exchange.answer(self._do(given, request_id), self._clock.now_ms())
            return

        async def do(faults: RequestFaults) -> Reply:
            return self._do(given, request_id, faults.skew_ms)

        def refuse(hit: Hit) -> Reply:
            if hit.rule.fault == "refusal":
                answer: Json = {"Code": hit.code, "Message": hit.code, "RequestId": request_id}
                return _reply(200, answer)
            return _refusal(RpcError(hit.code), given, request_id)

        faults = RequestFaults(plan, *self._operation_of(given))
        await self._injector.serve(exchange, faults, do, refuse)

    def _do(self, given: RpcRequest, request_id: str, skew_ms: int = 0) -> Reply:
        now_ms, skew = self._clock.now_ms(), Skew(self._clock.advanced_ms, skew_ms)
        try:
            call = self._authenticator.authenticate(given, now_ms, skew)
            return _reply(200, self._service.answer(call, request_id, now_ms))
        except RpcError as error:
            return _refusal(error, given, request_id)

    def _operation_of(self, given: RpcRequest) -> tuple[str, str | None]:
        """Return what a call is to the fault plan, and the queue that it is about."""
        parameters = dict(parse_qsl(given.query) + parse_qsl(given.body.decode(errors="replace")))
        action = given.headers.get("x-acs-action") or parameters.get("Action")
        if action != "QueryTokenForMnsQueue":
            return "rpc", None
        return "token", self._service.queue_name(parameters.get("MessageType", ""))


def _refusal(error: RpcError, given: RpcRequest, request_id: str) -> Reply:
    answer: Json = {
        "RequestId": request_id,
        "HostId": given.headers.get("host", ""),
        "Code": error.code,
        "Message": error.message,
    }
    return _reply(error.status, answer)


def _reply(status: int, answer: Json) -> Reply:
    return Reply(status, _HEADERS, json.dumps(answer, ensure_ascii=False).encode())
