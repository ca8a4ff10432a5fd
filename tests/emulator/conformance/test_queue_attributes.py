"""CreateQueue, SetQueueAttributes, GetQueueAttributes, DeleteQueue."""

from __future__ import annotations

import pytest

from emulator.open_questions import OpenQuestions
from emulator.queues import QueueAttributes
from tests.emulator.conformance.cloud import HOST, START_MS, Cloud, LocalMns
from tests.emulator.conformance.sources import case, source
from tests.emulator.mns_caller import local_name

INVALID = (400, "InvalidArgument")
NO_QUEUE = (404, "QueueNotExist")
RANGES = {
    "DelaySeconds": (0, 604_800),
    "MaximumMessageSize": (1024, 65_536),
    "MessageRetentionPeriod": (60, 604_800),
    "VisibilityTimeout": (1, 43_200),
    "PollingWaitSeconds": (0, 30),
}
INSIDE = [
    case("protocol 1.7", f"{attribute} {value}", attribute, value)
    for attribute, limits in RANGES.items()
    for value in limits
]
OUTSIDE = [
    *(
        case("protocol 1.7", f"{attribute} {value}", attribute, value)
        for attribute, (lowest, highest) in RANGES.items()
        for value in (lowest - 1, highest + 1)
    ),
    case("protocol 1.7", "VisibilityTimeout in words", "VisibilityTimeout", "ten"),
    case("protocol 1.7", "an empty DelaySeconds", "DelaySeconds", ""),
    case("protocol 1.7", "LoggingEnabled on", "LoggingEnabled", "on"),
    case("SDK", "LoggingEnabled in lower case", "LoggingEnabled", "true"),
    case("27501", "an attribute of no schema", "Colour", "red"),
]


@pytest.mark.parametrize(("attribute", "value"), INSIDE)
def test_a_queue_is_created_with_a_value_within_the_range(
    local: LocalMns, attribute: str, value: int
) -> None:
    assert local.create("new", **{attribute: value}).status == 201
    assert local.attributes("new").text(attribute) == str(value)


@pytest.mark.parametrize(("attribute", "value"), INSIDE)
def test_a_value_within_the_range_can_be_set(local: LocalMns, attribute: str, value: int) -> None:
    assert local.set_attributes("q", **{attribute: value}).status == 204
    assert local.attributes("q").text(attribute) == str(value)


@pytest.mark.parametrize(("attribute", "value"), OUTSIDE)
def test_no_queue_is_created_with_a_value_outside_the_range(
    local: LocalMns, attribute: str, value: object
) -> None:
    assert local.create("new", **{attribute: value}).refusal == INVALID
    assert local.attributes("new").refusal == NO_QUEUE


@pytest.mark.parametrize(("attribute", "value"), OUTSIDE)
def test_a_value_outside_the_range_is_not_set(
    local: LocalMns, attribute: str, value: object
) -> None:
    before = local.attributes("q").body
    assert local.set_attributes("q", **{attribute: value}).refusal == INVALID
    assert local.attributes("q").body == before


# Names


@pytest.mark.parametrize(
    "name",
    [
        case("protocol 1.7", "one letter", "a"),
        case("protocol 1.7", "one digit", "1"),
        case("protocol 1.7", "120 characters", "q" * 120),
        case("protocol 1.7", "letters, digits and hyphens", "Alicom-Queue-1-SmsReport"),
        case("protocol 1.7", "a hyphen at the end", "a-"),
    ],
)
def test_a_name_is_good(local: LocalMns, name: str) -> None:
    reply = local.create(name)
    assert reply.status == 201
    assert reply.headers["location"] == f"http://{HOST}/queues/{name}"
    assert local.attributes(name).text("QueueName") == name


@pytest.mark.parametrize(
    ("name", "code"),
    [
        case("protocol 1.7", "121 characters", "q" * 121, "QueueNameLengthError"),
        case("protocol 1.7", "a hyphen first", "-a", "InvalidQueueName"),
        case("protocol 1.7", "an underscore", "a_b", "InvalidQueueName"),
        case("protocol 1.7", "a dot", "a.b", "InvalidQueueName"),
        case("protocol 1.7", "a letter beyond ASCII", "%E9%98%9F", "InvalidQueueName"),
        case("protocol 1.7", "a space", "a%20b", "InvalidQueueName"),
    ],
)
def test_a_name_is_refused(local: LocalMns, name: str, code: str) -> None:
    assert local.create(name).refusal == (400, code)


# Creating


@pytest.mark.parametrize(
    "document",
    [case("SDK", "an empty document", "<Queue> </Queue>"), case("inferred", "no document", "")],
)
def test_what_is_left_unsaid_has_its_default(local: LocalMns, document: str) -> None:
    assert local.call("PUT", "/queues/new", document).status == 201
    found = {local_name(e): e.text for e in local.attributes("new").root}
    assert found == {
        "QueueName": "new",
        "CreateTime": str(START_MS // 1000),
        "LastModifyTime": str(START_MS // 1000),
        "DelaySeconds": "0",
        "MaximumMessageSize": "65536",
        "MessageRetentionPeriod": "345600",
        "VisibilityTimeout": "30",
        "PollingWaitSeconds": "0",
        "LoggingEnabled": "False",
        "ActiveMessages": "0",
        "InactiveMessages": "0",
        "DelayMessages": "0",
    }


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        case("protocol 1.7", "nothing, and so the defaults", {}, 204),
        case("protocol 1.7", "the defaults in words", {"VisibilityTimeout": 30}, 204),
        case("protocol 1.7", "other attributes", {"VisibilityTimeout": 31}, 409),
        case("protocol 1.7", "logging", {"LoggingEnabled": "True"}, 409),
    ],
)
def test_a_queue_is_created_again(
    local: LocalMns, attributes: dict[str, object], status: int
) -> None:
    local.send("q", "a")
    reply = local.create("q", **attributes)
    assert reply.status == status
    if status == 204:
        assert reply.headers["location"].endswith("/queues/q")
    else:
        assert reply.code == "QueueAlreadyExist"
    assert local.receive("q").status == 200


@pytest.mark.parametrize(
    ("document", "code"),
    [
        case("27501", "no XML", "VisibilityTimeout=5", "MalformedXML"),
        case("27501", "another root", "<Message/>", "InvalidArgument"),
    ],
)
def test_a_document_is_refused(local: LocalMns, document: str, code: str) -> None:
    assert local.call("PUT", "/queues/new", document).refusal == (400, code)


@pytest.mark.parametrize(
    ("deleted_queue_secs", "waited_secs", "recently"),
    [
        case("inferred", "no document says for how long", 0, 0, False),
        case("27501", "at once", 60, 0, True),
        case("27501", "until the last millisecond", 60, 59.999, True),
        case("27501", "and then no more", 60, 60, False),
    ],
)
def test_a_queue_is_created_again_after_it_was_deleted(
    deleted_queue_secs: int, waited_secs: float, recently: bool
) -> None:
    cloud = Cloud(OpenQuestions(deleted_queue_secs=deleted_queue_secs))
    local = cloud.mns
    assert local.drop("q").status == 204
    assert local.create("q").status == 201, "there was none to delete"
    local.drop("q")
    cloud.wait(waited_secs)
    assert local.create("other").status == 201
    reply = local.create("q")
    if recently:
        assert reply.refusal == (400, "QueueDeletedRecently")
        assert local.attributes("q").refusal == NO_QUEUE
    else:
        assert reply.status == 201


@source("128343")
def test_an_account_has_1000_queues_at_most(local: LocalMns, cloud: Cloud) -> None:
    for number in range(999 - len(cloud.store)):
        cloud.store.create(f"q-{number}", QueueAttributes(), cloud.now_ms)
    assert local.create("the-last").status == 201
    # The limit is documented; its code is not.
    assert local.create("one-more").refusal == INVALID
    assert local.create("q").status == 204
    local.drop("q")
    assert local.create("one-more").status == 201


# Setting and getting


@pytest.mark.parametrize(
    ("query", "status"),
    [
        case("SDK", "metaoverride", "metaoverride=true", 204),
        case("protocol 1.7", "metaOverride", "metaOverride=true", 204),
        case("observed", "METAOVERRIDE", "METAOVERRIDE=true", 500),
        case("35141", "a flag is true", "metaoverride=1", 400),
    ],
)
def test_the_override_has_two_spellings(local: LocalMns, query: str, status: int) -> None:
    document = "<Queue><VisibilityTimeout>5</VisibilityTimeout></Queue>"
    assert local.call("PUT", f"/queues/q?{query}", document).status == status


@source("protocol 1.7")
def test_setting_one_attribute_leaves_the_others(local: LocalMns, cloud: Cloud) -> None:
    local.set_attributes("q", VisibilityTimeout=5, LoggingEnabled="True")
    cloud.wait(10)
    local.set_attributes("q", DelaySeconds=7)
    reply = local.attributes("q")
    names = ("VisibilityTimeout", "LoggingEnabled", "DelaySeconds")
    assert [reply.text(name) for name in names] == ["5", "True", "7"]
    modified = int(reply.text("LastModifyTime"))
    assert modified - int(reply.text("CreateTime")) == 10


@source("inferred")
def test_what_was_read_may_be_written_back(local: LocalMns) -> None:
    document = local.attributes("q").body
    assert local.call("PUT", "/queues/q?metaoverride=true", document).status == 204


@source("SDK")
def test_the_attributes_are_twelve_in_their_order(local: LocalMns) -> None:
    reply = local.attributes("q")
    assert reply.status == 200
    assert local_name(reply.root) == "Queue"
    assert [local_name(e) for e in reply.root] == [
        "QueueName", "CreateTime", "LastModifyTime", "DelaySeconds", "MaximumMessageSize",
        "MessageRetentionPeriod", "VisibilityTimeout", "PollingWaitSeconds", "LoggingEnabled",
        "ActiveMessages", "InactiveMessages", "DelayMessages",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("zero_depths", "told"),
    [
        case("protocol 1.7", "as it was", False, ["1", "1", "1"]),
        case("protocol 1.7", "as the documents of 2025 announce", True, ["0", "0", "0"]),
    ],
)
def test_messages_are_counted_or_not(zero_depths: bool, told: list[str]) -> None:
    local = Cloud(OpenQuestions(zero_depths=zero_depths)).mns
    local.create("q")
    for body in "ab":
        local.send("q", body)
    local.send("q", "c", DelaySeconds=60)
    local.receive("q")
    names = ("ActiveMessages", "InactiveMessages", "DelayMessages")
    for reply in (local.attributes("q"), local.list_queues(with_meta="true", prefix="q")):
        assert [reply.text(name) for name in names] == told
    assert local.receive("q").status == 200


@source("inferred")
def test_a_new_visibility_timeout_is_for_later_receives(local: LocalMns, cloud: Cloud) -> None:
    local.send("q", "a")
    handle = local.receive("q").text("ReceiptHandle")
    local.set_attributes("q", VisibilityTimeout=1)
    cloud.wait(29.999)
    assert local.delete("q", handle).status == 204


# A queue that is not there


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        case("35136", "receive", "GET", "/queues/gone/messages", ""),
        case("35137", "batch receive", "GET", "/queues/gone/messages?numOfMessages=16", ""),
        case("35136", "long poll", "GET", "/queues/gone/messages?waitseconds=30", ""),
        case("35140", "peek", "GET", "/queues/gone/messages?peekonly=true", ""),
        case("35134", "send", "POST", "/queues/gone/messages", "<Message/>"),
        case("35138", "delete", "DELETE", "/queues/gone/messages?ReceiptHandle=8-x", ""),
        case("35139", "batch delete", "DELETE", "/queues/gone/messages", "<ReceiptHandles/>"),
        case("35142", "renew", "PUT", "/queues/gone/messages?receiptHandle=8-x&visibilityTimeout=5", ""),
        case("protocol 1.7", "get attributes", "GET", "/queues/gone", ""),
        case("protocol 1.7", "set attributes", "PUT", "/queues/gone?metaoverride=true", "<Queue/>"),
    ],
)  # fmt: skip
def test_there_is_no_such_queue(local: LocalMns, method: str, target: str, body: str) -> None:
    reply = local.call(method, target, body)
    assert reply.refusal == NO_QUEUE
    assert reply.text("Message") == "The queue name you provided is not exist."


@source("35132")
def test_deleting_a_queue_takes_its_messages_with_it(local: LocalMns) -> None:
    local.send("q", "a")
    assert (local.drop("q").status, local.drop("q").status) == (204, 204)
    assert local.receive("q").refusal == NO_QUEUE
    assert local.create("q").status == 201
    assert local.receive("q").refusal == (404, "MessageNotExist")
