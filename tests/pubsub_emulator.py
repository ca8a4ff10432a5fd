"""Google's Pub/Sub emulator as its own process, for tests: started on a free port, killed at the end.

Tests that ask for the fixture ``pubsub`` share one; each makes topics of its own.
"""

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.pubsub_v1 import PublisherClient, SchemaServiceClient, SubscriberClient
from google.pubsub_v1.types import Encoding, Schema

PROJECT: Final = "projects/sms-receipts-tests"
_HOST_VARIABLE: Final = "PUBSUB_EMULATOR_HOST"
_START_SECS: Final = 40.0
_JAR: Final = "platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar"
_PLACES: Final = (
    "/usr/lib/google-cloud-sdk",
    "/usr/share/google-cloud-sdk",
    "/usr/local/google-cloud-sdk",
    "/opt/google-cloud-sdk",
    "/snap/google-cloud-cli/current",
    "~/google-cloud-sdk",
)
_RUNNING: Final[list["PubSubEmulator"]] = []
_INSTALL: Final = (
    "the Pub/Sub emulator is not installed: run `gcloud components install pubsub-emulator`, or, where the "
    "Google Cloud CLI comes from apt, `apt-get install google-cloud-cli-pubsub-emulator default-jre-headless`"
)


def find_jar() -> Path | None:
    """The emulator of the installed Google Cloud CLI."""
    places = [Path(place).expanduser() for place in _PLACES]
    gcloud = shutil.which("gcloud")
    if gcloud and not any(place.is_dir() for place in places):
        asked = subprocess.run(  # noqa: S603 (found on the PATH)
            [gcloud, "info", "--format=value(installation.sdk_root)"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        places.insert(0, Path(asked.stdout.strip() or "/nowhere"))
    jars = [jar for place in places for jar in sorted(place.glob(_JAR))]
    return jars[-1] if jars else None


@dataclass
class PubSubEmulator:
    """A running emulator; what it has is in memory, and gone when it is killed."""

    jar: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def host(self) -> str:
        """What ``PUBSUB_EMULATOR_HOST`` is to be."""
        return f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def make_topic(self, schema: str | None = None, encoding: int = Encoding.BINARY) -> "Topic":
        """Make a topic and a subscription of it, with names of their own.

        Args:
            schema: its Avro schema, as JSON text.
            encoding: how its messages are encoded, if it has one.
        """
        name = f"t-{uuid.uuid4().hex[:12]}"
        topic = Topic(f"{PROJECT}/topics/{name}", f"{PROJECT}/subscriptions/{name}", None)
        request: dict[str, Any] = {"name": topic.topic}
        if schema is not None:
            topic = replace(topic, schema=f"{PROJECT}/schemas/{name}")
            topic.commit_schema(schema, is_first=True)
            request["schema_settings"] = {"schema": topic.schema, "encoding": encoding}
        with PublisherClient() as publisher:
            publisher.create_topic(request=request)
        with SubscriberClient() as subscriber:
            subscriber.create_subscription(
                name=topic.subscription, topic=topic.topic, ack_deadline_seconds=10
            )
        return topic


@dataclass(frozen=True)
class Topic:
    """A topic of the emulator and its only subscription, with an acknowledgement deadline of 10 s."""

    topic: str
    subscription: str
    schema: str | None

    def commit_schema(self, definition: str, *, is_first: bool = False) -> None:
        """Give it a revision of its schema."""
        assert self.schema is not None
        schema = Schema(name=self.schema, type_=Schema.Type.AVRO, definition=definition)
        parent, _, schema_id = self.schema.rpartition("/schemas/")
        with SchemaServiceClient() as service:
            if is_first:
                service.create_schema(parent=parent, schema=schema, schema_id=schema_id)
            else:
                service.commit_schema(name=self.schema, schema=schema)

    def publish(self, *bodies: bytes, attributes: Mapping[str, str] | None = None) -> list[str]:
        """Publish messages; return their ids."""
        with PublisherClient() as publisher:
            published = [publisher.publish(self.topic, body, **attributes or {}) for body in bodies]
            return [str(each.result(timeout=30)) for each in published]

    def pull_ids(self, timeout_secs: float = 3.0) -> set[str]:
        """Pull once, as another reader would; what comes is given back."""
        with SubscriberClient() as subscriber:
            try:
                answer = subscriber.pull(
                    subscription=self.subscription,
                    max_messages=1000,
                    retry=None,
                    timeout=timeout_secs,
                )
            except GoogleAPICallError:
                return set()
            received = list(answer.received_messages)
            if received:
                subscriber.modify_ack_deadline(
                    subscription=self.subscription,
                    ack_ids=[each.ack_id for each in received],
                    ack_deadline_seconds=0,
                )
        return {each.message.message_id for each in received}


def start_pubsub_emulator(jar: Path, port: int | None = None) -> PubSubEmulator:
    """Start an emulator and wait until it answers.

    Raises:
        TimeoutError: it does not.
    """
    port = port or _free_port()
    process = subprocess.Popen(  # noqa: S603 (our own command)
        [
            shutil.which("java") or "java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
            "-jar", str(jar), "--host=127.0.0.1", f"--port={port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_START_SECS)
        except grpc.FutureTimeoutError:
            process.kill()
            process.wait()
            raise TimeoutError("the Pub/Sub emulator did not start") from None
    return PubSubEmulator(jar, port, process)


@pytest.fixture(scope="session")
def pubsub() -> Iterator[PubSubEmulator]:
    """An emulator that every client of this process and its children talks to."""
    if _RUNNING:  # a fixture that two conftests import is two to pytest
        yield _RUNNING[0]
        return
    jar = find_jar()
    if jar is None or shutil.which("java") is None:
        pytest.skip(_INSTALL)
    emulator = start_pubsub_emulator(jar)
    _RUNNING.append(emulator)
    before = os.environ.get(_HOST_VARIABLE)
    os.environ[_HOST_VARIABLE] = emulator.host
    try:
        yield emulator
    finally:
        if before is None:
            del os.environ[_HOST_VARIABLE]
        else:
            os.environ[_HOST_VARIABLE] = before
        _RUNNING.clear()
        emulator.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until(is_true: Any, within_secs: float = 20.0) -> None:  # noqa: ANN401 (a predicate)
    """Wait for what threads or a server are about to do."""
    deadline_secs = time.monotonic() + within_secs
    while not is_true():
        assert time.monotonic() < deadline_secs, "it did not happen in time"
        time.sleep(0.02)
