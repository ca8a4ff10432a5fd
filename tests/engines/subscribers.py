"""Whoever is behind the topics of a stream: pulls, and reads each message by the schema that it names."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
from google.cloud.pubsub_v1 import SchemaServiceClient, SubscriberClient
from google.pubsub_v1.types import PullRequest, ReceivedMessage, SchemaView, Subscription

from pipeline.sinks.rows import STREAMED
from pipeline.sinks.topics import Topics
from schemas.contracts import contract
from tests.engines.outputs import Row
from transforms.row_ids import row_ids

_PULL_SECS: Final = 10.0
_OF_SCHEMA: Final = "googclient_schema"


class Subscribers:
    """One ordered subscription to each topic; what was pulled is kept, told apart by its attribute ``id``.

    Attributes:
        ordering_keys: by event id, the keys that rows of ``enriched_reports`` came with.
    """

    def __init__(self, topics: Topics) -> None:
        """Subscribe; the topics are there, and nothing was published yet."""
        self.ordering_keys: dict[str, set[str]] = {}
        self._rows: dict[str, dict[str, Row]] = {name: {} for name in STREAMED}
        self._schemas: dict[str, Any] = {}
        self._subscriptions = {
            name: topics.topic(table).replace("/topics/", "/subscriptions/")
            for name, table in STREAMED.items()
        }
        with SubscriberClient() as subscriber:
            for name, table in STREAMED.items():
                subscriber.create_subscription(
                    Subscription(
                        name=self._subscriptions[name],
                        topic=topics.topic(table),
                        ack_deadline_seconds=60,
                        enable_message_ordering=True,
                    )
                )

    def rows(self, table: str) -> list[Row]:
        """Rows of a table that were pulled so far, each once, in the order in which they came."""
        return list(self._rows[table].values())

    def pull(self) -> None:
        """Take all that waits."""
        with SubscriberClient() as subscriber, SchemaServiceClient() as service:
            for table, subscription in self._subscriptions.items():
                while received := _pull(subscriber, subscription):
                    for each in received:
                        self._take(table, each.message, service)

    def write(self, directory: Path) -> None:
        """Lay the rows out as Parquet files, for ``analytics.connect``."""
        for name, table in STREAMED.items():
            path = directory / name / "dt=2026-11-01" / "rows.parquet"
            path.parent.mkdir(parents=True)
            schema = contract(table.contract).arrow
            pq.write_table(pa.Table.from_pylist(self.rows(name), schema=schema), path)

    def _take(self, table: str, message: Any, service: SchemaServiceClient) -> None:  # noqa: ANN401
        attributes = dict(message.attributes)
        written = self._schema(attributes, service)
        data = io.BytesIO(message.data)
        row = fastavro.schemaless_reader(data, written, None)
        assert isinstance(row, dict)
        assert not data.read(), "nothing is behind the record"
        version = contract(STREAMED[table].contract)
        rows = pa.Table.from_pylist([row], schema=version.arrow)
        own = {name: value for name, value in attributes.items() if not name.startswith(_OF_SCHEMA)}
        assert own == {
            "id": row_ids(table, rows)[0].as_py(),
            "table": table,
            "schema_fingerprint": version.fingerprint,
        }
        assert message.ordering_key
        if table == "enriched_reports":
            self.ordering_keys.setdefault(row["event_id"], set()).add(message.ordering_key)
        assert self._rows[table].setdefault(own["id"], row) == row, "an id means one row"

    def _schema(self, attributes: Mapping[str, str], service: SchemaServiceClient) -> Any:  # noqa: ANN401
        """The schema that a message names, in the revision that it names."""
        assert attributes["googclient_schemaencoding"] == "BINARY"
        name = "{googclient_schemaname}@{googclient_schemarevisionid}".format_map(attributes)
        if name not in self._schemas:
            request = {"name": name, "view": SchemaView.FULL}
            definition = service.get_schema(request=request).definition
            self._schemas[name] = fastavro.parse_schema(json.loads(definition))
        return self._schemas[name]


def _pull(subscriber: SubscriberClient, subscription: str) -> list[ReceivedMessage]:
    request = PullRequest(subscription=subscription, max_messages=1000, return_immediately=True)
    received = subscriber.pull(request, timeout=_PULL_SECS).received_messages
    if received:
        ids = [each.ack_id for each in received]
        subscriber.acknowledge(subscription=subscription, ack_ids=ids)
    return list(received)
