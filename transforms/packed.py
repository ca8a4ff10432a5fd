"""Arrow tables as bytes: what travels between steps of the streaming graph, and lies in its state.

Packed rows are an Arrow IPC stream as one zstd block, its size before it. The stream says its own columns, so
that state of an earlier version of the program can be read. Compressed as a whole (level 1), 16 rows of
``enriched_reports`` take 2.9 KB in 45 us; Arrow's own compression, buffer by buffer, takes 6.7 KB and 720 us.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
import pyarrow as pa

_CODEC: Final = pa.Codec("zstd", compression_level=1)
_SIZE_BYTES: Final = 4

_to_bytes: Final = msgspec.msgpack.Encoder().encode
_from_bytes: Final = msgspec.msgpack.Decoder(dict[str, bytes]).decode


def pack_rows(rows: pa.Table) -> bytes:
    """Turn rows of any schema into bytes; at most 4 GB of them."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    stream = sink.getvalue()
    size: bytes = stream.size.to_bytes(_SIZE_BYTES, "big")
    packed: bytes = _CODEC.compress(stream, asbytes=True)
    return size + packed


def unpack_rows(packed: bytes) -> pa.Table:
    """Turn the bytes of :func:`pack_rows` into rows again."""
    size = int.from_bytes(packed[:_SIZE_BYTES], "big")
    stream = _CODEC.decompress(memoryview(packed)[_SIZE_BYTES:], decompressed_size=size)
    with pa.ipc.open_stream(stream) as reader:
        return reader.read_all()


def pack(tables: Mapping[str, pa.Table]) -> bytes:
    """Turn named tables into bytes; the empty ones are left out."""
    return pack_packed({name: pack_rows(rows) for name, rows in tables.items() if rows.num_rows})


def pack_packed(tables: Mapping[str, bytes]) -> bytes:
    """Put tables together that :func:`pack_rows` has packed."""
    packed: bytes = _to_bytes(tables)
    return packed


def unpack(packed: bytes) -> dict[str, pa.Table]:
    """Turn the bytes of :func:`pack` into tables again."""
    return {name: unpack_rows(rows) for name, rows in _from_bytes(packed).items()}
