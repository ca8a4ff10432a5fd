"""The inbox of a subscription, against Google's emulator."""

import io
import json
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import fastavro
import pytest
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.types import Encoding

from pipeline.errors import OperatorError, QueueError
from pipeline.pubsub.inbox import PubSubInbox
from pipeline.pubsub.settings import PubSubSettings
from pipeline.pubsub.spec import PubSubInboxSpec
from schemas.contracts import contract
from schemas.records import MnsMessage
from tests.pubsub.conftest import Open, counts
from tests.pubsub_emulator import (
    PROJECT,
    PubSubEmulator,
    Topic,
    find_jar,
    start_pubsub_emulator,
    wait_until,
)
from transforms.decode_sends import decode_sends

pytestmark = pytest.mark.integration

SENDS = contract("send_log_entry")
SCHEMA = (Path(__file__).parents[2] / "schemas/avro/send_log_entry.avsc").read_text()
NOON = datetime(2026, 11, 1, 4, tzinfo=timezone.utc)


def line(biz_id: str) -> bytes:
    return json.dumps(
        {"biz_id": biz_id, "phone_number": "13800000001", "requested_at": "2026-11-01T04:00:00Z"}
    ).encode()


def entry(biz_id: str) -> dict[str, Any]:
    return {"biz_id": biz_id, "phone_number": "13800000001", "requested_at": NOON}


def take(inbox: PubSubInbox, messages: int) -> tuple[list[MnsMessage], list[int]]:
    """Take so many messages; return them and their leases."""
    taken: list[MnsMessage] = []
    leases: list[int] = []
    deadline_secs = time.monotonic() + 20
    while len(taken) < messages:
        assert inbox.failure is None
        assert time.monotonic() < deadline_secs, f"only {len(taken)} messages came"
        batch = inbox.take(0.5)
        if batch is not None:
            taken += batch.messages
            leases.append(batch.lease)
    return taken, leases


def test_messages_come_as_they_were_published_and_what_is_acknowledged_is_gone(
    pubsub: PubSubEmulator, open_inbox: Open
) -> None:
    topic = pubsub.make_topic()
    before = datetime.now(timezone.utc)
    ids = topic.publish(line("1^0"), line("2^0"))
    inbox = open_inbox(topic.subscription, "ack")

    messages, leases = take(inbox, 2)

    assert {message.message_id: message.body for message in messages} == {
        ids[0]: line("1^0"),
        ids[1]: line("2^0"),
    }
    assert {(each.queue_name, each.message_type, each.dequeue_count) for each in messages} == {
        (topic.subscription.rpartition("/")[2], "SendLogEntry", 1)
    }
    margin = timedelta(seconds=1)
    assert all(before - margin < each.enqueued_at < before + 20 * margin for each in messages)
    assert inbox.oldest_enqueued_at() == min(each.enqueued_at for each in messages)
    inbox.acknowledge(leases)
    inbox.acknowledge(leases)
    assert counts("ack", "received", "acknowledged", "unacknowledged") == (2, 2, 0)
    assert inbox.oldest_enqueued_at() is None
    inbox.close()
    assert topic.pull_ids(timeout_secs=1) == set()


def test_what_was_not_handed_out_is_given_back_at_a_stop_and_the_rest_at_the_close(
    pubsub: PubSubEmulator, open_inbox: Open
) -> None:
    topic = pubsub.make_topic()
    ids = topic.publish(*(line(f"{number}^0") for number in range(4)))
    inbox = open_inbox(topic.subscription, "stop", pull_messages=2)
    taken, leases = take(inbox, 2)
    wait_until(lambda: counts("stop", "received") == (4,))

    inbox.stop()
    assert inbox.is_finished
    assert inbox.take(1.0) is None
    left = set(ids) - {message.message_id for message in taken}
    wait_until(lambda: topic.pull_ids() == left)
    inbox.release(leases)
    wait_until(lambda: topic.pull_ids() == set(ids))
    inbox.close()
    assert counts("stop", "released", "acknowledged") == (4, 0)


def test_an_inbox_that_was_stopped_says_when_its_last_lease_is_settled(
    pubsub: PubSubEmulator,
) -> None:
    topic = pubsub.make_topic()
    topic.publish(line("1^0"))
    done: list[bool] = []
    settings = PubSubSettings(topic.subscription, wait_secs=1, fetchers=1)
    inbox = PubSubInboxSpec(settings).open("done", lambda: done.append(True))
    inbox.start()
    _, leases = take(inbox, 1)
    inbox.stop()
    wait_until(lambda: not inbox._live_fetchers)  # noqa: SLF001 (nothing else tells)
    assert not done
    inbox.acknowledge(leases)
    wait_until(lambda: bool(done))
    assert topic.pull_ids(timeout_secs=1) == set()


def test_an_inbox_that_was_stopped_does_not_wait_for_leases_that_have_ended(
    pubsub: PubSubEmulator,
) -> None:
    topic = pubsub.make_topic()
    topic.publish(line("1^0"))
    done: list[bool] = []
    settings = PubSubSettings(topic.subscription, wait_secs=1, fetchers=1)
    inbox = PubSubInboxSpec(settings).open("ended", lambda: done.append(True))
    inbox.start()
    take(inbox, 1)
    for lease in inbox._leases.values():  # noqa: SLF001 (else it takes ten seconds)
        lease.expires_secs = time.monotonic()
    inbox.stop()
    wait_until(lambda: bool(done))
    assert inbox.oldest_enqueued_at() is None
    assert counts("ended", "lost_leases", "unacknowledged") == (1, 1)


def test_leases_outlive_their_deadline_and_end_with_the_process(
    pubsub: PubSubEmulator, open_inbox: Open
) -> None:
    held, killed = pubsub.make_topic(), pubsub.make_topic()
    held.publish(line("1^0"))
    ids = killed.publish(line("2^0"), line("3^0"))
    inbox = open_inbox(held.subscription, "held", ack_deadline_secs=10)
    began_secs = time.monotonic()
    _, leases = take(inbox, 1)
    command = [sys.executable, "-m", "tests.pubsub.held", killed.subscription, "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert killed.pull_ids(timeout_secs=1) == set()
        process.kill()

    wait_until(lambda: killed.pull_ids(timeout_secs=1) == set(ids))
    wait_until(lambda: time.monotonic() > began_secs + 11)  # past the subscription's deadline

    assert held.pull_ids(timeout_secs=1) == set()
    assert counts("held", "lost_leases") == (0,)
    assert counts("held", "renewals") > (0,)
    inbox.acknowledge(leases)
    assert counts("held", "acknowledged") == (1,)


def test_a_binary_body_gets_the_fingerprint_of_its_own_revision(
    pubsub: PubSubEmulator, open_inbox: Open
) -> None:
    topic = pubsub.make_topic(SCHEMA)
    topic.publish(SENDS.encode(entry("1^0")))
    newer = json.loads(SCHEMA)
    newer["fields"].append({"name": "next", "type": ["null", "string"], "default": None})
    topic.commit_schema(json.dumps(newer))
    topic.publish(_encoded(newer, {**entry("2^0"), "next": "news"}))

    messages, _ = take(open_inbox(topic.subscription), 2)

    checked = decode_sends([message.body for message in messages])
    assert [(each["biz_id"], each["requested_at"]) for each in checked.entries.to_pylist()] == [
        ("1^0", NOON)
    ]
    # A revision that no version of ours has published is nobody's to guess at.
    assert [each.error.reason for each in checked.refused] == ["unknown_schema"]


def _encoded(schema: dict[str, Any], record: dict[str, Any]) -> bytes:
    encoded = io.BytesIO()
    fastavro.schemaless_writer(encoded, fastavro.parse_schema(schema), {**_NULLS, **record})
    return encoded.getvalue()


_NULLS: dict[str, Any] = {
    **dict.fromkeys(("out_id", "sign_name", "template_code", "template_param", "request_id")),
    **dict.fromkeys(("sms_up_extend_code", "campaign")),
    "tags": {},
}


def test_json_of_a_topic_schema_is_archived_as_it_came_and_says_what_to_use(
    pubsub: PubSubEmulator, open_inbox: Open
) -> None:
    topic = pubsub.make_topic(SCHEMA, Encoding.JSON)
    body = json.dumps({**_NULLS, **entry("1^0"), "requested_at": 1_793_505_600_000}).encode()
    topic.publish(body)

    messages, _ = take(open_inbox(topic.subscription), 1)

    assert messages[0].body == body
    (refused,) = decode_sends([body]).refused
    assert refused.error.reason == "wrong_type"
    assert refused.error.detail.endswith("only the encoding BINARY is read")


def test_the_watermark_follows_what_is_held_and_goes_on_when_nothing_is(
    pubsub: PubSubEmulator, open_inbox: Open
) -> None:
    topic = pubsub.make_topic()
    topic.publish(line("1^0"))
    inbox = open_inbox(topic.subscription)
    messages, leases = take(inbox, 1)
    assert inbox.watermark() == messages[0].enqueued_at
    topic.publish(line("2^0"))
    take(inbox, 1)
    assert inbox.watermark() == messages[0].enqueued_at
    inbox.acknowledge(leases)
    second = inbox.watermark()
    assert second is not None
    assert second > messages[0].enqueued_at

    idle = open_inbox(pubsub.make_topic().subscription)
    wait_until(lambda: idle.watermark() is not None)
    now = datetime.now(timezone.utc)
    moment = idle.watermark()
    assert moment is not None
    assert now - timedelta(seconds=20) < moment < now


def test_a_subscription_that_is_not_there_is_the_operators(open_inbox: Open) -> None:
    inbox = open_inbox(f"{PROJECT}/subscriptions/not-there", "wrong")
    wait_until(lambda: inbox.failure is not None)
    assert isinstance(inbox.failure, QueueError)
    assert str(inbox.failure) == (
        f"{PROJECT}/subscriptions/not-there does not exist: correct --send_log_subscription, or create it"
    )
    assert inbox.is_finished
    assert inbox.take(1.0) is None


def test_a_service_that_is_away_for_a_while_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, open_inbox: Open
) -> None:
    jar = find_jar()
    assert jar is not None
    own = start_pubsub_emulator(jar)
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", own.host)
    try:
        topic = own.make_topic()
        topic.publish(line("1^0"))
        inbox = open_inbox(topic.subscription, "away", wait_secs=1)
        take(inbox, 1)
        own.kill()
        wait_until(lambda: counts("away", "receive_faults") > (1,))
        assert inbox.failure is None
        own = start_pubsub_emulator(jar, own.port)
        _make_again(topic)
        topic.publish(line("2^0"))
        messages, leases = take(inbox, 1)
        assert messages[0].body == line("2^0")
        inbox.acknowledge(leases)
        assert counts("away", "acknowledged", "unacknowledged") == (1, 0)
        inbox.close()
    finally:
        own.kill()


def _make_again(topic: Topic) -> None:
    """What the emulator had is gone with it."""
    with PublisherClient() as publisher, SubscriberClient() as subscriber:
        publisher.create_topic(name=topic.topic)
        subscriber.create_subscription(
            name=topic.subscription, topic=topic.topic, ack_deadline_seconds=10
        )


def test_a_service_that_never_answered_is_given_up(
    monkeypatch: pytest.MonkeyPatch, open_inbox: Open
) -> None:
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    inbox = open_inbox(f"{PROJECT}/subscriptions/unreachable", start_tries=2)
    wait_until(lambda: inbox.failure is not None)
    assert isinstance(inbox.failure, OperatorError)
    assert "check the network" in str(inbox.failure)
