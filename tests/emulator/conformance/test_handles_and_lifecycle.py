"""What becomes of a message and of its receipt handles, over a week if need be."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emulator.open_questions import OpenQuestions
from tests.emulator.conformance.cloud import Cloud, LocalMns
from tests.emulator.conformance.sources import case, source
from tests.emulator.mns_caller import Reply

DAY_SECS = 86_400
EMPTY = (404, "MessageNotExist")


def lease(local: LocalMns, query: str = "") -> str:
    return local.receive("q", query).text("ReceiptHandle")


# A dead handle: how it died, and who is told so


def deleted(local: LocalMns, _: Cloud) -> str:
    local.send("q", "a")
    handle = lease(local)
    assert local.delete("q", handle).status == 204
    return handle


def timed_out(local: LocalMns, cloud: Cloud) -> str:
    local.send("q", "a")
    handle = lease(local)
    cloud.wait(30)
    return handle


def received_again(local: LocalMns, cloud: Cloud) -> str:
    handle = timed_out(local, cloud)
    assert lease(local) != handle
    return handle


def renewed(local: LocalMns, _: Cloud) -> str:
    local.send("q", "a")
    handle = lease(local)
    assert local.change_visibility("q", handle, 100).status == 200
    return handle


def expired(local: LocalMns, cloud: Cloud) -> str:
    local.set_attributes("q", MessageRetentionPeriod=60, VisibilityTimeout=100)
    local.send("q", "a")
    handle = lease(local)
    cloud.wait(60)
    return handle


def of_a_delay_that_is_over(local: LocalMns, cloud: Cloud) -> str:
    handle = local.send("q", "a", DelaySeconds=5).text("ReceiptHandle")
    cloud.wait(5)
    return handle


def of_another_queue(local: LocalMns, _: Cloud) -> str:
    local.create("other")
    local.send("other", "a")
    return local.receive("other").text("ReceiptHandle")


def of_the_queues_former_life(local: LocalMns, _: Cloud) -> str:
    local.send("q", "a")
    handle = lease(local)
    local.drop("q")
    local.create("q")
    return handle


def made_up(_: LocalMns, __: Cloud) -> str:
    return "8-0zxjHBaWtzPz8zphz0z6OGz5yWWidU1fJM"


DEATHS = [
    case("27477", "deleted", deleted),
    case("27477", "at its next visible time", timed_out),
    case("27477", "received again", received_again),
    case("35142", "renewed", renewed),
    case("27477", "retention over", expired),
    case("27477", "delay over", of_a_delay_that_is_over),
    case("27477", "another queue's", of_another_queue),
    case("35132", "deleted with its queue", of_the_queues_former_life),
    case("35138", "made up", made_up),
]


def delete(local: LocalMns, handle: str) -> Reply:
    return local.delete("q", handle)


def renew(local: LocalMns, handle: str) -> Reply:
    return local.change_visibility("q", handle, 30)


def batch_delete(local: LocalMns, handle: str) -> Reply:
    return local.batch_delete("q", [handle])


@pytest.mark.parametrize(
    ("dead_handle_code", "status"),
    [
        case("35138", "ReceiptHandleError", "ReceiptHandleError", 400),
        case("27477", "MessageNotExist", "MessageNotExist", 404),
    ],
)
@pytest.mark.parametrize("operation", [delete, renew])
@pytest.mark.parametrize("death", DEATHS)
def test_a_dead_handle_is_refused(
    death: Callable[[LocalMns, Cloud], str],
    operation: Callable[[LocalMns, str], Reply],
    dead_handle_code: str,
    status: int,
) -> None:
    cloud = Cloud(OpenQuestions(dead_handle_code=dead_handle_code))
    cloud.mns.create("q")
    handle = death(cloud.mns, cloud)
    assert operation(cloud.mns, handle).refusal == (status, dead_handle_code)


@pytest.mark.parametrize(
    "dead_handle_code",
    [
        case("35139", "ReceiptHandleError", "ReceiptHandleError"),
        case("27477", "MessageNotExist", "MessageNotExist"),
    ],
)
@pytest.mark.parametrize("death", DEATHS)
def test_a_dead_handle_in_a_batch_is_listed(
    death: Callable[[LocalMns, Cloud], str], dead_handle_code: str
) -> None:
    cloud = Cloud(OpenQuestions(dead_handle_code=dead_handle_code))
    cloud.mns.create("q")
    handle = death(cloud.mns, cloud)
    reply = batch_delete(cloud.mns, handle)
    assert reply.status == 404
    assert reply.texts("ErrorCode") == [dead_handle_code]
    assert reply.texts("ReceiptHandle") == [handle]


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        case("35138", "delete", delete, 204),
        case("35139", "batch delete", batch_delete, 204),
        case("35142", "renew", renew, 200),
    ],
)
@pytest.mark.parametrize(
    "wait_secs",
    [case("35136", "at once", 0), case("35136", "until the last millisecond", 29.999)],
)
def test_a_handle_is_good_until_its_next_visible_time(
    local: LocalMns,
    cloud: Cloud,
    wait_secs: float,
    operation: Callable[[LocalMns, str], Reply],
    status: int,
) -> None:
    local.send("q", "a")
    handle = lease(local)
    cloud.wait(wait_secs)
    assert operation(local, handle).status == status


# A message's life


@source("27477")
def test_a_message_keeps_its_id_and_changes_its_handle_on_each_receive(
    local: LocalMns, cloud: Cloud
) -> None:
    sent = local.send("q", "a")
    received = []
    for _ in range(20):
        received.append(local.receive("q"))
        cloud.wait(30)
    assert {reply.text("MessageId") for reply in received} == {sent.text("MessageId")}
    assert len({reply.text("ReceiptHandle") for reply in received}) == 20
    assert [int(reply.text("DequeueCount")) for reply in received] == list(range(1, 21))
    assert len({reply.text("EnqueueTime") for reply in received}) == 1
    assert len({reply.text("FirstDequeueTime") for reply in received}) == 1


@source("observed")
def test_a_handle_holds_characters_that_clients_get_wrong(local: LocalMns) -> None:
    handles = []
    for _ in range(60):
        local.send("q", "a")
        handles.append(lease(local))
        assert local.delete("q", handles[-1]).status == 204
    assert len(set(handles)) == 60
    assert all("-" in handle and "=" in handle for handle in handles)
    assert set("+/") < set("".join(handles))


@pytest.mark.parametrize(
    ("retention_secs", "attributes"),
    [
        case("protocol 1.7", "four days unless the queue says otherwise", 4 * DAY_SECS, {}),
        case(
            "protocol 1.9", "seven days at most", 7 * DAY_SECS,
            {"MessageRetentionPeriod": 7 * DAY_SECS},
        ),
        case("protocol 1.7", "a minute at least", 60, {"MessageRetentionPeriod": 60}),
    ],
)  # fmt: skip
def test_a_message_lives_for_the_retention(
    local: LocalMns, cloud: Cloud, retention_secs: int, attributes: dict[str, int]
) -> None:
    local.set_attributes("q", **attributes)
    local.send("q", "a")
    cloud.wait(retention_secs - 0.001)
    assert local.receive("q", "peekonly=true").status == 200
    cloud.wait(0.001)
    assert local.receive("q", "peekonly=true").refusal == EMPTY
    assert local.receive("q").refusal == EMPTY
    assert local.attributes("q").text("ActiveMessages") == "0"


@source("27477")
def test_a_message_is_gone_after_a_week_however_often_it_was_received(
    local: LocalMns, cloud: Cloud
) -> None:
    local.set_attributes("q", MessageRetentionPeriod=604_800, VisibilityTimeout=43_200)
    local.send("q", "a")
    for _ in range(14):
        assert local.receive("q").status == 200
        cloud.wait(43_200)
    assert local.receive("q").refusal == EMPTY


@source("27477")
def test_a_lease_does_not_outlive_the_retention(local: LocalMns, cloud: Cloud) -> None:
    local.set_attributes("q", MessageRetentionPeriod=60)
    local.send("q", "a")
    handle = local.change_visibility("q", lease(local), 43_200).text("ReceiptHandle")
    cloud.wait(59.999)
    assert local.attributes("q").text("InactiveMessages") == "1"
    cloud.wait(0.001)
    assert local.attributes("q").text("InactiveMessages") == "0"
    assert local.delete("q", handle).refusal == (400, "ReceiptHandleError")


@source("27477")
def test_a_delay_does_not_outlive_the_retention(local: LocalMns, cloud: Cloud) -> None:
    local.set_attributes("q", MessageRetentionPeriod=60)
    local.send("q", "a", DelaySeconds=61)
    cloud.wait(61)
    assert local.receive("q").refusal == EMPTY


@source("27477")
def test_a_message_walks_through_its_states(local: LocalMns, cloud: Cloud) -> None:
    def states() -> list[str]:
        names = ("ActiveMessages", "InactiveMessages", "DelayMessages")
        reply = local.attributes("q")
        return [reply.text(name) for name in names]

    local.send("q", "a", DelaySeconds=5)
    assert states() == ["0", "0", "1"]
    cloud.wait(5)
    assert states() == ["1", "0", "0"]
    lease(local)
    assert states() == ["0", "1", "0"]
    cloud.wait(30)
    assert states() == ["1", "0", "0"]
    local.delete("q", lease(local))
    assert states() == ["0", "0", "0"]


@source("35136")
def test_a_message_that_is_deleted_never_comes_back(local: LocalMns, cloud: Cloud) -> None:
    local.send("q", "a")
    local.delete("q", lease(local))
    cloud.wait(7 * DAY_SECS)
    assert local.receive("q").refusal == EMPTY


@source("inferred")
def test_a_handle_outlives_the_token_that_received_it(cloud: Cloud) -> None:
    cloud.mns.create("q")
    cloud.mns.send("q", "a")
    handle = cloud.token("q").receive("q").text("ReceiptHandle")
    assert cloud.token("q").delete("q", handle).status == 204
