"""The three things this pipeline asks of MNS, as calls that return values and typed errors.

Waits for nothing but the network, retries nothing but a refused token, and keeps no state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Final, TypeVar

from pipeline.mns import faults, wire
from pipeline.mns.credentials import QueueToken, QueueTokens
from pipeline.mns.settings import message_type_of
from pipeline.mns.signature import MNS_VERSION, authorization
from pipeline.mns.transport import HttpAnswer, HttpTransport
from pipeline.mns.wire import ChangedVisibility, DeleteError, Received

# A response lost to a short read timeout hides its messages until their visibility timeout.
_READ_MARGIN_SECS: Final = 10.0
_T = TypeVar("_T")
_OK, _NO_CONTENT, _NOT_FOUND = 200, 204, 404


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

    def receive(self, queue_name: str, messages: int, wait_secs: int) -> Received | None:
        """Receive 1-16 messages, waiting up to 30 s for the first; None when there is none.

        ``visible_again_at`` of the result is by this machine's clock.
        """
        answer = self._call(
            queue_name,
            "GET",
            wire.receive_target(queue_name, messages, wait_secs),
            wait_secs=wait_secs,
        )
        if answer.status == _OK:
            received = self._read(
                lambda: wire.parse_messages(answer.body, queue_name, message_type_of(queue_name))
            )
            return received._replace(
                visible_again_at=self._by_own_clock(received.visible_again_at, answer)
            )
        code = wire.parse_error_code(answer.body)
        if code == faults.NO_MESSAGE:
            return None
        raise faults.queue_fault(self._endpoint, queue_name, answer.status, code)

    def delete(self, queue_name: str, receipt_handles: Sequence[str]) -> list[DeleteError]:
        """Delete 1-16 messages; return those that were not deleted."""
        answer = self._call(
            queue_name,
            "DELETE",
            wire.messages_target(queue_name),
            wire.delete_body(receipt_handles),
        )
        if answer.status == _NO_CONTENT:
            return []
        errors = wire.parse_delete_errors(answer.body)
        if errors is not None:
            return errors
        code = wire.parse_error_code(answer.body)
        raise faults.queue_fault(self._endpoint, queue_name, answer.status, code)

    def change_visibility(
        self, queue_name: str, receipt_handle: str, visibility_timeout_secs: int
    ) -> ChangedVisibility | None:
        """Hide a message for 1-43200 s from now; None when the handle no longer holds it.

        The old handle is dead afterwards; the returned one replaces it.
        """
        answer = self._call(
            queue_name,
            "PUT",
            wire.change_visibility_target(queue_name, receipt_handle, visibility_timeout_secs),
        )
        if answer.status == _OK:
            changed = self._read(lambda: wire.parse_changed_visibility(answer.body))
            return changed._replace(
                visible_again_at=self._by_own_clock(changed.visible_again_at, answer)
            )
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
        method: str,
        target: str,
        body: bytes | None = None,
        wait_secs: int = 0,
    ) -> HttpAnswer:
        token = self._tokens.current(queue_name)
        answer = self._send(token, method, target, body, wait_secs)
        if self._is_refused(answer):
            self._tokens.reject(queue_name, token)
            token = self._tokens.current(queue_name)
            answer = self._send(token, method, target, body, wait_secs)
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

    @staticmethod
    def _is_refused(answer: HttpAnswer) -> bool:
        if answer.status in {_OK, _NO_CONTENT, _NOT_FOUND}:
            return False
        return faults.is_refusal(answer.status, wire.parse_error_code(answer.body))

    def _read(self, parse: Callable[[], _T]) -> _T:
        try:
            return parse()
        except wire.MalformedResponseError as error:
            raise faults.ServiceFaultError(
                f"MNS at {self._endpoint} sent an answer that is not MNS's ({error}): check that "
                "--mns_endpoint is an MNS endpoint"
            ) from None

    def _by_own_clock(self, server_time: datetime, answer: HttpAnswer) -> datetime:
        """Move a time from the server's clock to ours, which may differ by up to 15 minutes."""
        try:
            server_now = parsedate_to_datetime(answer.date)
            return self._clock() + (server_time - server_now)
        except (TypeError, ValueError):  # no Date header, or one without a zone
            return server_time
