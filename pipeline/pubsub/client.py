"""What a reader asks of Pub/Sub, on Google's own client; what goes wrong, sorted by what helps.

Each call is one attempt: whoever calls knows what to wait for, and for how long.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, Final, NamedTuple

import grpc
from google.api_core import exceptions
from google.auth import exceptions as auth_exceptions
from google.cloud.pubsub_v1 import SchemaServiceClient, SubscriberClient
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from google.pubsub_v1.types import PullResponse, Schema

from pipeline.errors import CredentialsError, OperatorError, QueueError, TransientError
from pipeline.pubsub.settings import PubSubSettings
from pipeline.pubsub.topic_schemas import avro_fingerprint
from schemas.records import MnsMessage
from transforms.decode_sends import SEND_MESSAGE_TYPE, single_object
from transforms.moments import from_ms

_LOGGER = logging.getLogger(__name__)

# How long a call may take that has nothing to wait for.
_CALL_SECS: Final = 10.0
# A pull that waits in vain is answered a second before its deadline (emulator 0.8.20).
_ANSWER_SECS: Final = 1.0
# gRPC waits up to two minutes before it connects anew; a pull is to succeed soon after the service is back.
_CHANNEL_OPTIONS: Final = (
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
)
_EMULATOR: Final = "PUBSUB_EMULATOR_HOST"
# What Pub/Sub says of messages from topics with a schema.
_ENCODING: Final = "googclient_schemaencoding"
_SCHEMA: Final = "googclient_schemaname"
_REVISION: Final = "googclient_schemarevisionid"
# Pub/Sub may say for a while that a new schema is not there. What is archived without a fingerprint stays
# without: so long messages are given back. Later ones hold nothing up, and it is asked for so often.
_SCHEMA_PATIENCE_SECS: Final = 60.0
_SCHEMA_RETRY_SECS: Final = 60.0
# What Pub/Sub says of an ack id of a subscription with exactly-once delivery.
_INVALID_ID: Final = "PERMANENT_FAILURE"

_PASSING: Final = (
    exceptions.ServerError,  # unavailable, internal, deadline, unknown
    exceptions.TooManyRequests,
    exceptions.Aborted,
    exceptions.Cancelled,
    exceptions.RetryError,
    auth_exceptions.TransportError,
)


class PubSubFaultError(TransientError):
    """Raised when Pub/Sub cannot be reached, or cannot do it now; its text is a sentence."""


class LostIdsError(Exception):
    """Raised when some ack ids are not good any more; ``left`` may be tried again."""

    def __init__(self, lost: int, left: Sequence[str]) -> None:
        super().__init__(lost, left)
        self.lost = lost
        self.left = left


class Pulled(NamedTuple):
    """What a pull brought: messages, and the ack id of each."""

    messages: list[MnsMessage]
    ack_ids: list[str]


class _Missing(NamedTuple):
    """A schema that was not found: when that was seen first and last, on the client's clock."""

    first_secs: float
    last_secs: float


class PubSubClient:
    """One subscription; safe to share between threads. Connects, and looks for keys, at the first call."""

    def __init__(self, settings: PubSubSettings, now_secs: Callable[[], float] = monotonic) -> None:
        self._settings = settings
        self._now_secs = now_secs
        self._lock = threading.Lock()  # guards what is made when it is first needed
        self._subscriber: SubscriberClient | None = None
        # Of revisions of schemas, which never change; None is of one that is no Avro.
        self._fingerprints: dict[str, str | None] = {}
        self._missing: dict[str, _Missing] = {}

    def pull(self, most: int) -> Any:  # noqa: ANN401 (a protobuf)
        """Ask for messages, and wait for some; what came, as Pub/Sub has it: see :meth:`read`.

        Raises:
            PubSubFaultError: it may work a moment later.
            OperatorError: only the operator can help.
        """
        with self._faults():
            try:
                response = self._client().pull(
                    subscription=self._settings.subscription,
                    max_messages=most,
                    retry=None,
                    timeout=self._settings.wait_secs + _ANSWER_SECS,
                )
            except exceptions.DeadlineExceeded:
                return ()  # nothing came
        return PullResponse.pb(response).received_messages

    def read(self, received: Any) -> Pulled:  # noqa: ANN401 (a protobuf)
        """Make messages of what a pull brought.

        Raises:
            PubSubFaultError, OperatorError: the schema of one of them cannot be had, or is not there yet.
        """
        messages = [
            MnsMessage(
                message_id=each.message.message_id,
                queue_name=self._settings.subscription_id,
                message_type=SEND_MESSAGE_TYPE,
                enqueued_at=from_ms(
                    each.message.publish_time.seconds * 1000
                    + each.message.publish_time.nanos // 1_000_000
                ),
                # Known only where the subscription has a dead-letter topic.
                dequeue_count=each.delivery_attempt or 1,
                body=self._body(each.message),
            )
            for each in received
        ]
        return Pulled(messages, [each.ack_id for each in received])

    def acknowledge(self, ack_ids: Sequence[str]) -> None:
        """Have messages never come back.

        Raises:
            LostIdsError: some of the ids are not good any more.
            PubSubFaultError, OperatorError: as :meth:`pull` does.
        """
        with self._faults():
            try:
                self._client().acknowledge(
                    subscription=self._settings.subscription,
                    ack_ids=ack_ids,
                    retry=None,
                    timeout=_CALL_SECS,
                )
            except (exceptions.FailedPrecondition, exceptions.InvalidArgument) as error:
                raise _lost_ids(error, ack_ids) from None

    def hold(self, ack_ids: Sequence[str], secs: int) -> None:
        """Hold messages for so long from now on; 0 gives them back.

        Raises:
            PubSubFaultError, OperatorError: as :meth:`pull` does.
        """
        # Of ids that are not good any more, the messages come again.
        bad_ids = (exceptions.FailedPrecondition, exceptions.InvalidArgument)
        with self._faults(), suppress(*bad_ids):
            self._client().modify_ack_deadline(
                subscription=self._settings.subscription,
                ack_ids=ack_ids,
                ack_deadline_seconds=secs,
                retry=None,
                timeout=_CALL_SECS,
            )

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._subscriber is not None:
                self._subscriber.close()
                self._subscriber = None

    def _body(self, message: Any) -> bytes:  # noqa: ANN401
        """The body as it came; of a topic with a binary schema behind the mark of that schema."""
        body: bytes = message.data
        attributes = message.attributes
        if attributes.get(_ENCODING) != "BINARY":
            return body
        name = f"{attributes.get(_SCHEMA)}@{attributes.get(_REVISION)}"
        fingerprint = self._fingerprint(name, self._now_secs())
        return body if fingerprint is None else single_object(fingerprint, body)

    def _fingerprint(self, name: str, now_secs: float) -> str | None:
        """Fingerprint a revision of a schema; None if it is no Avro, or has been missing for a minute.

        Raises:
            PubSubFaultError: it is not there yet, or Pub/Sub does not say.
            OperatorError: it may not be read.
        """
        if name in self._fingerprints:
            return self._fingerprints[name]
        seen = self._missing.get(name)
        first_secs = now_secs if seen is None else seen.first_secs
        is_patient = now_secs - first_secs < _SCHEMA_PATIENCE_SECS
        if seen is not None and not is_patient and now_secs - seen.last_secs < _SCHEMA_RETRY_SECS:
            return None
        schema = self._schema(name)
        if schema is not None:
            is_avro = schema.type_ == Schema.Type.AVRO
            fingerprint = avro_fingerprint(schema.definition) if is_avro else None
            if fingerprint is None:
                _LOGGER.warning(
                    "%s is no Avro schema: its messages are archived as they come, and fail", name
                )
            self._fingerprints[name] = fingerprint
            self._missing.pop(name, None)
            return fingerprint
        self._missing[name] = _Missing(first_secs, now_secs)
        if is_patient:
            raise PubSubFaultError(f"The schema {name} is not there: its messages are given back")
        _LOGGER.warning(
            "%s is still not there: its messages are archived as they come, and fail", name
        )
        return None

    def _schema(self, name: str) -> Schema | None:
        """Ask for a revision of a schema; None if it is not there."""
        with self._faults(), SchemaServiceClient() as service:
            try:
                schema: Schema = service.get_schema(name=name, retry=None, timeout=_CALL_SECS)
            except (exceptions.NotFound, exceptions.InvalidArgument):
                return None
            except exceptions.PermissionDenied:
                raise QueueError(
                    f"The schema {name} may not be read with these Google credentials: give them the role "
                    "roles/pubsub.viewer"
                ) from None
        return schema

    def _client(self) -> SubscriberClient:
        with self._lock:
            if self._subscriber is None:
                self._subscriber = SubscriberClient(
                    transport=SubscriberGrpcTransport(**_channel_of(os.environ.get(_EMULATOR)))
                )
            return self._subscriber

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn Google's exceptions into ours."""
        subscription = self._settings.subscription
        try:
            yield
        except exceptions.NotFound:
            raise QueueError(
                f"{subscription} does not exist: correct --send_log_subscription, or create it"
            ) from None
        except exceptions.PermissionDenied:
            raise QueueError(
                f"{subscription} may not be read with these Google credentials: give them the role "
                "roles/pubsub.subscriber"
            ) from None
        except (exceptions.Unauthenticated, auth_exceptions.RefreshError):
            raise CredentialsError(
                "Google refused the credentials: log in anew (gcloud auth application-default login), or "
                "set GOOGLE_APPLICATION_CREDENTIALS to the file of an active key"
            ) from None
        except auth_exceptions.DefaultCredentialsError:
            raise CredentialsError(
                "No Google credentials were found: set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth "
                "application-default login"
            ) from None
        except _PASSING as error:
            raise PubSubFaultError(
                f"Pub/Sub does not answer for {subscription} ({type(error).__name__})"
            ) from None
        except exceptions.GoogleAPICallError as error:
            raise OperatorError(
                f"Pub/Sub refuses to read {subscription} ({type(error).__name__}): is it a pull "
                "subscription, and written in full?"
            ) from None


def _channel_of(emulator: str | None) -> dict[str, Any]:
    """The connection's own settings, for the service or an emulator."""
    if emulator:
        return {"channel": grpc.insecure_channel(emulator, options=_CHANNEL_OPTIONS)}
    return {"channel": _create_channel}


def _create_channel(host: str, **given: Any) -> grpc.Channel:  # noqa: ANN401 (passed on)
    given["options"] = [*given.get("options", ()), *_CHANNEL_OPTIONS]
    create: Callable[..., grpc.Channel] = SubscriberGrpcTransport.create_channel
    return create(host, **given)


def _lost_ids(error: exceptions.GoogleAPICallError, ack_ids: Sequence[str]) -> LostIdsError:
    """Tell from an answer which ids are lost: it names them where delivery is exactly-once."""
    named: dict[str, str] = {}
    for detail in error.details:
        named.update(getattr(detail, "metadata", {}))
    if not named:
        return LostIdsError(len(ack_ids), [])
    lost = sum(word.startswith(_INVALID_ID) for word in named.values())
    left = [
        ack_id
        for ack_id, word in named.items()
        if ack_id in ack_ids and not word.startswith(_INVALID_ID)
    ]
    return LostIdsError(lost, left)
