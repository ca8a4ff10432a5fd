"""Strings that ``keys.hash_strings`` cannot tell apart, found by running its steps backwards."""

import itertools

import numpy as np
import pyarrow as pa

from transforms import keys

_BITS = 2**64 - 1
_MULTIPLIER = 0x9E3779B97F4A7C15


def _after(state: int, word: bytes) -> int:
    mixed = (state ^ int.from_bytes(word, "little") ^ len(word)) * _MULTIPLIER & _BITS
    return mixed ^ (mixed >> 32)


def colliding_biz_ids() -> tuple[str, str]:
    """Two strings of 16 ASCII characters with one hash."""
    first, tail = b"90061974", b"69364980"
    state = _after(_MULTIPLIER, first)
    for digits in itertools.count(10_000_000):
        other = str(digits).encode()
        word = _after(_MULTIPLIER, other) ^ state ^ int.from_bytes(tail, "little")
        other_tail = word.to_bytes(8, "little")
        if other != first and other_tail.isascii():
            found = (first + tail).decode(), (other + other_tail).decode()
            assert len(np.unique(keys.hash_strings(pa.array(found, pa.string())))) == 1
            return found
    raise AssertionError
