"""Topics: made and refused before the job, and what is ordered there."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.cloud.pubsub_v1 import PublisherClient, SchemaServiceClient
from google.pubsub_v1.types import (
    CreateSchemaRequest,
    Encoding,
    GetSchemaRequest,
    GetTopicRequest,
    Schema,
    SchemaSettings,
)
from google.pubsub_v1.types import Topic as PubSubTopic

from pipeline.errors import CredentialsError, OutputError
from pipeline.sinks import topics as sink
from pipeline.sinks.rows import STREAMED
from pipeline.sinks.topic_setup import require_topics
from pipeline.sinks.topics import ORDERING_KEYS, Topics
from tests.analytics.dataset import report
from tests.pubsub.grpc_server import Methods, serve
from tests.pubsub_emulator import PROJECT, PubSubEmulator
from tests.sinks.samples import table_rows

_REPORTS = STREAMED["enriched_reports"]


@pytest.fixture
def topics(pubsub: PubSubEmulator) -> Topics:  # noqa: ARG001 (it has to run)
    return Topics(f"{PROJECT}/topics/t-{uuid.uuid4().hex[:12]}")


def make_topic(topics: Topics, schema: str | None, encoding: int = Encoding.BINARY) -> None:
    """Make the topic of enriched reports, with a schema of that text."""
    topic = PubSubTopic(name=topics.topic(_REPORTS))
    name = topics.schema(_REPORTS)
    if schema is not None:
        with SchemaServiceClient() as schemas:
            schemas.create_schema(
                parent=PROJECT,
                schema=Schema(type_=Schema.Type.AVRO, definition=schema),
                schema_id=name.rpartition("/")[2],
            )
        topic.schema_settings = SchemaSettings(schema=name, encoding=encoding)
    with PublisherClient() as publisher:
        publisher.create_topic(topic)


@pytest.mark.integration
def test_topics_that_are_missing_are_told_and_made(topics: Topics) -> None:
    missing = r"t-\w+-enriched-reports does not exist: start once with --create_topics"
    with pytest.raises(OutputError, match=missing):
        require_topics(topics)
    require_topics(topics, create=True)
    require_topics(topics)


_OTHER = '{"type": "record", "name": "Other", "fields": [{"name": "event_id", "type": "string"}]}'


@pytest.mark.integration
@pytest.mark.parametrize(
    ("schema", "encoding", "says"),
    [
        (None, Encoding.BINARY, r"in binary encoding \(it has none\): delete"),
        (_OTHER, Encoding.JSON, r"in binary encoding \(its encoding is JSON\): delete"),
        (_OTHER, Encoding.BINARY, "is not enriched_report.avsc of this version: commit that file"),
    ],
)
def test_a_topic_whose_schema_does_not_fit_is_refused(
    topics: Topics, schema: str | None, encoding: int, says: str
) -> None:
    make_topic(topics, schema, encoding)
    for create in (False, True):
        with pytest.raises(OutputError, match=says):
            require_topics(topics, create=create)


class Service:
    """A Pub/Sub that has made ``lost`` things when their answers are lost."""

    def __init__(self) -> None:
        self.lost = 0
        self.unseen = 0  # so many topics are made by somebody else as soon as they are looked for
        self.schemas: dict[str, Schema] = {}
        self.topics: dict[str, PubSubTopic] = {}

    def get_topic(self, request: GetTopicRequest, context: grpc.ServicerContext) -> Any:
        found = self.topics.get(request.topic)
        if self.unseen:
            self.unseen -= 1
            self.topics[request.topic] = PubSubTopic(name=request.topic)
        return found or context.abort(grpc.StatusCode.NOT_FOUND, "no topic")

    def create_topic(self, request: PubSubTopic, context: grpc.ServicerContext) -> Any:
        return self._create(self.topics, request.name, request, context)

    def get_schema(self, request: GetSchemaRequest, context: grpc.ServicerContext) -> Any:
        found = self.schemas.get(request.name)
        return found or context.abort(grpc.StatusCode.NOT_FOUND, "no schema")

    def create_schema(self, request: CreateSchemaRequest, context: grpc.ServicerContext) -> Any:
        name = f"{request.parent}/schemas/{request.schema_id}"
        return self._create(self.schemas, name, request.schema, context)

    def _create(
        self, made: dict[str, Any], name: str, thing: Any, context: grpc.ServicerContext
    ) -> Any:
        if name in made:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, name)
        made[name] = thing
        if self.lost:
            self.lost -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "no answer")
        return thing


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    service = Service()
    publisher: Methods = {
        "GetTopic": (service.get_topic, GetTopicRequest),
        "CreateTopic": (service.create_topic, PubSubTopic),
    }
    schemas: Methods = {
        "GetSchema": (service.get_schema, GetSchemaRequest),
        "CreateSchema": (service.create_schema, CreateSchemaRequest),
    }
    with serve({"Publisher": publisher, "SchemaService": schemas}) as host:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", host)
        yield service


@pytest.mark.integration
def test_what_was_made_though_the_answer_was_lost_is_taken(service: Service) -> None:
    service.lost = 2
    require_topics(Topics(f"{PROJECT}/topics/sms"), create=True)
    assert service.lost == 0
    assert len(service.topics) == len(service.schemas) == len(STREAMED)


@pytest.mark.integration
def test_a_topic_that_another_start_makes_meanwhile_is_checked(service: Service) -> None:
    service.unseen = 1
    with pytest.raises(OutputError, match=r"sms-enriched-reports must have .* \(it has none\)"):
        require_topics(Topics(f"{PROJECT}/topics/sms"), create=True)


def test_missing_google_credentials_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(CredentialsError, match="set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud"):
        require_topics(Topics("projects/p/topics/sms"))


@pytest.mark.parametrize("prefix", ["sms", "projects/p/topics/", "projects/p/subscriptions/sms"])
def test_a_prefix_that_names_no_topics_is_refused(prefix: str) -> None:
    with pytest.raises(OutputError, match="projects/PROJECT/topics/PREFIX"):
        Topics(prefix)


def test_all_rows_of_an_sms_have_one_ordering_key_in_their_order() -> None:
    rows = [report(f"{n}", revision=r) for r in (1, 2, 3) for n in range(200)]
    keys: dict[str, set[str]] = {}
    messages = list(sink._messages(_REPORTS, table_rows("enriched_reports", rows)))  # noqa: SLF001
    for row, (key, message) in zip(rows, messages, strict=True):
        keys.setdefault(row["event_id"], set()).add(key)
        assert message["ordering_key"] == key
    assert {len(each) for each in keys.values()} == {1}
    assert len(set.union(*keys.values())) > ORDERING_KEYS / 2


def test_a_correction_that_was_received_first_is_published_after_what_it_corrects() -> None:
    corrected, other, first = report("1", revision=2), report("2"), report("1", revision=1)
    rows = table_rows("enriched_reports", [corrected, other, first])
    in_order = table_rows("enriched_reports", [other, first, corrected])
    assert list(sink._messages(_REPORTS, rows)) == list(sink._messages(_REPORTS, in_order))  # noqa: SLF001


@pytest.mark.parametrize(("count", "size"), [(0, 1), (1, 9_000_000), (2500, 10), (30, 1_000_000)])
def test_requests_keep_the_order_and_the_limits_of_pub_sub(count: int, size: int) -> None:
    messages = [{"data": bytes([n % 256]) * size, "ordering_key": "07"} for n in range(count)]
    requests = list(sink._requests("projects/p/topics/t", messages))  # noqa: SLF001
    sent = [message.data for request in requests for message in request.messages]
    assert sent == [message["data"] for message in messages]
    for request in requests:
        assert 0 < len(request.messages) <= 1000
        assert type(request).pb(request).ByteSize() < 10_000_000
