"""The schema that a binary body was written with: found, waited for, or none."""

import json
from collections.abc import Iterator
from typing import Any, Final

import grpc
import pytest
from google.pubsub_v1.types import GetSchemaRequest, PubsubMessage, ReceivedMessage, Schema

from pipeline.pubsub.client import PubSubClient, PubSubFaultError
from pipeline.pubsub.settings import PubSubSettings
from schemas.contracts import contract
from tests.pubsub.grpc_server import serve
from tests.pubsub.test_settings import NAME
from transforms.decode_sends import single_object

SCHEMA: Final = "projects/p/schemas/s@r1"
BINARY: Final = {
    "googclient_schemaencoding": "BINARY",
    "googclient_schemaname": "projects/p/schemas/s",
    "googclient_schemarevisionid": "r1",
}
AVRO: Final = Schema(
    type_=Schema.Type.AVRO, definition=json.dumps(contract("send_log_entry").schema)
)
MARKED: Final = single_object(contract("send_log_entry").fingerprint, b"{}")


class Reader:
    """A reader of a message with a schema, at a time; ``schema`` is what Pub/Sub has of that."""

    def __init__(self) -> None:
        self.now_secs = 1000.0
        self.schema: Schema | None = None
        self.asked = 0
        self._client = PubSubClient(PubSubSettings(NAME), lambda: self.now_secs)
        message = PubsubMessage(message_id="m", data=b"{}", attributes=BINARY)
        self._received = ReceivedMessage.pb(ReceivedMessage(ack_id="a", message=message))

    def get_schema(self, request: GetSchemaRequest, context: grpc.ServicerContext) -> Any:
        assert request.name == SCHEMA
        self.asked += 1
        return self.schema or context.abort(grpc.StatusCode.NOT_FOUND, "no schema")

    def read(self, after_secs: float = 0.0) -> bytes:
        """The bodies of a pull with two such messages, so much later."""
        self.now_secs += after_secs
        first, second = self._client.read([self._received, self._received]).messages
        assert first.body == second.body
        return first.body


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    reader = Reader()
    with serve({"SchemaService": {"GetSchema": (reader.get_schema, GetSchemaRequest)}}) as host:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", host)
        yield reader


@pytest.mark.integration
def test_a_schema_that_is_not_there_yet_is_waited_for(reader: Reader) -> None:
    for after_secs in (0.0, 1.0, 58.9):
        with pytest.raises(
            PubSubFaultError, match=f"^The schema {SCHEMA} is not there: its messages"
        ):
            reader.read(after_secs)
    reader.schema = AVRO
    assert reader.read(0.05) == MARKED
    reader.schema = None
    assert reader.read(3600) == MARKED
    assert reader.asked == 4


@pytest.mark.integration
def test_a_schema_that_stays_away_holds_nothing_up_and_is_asked_for_each_minute(
    reader: Reader,
) -> None:
    with pytest.raises(PubSubFaultError):
        reader.read()
    assert [reader.read(60), reader.read(1), reader.read(58.9)] == [b"{}"] * 3
    assert reader.asked == 2
    reader.schema = AVRO
    assert reader.read(0.2) == MARKED
    assert reader.asked == 3


@pytest.mark.integration
@pytest.mark.parametrize(
    "schema",
    [
        Schema(type_=Schema.Type.PROTOCOL_BUFFER, definition='syntax = "proto3";'),
        *(
            Schema(type_=Schema.Type.AVRO, definition=definition)
            for definition in ("", "null", "{}", '{"type": "record"}', '{"type": ["no"]}', "[" * 9999)
        ),
    ],
)  # fmt: skip
def test_what_is_no_schema_that_we_understand_leaves_bodies_as_they_came(
    reader: Reader, schema: Schema
) -> None:
    reader.schema = schema
    assert [reader.read(), reader.read()] == [b"{}"] * 2
    assert reader.asked == 1
