"""The send log, published: what the application's own sending code calls after ``SendSms``, for streaming.

It imports nothing but the standard library and google-cloud-pubsub::

    from pipeline.send_log_topic import SendLogTopic

    send_log = SendLogTopic("projects/my-project/topics/send-log")  # once per process
    send_log.append(biz_id=response.body.biz_id, phone_number="13800000000", requested_at=requested_at)

The arguments are those of :class:`pipeline.send_log.SendLog`. A message is one send: a line of JSON or, if
the topic has an Avro schema with the encoding BINARY, a record of that schema.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import TimeoutError as LateError
from concurrent.futures import wait
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from google.api_core.exceptions import GoogleAPIError, PermissionDenied
from google.auth.exceptions import GoogleAuthError
from google.cloud.pubsub_v1 import PublisherClient, SchemaServiceClient
from google.cloud.pubsub_v1.types import PublisherOptions
from google.pubsub_v1.types import Encoding, Schema

from pipeline.send_log import OPTIONAL_TEXTS, REQUIRED_TEXTS, Fields, checked, entries_of, json_line

_ANSWER_SECS: Final = 60.0
_MOST_BYTES: Final = 1_000_000  # Pub/Sub takes ten times as many
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_VIEWER: Final = "give these Google credentials the role roles/pubsub.viewer"
# From a checked entry's fields and time to the body of its message.
_Encode = Callable[[Fields, datetime], bytes]


class SendLogTopic:
    """Publish to a send log's topic, from any number of threads; not across a ``fork``.

    Sends of one ``biz_id`` keep their order where the subscription asks for it.
    """

    def __init__(self, topic: str, *, answer_secs: float = _ANSWER_SECS) -> None:
        """Look at the topic.

        Args:
            topic: its full name, ``projects/<project>/topics/<id>``.
            answer_secs: how long an append waits until Pub/Sub has its messages.

        Raises:
            ValueError: its schema is none for sends.
            OSError: Pub/Sub cannot be asked.
        """
        self._topic: Final = topic
        self._answer_secs: Final = answer_secs
        options = PublisherOptions(enable_message_ordering=True)
        try:
            self._publisher = PublisherClient(publisher_options=options)
            self._encode = _encoder(self._publisher, topic)
        except (GoogleAPIError, GoogleAuthError) as error:
            raise OSError(f"Pub/Sub does not tell about {topic}: {type(error).__name__}") from error

    def append(  # noqa: PLR0913 -- a send has so many fields
        self,
        *,
        biz_id: str,
        phone_number: str | Sequence[str],
        requested_at: datetime,
        out_id: str | None = None,
        sign_name: str | None = None,
        template_code: str | None = None,
        template_param: str | None = None,
        sms_up_extend_code: str | None = None,
        campaign: str | None = None,
        tags: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> None:
        """Log one accepted ``SendSms`` call, and wait until Pub/Sub has it; one message per recipient.

        The arguments are those of ``SendLog.append``.

        Raises:
            ValueError: a value that the pipeline would refuse; the text names the field, never the value.
            OSError: Pub/Sub has not said in time that it has them all. To append them once more does no harm.
        """
        self.append_all(
            entries_of(
                phone_number,
                biz_id=biz_id,
                requested_at=requested_at,
                out_id=out_id,
                sign_name=sign_name,
                template_code=template_code,
                template_param=template_param,
                sms_up_extend_code=sms_up_extend_code,
                campaign=campaign,
                tags=tags,
                request_id=request_id,
            )
        )

    def append_all(self, entries: Iterable[Mapping[str, object]]) -> None:
        """Log many sends at once; for ``SendBatchSms``, whose recipients differ.

        Args:
            entries: the arguments of :meth:`append`, one mapping and one ``phone_number`` per send.

        Raises:
            ValueError: an entry that the pipeline would refuse; then nothing at all is published.
            OSError: as :meth:`append` has it.
        """
        bodies: list[tuple[str, bytes]] = []
        for entry in entries:
            fields, requested_at = checked(entry)
            body = self._encode(fields, requested_at)
            if len(body) > _MOST_BYTES:
                raise ValueError(
                    f"a send has more than {_MOST_BYTES:,} bytes: no SMS needs as many"
                )
            bodies.append((str(fields["biz_id"]), body))
        answers = [
            (biz_id, self._publisher.publish(self._topic, body, ordering_key=biz_id))
            for biz_id, body in bodies
        ]
        wait([answer for _, answer in answers], timeout=self._answer_secs)
        failures: dict[str, BaseException] = {}
        for biz_id, answer in answers:
            failure = answer.exception() if answer.done() else LateError()
            if failure is not None:
                failures.setdefault(biz_id, failure)  # the first one is the cause of the others
        for biz_id in failures:
            # Whatever has a key that failed is refused until it is told to go on. A key that still goes on
            # is a RuntimeError: its answer is only late, or another thread has told it.
            with suppress(RuntimeError):
                self._publisher.resume_publish(self._topic, biz_id)
        if failures:
            # Its text may quote the message.
            reason = type(next(iter(failures.values()))).__name__
            raise OSError(f"not all sends were published to {self._topic}: {reason}")

    def close(self) -> None:
        """Let go of the connection."""
        self._publisher.stop()
        self._publisher.transport.close()


def _encoder(publisher: PublisherClient, topic: str) -> _Encode:
    """Choose how to write a message, by what the topic asks for."""
    try:
        settings = publisher.get_topic(topic=topic).schema_settings
    except PermissionDenied:
        return json_line  # as long as it has no schema; if it has one, it refuses
    if not settings.schema:
        return json_line
    if settings.encoding != Encoding.BINARY:
        raise ValueError(
            f"{topic} has a schema: give it the encoding BINARY, or take the schema off"
        )
    revision = f"@{settings.last_revision_id}" if settings.last_revision_id else ""
    with SchemaServiceClient() as service:
        try:
            schema = service.get_schema(name=f"{settings.schema}{revision}")
        except PermissionDenied:
            raise OSError(f"{topic} has a schema that cannot be read: {_VIEWER}") from None
    if schema.type_ != Schema.Type.AVRO:
        raise ValueError(f"{topic} has a schema that is no Avro: send_log_entry.avsc is for it")
    return _avro_encoder(topic, json.loads(schema.definition))


def _avro_encoder(topic: str, schema: Mapping[str, Any]) -> _Encode:
    """Write records of any version of ``send_log_entry.avsc``.

    Raises:
        ValueError: it is none.
    """
    types = {field["name"]: _spelled(field["type"]) for field in schema["fields"]}
    if types.items() - _TYPES.items() or not types.keys() >= {*REQUIRED_TEXTS, "requested_at"}:
        raise ValueError(f"{topic} has a schema that is not for sends: send_log_entry.avsc is")
    writers = [(name, _WRITERS[spelled]) for name, spelled in types.items()]

    def encode(fields: Fields, requested_at: datetime) -> bytes:
        unknown = fields.keys() - types.keys()
        if unknown:
            raise ValueError(f"the schema of {topic} has no field {', '.join(sorted(unknown))}")
        moment = (requested_at - _EPOCH) // timedelta(milliseconds=1)
        values: dict[str, Any] = {"tags": {}, **fields, "requested_at": moment}
        try:
            return b"".join(write(values.get(name)) for name, write in writers)
        except UnicodeEncodeError:
            raise ValueError("a field holds half of a surrogate pair, which is not text") from None

    return encode


def _spelled(avro: Any) -> str:  # noqa: ANN401 (JSON)
    """Name a type of the schema; one that is spelled in two ways has one name."""
    if isinstance(avro, list):
        return "|".join(map(_spelled, avro))
    if isinstance(avro, dict):
        return f"map of {avro['values']}" if avro["type"] == "map" else str(avro["type"])
    return str(avro)


def _write_long(value: int) -> bytes:
    """Write a number as Avro does: zigzag, seven bits to a byte, the lowest first."""
    rest = (value << 1) ^ (value >> 63)
    groups = bytearray()
    while rest > 0x7F:  # noqa: PLR2004
        groups.append(rest & 0x7F | 0x80)
        rest >>= 7
    groups.append(rest)
    return bytes(groups)


def _write_text(value: str) -> bytes:
    text = value.encode()
    return _write_long(len(text)) + text


def _write_optional_text(value: str | None) -> bytes:
    return b"\0" if value is None else b"\2" + _write_text(value)


def _write_texts(values: Mapping[str, str]) -> bytes:
    """Write a map: a block of its pairs, and an empty one."""
    pairs = b"".join(_write_text(text) for pair in values.items() for text in pair)
    return (_write_long(len(values)) + pairs if values else b"") + b"\0"


# The fields of any version of the contract.
_TYPES: Final[Mapping[str, str]] = {
    **dict.fromkeys(REQUIRED_TEXTS, "string"),
    **dict.fromkeys(OPTIONAL_TEXTS, "null|string"),
    "tags": "map of string",
    "requested_at": "long",
}
_WRITERS: Final[Mapping[str, Callable[[Any], bytes]]] = {
    "string": _write_text,
    "null|string": _write_optional_text,
    "map of string": _write_texts,
    "long": _write_long,
}
