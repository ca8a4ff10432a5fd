"""ListQueue: pages, prefixes, markers; and the addresses that are no operation."""

from __future__ import annotations

import pytest

from tests.emulator.conformance.cloud import HOST, REPLIES, REPORTS, LocalMns
from tests.emulator.conformance.sources import case, source
from tests.emulator.mns_caller import Reply, local_name

INVALID = (400, "InvalidArgument")
A_ALL = ["a-0", "a-1", "a-2", "a-3"]


def names(reply: Reply) -> list[str]:
    assert reply.status == 200
    return [url.removeprefix(f"http://{HOST}/queues/") for url in reply.texts("QueueURL")]


@pytest.fixture
def full(local: LocalMns) -> LocalMns:
    """An account with five more queues: a-0 to a-3, and b."""
    for name in ("a-2", "a-0", "b", "a-3", "a-1"):
        local.create(name)
    return local


@pytest.mark.parametrize(
    ("headers", "listed", "more"),
    [
        case("protocol 1.7", "all", {}, [REPORTS, REPLIES, "a-0", "a-1", "a-2", "a-3", "b", "q"], False),
        case("protocol 1.7", "by prefix", {"prefix": "a-"}, A_ALL, False),
        case("protocol 1.7", "by a whole name", {"prefix": "b"}, ["b"], False),
        case("protocol 1.7", "by a prefix of none", {"prefix": "c"}, [], False),
        case("protocol 1.7", "one at a time", {"ret_number": "1"}, [REPORTS], True),
        case("protocol 1.7", "1000 at a time", {"ret_number": "1000", "prefix": "b"}, ["b"], False),
        case("protocol 1.7", "a page of a prefix", {"ret_number": "3", "prefix": "a"}, A_ALL[:3], True),
        case("protocol 1.7", "a page that is just full", {"ret_number": "4", "prefix": "a"}, A_ALL, False),
    ],
)  # fmt: skip
def test_queues_are_listed(
    full: LocalMns, headers: dict[str, str], listed: list[str], more: bool
) -> None:
    reply = full.list_queues(**headers)
    assert names(reply) == listed
    assert len(reply.texts("NextMarker")) == more


@pytest.mark.parametrize("page", [1, 2, 3, 7, 8, 9])
@source("protocol 1.7")
def test_the_pages_are_the_whole(full: LocalMns, page: int) -> None:
    found: list[str] = []
    marker = ""
    while True:
        reply = full.list_queues(ret_number=str(page), marker=marker)
        found += names(reply)
        if not reply.texts("NextMarker"):
            break
        marker = reply.text("NextMarker")
    assert found == names(full.list_queues())


@pytest.mark.parametrize(
    "ret_number",
    [
        case("protocol 1.7", "0", "0"),
        case("protocol 1.7", "1001", "1001"),
        case("protocol 1.7", "-1", "-1"),
        case("protocol 1.7", "a word", "all"),
    ],
)
def test_a_page_has_1_to_1000_queues(local: LocalMns, ret_number: str) -> None:
    assert local.list_queues(ret_number=ret_number).refusal == INVALID


@pytest.mark.parametrize(
    ("with_meta", "elements"),
    [case("SDK", "with meta", "true", 13), case("SDK", "without", "false", 1)],
)
def test_a_list_tells_attributes_when_asked(full: LocalMns, with_meta: str, elements: int) -> None:
    reply = full.list_queues(with_meta=with_meta, prefix="a-")
    assert [len(queue) for queue in reply.root] == [elements] * 4


@source("protocol 1.7")
def test_a_list_has_urls_and_perhaps_a_marker(full: LocalMns) -> None:
    reply = full.list_queues(ret_number="1", prefix="a-")
    assert local_name(reply.root) == "Queues"
    assert [local_name(e) for e in reply.root] == ["Queue", "NextMarker"]
    assert reply.text("QueueURL") == f"http://{HOST}/queues/a-0"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        case("27501", "posting to the list", "POST", "/queues"),
        case("27501", "deleting the list", "DELETE", "/queues"),
        case("27501", "creating a queue without a name", "PUT", "/queues/"),
        case("27501", "posting to a queue", "POST", "/queues/q"),
        case("27501", "patching a queue", "PATCH", "/queues/q"),
        case("27501", "patching messages", "PATCH", "/queues/q/messages"),
        case("27501", "something else of a queue", "GET", "/queues/q/message"),
        case("27501", "one message of a queue", "GET", "/queues/q/messages/1"),
        case("27501", "messages and a slash", "GET", "/queues/q/messages/"),
        case("27501", "what begins like the list", "GET", "/queuesome"),
        case("27501", "and like a queue", "GET", "/queues-of-mine/q"),
        case("protocol 1.1", "a topic", "GET", "/topics/t"),
        case("protocol 1.1", "the account's attributes", "GET", "/"),
        case("175658", "a path of the old MQS", "GET", "/q/messages"),
    ],
)
def test_an_address_is_no_operation(local: LocalMns, method: str, target: str) -> None:
    assert local.call(method, target).refusal == (400, "InvalidRequestURL")
