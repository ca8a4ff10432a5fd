"""From the bytes of a message body to JSON values, strictly.

Over MNS a body is base64 of JSON text; some producers leave the base64 out. JSON text starts with
``{`` or ``[``, which are outside the base64 alphabet, so that the two cannot be mistaken.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import msgspec
import pybase64

from transforms.failures import UnusableError

# Levels of arrays and objects. The deepest documented shape has three (a pushed array of reports
# with NumberDetail); the rest is room for what may come.
MAX_DEPTH: Final = 32

# A string need not end, so that one that does not is passed over once, not once from each of its quotes.
_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*"?|([\[{])|[\]}]', re.DOTALL)


@dataclass(frozen=True)
class Number:
    """A JSON number in its own spelling: no digit is lost to a float."""

    spelling: str


JsonObject = dict[str, Any]  # values: str, Number, bool, None, list, dict


def open_body(body: bytes) -> str:
    """Return the JSON text inside a message body.

    Raises:
        UnusableError: ``empty_body``, ``malformed_base64`` or ``malformed_utf8``.
    """
    text = body
    if not body.startswith((b"{", b"[")):
        try:
            text = pybase64.b64decode(body, None, True)
        except binascii.Error:
            detail = "expected base64 or JSON text"
            raise UnusableError("malformed_base64", detail) from None
    if not text:
        raise UnusableError("empty_body", "expected JSON text")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise UnusableError("malformed_utf8", "expected UTF-8 text") from None


def parse_json(text: str) -> Any:
    """Parse JSON text; numbers become :class:`Number`.

    Raises:
        UnusableError: ``malformed_json``, ``duplicate_key``, ``nested_too_deep``,
            ``lone_surrogate`` or ``nul_character``.
    """
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise UnusableError("nested_too_deep", f"expected at most {MAX_DEPTH} levels")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        detail = f"not JSON at character {error.pos}"
        raise UnusableError("malformed_json", detail) from None
    if "\\u" in text:  # only an escape can bring in what UTF-8 and JSON forbid in the open
        for string in _strings(value):
            if "\x00" in string:
                raise UnusableError("nul_character", "expected text without NUL")
            if not _is_encodable(string):
                raise UnusableError("lone_surrogate", "expected whole Unicode characters")
    return value


def raw_members(text: str) -> list[dict[str, str]]:
    """Return, for each object of a body, the exact JSON text of its members by name.

    Args:
        text: An object, or an array of objects, that :func:`parse_json` accepted.
    """
    objects = _RAW.decode(text)
    if isinstance(objects, dict):
        objects = [objects]
    return [{name: bytes(raw).decode() for name, raw in each.items()} for each in objects]


def _depth(text: str) -> int:
    """Count the levels of JSON text; of text that is not JSON, an upper bound."""
    depth = deepest = 0
    for token in _BRACKETS.finditer(text):
        if token.group(1):
            depth += 1
            deepest = max(deepest, depth)
        elif not token.group().startswith('"'):
            depth -= 1
    return deepest


def _without_duplicates(pairs: list[tuple[str, Any]]) -> JsonObject:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise UnusableError("duplicate_key", "expected each field once")
    return members


def _refuse_constant(_: str) -> NoReturn:
    raise UnusableError("malformed_json", "expected numbers, not NaN or Infinity")


def _strings(value: Any) -> Iterator[str]:
    """Yield every string of a JSON value, names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for member in value.values():
            yield from _strings(member)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_RAW: Final = msgspec.json.Decoder(dict[str, msgspec.Raw] | list[dict[str, msgspec.Raw]])
_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_without_duplicates,
    parse_int=Number,
    parse_float=Number,
    parse_constant=_refuse_constant,
)
