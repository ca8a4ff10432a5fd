"""A person's phone number, found however it is written.

Alibaba writes 11 digits on the mainland, country code and number elsewhere. Senders and people write ``+86``,
``0086``, ``86`` or a trunk ``0`` in front, spaces or hyphens between, and full-width digits in Chinese text;
JSON may spell any digit by its number. A run of digits that is longer is another number, or none at all: an
identifier, a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_DIGITS: Final = "0123456789"
_FULL_WIDTH: Final = {ord("０") + int(digit): digit for digit in _DIGITS}
# E.164 has 15 digits at most; with less than seven it would be anybody's.
_NUMBER: Final = re.compile(r"\+?[0-9]{7,17}")
_FEWEST_DIGITS, _MOST_DIGITS = 7, 15
_BETWEEN: Final = re.compile(r"[\s().-]+")
_MAINLAND: Final = re.compile(r"1[3-9][0-9]{9}")
_MAINLAND_CODE: Final = "86"
# However deep the JSON text stands in other JSON text.
_ESCAPE: Final = re.compile(r"\\+u([0-9a-fA-F]{4})")
# Numbers in one regular expression: RE2 gives up on one that is too large.
_AT_ONCE: Final = 20

Rows = npt.NDArray[np.bool_]


class NotANumberError(ValueError):
    """Raised for text that is no phone number; never repeats it."""


class PhoneNumber(str):
    """A phone number in digits alone: 11 on the mainland, country code and number elsewhere."""

    __slots__ = ()

    def __new__(cls, text: str) -> PhoneNumber:
        """Read a number however it is written.

        Raises:
            NotANumberError: it is none.
        """
        digits = _BETWEEN.sub("", text)
        if not _NUMBER.fullmatch(digits):
            raise NotANumberError("expected a phone number")
        digits = digits.removeprefix("+").removeprefix("00")
        subscriber = digits.removeprefix(_MAINLAND_CODE)
        if _MAINLAND.fullmatch(subscriber):
            digits = subscriber
        if not _FEWEST_DIGITS <= len(digits) <= _MOST_DIGITS:
            raise NotANumberError("expected a phone number of 7 to 15 digits")
        return super().__new__(cls, digits)

    def __repr__(self) -> str:
        """Masked, as everything that may be logged is."""
        return self.masked

    @property
    def masked(self) -> str:
        """The number as it may be shown: its first three digits and the last two."""
        return f"{self[:3]}{'*' * (len(self) - 5)}{self[-2:]}"

    @property
    def _prefixes(self) -> str:
        """What may stand directly before it, as a regular expression."""
        return "(?:00|0|(?:00)?86)?" if _MAINLAND.fullmatch(self) else "(?:00)?"

    @property
    def exact(self) -> str:
        """A regular expression for text that is opened: see :class:`Numbers`."""
        return f"{self._prefixes}{'[ -]?'.join(self)}"

    @property
    def loose(self) -> str:
        """A regular expression of RE2 for bytes: finds all that :attr:`exact` finds once they are opened."""
        return r"(?:[ \x00-]|\\+u00(?:20|2[dD])){0,3}".join(
            # As it is, in full width as UTF-8, and either of them by its number as JSON may have it.
            rf"(?:{digit}|\xef\xbc\x9{digit}|\\+u(?:003|[fF][fF]1){digit})"
            for digit in self
        )


class Numbers:
    """Some people's phone numbers, to be looked for. Shows none of them."""

    def __init__(self, numbers: Iterable[str]) -> None:
        """Look for these numbers.

        Raises:
            NotANumberError: one of them is none.
        """
        known = sorted({PhoneNumber(number) for number in numbers})
        self._masked = [number.masked for number in known]
        self._exact = re.compile(
            rf"(?<![0-9])(?:{'|'.join(number.exact for number in known)})(?![0-9])"
        )
        self._loose = [
            "|".join(number.loose for number in known[start : start + _AT_ONCE])
            for start in range(0, len(known), _AT_ONCE)
        ]

    def __repr__(self) -> str:
        """Masked."""
        return f"Numbers({', '.join(self._masked)})"

    @property
    def masked(self) -> list[str]:
        """The numbers as they may be shown."""
        return self._masked

    def mask(self, text: str) -> str:
        """Text as it may be shown: without the numbers that are in it as digits."""
        return self._exact.sub(lambda found: PhoneNumber(found[0]).masked, text)

    def are_in(self, column: pa.Array | pa.ChunkedArray) -> Rows:
        """Tell of n texts, bytes or maps of texts which hold one of the numbers; a null holds none."""
        if isinstance(column, pa.ChunkedArray):
            parts = [self.are_in(chunk) for chunk in column.chunks]
            return np.concatenate([np.zeros(0, np.bool_), *parts])
        if pa.types.is_dictionary(column.type):
            return _of_dictionary(column, self.are_in(column.dictionary))
        if pa.types.is_map(column.type):
            return self._are_in_maps(column)
        found = self.may_be_in(column)
        for row in np.flatnonzero(found).tolist():
            found[row] = self.is_in(column[row].as_py())
        return found

    def may_be_in(self, column: pa.Array) -> Rows:
        """Tell of n texts or bytes which may hold one of the numbers: all that do are among them.

        It takes 20 numbers together some nanoseconds a byte; nothing is opened.
        """
        found = np.zeros(len(column), np.bool_)
        if not (_is_text(column.type) and len(column)):
            return found
        for pattern in self._loose:
            of_some: Any = pc.match_substring_regex(column.cast(_bytes_of(column.type)), pattern)
            found |= of_some.fill_null(False).to_numpy(zero_copy_only=False)
        return found

    def is_in(self, text: str | bytes) -> bool:
        """Tell whether text holds one of the numbers: as it is, as UTF-16, or below the escapes of JSON."""
        if isinstance(text, str):
            return self._is_in_text(text)
        readings = (text, text.replace(b"\0", b"")) if b"\0" in text else (text,)
        # What is not UTF-8 keeps its digits.
        return any(self._is_in_text(reading.decode("utf-8", "replace")) for reading in readings)

    def _is_in_text(self, text: str) -> bool:
        opened = _ESCAPE.sub(_unescaped, text) if "\\" in text else text
        plain = opened if opened.isascii() else opened.translate(_FULL_WIDTH)
        return self._exact.search(plain) is not None

    def _are_in_maps(self, column: pa.MapArray) -> Rows:
        found = np.zeros(len(column), np.bool_)
        # An array of its own: a slice of a map still has all keys of the whole.
        starts = np.asarray(column.offsets)
        for texts in (column.keys, column.items):
            of_entries = self.are_in(texts)
            if of_entries.any():
                rows = np.searchsorted(starts, np.flatnonzero(of_entries), side="right") - 1
                found[rows[(rows >= 0) & (rows < len(column))]] = True
        return found


def _of_dictionary(column: pa.DictionaryArray, of_values: Rows) -> Rows:
    if not of_values.any():
        return np.zeros(len(column), np.bool_)
    found: Any = pc.take(pa.array(of_values), column.indices)
    return np.asarray(found.fill_null(False).to_numpy(zero_copy_only=False), np.bool_)


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_binary(kind)
        or types.is_large_string(kind)
        or types.is_large_binary(kind)
    )


def _bytes_of(kind: pa.DataType) -> pa.DataType:
    """RE2 takes bytes for what they are, and text for UTF-8 with characters of several bytes."""
    is_large = pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    return pa.large_binary() if is_large else pa.binary()


def _unescaped(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16))
