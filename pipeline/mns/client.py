"""The three things this pipeline asks of MNS, as calls that return values and typed errors.

Waits for nothing but the network, retries nothing but a refused token, and keeps no state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Final, NamedTuple, TypeVar

from pipeline.errors import OperatorError
from pipeline.mns import faults, wire
from pipeline.mns.settings import message_type_of
from pipeline.mns.signature import MNS_VERSION, authorization
from pipeline.mns.tokens import Operation, QueueToken, QueueTokens
from pipeline.mns.transport import HttpAnswer, HttpTransport, Line
from pipeline.mns.wire import DeleteError
from schemas.records import MnsMessage

# A response lost to a short read timeout hides its messages until their visibility timeout.
_READ_MARGIN_SECS: Final = 10.0
_T = TypeVar("_T")
_OK, _NO_CONTENT, _NOT_FOUND = 200, 204, 404
# What a refusal means, in a sentence about the queue.
_FORBIDDEN: Final = {
    Operation.RECEIVE: "may not be read",
    Operation.DELETE: "may be read, but its messages may not be deleted,",
    Operation.CHANGE_VISIBILITY: "may be read, but its messages may not be kept hidden,",
}


class Leased(NamedTuple):
    """Received messages, and in the same order the handles to delete them by."""

    messages: list[MnsMessage]
    receipt_handles: list[str]
    secs: float
    """How long from now the first of them stays hidden."""
    unreadable_messages: int
    """How many more came that could not be taken in: they come back."""


class Renewed(NamedTuple):
    """The only handle that works from now on, and for how long."""

    receipt_handle: str
    secs: float


class MnsClient:
    """Receives, deletes and re-hides messages at one endpoint; safe to share between threads."""

    def __init__(
        self,
        endpoint: str,
        transport: HttpTransport,
        tokens: QueueTokens,
        clock: Callable[[], datetime],
    ) -> None:
        """Take the endpoint's name for sentences, its connections, tokens, and the time (UTC)."""
        self._endpoint = endpoint
        self._transport = transport
        self._tokens = tokens
        self._clock = clock

    def on(self, line: Line) -> MnsClient:
        """Return this client with a line, by which the calls that it makes can be ended."""
        return MnsClient(self._endpoint, self._transport.on(line), self._tokens, self._clock)

    def receive(self, queue_name: str, messages: int, wait_secs: int) -> Leased | None:
        """Receive 1-16 messages, waiting up to 30 s for the first; None when there is none."""
        answer = self._call(
            queue_name,
            Operation.RECEIVE,
            wire.receive_target(queue_name, messages, wait_secs),
            wait_secs=wait_secs,
        )
        if answer.status == _OK:
            received = self._read(
                lambda: wire.parse_messages(answer.body, queue_name, message_type_of(queue_name))
            )
            secs = self._secs_until(received.visible_again_at, answer)
            return Leased(
                received.messages, received.receipt_handles, secs, received.unreadable_messages
            )
        code = wire.parse_error_code(answer.body)
        if code == faults.NO_MESSAGE:
            return None
        raise faults.queue_fault(self._endpoint, queue_name, answer.status, code)

    def delete(self, queue_name: str, receipt_handles: Sequence[str]) -> list[DeleteError]:
        """Delete 1-16 messages; return those that were not deleted."""
        answer = self._call(
            queue_name,
            Operation.DELETE,
            wire.messages_target(queue_name),
            wire.delete_body(receipt_handles),
        )
        if answer.status == _NO_CONTENT:
            return []
        errors = self._read(lambda: wire.parse_delete_errors(answer.body, receipt_handles))
        if errors is not None:
            return errors
        code = wire.parse_error_code(answer.body)
        raise faults.queue_fault(self._endpoint, queue_name, answer.status, code)

    def change_visibility(
        self, queue_name: str, receipt_handle: str, visibility_timeout_secs: int
    ) -> Renewed | None:
        """Hide a message for 1-43200 s from now; None when the handle no longer holds it.

        The old handle is dead afterwards; the returned one replaces it.
        """
        answer = self._call(
            queue_name,
            Operation.CHANGE_VISIBILITY,
            wire.change_visibility_target(queue_name, receipt_handle, visibility_timeout_secs),
        )
        if answer.status == _OK:
            changed = self._read(lambda: wire.parse_changed_visibility(answer.body))
            secs = self._secs_until(changed.visible_again_at, answer)
            return Renewed(changed.receipt_handle, secs)
        code = wire.parse_error_code(answer.body)
        if code in faults.LOST_LEASE:
            return None
        raise faults.queue_fault(self._endpoint, queue_name, answer.status, code)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def _call(
        self,
        queue_name: str,
        operation: Operation,
        target: str,
        body: bytes | None = None,
        wait_secs: int = 0,
    ) -> HttpAnswer:
        method = operation.value
        token = self._tokens.current(queue_name, operation)
        answer = self._send(token, method, target, body, wait_secs)
        refusal = self._refusal(queue_name, operation, answer)
        if refusal is not None:
            self._tokens.reject(queue_name, operation, token, refusal)
            token = self._tokens.current(queue_name, operation)
            answer = self._send(token, method, target, body, wait_secs)
            refusal = self._refusal(queue_name, operation, answer)
            if refusal is not None:
                self._tokens.reject(queue_name, operation, token, refusal)
                if self._tokens.is_refused_for_good(queue_name, operation):
                    raise refusal
                raise faults.may_pass(refusal)
        self._tokens.accept(queue_name, operation, token)
        return answer

    def _send(
        self, token: QueueToken, method: str, target: str, body: bytes | None, wait_secs: int
    ) -> HttpAnswer:
        headers = {
            "date": format_datetime(self._clock(), usegmt=True),
            "x-mns-version": MNS_VERSION,
            "security-token": token.security_token,
        }
        if body is not None:
            headers["content-type"] = "text/xml"
        headers["authorization"] = authorization(
            token.access_key_id, token.access_key_secret, method, target, headers
        )
        return self._transport.send(method, target, headers, body, wait_secs + _READ_MARGIN_SECS)

    def _refusal(
        self, queue_name: str, operation: Operation, answer: HttpAnswer
    ) -> OperatorError | None:
        """Return what a refused token means; None when the token was not refused."""
        if answer.status in {_OK, _NO_CONTENT, _NOT_FOUND}:
            return None
        code = wire.parse_error_code(answer.body)
        if not faults.is_refusal(answer.status, code):
            return None
        forbidden = _FORBIDDEN[operation]
        return faults.queue_refusal(self._endpoint, queue_name, forbidden, answer.status, code)

    def _read(self, parse: Callable[[], _T]) -> _T:
        try:
            return parse()
        except wire.MalformedResponseError as error:
            raise faults.UnclearAnswerError(
                f"MNS at {self._endpoint} sent an answer that is not MNS's ({error}): check that "
                "--mns_endpoint is an MNS endpoint"
            ) from None

    def _secs_until(self, server_time: datetime, answer: HttpAnswer) -> float:
        """How long until a time of the server's clock, which may differ from ours by 15 minutes."""
        try:
            server_now = parsedate_to_datetime(answer.date)
            return (server_time - server_now).total_seconds()
        except (TypeError, ValueError, OverflowError):  # no Date header, or one of no use
            return (server_time - self._clock()).total_seconds()
