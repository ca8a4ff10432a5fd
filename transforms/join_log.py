"""The state of one bucket of the keyed join, as bytes in bags.

An engine keeps bags of bytes for each bucket, to read whole, to add to and to clear: all that every engine
has (Flink knows nothing else). So the state is a log: a bundle adds a *chunk* or two, and rewrites nothing
but the *head*, some 40 bytes. A bag has no order, hence the chunks are numbered.

* ``open``: sends without a report, and reports that wait for their send. A chunk says which keys it speaks of
  anew; what earlier chunks say of these no longer counts.
* ``left``: what has left and is remembered, with the hashes by which it is found. It lies in several bags,
  each with what is forgotten at the same time: a repeat or a correction reads one of them, not all.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec
import numpy as np

from transforms.keys import Hashes

# How many bags what has left lies in: memory has as many steps, each of which empties one.
LEFT_BAGS: Final = 8
# Of a token; as many more follow, which are new with every change.
BUCKET_NAME_BYTES: Final = 8


class Bag(Protocol):
    """A bag of bytes, as Beam's ``BagRuntimeState`` is one."""

    def read(self) -> Iterable[bytes]:
        """All that is in it, in any order."""
        ...

    def add(self, value: bytes) -> None:
        """Put something in."""
        ...

    def clear(self) -> None:
        """Empty it."""
        ...


class Bags(NamedTuple):
    """The state of one bucket."""

    head: Bag
    open: Bag
    left: Sequence[Bag]

    def clear(self) -> None:
        """Empty them all."""
        for bag in (self.head, self.open, *self.left):
            bag.clear()


class Head(msgspec.Struct, array_like=True, frozen=True):
    """What a visit reads first, and mostly alone.

    Attributes:
        token: names what lies in the other bags: whoever has it in memory under this name need not read it.
            It begins with the name of the bucket (``BUCKET_NAME_BYTES``).
        next_number: of the next chunk.
        armed_ms: when the timer is set for (UTC milliseconds), if it is.
        open_bytes: what the open log takes since it was last written whole.
        whole_bytes: what it took then.
        reached_ms: the latest moment that a visit was told (UTC milliseconds).
        bucket_count: over how many buckets the keys were spread when this was written.
    """

    token: bytes = b""
    next_number: int = 0
    armed_ms: int | None = None
    open_bytes: int = 0
    whole_bytes: int = 0
    reached_ms: int = 0
    bucket_count: int = 0


class OpenChunk(msgspec.Struct, array_like=True, frozen=True):
    """A part of the open log: the hashes of the keys that it speaks of anew, and packed tables."""

    number: int
    changed: bytes
    tables: bytes


class LeftChunk(msgspec.Struct, array_like=True, frozen=True):
    """What left at one moment: packed tables, and the hashes of keys and groups of their rows."""

    number: int
    moment_ms: int
    hashes: bytes
    groups: bytes
    tables: bytes


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_head: Final = msgspec.msgpack.Decoder(Head).decode
_decode_open: Final = msgspec.msgpack.Decoder(OpenChunk).decode
_decode_left: Final = msgspec.msgpack.Decoder(LeftChunk).decode


def encode(part: Head | OpenChunk | LeftChunk) -> bytes:
    """Turn a part of the state into bytes."""
    encoded: bytes = _encode(part)
    return encoded


def read_head(bag: Bag) -> Head:
    """Read the head; a bucket without one is empty."""
    return next((_decode_head(part) for part in bag.read()), Head())


def read_open(bag: Bag) -> list[OpenChunk]:
    """Read the open log, the oldest chunk first."""
    return sorted((_decode_open(part) for part in bag.read()), key=lambda chunk: chunk.number)


def read_left(bag: Bag) -> list[LeftChunk]:
    """Read one of the bags with what has left, in any order."""
    return [_decode_left(part) for part in bag.read()]


def pack_hashes(hashes: Hashes) -> bytes:
    """Eight bytes a hash."""
    return hashes.astype("<u8").tobytes()


def unpack_hashes(packed: bytes) -> Hashes:
    """The hashes of :func:`pack_hashes`."""
    return np.frombuffer(packed, dtype="<u8").astype(np.uint64, copy=False)
