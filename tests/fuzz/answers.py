"""Answers that MNS might send, and what must hold of the reader of each.

An answer is read as far as it can be, or refused with a sentence; what is read fits the contract of a
message, so that the archive can hold it, and a body is the text that was sent, or its element as it was sent.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from traceback import format_exception
from typing import Final
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from pipeline.mns import wire
from schemas.contracts import contract
from tests.fuzz.inputs import (
    PHONE,
    SECRETS,
    BytesRandom,
    cut,
    draw_message,
    flip,
    insert,
    splice,
)
from tests.fuzz.properties import discreet_logs, require_discretion
from transforms.moments import EARLIEST, LATEST

_HANDLES: Final = ("8-0==", "1-a/b+c==", "8-2")
_NAMESPACES: Final = (
    ' xmlns="http://mns.aliyuncs.com/doc/v1"', ' xmlns="http://mns.aliyuncs.com/doc/v1/"', "",
    ' xmlns:m="http://mns.aliyuncs.com/doc/v1"', " xmlns='x'",
)  # fmt: skip
_OPENING: Final = b"<MessageBody>"
_CLOSING: Final = b"</MessageBody>"
_NUMBERS: Final = (
    "1764000000123", "1764000030000", "2", "0", "-1", "253402300799999", "253402300800000", "NaN",
    "2147483647", "2147483648", "9" * 30, "9" * 5000, "1_000", "+5", " 7 ", "７", "²", "1e3", "", "soon",
)  # fmt: skip
_TEXTS: Final = (
    "", " ", "a", "&amp;&lt;", "&#13;&#10;", "&#0;", "&#x1F600;", "&#xD800;", "&#xFFFF;", "&lol;", "<x/>",
    "ab<x>cd</x>ef", "<!-- -->ab", "a<!-- -->b", "<![CDATA[{<&]]>", "<?p i?>", "\u77ed\u4fe1", "\r\n", "]]>",
    "0909FF0D9C3A630C372B8A14BD2011B6", *_HANDLES,
)  # fmt: skip
_PIECES: Final = (
    b"<", b">", b"&", b"</", b"<Message>", b"</Message>", b"<!DOCTYPE m [<!ENTITY a 'b'>]>", b"<!--", b"]]>",
    b"<![CDATA[", b'<?xml version="1.0" encoding="utf-16"?>', b"<a>", b"<a", b" a='1'", b"\x00", b"\xff",
    b"\xef\xbb\xbf", b"&a;", b"&#", b"MessageId", b"xmlns:b='c'", b"<m:MessageId>1</m:MessageId>",
)  # fmt: skip


def draw_answer(random: Random) -> bytes:
    """Draw an answer to a receive, a delete or a change of visibility, or an error."""
    write = random.choice((_messages, _messages, _messages, _errors, _changed, _error))
    answer = write(random)
    for _ in range(random.choice((0, 0, 0, 1, 1, 2))):
        answer = random.choice(_TAMPERINGS)(random, answer)
    return answer


def answer_from_bytes(data: bytes) -> bytes:
    """Read a fuzzer's bytes as an answer: half of them as it is, half as the choices that draw one."""
    return draw_answer(BytesRandom(data[1:])) if data[:1] > b"\x7f" else data[1:]


def check_answers(answers: Sequence[bytes]) -> Counter[str]:
    """Read each answer in every way, hold what comes out to everything, and count it."""
    counts: Counter[str] = Counter(answers=len(answers))
    with discreet_logs():
        for answer in answers:
            _check_messages(answer, counts)
            _check_others(answer, counts)
    return counts


def _check_messages(answer: bytes, counts: Counter[str]) -> None:
    with _refusals(counts):
        received = wire.parse_messages(answer, "q-SmsReport", "SmsReport")
        assert received.messages
        assert len(received.messages) == len(received.receipt_handles)
        assert all(received.receipt_handles)
        for message in received.messages:
            contract("mns_message").encode(message._asdict())
            assert EARLIEST <= message.enqueued_at < LATEST
        assert EARLIEST <= received.visible_again_at < LATEST
        bodies = [message.body for message in received.messages]
        sent = _bodies(answer)
        is_whole = len(sent) == len(bodies)
        for body, text in zip(bodies, sent if is_whole else bodies, strict=True):
            is_raw = body.startswith(_OPENING) and body.endswith(_CLOSING) and body in answer
            assert is_raw or body == text, "a body is not what was sent"
            counts["raw bodies"] += is_raw
        counts["salvaged answers"] += not is_whole
        counts["received"] += len(bodies)


def _check_others(answer: bytes, counts: Counter[str]) -> None:
    with _refusals(counts):
        changed = wire.parse_changed_visibility(answer)
        assert changed.receipt_handle
        assert EARLIEST <= changed.visible_again_at < LATEST
        counts["changed"] += 1
    with _refusals(counts):
        errors = wire.parse_delete_errors(answer, _HANDLES)
        if errors is not None:
            failed = [error.receipt_handle for error in errors]
            assert sorted(set(failed)) == sorted(failed)
            assert set(failed) <= set(_HANDLES)
        counts["delete errors"] += errors is not None
    code = wire.parse_error_code(answer)
    require_discretion([code])
    counts["error codes"] += bool(code)


@contextmanager
def _refusals(counts: Counter[str]) -> Iterator[None]:
    """Count a refusal, and require that neither its sentence nor its causes repeat the answer."""
    try:
        yield
    except wire.MalformedResponseError as error:
        require_discretion(format_exception(error))
        counts["refusals"] += 1


def _bodies(answer: bytes) -> list[bytes]:
    """Find the whole text of each message's first body, by another way; none in what is no XML."""
    try:
        root = ET.fromstring(answer.decode())  # noqa: S314 - the reader has refused declarations
    except (ET.ParseError, UnicodeDecodeError):
        return []
    prefix = root.tag[: root.tag.rfind("}") + 1]
    found = [message.find(f"{prefix}MessageBody") for message in root]
    return ["".join(body.itertext()).encode() if body is not None else b"" for body in found]


def _messages(random: Random) -> bytes:
    namespace = random.choice(_NAMESPACES)
    entries = "".join(_message(random) for _ in range(random.choice((0, 1, 2, 16))))
    root = "Messages" if random.randrange(16) else "Message"
    return f'<?xml version="1.0" ?><{root}{namespace}>{entries}</{root}>'.encode()


def _message(random: Random) -> str:
    body = escape(draw_message(random).body.decode(errors="replace"))
    elements = {
        "MessageId": "0909FF0D9C3A630C372B8A14BD2011B6",
        "MessageBodyMD5": "3AED23FB",
        "MessageBody": body,
        "ReceiptHandle": random.choice(_HANDLES),
        "EnqueueTime": "1764000000123",
        "NextVisibleTime": "1764000030000",
        "DequeueCount": "2",
        "MessageGroupId": "new",
    }
    return f"<Message>{_written(random, elements)}</Message>"


def _errors(random: Random) -> bytes:
    entries = "".join(
        f"<Error>{_written(random, {'ErrorCode': 'ReceiptHandleError', 'ReceiptHandle': handle})}</Error>"
        for handle in random.choices(_HANDLES, k=random.choice((0, 1, 1, 3)))
    )
    return f"<Errors{random.choice(_NAMESPACES)}>{entries}</Errors>".encode()


def _changed(random: Random) -> bytes:
    elements = {"ReceiptHandle": random.choice(_HANDLES), "NextVisibleTime": "1764000030000"}
    written = _written(random, elements)
    return f"<ChangeVisibility{random.choice(_NAMESPACES)}>{written}</ChangeVisibility>".encode()


def _error(random: Random) -> bytes:
    codes = ("QueueNotExist", "isv.RAM_PERMISSION_DENY", *SECRETS)
    written = _written(random, {"Code": random.choice(codes), "Message": PHONE})
    return f"<Error{random.choice(_NAMESPACES)}>{written}</Error>".encode()


def _written(random: Random, elements: dict[str, str]) -> str:
    """Write elements; now and then one is gone, odd, or there twice."""
    if not random.randrange(4):
        name = random.choice(list(elements))
        change = random.randrange(4)
        if change == 0:
            del elements[name]
        elif change == 1:
            elements[name] += random.choice(_TEXTS)
        else:
            elements[name] = random.choice(_NUMBERS if change == 2 else (*_TEXTS, *SECRETS))  # noqa: PLR2004
    written = [f"<{name}>{text}</{name}>" for name, text in elements.items()]
    if written and not random.randrange(16):
        written.append(random.choice(written))
    return "".join(written)


def _run_of_piece(random: Random, answer: bytes) -> bytes:
    """Insert a long run of next to nothing: what is slow, or too deep, shows here."""
    return insert(random, answer, random.choice(_PIECES) * random.choice((2, 100, 20_000)))


_TAMPERINGS: Final[list[Callable[[Random, bytes], bytes]]] = [
    flip, cut, splice, splice,
    lambda random, answer: insert(random, answer, random.choice(_PIECES)),
    lambda random, answer: _run_of_piece(random, answer) if not random.randrange(40) else answer,
    lambda _, answer: answer.decode(errors="replace").encode("utf-16"),
    lambda _, answer: b"\n" + answer,
    lambda _, answer: answer + answer,
]  # fmt: skip
