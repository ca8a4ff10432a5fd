"""A send that Pub/Sub does not take is an OSError, whatever the client says; later ones are taken again."""

import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import grpc
import pytest
from google.pubsub_v1.types import GetTopicRequest, PublishRequest, PublishResponse, Topic

from pipeline.send_log_topic import SendLogTopic
from tests.pubsub.grpc_server import Methods, serve
from tests.pubsub_emulator import PROJECT, wait_until

pytestmark = pytest.mark.integration

TOPIC = f"{PROJECT}/topics/outage"
SEND: dict[str, Any] = {
    "biz_id": "900619746936498440^0",
    "requested_at": datetime(2026, 11, 1, tzinfo=timezone.utc),
}


class Service:
    """A topic without a schema, which refuses, or keeps everybody waiting, while a test says so."""

    def __init__(self) -> None:
        self.refuses = False
        self.answers = threading.Event()
        self.answers.set()
        self.taken = 0

    def get_topic(self, request: GetTopicRequest, context: grpc.ServicerContext) -> Topic:  # noqa: ARG002
        return Topic(name=request.topic)

    def publish(self, request: PublishRequest, context: grpc.ServicerContext) -> PublishResponse:
        self.answers.wait()
        if self.refuses:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "13800000000 may not")
        self.taken += len(request.messages)
        return PublishResponse(message_ids=[str(number) for number in range(len(request.messages))])


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    service = Service()
    methods: Methods = {
        "GetTopic": (service.get_topic, GetTopicRequest),
        "Publish": (service.publish, PublishRequest),
    }
    with serve({"Publisher": methods}) as host:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", host)
        yield service
        service.answers.set()


# A request of the client has a hundred messages; those behind a failed one are never sent.
@pytest.mark.parametrize("recipients", [2, 201])
def test_all_recipients_of_a_send_that_is_refused_are_one_os_error(
    service: Service, recipients: int
) -> None:
    topic = SendLogTopic(TOPIC)
    numbers = [f"138{number:08}" for number in range(recipients)]
    service.refuses = True
    for _ in range(2):  # the first one lets the second be tried
        with pytest.raises(OSError, match=f"published to {TOPIC}: PermissionDenied$"):
            topic.append(phone_number=numbers, **SEND)
    service.refuses = False
    topic.append(phone_number=numbers, **SEND)
    assert service.taken == recipients
    topic.close()


def test_an_answer_that_does_not_come_is_an_os_error_and_so_is_what_it_holds_up(
    service: Service,
) -> None:
    topic = SendLogTopic(TOPIC, answer_secs=0.0)
    service.answers.clear()
    with pytest.raises(OSError, match=f"published to {TOPIC}: TimeoutError$"):
        topic.append(phone_number=["13800000001", "13800000002"], **SEND)
    # The client still tries; a refusal now is told to whoever comes next.
    service.refuses = True
    service.answers.set()
    wait_until(lambda: _is_paused(topic))
    with pytest.raises(OSError, match=": PublishToPausedOrderingKeyException$"):
        topic.append(phone_number="13800000001", **SEND)
    service.refuses = False
    with pytest.raises(OSError, match=": TimeoutError$"):
        topic.append(phone_number="13800000001", **SEND)
    wait_until(lambda: service.taken == 1)
    topic.close()


def _is_paused(topic: SendLogTopic) -> bool:
    """Whether the client has noted the refusal, which it tells nobody."""
    (sequencer,) = topic._publisher._sequencers.values()  # noqa: SLF001
    return bool(sequencer._state == "paused")  # noqa: SLF001
