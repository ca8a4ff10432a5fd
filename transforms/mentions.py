"""Where a biz_id is mentioned: found among many bytes at little cost, before anything is decoded.

A body is base64 of JSON, as a rule, so that the id is not to be seen in it; but its letters are, in one of
three spellings, since base64 takes three bytes at a time. To look for these costs a third of decoding.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pybase64

_GROUP: Final = 3  # bytes, which base64 makes four letters of
_LETTER_BITS: Final = 6
# JSON may spell any character of the id by its number, and hardly anybody does.
_ESCAPE: Final = b"\\u00"
_PLAIN: Final = re.compile(rb"[0-9A-Za-z]+")
_NOT_BASE64: Final = re.compile(rb"[^0-9A-Za-z+/]+")


class Sought:
    """A ``biz_id`` that is looked for."""

    def __init__(self, biz_id: str) -> None:
        self._spelled = spelled = biz_id.encode()
        # JSON may put a backslash before other characters, or spell them in two ways.
        self._core = max(_PLAIN.findall(spelled), key=len, default=b"")
        self._whole = re.compile(rb"(?<![0-9A-Za-z^])" + re.escape(spelled) + rb"(?![0-9A-Za-z^])")
        self._in_body = frozenset(
            spelling for part in (self._core, _ESCAPE) for spelling in (part, *_in_base64(part))
        )

    def may_be_in(self, json_text: bytes) -> bool:
        """Tell whether JSON text may hold the id, however its characters are spelled."""
        return self._core in json_text or _ESCAPE in json_text

    def may_be_in_bodies(self, bodies: pa.BinaryArray) -> npt.NDArray[np.bool_]:
        """Tell of n message bodies, without nulls, which may hold the id.

        Of a body that can be decoded, and holds it, the answer is always yes.
        """
        found = np.zeros(len(bodies), dtype=np.bool_)
        if not len(bodies):
            return found
        if b"" in self._in_body:  # too short to leave a trace
            return ~found
        _, offset_buffer, data = bodies.buffers()
        offsets = np.frombuffer(
            offset_buffer, np.int32, count=len(bodies) + 1, offset=bodies.offset * 4
        )
        text = data.slice(offsets[0], offsets[-1] - offsets[0]).to_pybytes()
        starts = offsets - offsets[0]
        for spelling in self._in_body:
            place = text.find(spelling)
            while place >= 0:
                row = np.searchsorted(starts, place, side="right") - 1
                found[row] = True
                place = text.find(spelling, starts[row + 1])
        return found

    def lines(self, block: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the lines of JSON that may hold the id, each with its place in the block."""
        if not self.may_be_in(block):
            return
        start = 0
        while start < len(block):
            end = block.find(b"\n", start) + 1 or len(block)
            line = block[start:end]
            if self.may_be_in(line):
                yield start, line
            start = end

    def is_in(self, original: bytes) -> bool:
        """Tell whether bytes that need not decode hold the id: as they are, or below their base64."""
        return any(
            self._spelled in text and self._whole.search(text)
            for text in (original, _unpacked(original))
        )


def _in_base64(part: bytes) -> Iterator[bytes]:
    """The letters that a part of a text has in base64 wherever it stands, for each of its three places."""
    for before in range(_GROUP):
        letters = base64.b64encode(bytes(before) + part)
        # The letters at both ends belong to its neighbours as well.
        first = -(-before * 8 // _LETTER_BITS)
        yield letters[first : (before + len(part)) * 8 // _LETTER_BITS]


def _unpacked(original: bytes) -> bytes:
    """Undo base64 as far as that can be done."""
    letters = _NOT_BASE64.sub(b"", original)
    return pybase64.b64decode(letters[: len(letters) // 4 * 4])
