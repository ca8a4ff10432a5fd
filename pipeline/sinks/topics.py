"""Pub/Sub topics of rows: one of each table, with the contract as its schema."""

import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import apache_beam as beam
import fastavro
import pyarrow as pa
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection
from google.api_core import exceptions
from google.api_core.retry import Retry, if_exception_type
from google.auth.exceptions import GoogleAuthError
from google.cloud.pubsub_v1 import PublisherClient
from google.pubsub_v1.services.publisher import PublisherClient as PublisherApi
from google.pubsub_v1.types import PublishRequest
from typing_extensions import override

from pipeline.errors import CredentialsError, OutputError
from pipeline.sinks.rows import STREAMED, records_of, rows_of
from schemas.contracts import contract
from transforms import keys
from transforms.row_ids import row_ids
from transforms.tables import Table

# All messages of one request have the same ordering key. A key for each SMS would be a request for each, so
# an SMS shares its key with a 64th of the others: what has to stay in order are the revisions of one SMS. A
# key takes 1 MB a second (quota of Pub/Sub).
ORDERING_KEYS: Final = 64
# What identifies the SMS, or else the message, in the rows of a table.
_ORDERED_BY: Final[Mapping[str, str]] = {"inbound_sms": "message_id"}
# Limits of a publish request: 1,000 messages, 10 MB.
_REQUEST_MESSAGES: Final = 1_000
_REQUEST_BYTES: Final = 8 * 1024 * 1024
# What surrounds a message in a request, generously: attributes, key and framing.
_MESSAGE_OVERHEAD_BYTES: Final = 256
# Rows of a bundle that wait for its end; beyond, they are published at once.
_WAITING_BYTES: Final = 32 * 1024 * 1024
# A request takes some 20 ms; the keys of a bundle are published at the same time.
_THREADS: Final = 16
_TIMEOUT_SECS: Final = 30.0
# A service that fails for a minute fails the bundle; the client's own patience is ten.
RETRY: Final = Retry(
    predicate=if_exception_type(
        exceptions.Aborted,
        exceptions.Cancelled,
        exceptions.DeadlineExceeded,
        exceptions.InternalServerError,
        exceptions.ResourceExhausted,
        exceptions.ServiceUnavailable,
        exceptions.Unknown,
    ),
    initial=0.1,
    maximum=10.0,
    timeout=60.0,
)

# Rows that Pub/Sub has taken, as attempts: a bundle that is tried again counts again.
_published_rows = Metrics.counter("topics", "published_rows")


@dataclass(frozen=True)
class Topics:
    """Where the topics are: ``projects/<project>/topics/<prefix>``."""

    prefix: str

    def __post_init__(self) -> None:
        parts = self.prefix.split("/")
        if len(parts) != 4 or parts[0::2] != ["projects", "topics"] or not all(parts):  # noqa: PLR2004
            raise OutputError(
                "--pubsub_sink must read projects/PROJECT/topics/PREFIX: the topics are "
                "PREFIX-enriched-reports and so on."
            )

    def topic(self, table: Table) -> str:
        """Name the topic of a table."""
        return f"{self.prefix}-{table.name.replace('_', '-')}"

    def schema(self, table: Table) -> str:
        """Name the schema of its topic."""
        project, name = self.prefix.split("/")[1::2]
        return f"projects/{project}/schemas/{name}-{table.name.replace('_', '-')}"


def open_publisher() -> PublisherClient:
    """Connect to Pub/Sub.

    Raises:
        CredentialsError: with which credentials?
    """
    try:
        return PublisherClient()
    except GoogleAuthError as error:
        raise CredentialsError(
            f"There are no Google credentials to publish with ({type(error).__name__}): set "
            "GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login"
        ) from None


class WriteToTopics(beam.PTransform[PCollection[tuple[str, bytes]], PCollection[None]]):
    """Publish each row as a message, at least once; a bundle ends when Pub/Sub has taken its rows.

    The data is the row in Avro's binary encoding. Attributes: ``id`` (the same whenever the row comes again),
    ``table`` and ``schema_fingerprint`` (CRC-64-AVRO, 16 hex digits). Messages of one SMS share an ordering
    key, and are published in their order.

    Not Beam's ``WriteToPubSub``: Dataflow replaces it by a sink of its own that knows no ordering keys, and
    elsewhere it publishes a hundred messages at a time and waits for them.
    """

    def __init__(self, topics: Topics) -> None:
        super().__init__()
        self._topics = topics

    @override
    def expand(self, rows: PCollection[tuple[str, bytes]]) -> PCollection[None]:
        published: PCollection[None] = rows | "Publish" >> beam.ParDo(_PublishFn(self._topics))
        return published


class _PublishFn(beam.DoFn):
    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._client: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._pending: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._pending_bytes = 0

    @override
    def setup(self) -> None:
        # For its way to an emulator; it would batch by key and wait for more (see ORDERING_KEYS).
        self._client = open_publisher()
        self._pool = ThreadPoolExecutor(_THREADS, "publish")

    @override
    def start_bundle(self) -> None:
        self._pending = {}
        self._pending_bytes = 0

    @override
    def process(self, element: tuple[str, bytes]) -> None:
        name, packed = element
        table = STREAMED[name]
        topic = self._topics.topic(table)
        for key, message in _messages(table, rows_of(table, packed)):
            self._pending.setdefault((topic, key), []).append(message)
            self._pending_bytes += len(message["data"])
        if self._pending_bytes >= _WAITING_BYTES:
            self._publish()

    @override
    def finish_bundle(self) -> None:
        self._publish()

    @override
    def teardown(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        if self._client is not None:
            self._client.transport.close()

    def _publish(self) -> None:
        """Publish what waits, each key in its order, and wait for all of it.

        Raises:
            OutputError: Pub/Sub has not taken all of it.
        """
        assert self._pool is not None  # noqa: S101 - setup() made it
        tasks: list[Future[None]] = [
            self._pool.submit(_publish_in_order, self._client, topic, messages)
            for (topic, _), messages in self._pending.items()
        ]
        count = sum(map(len, self._pending.values()))
        self.start_bundle()
        failures = [task.exception() for task in tasks]
        for failure in failures:
            if failure is not None:
                raise failure
        _published_rows.inc(count)


def _messages(table: Table, rows: pa.Table) -> Iterator[tuple[str, dict[str, Any]]]:
    """Turn rows into messages, each with its ordering key."""
    schema, fingerprint = contract(table.contract).schema, contract(table.contract).fingerprint
    if "revision" in rows.schema.names:
        # The join lets rows leave in the order in which reports were received. This sort is stable.
        rows = rows.sort_by("revision")
    names = rows.column(_ORDERED_BY.get(table.name, "event_id")).combine_chunks()
    buckets = keys.buckets(names, ORDERING_KEYS).tolist()
    ids = row_ids(table.name, rows).to_pylist()
    for record, row_id, bucket in zip(records_of(rows), ids, buckets, strict=True):
        data = io.BytesIO()
        fastavro.schemaless_writer(data, schema, record)
        key = f"{bucket:02d}"
        attributes = {"id": row_id, "table": table.name, "schema_fingerprint": fingerprint}
        yield key, {"data": data.getvalue(), "attributes": attributes, "ordering_key": key}


def _publish_in_order(client: Any, topic: str, messages: Sequence[dict[str, Any]]) -> None:
    """Publish messages of one ordering key.

    Raises:
        OutputError: Pub/Sub has not taken them all.
    """
    for request in _requests(topic, messages):
        try:
            PublisherApi.publish(client, request, retry=RETRY, timeout=_TIMEOUT_SECS)
        except (exceptions.GoogleAPICallError, exceptions.RetryError, GoogleAuthError) as error:
            raise OutputError(
                f"The topic {topic} does not take messages ({type(error).__name__}): check that it exists "
                "with the schema of this version, and that this account may publish to it; the rows of the "
                "failed bundle come again."
            ) from None  # it may quote a row


def _requests(topic: str, messages: Sequence[dict[str, Any]]) -> Iterator[PublishRequest]:
    """Put messages into requests of a size that Pub/Sub takes."""
    start = size = 0
    for position, message in enumerate(messages):
        bytes_more = len(message["data"]) + _MESSAGE_OVERHEAD_BYTES
        is_full = position - start == _REQUEST_MESSAGES or size + bytes_more > _REQUEST_BYTES
        if position > start and is_full:
            yield _request(topic, messages[start:position])
            start, size = position, 0
        size += bytes_more
    if messages:
        yield _request(topic, messages[start:])


def _request(topic: str, messages: Sequence[dict[str, Any]]) -> PublishRequest:
    # The protobuf message itself: its Python wrapper takes thirty times as long.
    request: PublishRequest = PublishRequest.wrap(
        PublishRequest.pb()(topic=topic, messages=messages)
    )
    return request
