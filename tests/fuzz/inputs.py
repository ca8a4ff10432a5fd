"""Messages that no test would think of, drawn near the shapes of the documents.

Everything is drawn from one ``random.Random``: a seeded one replays, hypothesis's shrinks, and one that is
fed by a fuzzer's bytes makes its mutations mutations of structure.
"""

import base64
import json
import re
from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

from tests.decode.samples import GLOBE, INTERNATIONAL, MAINLAND, OLDER_INTERNATIONAL, REPLY
from transforms.decode_query import QUERY_MESSAGE_TYPE

MAX_BODY_BYTES: Final = 64 * 1024  # MNS takes no larger one

# Personal data as it is planted: nowhere but in originals and in records may a part of it come out.
PHONE: Final = "8613987650421"
SECRETS: Final = (PHONE, "Wr3n#Sp4tz#F1nk", "【鸣鸟科技】", "OUT5#wren5530917", "退订吧黄雀")


class Message(NamedTuple):
    """One message's type and body, as a queue would hand it over."""

    message_type: str
    body: bytes


_TYPES: Final = ["SmsReport"] * 12 + ["DypnsSmsVerifyReport"] * 2 + ["SmsUp"] * 4
_RARE_TYPES: Final = ["GlobeSmsReport"] * 4 + [QUERY_MESSAGE_TYPE] * 4 + ["VoiceReport", "", PHONE]

_MAINLAND: Final = {**MAINLAND, "phone_number": PHONE, "out_id": SECRETS[3], "err_msg": SECRETS[1]}
_REPLY: Final = {**REPLY, "phone_number": PHONE, "content": SECRETS[4]}
_ASKED: Final = {"biz_id": "1", "phone_number": PHONE, "requested_at_ms": 1_793_505_600_000}
_DETAIL: Final = {
    "SendStatus": 3, "ErrCode": "DELIVERED", "OutId": SECRETS[3], "PhoneNum": PHONE, "TemplateCode": "SMS_1",
    "SendDate": "2026-11-01 12:00:00", "ReceiveDate": "2026-11-01 12:00:04",
}  # fmt: skip
_SAMPLES: Final[dict[str, list[dict[str, Any]]]] = {
    "SmsReport": [
        _MAINLAND, _MAINLAND, _MAINLAND, _MAINLAND,
        {**INTERNATIONAL, "To": PHONE, "ErrorDescription": SECRETS[1]},
        {**OLDER_INTERNATIONAL, "PhoneNumber": PHONE, "ExternalId": SECRETS[3]},
        {name: _MAINLAND[name] for name in ("biz_id", "success", "send_time")},
    ],
    "DypnsSmsVerifyReport": [_MAINLAND],
    "GlobeSmsReport": [{**GLOBE, "to": PHONE, "error_description": SECRETS[1]}],
    "SmsUp": [
        _REPLY,
        {**_REPLY, "send_time": "20261101123000", "sequence_id": 1234567890},
        {**_REPLY, "sign_name": SECRETS[2]},
    ],
    QUERY_MESSAGE_TYPE: [
        {**_ASKED, "details": [_DETAIL, {**_DETAIL, "SendStatus": 2, "ErrCode": "EXPIRED"}]},
        {**_ASKED, "details": [{**_DETAIL, "SendStatus": "1", "ReceiveDate": ""}]},
        {**_ASKED, "details": [], "refusal": "isv.MOBILE_NUMBER_ILLEGAL"},
    ],
}  # fmt: skip
_ANY_SAMPLE: Final = [sample for samples in _SAMPLES.values() for sample in samples]
_NAMES: Final = sorted({name for sample in _ANY_SAMPLE for name in sample})

_TIMES: Final = [
    "2026-11-01T12:00:00", "2026-11-01 12:00:00Z", "2026-11-01 12:00:00.5", "2026-02-29 00:00:00",
    "2024-02-29 23:59:59", "1969-12-31 23:59:59", "1970-01-01 08:00:00", "2000-01-01 07:59:59",
    "2099-12-31 23:59:59", "2100-01-01 00:00:00", "9999-12-31 07:59:59", "9999-12-31 23:59:59",
    "0001-01-01 00:00:00", "0000-01-01 00:00:00", "2026-00-10 00:00:00", "2026-13-01 00:00:00",
    "2026-11-31 00:00:00", "2026-11-01 24:00:00", "2026-11-01 23:60:00", "2026-11-01 23:59:60",
    "2026:11:01 12:00:00", "20261101120000", "20260229120000", "2026-11-01 12:00:0é", "",
    "2026-11-01 12:00:000", "+026-11-01 12:00:00", "２026-11-01 12:00:00", "2026-11-01 12:00:0²",
    "Thu, 25 Nov 2021 10:27:00 +0800", "25 Nov 2021 10:27:00 -2359", "31 Dec 9999 23:00:00 -0200",
    "1 Jan 1970 00:00:00 +0001", "Thu, 25 Nov 2021 10:27:00 +9900", "25 nov 2021 10:27:00 +0800",
    "25 Nov 2021 10:27:00 GMT", "31 Feb 2021 10:27:00 +0800", "25 Nov 0000 10:27:00 +0000",
]  # fmt: skip
ODD_VALUES: Final[list[Any]] = [
    None, True, False, 0, 1, -1, 6, 99, 100, 2**31 - 1, 2**31, 2**64, -(2**63), 10**400, 0.1, 1e308,
    -0.0, 1e-9, int(PHONE), "true", "false", "True", "1", "2", "3", "6", "01", "99", "100", "1.0", "²",
    "١", " 1", "1\n", "2147483647", "2147483648", "9" * 5000, "", " ", '"', "\\", "\x00", "a\x00b", "\x7f",
    "\u2028", "\ufeff", "\ufffe", "中文😀", "e\u0301", "\u202e", "a" * 256, *SECRETS, [], {}, [1], [None],
    [[]], {"a": {"b": "c"}}, {"": None}, {PHONE: PHONE}, [SECRETS[4]], {"biz_id": "1", "success": True},
]  # fmt: skip
_VERDICTS: Final[list[Any]] = [
    "true",
    "false",
    "True",
    "1",
    "2",
    "3",
    "6",
    "",
    0,
    1,
    2,
    3,
    1.0,
    None,
    True,
]
_SIZES: Final[list[Any]] = [
    "1",
    "0",
    "00",
    "99",
    "100",
    "1.0",
    "1e1",
    "",
    "²",
    2,
    0,
    -1,
    1.5,
    2**31,
    None,
]
_IDENTIFIERS: Final[list[Any]] = ["", " ", "1^0", "\n", "中", 5, None, True, [PHONE]]
# Which values are odd, but not at all strange, in a field of this name.
_NEAR_VALUES: Final = {
    **dict.fromkeys(("success", "Status", "SendStatus", "status"), _VERDICTS),
    **dict.fromkeys(("sms_size", "SmsSize", "SmsQuantity", "sequence_id"), _SIZES),
    **dict.fromkeys(("biz_id", "MessageId", "BizId", "message_id"), _IDENTIFIERS),
    **dict.fromkeys(("phone_number", "To", "PhoneNumber", "to", "dest_code"), _IDENTIFIERS),
}
ODD_NAMES: Final = [
    "", "x", "Success", "BIZ_ID", "biz_id ", "\ufeffbiz_id", "\x00", "名", "a" * 300, "__proto__",
    *SECRETS, "request_id", "template_code", "TaskId", "message_id", "enqueued_at", "unknown_fields",
    *_NAMES,
]  # fmt: skip


def draw_message(random: Random) -> Message:
    """Draw a message: most are nearly right, some are right, some are nothing at all."""
    message_type = random.choice(_TYPES if random.randrange(12) else _RARE_TYPES)
    if not random.randrange(40):
        body = random.randbytes(random.randrange(40))
        return Message(message_type, _wrap(random, body))
    fields = dict(random.choice(_SAMPLES.get(message_type, _ANY_SAMPLE)))
    if not random.randrange(12):
        fields = dict(random.choice(_ANY_SAMPLE))
    for _ in range(random.choice((0, 0, 0, 1, 1, 1, 2, 4))):
        random.choice(_CHANGES)(random, fields)
    text = _write(random, fields)
    for _ in range(random.choice((0, 0, 0, 0, 1, 1, 2))):
        text = tamper(random, text)
    body = _wrap(random, text)
    return Message(message_type, body if len(body) <= MAX_BODY_BYTES else body[:MAX_BODY_BYTES])


def message_from_bytes(data: bytes) -> Message:
    """Read a fuzzer's bytes as a message: half of them as text, half as the choices that draw one."""
    choice, data = data[:1] or b"\x00", data[1:]
    if choice[0] & 1:
        return draw_message(BytesRandom(data))
    message_type = _TYPES[choice[0] >> 2] if choice[0] >> 2 < len(_TYPES) else _RARE_TYPES[0]
    return Message(message_type, data if choice[0] & 2 else base64.b64encode(data))


class BytesRandom(Random):
    """A random number generator that somebody else's bytes decide; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._data = data
        self._used = 0

    def getrandbits(self, k: int, /) -> int:
        size = (k + 7) // 8
        taken = self._data[self._used : self._used + size]
        self._used += size
        return int.from_bytes(taken, "little") & ((1 << k) - 1)

    def random(self) -> float:
        return self.getrandbits(53) / (1 << 53)


def _write(random: Random, fields: dict[str, Any]) -> bytes:
    """Write fields as JSON text, one way or another; an array now and then."""
    value: Any = fields
    if not random.randrange(16):
        value = [fields, *(random.choice(_ANY_SAMPLE) for _ in range(random.choice((0, 1, 1, 4))))]
    is_ascii = not random.randrange(3)
    separators = (",", ":") if random.randrange(2) else None
    text = json.dumps(value, ensure_ascii=is_ascii, separators=separators)
    return text.encode(errors="surrogatepass")


def _wrap(random: Random, text: bytes) -> bytes:
    """Put text into a body: base64 as a rule."""
    way = random.randrange(100)
    if way >= len(_WRAPPINGS):
        return base64.b64encode(text)
    return _WRAPPINGS[way](random, text)


_Wrapping = Callable[[Random, bytes], bytes]
_WRAPPINGS: Final[list[_Wrapping]] = [
    *[lambda _, text: text] * 6,
    lambda _, text: base64.b64encode(text).rstrip(b"="),
    lambda _, text: base64.b64encode(text) + b"\n",
    lambda _, text: base64.b64encode(text) + b"=",
    lambda _, text: base64.encodebytes(text),
    lambda _, text: base64.urlsafe_b64encode(text),
    lambda _, text: base64.b64encode(base64.b64encode(text)),
    lambda random, text: flip(random, base64.b64encode(text)),
    lambda random, text: cut(random, base64.b64encode(text)),
    lambda _, text: base64.b64encode(text.decode(errors="replace").encode("utf-16")),
    lambda _, text: base64.b64encode(text.decode(errors="replace").encode("gb18030")),
]


def _remove(random: Random, fields: dict[str, Any]) -> None:
    if fields:
        del fields[random.choice(list(fields))]


def _set(random: Random, fields: dict[str, Any]) -> None:
    fields[random.choice(list(fields) or _NAMES)] = random.choice(ODD_VALUES)


def _set_near(random: Random, fields: dict[str, Any]) -> None:
    names = [name for name in fields if name in _NEAR_VALUES]
    if names:
        name = random.choice(names)
        fields[name] = random.choice(_NEAR_VALUES[name])


def _set_time(random: Random, fields: dict[str, Any]) -> None:
    names = [name for name in fields if "time" in name or "Date" in name or "date" in name]
    if names:
        fields[random.choice(names)] = random.choice(_TIMES)


def _add(random: Random, fields: dict[str, Any]) -> None:
    fields[random.choice(ODD_NAMES)] = random.choice(ODD_VALUES)


def _rename(random: Random, fields: dict[str, Any]) -> None:
    if fields:
        fields[random.choice(ODD_NAMES)] = fields.pop(random.choice(list(fields)))


def _merge(random: Random, fields: dict[str, Any]) -> None:
    fields.update(random.choice(_ANY_SAMPLE))


def _nest(random: Random, fields: dict[str, Any]) -> None:
    value: Any = random.choice(ODD_VALUES)
    for _ in range(random.choice((1, 3, 29, 30, 31, 32, 33, 90))):
        value = [value] if random.randrange(2) else {"a": value}
    fields[random.choice(ODD_NAMES)] = value


_CHANGES: Final[list[Callable[[Random, dict[str, Any]], None]]] = [
    _remove, _remove, _set, _set, _set_near, _set_near, _set_time, _set_time, _add, _rename, _merge, _nest,
]  # fmt: skip


def tamper(random: Random, text: bytes) -> bytes:
    """Do something to JSON text that no writer of JSON would."""
    return random.choice(_TAMPERINGS)(random, text)


def _place(random: Random, text: bytes) -> int:
    return random.randrange(len(text) + 1)


def insert(random: Random, text: bytes, piece: bytes) -> bytes:
    """Put a piece in somewhere."""
    place = _place(random, text)
    return text[:place] + piece + text[place:]


def flip(random: Random, text: bytes) -> bytes:
    """Change a few bytes."""
    changed = bytearray(text or b"?")
    for _ in range(random.choice((1, 1, 2, 8))):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def cut(random: Random, text: bytes) -> bytes:
    """Leave the end off."""
    return text[: _place(random, text)]


def splice(random: Random, text: bytes) -> bytes:
    """Take a part out, or put it somewhere a second time."""
    start = _place(random, text)
    part = text[start : start + random.choice((1, 2, 10, 60))]
    if random.randrange(2):
        return text[:start] + text[start + len(part) :]
    return insert(random, text, part)


def _insert_piece(random: Random, text: bytes) -> bytes:
    return insert(random, text, random.choice(_PIECES))


def _repeat_piece(random: Random, text: bytes) -> bytes:
    """Insert a long run of next to nothing, at times as long as a body can be: what is slow shows here."""
    few = random.choice(_PIECES) * random.choice((1, 33, 100))
    if random.randrange(24):
        return insert(random, text, few)
    piece = random.choice(_PIECES)
    room = max(0, MAX_BODY_BYTES * 3 // 4 - len(text) - len(few))
    return insert(random, text, few + piece * (room // len(piece)))


_PIECES: Final = [
    b"[", b"{", b"]", b"}", b'"', b"\\", b'\\"', b'"\\', b",", b":", b'{"a":', b"[[", b'"",', b'"a":1,',
    b"null", b"NaN", b"-Infinity", b"0", b"-", b"1e5", b"1E400", b"0.", b"00", b"\\u0000", b"\\ud83d",
    b"\\ude00", b"\\ud83d\\ude00", b"\\u00e9", b"\\x", b"\x00", b"\x1f", b"\x7f", b"\xff", b"\xc0\x80",
    b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b" ", b"\t", b"\r\n", b"\x0b",
    b"/**/", b"//", b"'", b'"success":false,', b'"biz_id":"2^0",', b'"biz_id":null,', b"\xf0\x9f\x98\x80",
    b"\\\\u0000", PHONE.encode(), SECRETS[2].encode(),
]  # fmt: skip


def _twice(random: Random, text: bytes) -> bytes:
    """Name a field twice, plainly or by an escape."""
    names = re.findall(rb'"(\w+)"\s*:', text)
    if not names:
        return text
    name = random.choice(names)
    if random.randrange(2):
        name = b"\\u%04x" % name[0] + name[1:]
    return text.replace(
        b"{", b'{"' + name + b'":' + random.choice((b'"1"', b"true", b"null")) + b",", 1
    )


def _escape_one(random: Random, text: bytes) -> bytes:
    old = random.choice((b"1", b"e", b"s", b"_", b"D"))
    return text.replace(old, random.choice((b"\\u0031", b"\\u0000", b"\\ud800", b"\\/", b"\\n")), 1)


_TAMPERINGS: Final[list[_Wrapping]] = [
    flip, cut, splice, splice, _insert_piece, _insert_piece, _insert_piece, _repeat_piece, _twice,
    _escape_one, _escape_one,
    lambda _, text: text.replace(b":", b" \t\n: ", 2),
    lambda _, text: text.replace(b'"out_id"', b'"err_code"', 1),
    lambda _, text: text.replace(b'"', b"'"),
    lambda _, text: b"\xef\xbb\xbf" + text,
    lambda _, text: b" " + text + b"\n",
    lambda _, text: b"[" + text + b"]",
    lambda _, text: b"[" + text + b"," + text + b"]",
    lambda _, text: text + text,
    lambda _, text: text.replace(b"}", b",}", 1),
]  # fmt: skip
