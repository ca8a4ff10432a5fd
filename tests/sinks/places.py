"""Where sinks write, as tests see it: each place says what stands in it, and can be closed for a while."""

import base64
import io
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import apache_beam as beam
import boto3
import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
from google.api_core.exceptions import DeadlineExceeded
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.types import PullRequest, Subscription

from pipeline.sinks.bigquery import Dataset, WriteToBigQuery
from pipeline.sinks.files import WriteAvro, WriteParquet
from pipeline.sinks.rows import STREAMED
from pipeline.sinks.topic_setup import require_topics
from pipeline.sinks.topics import Topics, WriteToTopics
from schemas.contracts import contract
from tests.pubsub_emulator import PROJECT
from tests.sinks.bigquery_server import BigQueryServer
from tests.sinks.samples import Stored, stored

# The table that a closed place does not take.
CLOSED_TABLE = "enriched_reports"


class Place(ABC):
    """A sink's place: where it is (``address``), and what stands there."""

    kind: str
    address: str
    # What the sink says when the place is closed.
    refusal: str

    def flags(self) -> list[str]:
        """Pipeline options that a writer needs."""
        return []

    @abstractmethod
    def rows(self) -> Sequence[Stored]:
        """All rows that a reader finds, repeats included."""

    @abstractmethod
    def close(self) -> None:
        """Take no rows of one table any more."""

    @abstractmethod
    def open(self) -> None:
        """Take them again."""


def sink(kind: str, address: str) -> beam.PTransform[Any, Any]:
    """The sink that writes to a place."""
    match kind:
        case "parquet" | "s3":
            return WriteParquet(address, secs=1)
        case "avro":
            return WriteAvro(address, secs=1)
        case "topics":
            return WriteToTopics(Topics(address))
        case _:
            return WriteToBigQuery(Dataset(address))


class Directory(Place):
    """Files on this disk."""

    def __init__(self, root: Path, kind: str) -> None:
        self.kind = kind
        self.root = root
        self.address = str(root)
        self.refusal = f"The output {root} cannot be written .(File exists|Not a directory)."

    def rows(self) -> list[Stored]:
        return [
            row
            for path in sorted(self.root.glob(f"*/dt=*/*.{self.kind}"))
            for row in stored(path.parents[1].name, self._read(path))
        ]

    def _read(self, path: Path) -> pa.Table:
        schema = STREAMED[path.parents[1].name].schema
        if self.kind == "parquet":
            return pq.read_table(path, partitioning=None)
        with path.open("rb") as file:
            return pa.Table.from_pylist(list(fastavro.reader(file)), schema=schema)

    def close(self) -> None:
        self.root.mkdir(exist_ok=True)
        (self.root / CLOSED_TABLE).touch()

    def open(self) -> None:
        (self.root / CLOSED_TABLE).unlink()


class Bucket(Place):
    """Objects of an S3-compatible store."""

    kind = "s3"

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._bucket = f"b-{uuid.uuid4().hex}"
        self.address = f"s3://{self._bucket}/rows"
        self.refusal = f"The output {self.address} cannot be written .S3ClientError: .*NoSuchBucket"
        keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s"}
        self._s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
        self.open()

    def flags(self) -> list[str]:
        keys = ["--s3_access_key_id=k", "--s3_secret_access_key=s", "--s3_region_name=us-east-1"]
        return [f"--s3_endpoint_url={self._endpoint}", *keys]

    def rows(self) -> list[Stored]:
        rows = []
        for each in self._s3.list_objects_v2(Bucket=self._bucket).get("Contents", ()):
            content = self._s3.get_object(Bucket=self._bucket, Key=each["Key"])["Body"].read()
            table = pq.read_table(io.BytesIO(content))
            rows += stored(each["Key"].split("/")[1], table)
        return rows

    def close(self) -> None:
        self._s3.delete_bucket(Bucket=self._bucket)

    def open(self) -> None:
        self._s3.create_bucket(Bucket=self._bucket)


class TopicsPlace(Place):
    """Topics of the Pub/Sub emulator, each with a subscription."""

    kind = "topics"

    def __init__(self) -> None:
        self.address = f"{PROJECT}/topics/t-{uuid.uuid4().hex[:12]}"
        self.refusal = (
            f"The topic {self.address}-enriched-reports does not take messages .NotFound."
        )
        self._seen: list[Stored] = []
        self.open()

    def open(self) -> None:
        require_topics(Topics(self.address), create=True)
        with PublisherClient() as publisher, SubscriberClient() as subscriber:
            for table in STREAMED.values():
                topic = Topics(self.address).topic(table)
                if not list(publisher.list_topic_subscriptions(topic=topic)):
                    name = f"{PROJECT}/subscriptions/s-{uuid.uuid4().hex[:12]}"
                    subscriber.create_subscription(
                        Subscription(
                            name=name,
                            topic=topic,
                            ack_deadline_seconds=600,
                            enable_message_ordering=True,
                        )
                    )

    def close(self) -> None:
        with PublisherClient() as publisher:
            publisher.delete_topic(topic=Topics(self.address).topic(STREAMED[CLOSED_TABLE]))

    def rows(self) -> list[Stored]:
        with PublisherClient() as publisher, SubscriberClient() as subscriber:
            for table in STREAMED.values():
                topic = Topics(self.address).topic(table)
                (subscription,) = publisher.list_topic_subscriptions(topic=topic)
                while messages := _pull(subscriber, subscription):
                    self._seen += (_stored_message(table.name, each) for each in messages)
        return self._seen


def _pull(subscriber: Any, subscription: str) -> list[Any]:
    request = PullRequest(subscription=subscription, max_messages=1000)
    try:
        pulled = subscriber.pull(request, retry=None, timeout=1.0).received_messages
    except DeadlineExceeded:
        return []
    if pulled:
        ids = [each.ack_id for each in pulled]
        subscriber.acknowledge(subscription=subscription, ack_ids=ids)
    return [each.message for each in pulled]


def _stored_message(table: str, message: Any) -> Stored:
    attributes = dict(message.attributes)
    version = contract(STREAMED[table].contract)
    data = io.BytesIO(message.data)
    record = fastavro.schemaless_reader(data, version.schema, None)
    assert not data.read(), "nothing behind the record"
    rows = pa.Table.from_pylist([record], schema=version.arrow)
    (row,) = stored(table, rows)
    assert attributes["id"] == row.id
    assert attributes["table"] == table
    assert attributes["schema_fingerprint"] == version.fingerprint
    assert attributes["googclient_schemaencoding"] == "BINARY"
    assert message.ordering_key
    return row


class BigQueryPlace(Place):
    """Tables of a server that answers as BigQuery's API does."""

    kind = "bigquery"
    address = "p.d"
    refusal = r"The BigQuery table p.d.enriched_reports does not take rows .Forbidden."

    def __init__(self, server: BigQueryServer) -> None:
        self._server = server
        server.make_tables()

    def rows(self) -> list[Stored]:
        found = []
        for name, by_id in self._server.rows.items():
            schema = STREAMED[name].schema
            for insert_id, row in by_id.items():
                plain = {key: _parse(schema.field(key).type, value) for key, value in row.items()}
                (each,) = stored(name, pa.Table.from_pylist([plain], schema=schema))
                assert insert_id == each.id
                found.append(each)
        return found

    def close(self) -> None:
        self._server.forbidden.add(CLOSED_TABLE)

    def open(self) -> None:
        self._server.forbidden.clear()


def _parse(kind: pa.DataType, value: Any) -> Any:
    """Read a value of the API's JSON."""
    if value is None:
        return None
    if pa.types.is_timestamp(kind):
        return datetime.fromisoformat(value.replace("Z", "+00:00"))
    if pa.types.is_binary(kind):
        return base64.b64decode(value, validate=True)
    if pa.types.is_map(kind):
        return [(pair["key"], pair["value"]) for pair in value]
    return value
