"""DeleteMessage and BatchDeleteMessage (dead handles: test_handles_and_lifecycle)."""

from __future__ import annotations

import pytest

from tests.emulator.conformance.cloud import Cloud, LocalMns
from tests.emulator.conformance.sources import case, source
from tests.emulator.mns_caller import XMLNS, local_name

MISSING = (400, "MissingReceiptHandle")
INVALID = (400, "InvalidArgument")
MALFORMED = (400, "MalformedXML")


def leases(local: LocalMns, count: int) -> list[str]:
    for number in range(count):
        local.send("q", str(number))
    return local.receive("q", "numOfMessages=16").texts("ReceiptHandle")


@pytest.mark.parametrize(
    "name",
    [
        case("35138", "ReceiptHandle", "ReceiptHandle"),
        case("SDK", "receiptHandle", "receiptHandle"),
    ],
)
@pytest.mark.parametrize(
    "escapes",
    [
        case("SDK", "unescaped, as Python and Node", {}),
        case("SDK", "escaped, as Go", {"+": "%2B", "/": "%2F", "=": "%3D"}),
        case("inferred", "in part, and in lower case", {"=": "%3d"}),
    ],
)
def test_a_delete_takes_the_handle(local: LocalMns, name: str, escapes: dict[str, str]) -> None:
    for handle in leases(local, 16):
        written = "".join(escapes.get(character, character) for character in handle)
        reply = local.call("DELETE", f"/queues/q/messages?{name}={written}")
        assert (reply.status, reply.body) == (204, b"")


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        case("27501", "no handle", "", MISSING),
        case("27501", "an empty handle", "?ReceiptHandle=", MISSING),
        case("27501", "no value", "?ReceiptHandle", MISSING),
        case("observed", "receipthandle", "?receipthandle=8-x", (500, "InternalServerError")),
        case("observed", "RECEIPTHANDLE", "?RECEIPTHANDLE=8-x", (500, "InternalServerError")),
        case("27501", "unknown parameters", "?handle=8-x", (400, "InvalidQueryString")),
    ],
)
def test_a_delete_without_a_handle_is_refused(
    local: LocalMns, query: str, refusal: tuple[int, str]
) -> None:
    assert local.call("DELETE", f"/queues/q/messages{query}").refusal == refusal


@pytest.mark.parametrize(
    "count", [case("35139", "1 handle", 1), case("35139", "16 handles are the most", 16)]
)
def test_a_batch_delete_answers_204_when_all_are_gone(local: LocalMns, count: int) -> None:
    reply = local.batch_delete("q", leases(local, count))
    assert (reply.status, reply.body) == (204, b"")


@pytest.mark.parametrize(
    ("document", "refusal"),
    [
        case("35139", "0 handles", "<ReceiptHandles/>", INVALID),
        case("SDK", "0 handles and a text", "<ReceiptHandles> </ReceiptHandles>", INVALID),
        case(
            "35139",
            "17 handles",
            f"<ReceiptHandles>{'<ReceiptHandle>8-x</ReceiptHandle>' * 17}</ReceiptHandles>",
            INVALID,
        ),
        case("27501", "another root", "<Messages/>", INVALID),
        case(
            "27501",
            "another element",
            "<ReceiptHandles><Handle>8-x</Handle></ReceiptHandles>",
            INVALID,
        ),
        case("27501", "no XML", "8-x", MALFORMED),
        case("27501", "half a document", "<ReceiptHandles><ReceiptHandle>8-x", MALFORMED),
        case("27501", "two documents", "<ReceiptHandles/><ReceiptHandles/>", MALFORMED),
    ],
)
def test_a_batch_delete_is_refused_as_a_whole(
    local: LocalMns, document: str, refusal: tuple[int, str]
) -> None:
    reply = local.call("DELETE", "/queues/q/messages", document)
    assert reply.refusal == refusal
    assert local_name(reply.root) == "Error"


@pytest.mark.parametrize(
    "xmlns",
    [
        case("35139", "with the slash", f' xmlns="{XMLNS}"'),
        case("observed", "without the slash", f' xmlns="{XMLNS[:-1]}"'),
        case("inferred", "no namespace", ""),
    ],
)
def test_the_namespace_of_a_batch_delete_does_not_matter(local: LocalMns, xmlns: str) -> None:
    (handle,) = leases(local, 1)
    document = f"<ReceiptHandles{xmlns}><ReceiptHandle>{handle}</ReceiptHandle></ReceiptHandles>"
    assert local.call("DELETE", "/queues/q/messages", document).status == 204


@source("35139")
def test_a_partial_failure_lists_the_failed_handles_and_deletes_the_others(
    local: LocalMns, cloud: Cloud
) -> None:
    live = leases(local, 4)
    reply = local.batch_delete("q", ["8-x", live[0], "8-y", live[1]])
    assert reply.status == 404
    assert local_name(reply.root) == "Errors"
    assert reply.texts("ReceiptHandle") == ["8-x", "8-y"]
    cloud.wait(30)
    assert local.receive("q", "numOfMessages=16").texts("MessageBody") == ["2", "3"]


@source("35139")
def test_an_entry_has_code_message_and_handle_in_this_order(local: LocalMns) -> None:
    reply = local.batch_delete("q", ["8-x"])
    ((code, message, handle),) = reply.root
    assert [local_name(e) for e in (code, message, handle)] == [
        "ErrorCode",
        "ErrorMessage",
        "ReceiptHandle",
    ]
    assert (code.text, handle.text) == ("ReceiptHandleError", "8-x")
    assert message.text == "The receipt handle you provide is not valid."


@source("35139")
def test_all_handles_may_fail(local: LocalMns) -> None:
    assert local.batch_delete("q", ["8-x"] * 16).texts("ReceiptHandle") == ["8-x"] * 16


@source("27477")
def test_a_handle_that_is_named_twice_fails_once(local: LocalMns) -> None:
    (handle,) = leases(local, 1)
    assert local.batch_delete("q", [handle, handle]).texts("ReceiptHandle") == [handle]


@source("inferred")
def test_a_listed_handle_is_escaped(local: LocalMns) -> None:
    reply = local.batch_delete("q", ["&lt;&amp;&gt;"])
    assert reply.texts("ReceiptHandle") == ["<&>"]
