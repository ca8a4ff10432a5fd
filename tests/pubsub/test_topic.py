"""What the sending application publishes is what the pipeline decodes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from google.cloud.pubsub_v1 import PublisherClient
from google.pubsub_v1.types import Encoding

from pipeline.send_log_topic import SendLogTopic
from tests.pubsub.conftest import Open
from tests.pubsub.test_inbox import SCHEMA, take
from tests.pubsub_emulator import PROJECT, PubSubEmulator, Topic
from transforms.decode_sends import decode_sends, is_avro

pytestmark = pytest.mark.integration

REQUESTED_AT = datetime(2026, 11, 1, 23, 59, 59, 123456, tzinfo=timezone(timedelta(hours=8)))
SEND: dict[str, Any] = {
    "biz_id": "900619746936498440^0",
    "requested_at": REQUESTED_AT,
    "sign_name": "例\n" * 50,
    "campaign": "",
    "tags": {"team": "growth", "名": "值"},
}


@pytest.fixture
def publish() -> Iterator[Any]:
    """Open publishers of topics; all close at the end."""
    opened: list[SendLogTopic] = []

    def start(topic: str) -> SendLogTopic:
        opened.append(SendLogTopic(topic))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.mark.parametrize("schema", [None, SCHEMA], ids=["json", "avro"])
def test_a_published_send_is_decoded_as_it_was_given(
    pubsub: PubSubEmulator, open_inbox: Open, publish: Any, schema: str | None
) -> None:
    topic = pubsub.make_topic(schema)
    publish(topic.topic).append(phone_number=["13800000001", "13900000002"], **SEND)

    messages, _ = take(open_inbox(topic.subscription), 2)

    assert {is_avro(message.body) for message in messages} == {schema is not None}
    checked = decode_sends([message.body for message in messages])
    assert checked.refused == []
    rows = sorted(checked.entries.to_pylist(), key=lambda row: str(row["phone_number"]))
    assert [row["phone_number"] for row in rows] == ["13800000001", "13900000002"]
    for row in rows:
        tags = row.pop("tags")
        assert dict(tags) == SEND["tags"]
        assert row == {
            **dict.fromkeys(row),
            **{name: value for name, value in SEND.items() if name != "tags"},
            "phone_number": row["phone_number"],
            "requested_at": REQUESTED_AT.replace(microsecond=123_000),
        }


def test_an_older_schema_takes_what_it_knows(pubsub: PubSubEmulator, publish: Any) -> None:
    older = json.loads(SCHEMA)
    older["fields"] = [each for each in older["fields"] if each["name"] != "campaign"]
    topic = publish(pubsub.make_topic(json.dumps(older)).topic)
    topic.append(biz_id="1^0", phone_number="13800000001", requested_at=REQUESTED_AT)
    with pytest.raises(ValueError, match="has no field campaign"):
        topic.append(phone_number="13800000001", **SEND)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"biz_id": ""}, "biz_id must be text that is not empty"),
        ({"phone_number": "1,2"}, "phone_number holds several numbers"),
        ({"phone_number": []}, "phone_number is empty"),
        ({"requested_at": datetime(2026, 11, 1)}, "requested_at must be an aware datetime"),  # noqa: DTZ001
        ({"tags": {"a": 1}}, "tags must map text to text"),
        ({"campaign": "\ud800"}, "half of a surrogate pair"),
        ({"tags": {"a": "x" * 1_000_000}}, "more than 1,000,000 bytes"),
    ],
)
def test_what_the_pipeline_would_refuse_is_not_published(
    plain: tuple[Topic, SendLogTopic], wrong: dict[str, Any], said: str
) -> None:
    _, topic = plain
    with pytest.raises(ValueError, match=said):
        topic.append(**{"phone_number": "13800000001", **SEND, **wrong})


@pytest.fixture(scope="module")
def plain(pubsub: PubSubEmulator) -> Iterator[tuple[Topic, SendLogTopic]]:
    topic = pubsub.make_topic()
    publisher = SendLogTopic(topic.topic)
    yield topic, publisher
    assert topic.pull_ids(timeout_secs=1) == set()
    publisher.close()


def test_a_topic_that_cannot_be_used_is_refused(pubsub: PubSubEmulator) -> None:
    with pytest.raises(ValueError, match="give it the encoding BINARY"):
        SendLogTopic(pubsub.make_topic(SCHEMA, Encoding.JSON).topic)
    other = {"type": "record", "name": "Other", "fields": [{"name": "id", "type": "string"}]}
    with pytest.raises(ValueError, match="not for sends"):
        SendLogTopic(pubsub.make_topic(json.dumps(other)).topic)
    with pytest.raises(OSError, match="does not tell about .*: NotFound"):
        SendLogTopic(f"{PROJECT}/topics/not-there")


def test_missing_google_credentials_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(OSError, match="does not tell about .*: DefaultCredentialsError"):
        SendLogTopic(f"{PROJECT}/topics/t")


def test_a_send_that_was_not_taken_is_told_and_the_next_is_taken_again(
    pubsub: PubSubEmulator, publish: Any
) -> None:
    topic = pubsub.make_topic()
    publisher = publish(topic.topic)
    with PublisherClient() as client:
        client.delete_topic(topic=topic.topic)
    with pytest.raises(OSError, match=r"not all sends were published to .*: NotFound$"):
        publisher.append(phone_number="13800000001", **SEND)
    with PublisherClient() as client:
        client.create_topic(name=topic.topic)
    publisher.append(phone_number="13800000001", **SEND)


def test_the_sending_application_needs_no_beam() -> None:
    code = (
        "import sys, pipeline.send_log_topic; "
        "print([m for m in ('apache_beam', 'pyarrow', 'fastavro', 'msgspec') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    said = subprocess.run(  # noqa: S603 (our own command)
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert said.stdout == "[]\n"
