"""Where rows are caught, with the moment at which they were there: a Pub/Sub subscription, or files."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import fastavro
import pyarrow.parquet as pq
from google.api_core.exceptions import DeadlineExceeded
from google.cloud.pubsub_v1 import SubscriberClient

from pipeline.sinks.topic_setup import require_topics
from pipeline.sinks.topics import Topics
from schemas.contracts import contract
from tests.pubsub_emulator import PROJECT, find_jar, start_pubsub_emulator
from transforms import tables
from transforms.row_ids import row_ids

_HOST: Final = "PUBSUB_EMULATOR_HOST"
_PULL_SECS: Final = 2.0
_MOST: Final = 1000
_TABLE: Final = tables.ENRICHED_REPORTS


class Left(NamedTuple):
    """A row as it has left; times are Unix seconds."""

    row_id: str
    message_id: str
    enqueued_secs: float
    left_secs: float


class Sink(Protocol):
    """Where a job writes to."""

    @property
    def flags(self) -> Sequence[str]:
        """What ``sms-receipts stream`` is told."""

    def rows(self) -> list[Left]:
        """All rows so far, repeats included; to be asked when nothing is being measured."""


class Files:
    """Parquet files: a row has left when its file is there."""

    def __init__(self, directory: Path, secs: float) -> None:
        self._directory = directory
        self.flags = [f"--parquet_sink={directory}", f"--file_sink_secs={secs:g}"]

    def rows(self) -> list[Left]:
        """All rows so far."""
        return [row for path in self._paths() for row in _of_file(path)]

    def _paths(self) -> Iterator[Path]:
        return self._directory.glob(f"{_TABLE.name}/dt=*/[!.]*.parquet")


def _of_file(path: Path) -> Iterator[Left]:
    rows = pq.ParquetFile(path).read()
    left_secs = path.stat().st_mtime
    columns = (row_ids(_TABLE.name, rows), rows.column("message_id"), rows.column("enqueued_at"))
    for row_id, message_id, enqueued_at in zip(
        *(each.to_pylist() for each in columns), strict=True
    ):
        yield Left(row_id, message_id, enqueued_at.timestamp(), left_secs)


class Subscription:
    """A subscription of the topic of reports: a row has left when Pub/Sub has taken it."""

    def __init__(self, name: str) -> None:
        topics = Topics(f"{PROJECT}/topics/{name}")
        require_topics(topics, create=True)
        self.flags = [f"--pubsub_sink={topics.prefix}"]
        self._subscription = f"{PROJECT}/subscriptions/{name}"
        self._rows: list[Left] = []
        with SubscriberClient() as client:
            client.create_subscription(name=self._subscription, topic=topics.topic(_TABLE))

    def rows(self) -> list[Left]:
        """All rows so far."""
        with SubscriberClient() as client:
            while received := self._pull(client):
                self._rows += [_of_message(each.message) for each in received]
                client.acknowledge(
                    subscription=self._subscription, ack_ids=[each.ack_id for each in received]
                )
        return self._rows

    def _pull(self, client: Any) -> Sequence[Any]:
        try:
            answer = client.pull(
                subscription=self._subscription,
                max_messages=_MOST,
                retry=None,
                timeout=_PULL_SECS,
            )
        except DeadlineExceeded:
            return []
        received: Sequence[Any] = answer.received_messages
        return received


def _of_message(message: Any) -> Left:
    row = fastavro.schemaless_reader(
        io.BytesIO(message.data), contract(_TABLE.contract).schema, None
    )
    assert isinstance(row, dict)
    enqueued_at: Any = row["enqueued_at"]
    return Left(
        message.attributes["id"],
        str(row["message_id"]),
        enqueued_at.timestamp(),
        message.publish_time.timestamp(),
    )


@contextmanager
def pubsub_if_there(*, wanted: bool) -> Iterator[bool]:
    """Start the Pub/Sub emulator, for this process and its children, if it is installed."""
    jar = find_jar() if wanted else None
    if jar is None:
        yield False
        return
    emulator = start_pubsub_emulator(jar)
    os.environ[_HOST] = emulator.host
    try:
        yield True
    finally:
        del os.environ[_HOST]
        emulator.kill()
