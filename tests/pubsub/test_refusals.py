"""What the emulator never says: answers of the service as its documents have them, over real gRPC."""

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.pubsub_v1.types import (
    AcknowledgeRequest,
    GetSchemaRequest,
    ModifyAckDeadlineRequest,
    PubsubMessage,
    PullRequest,
    PullResponse,
    ReceivedMessage,
    Schema,
)
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from pipeline.errors import CredentialsError, OperatorError, QueueError
from pipeline.pubsub.inbox import PubSubInbox
from pipeline.pubsub.settings import PubSubSettings
from pipeline.pubsub.spec import PubSubInboxSpec
from tests.pubsub.conftest import counts
from tests.pubsub.grpc_server import Methods, serve
from tests.pubsub.test_schemas import AVRO, BINARY, MARKED, SCHEMA
from tests.pubsub_emulator import PROJECT, wait_until
from transforms.tally import close_tally

pytestmark = pytest.mark.integration

RUN = "refusals"
SUBSCRIPTION = f"{PROJECT}/subscriptions/refusals"
NOON = datetime(2026, 11, 1, 4, tzinfo=timezone.utc)


class Service:
    """A Pub/Sub that says what a test wants it to; it has ``messages`` to hand out, once."""

    def __init__(self) -> None:
        self.messages = 0
        self.schema: Schema | None = None
        self.attributes: dict[str, str] = {}
        self.pull_code: grpc.StatusCode | None = None
        self.hold_code: grpc.StatusCode | None = None
        self.verdicts: list[dict[str, str]] = []  # on the ids of each acknowledgement, in turn
        self.acknowledged: list[str] = []
        self.held: list[tuple[list[str], int]] = []

    def pull(self, request: PullRequest, context: grpc.ServicerContext) -> PullResponse:
        if self.pull_code is not None:
            context.abort(self.pull_code, "no")
        messages, self.messages = self.messages, 0
        return PullResponse(
            received_messages=[
                ReceivedMessage(
                    ack_id=f"a{number}",
                    message=PubsubMessage(
                        message_id=f"m{number}",
                        data=b"{}",
                        publish_time=NOON,
                        attributes=self.attributes,
                    ),
                    delivery_attempt=2,
                )
                for number in range(min(messages, request.max_messages))
            ]
        )

    def acknowledge(self, request: AcknowledgeRequest, context: grpc.ServicerContext) -> Any:
        verdicts = self.verdicts.pop(0) if self.verdicts else {}
        self.acknowledged += [each for each in request.ack_ids if each not in verdicts]
        if verdicts:
            info = Packed()
            info.Pack(ErrorInfo(reason="ACK", domain="pubsub.googleapis.com", metadata=verdicts))
            status = Status(code=9, message="some ids", details=[info])
            context.set_trailing_metadata([("grpc-status-details-bin", status.SerializeToString())])
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "some ids")
        return PullResponse()  # empty, as the real answer is

    def hold(self, request: ModifyAckDeadlineRequest, context: grpc.ServicerContext) -> Any:
        if self.hold_code is not None:
            context.abort(self.hold_code, "no")
        self.held.append((list(request.ack_ids), request.ack_deadline_seconds))
        return PullResponse()

    def get_schema(self, request: GetSchemaRequest, context: grpc.ServicerContext) -> Any:
        assert request.name == SCHEMA
        return self.schema or context.abort(grpc.StatusCode.NOT_FOUND, "no")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    service = Service()
    methods: Methods = {
        "Pull": (service.pull, PullRequest),
        "Acknowledge": (service.acknowledge, AcknowledgeRequest),
        "ModifyAckDeadline": (service.hold, ModifyAckDeadlineRequest),
    }
    schemas: Methods = {"GetSchema": (service.get_schema, GetSchemaRequest)}
    with serve({"Subscriber": methods, "SchemaService": schemas}) as host:
        monkeypatch.setenv("PUBSUB_EMULATOR_HOST", host)
        yield service


@pytest.fixture
def start() -> Iterator[Callable[[], PubSubInbox]]:
    opened: list[PubSubInbox] = []

    def open_one() -> PubSubInbox:
        settings = PubSubSettings(SUBSCRIPTION, wait_secs=1, fetchers=1, stop_secs=1, start_tries=1)
        opened.append(PubSubInboxSpec(settings).open(RUN, lambda: None))
        opened[-1].start()
        return opened[-1]

    yield open_one
    for inbox in opened:
        inbox.close()
    close_tally(RUN)


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, QueueError, "give them the role roles/pubsub.subscriber"),
        (grpc.StatusCode.NOT_FOUND, QueueError, "does not exist: correct --send_log_subscription"),
        (grpc.StatusCode.UNAUTHENTICATED, CredentialsError, "log in anew"),
        (grpc.StatusCode.FAILED_PRECONDITION, OperatorError, "is it a pull subscription"),
    ],
)  # fmt: skip
def test_a_refusal_at_the_start_is_one_sentence(
    service: Service,
    start: Callable[[], PubSubInbox],
    code: grpc.StatusCode,
    kind: type[Exception],
    said: str,
) -> None:
    service.pull_code = code
    inbox = start()
    wait_until(lambda: inbox.failure is not None)
    assert type(inbox.failure) is kind
    assert said in str(inbox.failure)
    assert "\n" not in str(inbox.failure)


def test_a_refusal_that_passes_does_not_end_a_read_that_has_worked(
    service: Service, start: Callable[[], PubSubInbox]
) -> None:
    service.messages = 1
    inbox = start()
    wait_until(lambda: inbox.take(0.1) is not None)
    service.pull_code = grpc.StatusCode.PERMISSION_DENIED
    wait_until(lambda: counts(RUN, "receive_faults") >= (2,))
    service.pull_code, service.messages = None, 1
    wait_until(lambda: inbox.take(0.1) is not None)
    assert inbox.failure is None
    assert counts(RUN, "received", "redelivered") == (2, 2)


def test_of_ids_that_are_not_good_some_are_lost_and_some_tried_again(
    service: Service, start: Callable[[], PubSubInbox]
) -> None:
    service.messages = 3
    service.verdicts = [
        {"a0": "PERMANENT_FAILURE_INVALID_ACK_ID", "a1": "TRANSIENT_FAILURE_UNORDERED_ACK_ID"}
    ]
    inbox = start()
    batches = []
    wait_until(lambda: batches.append(inbox.take(0.1)) or batches[-1] is not None)  # type: ignore[func-returns-value]
    assert batches[-1] is not None
    inbox.acknowledge([batches[-1].lease])
    assert service.acknowledged == ["a2", "a1"]
    assert counts(RUN, "acknowledged", "unacknowledged") == (2, 1)
    assert inbox.failure is None


def test_a_lease_is_given_back_when_the_service_is_back(
    service: Service, start: Callable[[], PubSubInbox]
) -> None:
    service.messages = 1
    inbox = start()
    batches = []
    wait_until(lambda: batches.append(inbox.take(0.1)) or batches[-1] is not None)  # type: ignore[func-returns-value]
    assert batches[-1] is not None
    inbox.release([batches[-1].lease])
    wait_until(lambda: service.held == [(["a0"], 0)])
    assert inbox.oldest_enqueued_at() is None
    assert counts(RUN, "released") == (1,)


def test_messages_are_given_back_until_the_schema_is_there_that_they_were_written_with(
    service: Service, start: Callable[[], PubSubInbox]
) -> None:
    service.attributes = BINARY
    service.messages = 1
    inbox = start()
    wait_until(lambda: counts(RUN, "receive_faults") == (1,))
    assert service.held == [(["a0"], 0)]
    service.schema, service.messages = AVRO, 1
    batches = []
    wait_until(lambda: batches.append(inbox.take(0.1)) or batches[-1] is not None)  # type: ignore[func-returns-value]
    assert batches[-1] is not None
    assert [message.body for message in batches[-1].messages] == [MARKED]
    assert inbox.failure is None
