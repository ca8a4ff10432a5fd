"""What PyPI's aliyun-mns-sdk makes of the emulator: its exceptions, and what it understands.

The client is imported inside functions: what it warns about at import is filtered only there.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import base64
import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.emulator.conformance.sources import case, source
from tests.emulator.mns_caller import Key, MnsCaller
from tests.emulator.rpc_caller import query_token
from tests.emulator_process import EmulatorProcess

pytestmark = [
    pytest.mark.integration,
    # The client's own sins: invalid escapes, and getters that are deprecated as a whole.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
]

_NUMBERS = itertools.count(1)


@contextmanager
def open_account(emulator: EmulatorProcess, key: Key | None = None) -> Iterator[Any]:
    from mns.account import Account

    account = Account(emulator.url, *(key or Key(emulator.key_id, emulator.key_secret)))
    yield account
    account.mns_client.close_connection()


@pytest.fixture(scope="module")
def account(emulator: EmulatorProcess) -> Iterator[Any]:
    """The account's own client."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with open_account(emulator) as account:
            yield account


@pytest.fixture
def opened(account: Any) -> Iterator[Any]:
    """A queue of this test's own."""
    from mns.queue import QueueMeta

    queue = account.get_queue(f"Test-Sdk-{next(_NUMBERS)}")
    queue.create(QueueMeta())
    yield queue
    queue.delete()


def message(body: str = "a", **elements: int) -> Any:
    from mns.queue import Message

    return Message(body, **elements)


def meta(**attributes: object) -> Any:
    from mns.queue import QueueMeta

    return QueueMeta(**attributes)


def refusal(call: Callable[[], object]) -> str:
    """Return the code that the client raises for this call."""
    from mns.mns_exception import MNSServerException

    with pytest.raises(MNSServerException) as refused:
        call()
    code: str = refused.value.type
    return code


@pytest.mark.parametrize(
    "call",
    [
        case("35136", "receive", lambda q: q.receive_message(0)),
        case("35136", "receive as the queue says", lambda q: q.receive_message()),
        case("35137", "batch receive", lambda q: q.batch_receive_message(16, 0)),
        case("35140", "peek", lambda q: q.peek_message()),
        case("35141", "batch peek", lambda q: q.batch_peek_message(16)),
    ],
)
def test_the_client_is_told_that_a_queue_is_empty(
    opened: Any,
    call: Callable[[Any], object],
) -> None:
    assert refusal(lambda: call(opened)) == "MessageNotExist"


@pytest.mark.parametrize(
    "call",
    [
        case("protocol 1.7", "wait 31 s", lambda q: q.receive_message(31)),
        case("protocol 1.7", "batch of 0", lambda q: q.batch_receive_message(0)),
        case("protocol 1.7", "batch of 17", lambda q: q.batch_receive_message(17)),
        case("protocol 1.7", "batch, wait 31 s", lambda q: q.batch_receive_message(16, 31)),
        case("35141", "peek at 17", lambda q: q.batch_peek_message(17)),
        case("35141", "peek at 0", lambda q: q.batch_peek_message(0)),
        case("35139", "delete 17", lambda q: q.batch_delete_message(["8-x"] * 17)),
        case("35139", "delete 0", lambda q: q.batch_delete_message([])),
        case("35142", "renew for 0 s", lambda q: q.change_message_visibility("8-x", 0)),
        case("35134", "priority 0", lambda q: q.send_message(message(priority=0))),
        case("35134", "priority 17", lambda q: q.send_message(message(priority=17))),
        case("35134", "7 days and 1 s", lambda q: q.send_message(message(delay_seconds=604_801))),
        case("175586", "base64 of too much", lambda q: q.send_message(message("x" * 49_153))),
        case("35135", "send 17", lambda q: q.batch_send_message([message()] * 17)),
        case("35135", "send 0", lambda q: q.batch_send_message([])),
        case("35135", "too much", lambda q: q.batch_send_message([message("x" * 30_000)] * 2)),
    ],
)
def test_the_client_is_told_that_an_argument_is_invalid(
    opened: Any,
    call: Callable[[Any], object],
) -> None:
    assert refusal(lambda: call(opened)) == "InvalidArgument"


@pytest.mark.parametrize(
    "call",
    [
        case("35138", "delete", lambda q: q.delete_message("8-x")),
        case("35139", "batch delete", lambda q: q.batch_delete_message(["8-x"] * 16)),
        case("35142", "renew", lambda q: q.change_message_visibility("8-x", 1)),
    ],
)
def test_the_client_is_told_that_a_handle_is_dead(
    opened: Any,
    call: Callable[[Any], object],
) -> None:
    assert refusal(lambda: call(opened)) == "ReceiptHandleError"


@pytest.mark.parametrize(
    "attributes",
    [
        case("protocol 1.7", "hidden for 12 h and 1 s", {"vis_timeout": 43_201}),
        case("protocol 1.7", "bodies of 1023 bytes", {"max_msg_size": 1023}),
        case("protocol 1.7", "bodies of 64 KB and a byte", {"max_msg_size": 65_537}),
        case("protocol 1.7", "kept for 59 s", {"msg_ttl": 59}),
        case("protocol 1.7", "kept for 7 days and 1 s", {"msg_ttl": 604_801}),
        case("protocol 1.7", "delayed for 7 days and 1 s", {"delay_sec": 604_801}),
        case("protocol 1.7", "polled for 31 s", {"polling_wait_sec": 31}),
    ],
)
def test_the_client_sets_no_value_outside_the_range(
    opened: Any,
    attributes: dict[str, int],
) -> None:
    assert refusal(lambda: opened.set_attributes(meta(**attributes))) == "InvalidArgument"


@source("protocol 1.7")
def test_the_client_creates_no_queue_over_another(opened: Any) -> None:
    assert refusal(lambda: opened.create(meta(vis_timeout=31))) == "QueueAlreadyExist"


@pytest.mark.parametrize(
    "call",
    [
        case("35136", "receive", lambda q: q.receive_message(0)),
        case("35137", "batch receive", lambda q: q.batch_receive_message(16, 30)),
        case("35140", "peek", lambda q: q.peek_message()),
        case("35141", "batch peek", lambda q: q.batch_peek_message(16)),
        case("35134", "send", lambda q: q.send_message(message())),
        case("35135", "batch send", lambda q: q.batch_send_message([message()])),
        case("35138", "delete", lambda q: q.delete_message("8-x")),
        case("35139", "batch delete", lambda q: q.batch_delete_message(["8-x"])),
        case("35142", "renew", lambda q: q.change_message_visibility("8-x", 1)),
        case("protocol 1.7", "get attributes", lambda q: q.get_attributes()),
        case("protocol 1.7", "set attributes", lambda q: q.set_attributes(meta())),
    ],
)
def test_the_client_is_told_that_there_is_no_such_queue(
    account: Any, call: Callable[[Any], object]
) -> None:  # fmt: skip
    assert refusal(lambda: call(account.get_queue("Test-Gone"))) == "QueueNotExist"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        case("protocol 1.7", "121 characters", "q" * 121, "QueueNameLengthError"),
        case("protocol 1.7", "a hyphen first", "-q", "InvalidQueueName"),
        case("protocol 1.7", "an underscore", "q_1", "InvalidQueueName"),
    ],
)
def test_the_client_creates_no_queue_of_that_name(account: Any, name: str, code: str) -> None:
    assert refusal(lambda: account.get_queue(name).create(meta())) == code


# Who asks


@pytest.mark.parametrize(
    ("key", "code"),
    [
        case("27501", "a wrong secret", {"secret": "wrong"}, "SignatureDoesNotMatch"),
        case("27501", "a key that does not exist", {"key_id": "nobody"}, "InvalidAccessKeyId"),
    ],
)
def test_the_client_has_a_wrong_key(
    emulator: EmulatorProcess, key: dict[str, str], code: str
) -> None:
    wrong = Key(emulator.key_id, emulator.key_secret)._replace(**key)
    with open_account(emulator, wrong) as stranger:
        assert refusal(lambda: stranger.get_queue(emulator.report_queue).receive_message(0)) == code


@pytest.fixture(scope="module")
def token(emulator: EmulatorProcess) -> Key:
    """A token for the queue of delivery reports."""
    given = query_token(emulator)[1]["MessageTokenDTO"]
    return Key(given["AccessKeyId"], given["AccessKeySecret"], given["SecurityToken"])


@pytest.mark.parametrize(
    ("message_type", "call"),
    [
        case("101641", "receive elsewhere", "SmsUp", lambda q: q.receive_message(0)),
        case("observed", "receive from no queue", "Nothing", lambda q: q.receive_message(0)),
        case("101641", "delete elsewhere", "SmsUp", lambda q: q.delete_message("8-x")),
        case("101641", "renew elsewhere", "SmsUp", lambda q: q.change_message_visibility("8-x", 1)),
        case("101641", "send", "SmsReport", lambda q: q.send_message(message())),
        case("101641", "batch send", "SmsReport", lambda q: q.batch_send_message([message()])),
        case("inferred", "get attributes", "SmsReport", lambda q: q.get_attributes()),
        case("protocol 2", "set attributes", "SmsReport", lambda q: q.set_attributes(meta())),
        case("protocol 2", "create", "Nothing", lambda q: q.create(meta())),
        case("protocol 2", "delete the queue", "SmsReport", lambda q: q.delete()),
    ],
)
def test_the_client_of_a_token_is_denied(
    emulator: EmulatorProcess, token: Key, message_type: str, call: Callable[[Any], object]
) -> None:
    name = emulator.report_queue.replace("SmsReport", message_type)
    with open_account(emulator, token) as consumer:
        assert refusal(lambda: call(consumer.get_queue(name))) == "AccessDeniedByRamPolicy"


@source("protocol 2")
def test_the_client_of_a_token_lists_no_queues(emulator: EmulatorProcess, token: Key) -> None:
    with open_account(emulator, token) as consumer:
        assert refusal(consumer.list_queue) == "AccessDeniedByRamPolicy"


@source("protocol 1.2")
def test_the_client_of_a_token_needs_the_security_token(
    emulator: EmulatorProcess, token: Key
) -> None:
    with open_account(emulator, token._replace(token="")) as consumer:
        queue = consumer.get_queue(emulator.report_queue)
        assert refusal(lambda: queue.receive_message(0)) == "AccessDenied"


# The other answers to the open questions


@pytest.mark.parametrize(
    ("call", "code"),
    [
        case("27501", "create what was deleted", lambda q: q.create(meta()), "QueueDeletedRecently"),
        case("27477", "delete by a dead handle", lambda q: q.delete_message("8-x"), "MessageNotExist"),
        case("175586", "send too fast", lambda q: q.batch_send_message([message()] * 16), "QpsLimitExceeded"),
    ],
)  # fmt: skip
def test_the_client_is_told_otherwise(
    otherwise: EmulatorProcess, call: Callable[[Any], object], code: str
) -> None:
    with open_account(otherwise) as account:
        queue = account.get_queue(f"Test-Otherwise-{next(_NUMBERS)}")
        queue.create(meta())
        if code == "QueueDeletedRecently":
            queue.delete()
        assert refusal(lambda: call(queue)) == code


@source("protocol 1.7, protocol 2")
def test_the_client_of_a_token_reads_attributes_where_that_is_allowed(
    otherwise: EmulatorProcess,
) -> None:
    with open_account(otherwise) as account:
        account.get_queue(otherwise.report_queue).send_message(message())
    given = query_token(otherwise)[1]["MessageTokenDTO"]
    key = Key(given["AccessKeyId"], given["AccessKeySecret"], given["SecurityToken"])
    with open_account(otherwise, key) as consumer:
        assert consumer.get_queue(otherwise.report_queue).get_attributes().active_messages == 0
        assert refusal(consumer.list_queue) == "AccessDenied"


# What it understands


@source("SDK")
def test_the_client_reads_a_message_whole(opened: Any) -> None:
    sent = opened.send_message(message("你好", priority=3))
    received = opened.receive_message(1)
    assert received.message_body == "你好".encode()
    assert (received.message_id, received.message_body_md5) == (
        sent.message_id,
        sent.message_body_md5,
    )
    assert (received.priority, received.dequeue_count) == (3, 1)
    assert received.next_visible_time == received.first_dequeue_time + 30_000
    opened.delete_message(received.receipt_handle)


@source("35134")
def test_the_client_gets_a_handle_for_a_delayed_message(opened: Any) -> None:
    sent = opened.send_message(message(delay_seconds=60))
    changed = opened.change_message_visibility(sent.receipt_handle, 43_200)
    opened.delete_message(changed.receipt_handle)


@source("35139")
def test_the_client_lists_the_handles_that_failed(opened: Any) -> None:
    from mns.mns_exception import MNSServerException

    opened.batch_send_message([message() for _ in range(3)])
    handles = [each.receipt_handle for each in opened.batch_receive_message(16, 1)]
    with pytest.raises(MNSServerException) as partial:
        opened.batch_delete_message(["8-x", *handles, "8-y"])
    assert partial.value.type == "ReceiptHandleError"
    assert [error["ReceiptHandle"] for error in partial.value.sub_errors] == ["8-x", "8-y"]
    assert refusal(lambda: opened.delete_message(handles[0])) == "ReceiptHandleError"


@source("SDK")
def test_the_client_lists_the_messages_that_were_not_sent(opened: Any) -> None:
    from mns.mns_exception import MNSServerException

    with pytest.raises(MNSServerException) as partial:
        opened.batch_send_message([message("a"), message("b", priority=17), message("c")])
    assert partial.value.type == "InvalidArgument"
    assert [set(entry) for entry in partial.value.sub_errors] == [
        {"MessageId", "MessageBodyMD5"},
        {"ErrorCode", "ErrorMessage"},
        {"MessageId", "MessageBodyMD5"},
    ]
    assert [each.message_body for each in opened.batch_peek_message(16)] == [b"a", b"c"]


@source("SDK")
def test_newer_elements_of_a_message_do_no_harm(opened: Any) -> None:
    from mns.message_property import MessagePropertyValue, PropertyType

    sent = message("a")
    sent.set_user_properties({"k": MessagePropertyValue(PropertyType.STRING, "v")})
    sent.message_group_id = "group"
    opened.send_message(sent)
    assert opened.receive_message(1).message_body == b"a"


@source("protocol 1.7")
def test_the_client_manages_attributes(opened: Any) -> None:
    opened.set_attributes(
        meta(
            vis_timeout=43_200,
            max_msg_size=1024,
            msg_ttl=604_800,
            delay_sec=604_800,
            polling_wait_sec=30,
            logging_enabled=True,
        )
    )
    found = opened.get_attributes()
    assert (found.visibility_timeout, found.maximum_message_size) == (43_200, 1024)
    assert (found.message_retention_period, found.delay_seconds) == (604_800, 604_800)
    assert (found.polling_wait_seconds, found.logging_enabled) == (30, True)
    assert found.last_modify_time >= found.create_time > 1_700_000_000
    assert (found.active_messages, found.inactive_messages, found.delay_messages) == (0, 0, 0)


@source("protocol 1.7")
def test_the_client_creates_the_same_queue_again_and_deletes_it_twice(account: Any) -> None:
    queue = account.get_queue("Test-Again")
    assert queue.create(meta(vis_timeout=5)) == queue.create(meta(vis_timeout=5))
    queue.delete()
    queue.delete()


@source("protocol 1.7")
def test_the_client_lists_page_by_page(account: Any) -> None:
    names = [f"Test-Page-{number}" for number in range(3)]
    for name in names:
        account.get_queue(name).create(meta())
    urls, marker = account.list_queue(prefix="Test-Page-", ret_number=2)
    rest, end = account.list_queue(prefix="Test-Page-", ret_number=2, marker=marker)
    assert [url.rpartition("/")[2] for url in urls + rest] == names
    assert end == ""
    assert refusal(lambda: account.list_queue(ret_number=1001)) == "InvalidArgument"
    for name in names:
        account.get_queue(name).delete()


@source("protocol 1.2")
def test_the_clients_request_id_is_signed(opened: Any) -> None:
    from mns.mns_common import RequestInfo

    opened.send_message(message(), RequestInfo("request-1"))
    assert opened.receive_message(1, RequestInfo("request-2")).dequeue_count == 1


@source("SDK")
def test_a_body_that_is_no_base64_spoils_the_clients_batch_and_stays_hidden(
    opened: Any, emulator: EmulatorProcess
) -> None:  # fmt: skip
    from mns.mns_exception import MNSClientNetworkException

    opened.send_message(message("good"))
    MnsCaller(emulator).send(opened.queue_name, "你")
    with pytest.raises(MNSClientNetworkException, match="RespDataDamaged"):
        opened.batch_receive_message(16, 1)
    assert refusal(lambda: opened.receive_message(0)) == "MessageNotExist"


@source("protocol 1.11")
def test_the_client_leaves_a_body_alone_when_told_to(opened: Any) -> None:
    opened.send_message(message("plain"))
    opened.set_encoding(False)
    assert opened.peek_message().message_body == base64.b64encode(b"plain").decode()
