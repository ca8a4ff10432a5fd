"""The topics that a stream publishes to: made if asked for, refused before the job starts if unfit."""

from importlib import resources
from typing import Any, Final

from google.api_core.exceptions import AlreadyExists, GoogleAPICallError, NotFound, RetryError
from google.auth.exceptions import GoogleAuthError
from google.cloud.pubsub_v1 import SchemaServiceClient
from google.pubsub_v1.types import Encoding, Schema, SchemaSettings, SchemaView, Topic

from pipeline.errors import OutputError
from pipeline.pubsub.topic_schemas import avro_fingerprint
from pipeline.sinks.rows import STREAMED
from pipeline.sinks.topics import RETRY, Topics, open_publisher
from schemas.contracts import contract
from transforms.tables import Table

_TIMEOUT_SECS: Final = 10.0
# Somebody waits for the job to start.
_RETRY: Final = RETRY.with_timeout(20.0)


def require_topics(topics: Topics, *, create: bool = False) -> None:
    """Make sure that every table has its topic, with its contract as schema in binary encoding.

    Args:
        topics: where they are.
        create: make those that are missing, with their schemas; needs the role Pub/Sub Editor.

    Raises:
        OutputError: a topic is missing or has another schema, or Pub/Sub does not say.
    """
    publisher, schemas = open_publisher(), SchemaServiceClient()
    try:
        for table in STREAMED.values():
            topic = topics.topic(table)
            try:
                _require(publisher, schemas, topics, table, create)
            except RetryError as error:
                raise OutputError(
                    f"Pub/Sub does not answer when asked for the topic {topic} "
                    f"({type(error.cause).__name__}): check the network."
                ) from error
            except (GoogleAPICallError, GoogleAuthError) as error:
                raise OutputError(
                    f"The topic {topic} cannot be looked at ({type(error).__name__}): check the project's "
                    "name, and that this account may see its topics and schemas."
                ) from error
    finally:
        publisher.transport.close()
        schemas.transport.close()


def _require(publisher: Any, schemas: Any, topics: Topics, table: Table, create: bool) -> None:
    name = topics.topic(table)
    try:
        topic = publisher.get_topic(topic=name, retry=_RETRY, timeout=_TIMEOUT_SECS)
    except NotFound:
        if not create:
            raise OutputError(
                f"The topic {name} does not exist: start once with --create_topics, or make it with the "
                f"schema {table.contract}.avsc in binary encoding."
            ) from None
        try:
            topic = _create(publisher, schemas, topics, table)
        except AlreadyExists:  # of another start; or of ours, whose first answer was lost
            topic = publisher.get_topic(topic=name, retry=_RETRY, timeout=_TIMEOUT_SECS)
    settings = topic.schema_settings
    if not settings.schema or settings.encoding != Encoding.BINARY:
        found = (
            f"its encoding is {Encoding(settings.encoding).name}"
            if settings.schema
            else "it has none"
        )
        raise OutputError(
            f"The topic {name} must have the schema {table.contract}.avsc in binary encoding ({found}): "
            "delete it and start once with --create_topics, or publish below another prefix."
        )
    if _fingerprint(schemas, settings) != contract(table.contract).fingerprint:
        raise OutputError(
            f"The schema of the topic {name} is not {table.contract}.avsc of this version: commit that file "
            f"as a new revision of {settings.schema}, and let the topic use it."
        )


def _create(publisher: Any, schemas: Any, topics: Topics, table: Table) -> Any:
    schema = topics.schema(table)
    project, schema_id = schema.split("/")[1::2]
    try:
        definition = Schema(type_=Schema.Type.AVRO, definition=_definition(table))
        schemas.create_schema(
            parent=f"projects/{project}",
            schema=definition,
            schema_id=schema_id,
            retry=_RETRY,
            timeout=_TIMEOUT_SECS,
        )
    except AlreadyExists:
        pass  # of a start that was cut short, say; whether it fits is looked at next
    settings = SchemaSettings(schema=schema, encoding=Encoding.BINARY)
    topic = Topic(name=topics.topic(table), schema_settings=settings)
    return publisher.create_topic(topic, retry=_RETRY, timeout=_TIMEOUT_SECS)


def _definition(table: Table) -> str:
    file = resources.files("schemas") / "avro" / f"{table.contract}.avsc"
    return file.read_text(encoding="utf-8")


def _fingerprint(schemas: Any, settings: Any) -> str | None:
    """Fingerprint what new messages are held against; None if the schema is gone or is no Avro."""
    revision = f"@{settings.last_revision_id}" if settings.last_revision_id else ""
    try:
        schema = schemas.get_schema(
            request={"name": f"{settings.schema}{revision}", "view": SchemaView.FULL},
            retry=_RETRY,
            timeout=_TIMEOUT_SECS,
        )
    except NotFound:
        return None
    return avro_fingerprint(schema.definition)
