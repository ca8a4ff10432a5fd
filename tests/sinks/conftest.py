"""Places to write to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from tests.pubsub_emulator import pubsub
from tests.sinks.bigquery_server import BigQueryServer, serve
from tests.sinks.places import BigQueryPlace, Bucket, Directory, Place, TopicsPlace

__all__ = ["pubsub"]


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """An S3-compatible server; its URL."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bigquery(monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQueryServer]:
    with serve() as (server, url):
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", url)
        yield server


@pytest.fixture(params=["parquet", "avro", "s3", "topics", "bigquery"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    match request.param:
        case "s3":
            return Bucket(request.getfixturevalue("s3"))
        case "topics":
            request.getfixturevalue("pubsub")
            return TopicsPlace()
        case "bigquery":
            return BigQueryPlace(request.getfixturevalue("bigquery"))
        case _:
            return Directory(tmp_path / "rows", request.param)
