"""Avro container files, block by block: written with checksums, counted, and salvaged when damaged.

Avro itself has no checksum: of the single bits that change in a zstandard block, half change a value and are
noticed by nobody (tried with fastavro 1.13 and datafusion 55). zstandard has one, for four bytes a block, but
fastavro does not ask for it; so the blocks are put together here. Every reader checks it.

Layout (specification 1.11, "Object Container Files"): a header that ends with 16 bytes drawn for the file,
the *marker*; then blocks: how many records, how many bytes, these bytes, the marker again.
"""

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Final, NamedTuple

import fastavro
import pyarrow as pa
from backports import zstd

from schemas.contracts import Contract

_CODEC: Final = "zstandard"
_CHECKSUM: Final[Mapping[int, int]] = {zstd.CompressionParameter.checksum_flag: 1}
# Before compression; a block is what a damaged byte costs, and what a reader holds in memory.
_BLOCK_BYTES: Final = 256 * 1024
# A block ends with the record that fills it. Whatever says that it is larger than this is damaged.
_LARGEST_BLOCK_BYTES: Final = 64 * 1024 * 1024
# A block of usual messages has a tenth of it once it is compressed.
_ORIGINAL_BYTES: Final = 1024 * 1024
_MARKER_BYTES: Final = 16
# Two numbers of at most ten bytes each.
_HEAD_BYTES: Final = 20


class DamagedAvroError(ValueError):
    """Raised when a file is no Avro container, or not all of one."""


class DamagedPart(NamedTuple):
    """Bytes of a container that hold no whole block.

    Attributes:
        start: where they begin, in bytes from the beginning of the file.
        size: how many they are.
        records: how many the heads of their blocks promise, as far as these can be read.
        original: the bytes, but no more than the first 1,048,576.
    """

    start: int
    size: int
    records: int
    original: bytes


class _Head(NamedTuple):
    """How a block begins: how many records it has, in how many bytes, and how long this head is."""

    records: int
    size: int
    length: int


_NO_BLOCK: Final = _Head(0, 0, 0)


def write_container(
    file: BinaryIO, contract: Contract, records: Iterable[Mapping[str, Any]]
) -> None:
    """Write records that fit a contract to an empty file, in blocks with checksums."""
    schema = contract.schema
    marker = os.urandom(_MARKER_BYTES)
    fastavro.writer(file, schema, [], codec=_CODEC, sync_marker=marker)  # the header alone
    block, count = io.BytesIO(), 0
    for record in records:
        fastavro.schemaless_writer(block, schema, record)
        count += 1
        if block.tell() >= _BLOCK_BYTES:
            _write_block(file, count, block, marker)
            block, count = io.BytesIO(), 0
    if count:
        _write_block(file, count, block, marker)


def _write_block(file: BinaryIO, count: int, block: io.BytesIO, marker: bytes) -> None:
    compressed = zstd.compress(block.getbuffer(), options=_CHECKSUM)
    for number in (count, len(compressed)):
        fastavro.schemaless_writer(file, "long", number)
    file.write(compressed)
    file.write(marker)


def count_avro_records(file: BinaryIO) -> int:
    """Count the records of a container by what its blocks say of themselves.

    datafusion 55 takes a file that was cut short for one that ends there, and says nothing; this tells what
    has to come out.

    Args:
        file: seekable, at its beginning; some 40 bytes of each block are read.

    Raises:
        DamagedAvroError: the header is none, or a block is cut short or not followed by its marker.
    """
    size = os.fstat(file.fileno()).st_size
    marker, _ = _read_header(file)
    position, records = file.tell(), 0
    while position < size:
        head = _head(file.read(_HEAD_BYTES))
        if head == _NO_BLOCK:
            raise DamagedAvroError("a block without a head")
        position += head.length + head.size + _MARKER_BYTES
        if position > size:
            raise DamagedAvroError("a block is cut short")
        file.seek(position - _MARKER_BYTES)
        if file.read(_MARKER_BYTES) != marker:
            raise DamagedAvroError("a block does not end where it says")
        records += head.records
    return records


def salvage(data: bytes, contract: Contract) -> Iterator[pa.RecordBatch | DamagedPart]:
    """Read whatever can be read of a container that :func:`write_container` wrote.

    A block is taken if it is whole: it decodes to its last byte, and to as many records as it says. Where
    one is not, reading goes on behind the next marker. A damaged header or marker alone costs nothing.

    Args:
        data: the file.
        contract: of its records. The schema in the header is asked about blocks that do not fit it: those
            of an earlier version.

    Yields:
        The records of a block, or a part that holds no whole block, in the order of the file.
    """
    # The last block ends with the marker, too; unless the file ends in zeros, as after a crash.
    last = data[-_MARKER_BYTES:]
    markers = [last] if len(set(last)) > 1 else []
    schemas: list[Any] = [contract.schema]
    try:
        header = io.BytesIO(data)
        marker, written = _read_header(header)
        markers.append(marker)
        schemas.append(written)
        damaged_from = position = header.tell()
    except DamagedAvroError:
        damaged_from, position = 0, _behind(markers, data, 0)
    claimed = 0
    while position < len(data):
        head = _head(data[position : position + _HEAD_BYTES])
        start = position + head.length
        block = data[start : start + head.size]
        decoded = (_decoded(block, head.records, contract, schema) for schema in schemas)
        records = next((batch for batch in decoded if batch is not None), None)
        if records is not None:
            if damaged_from < position:
                yield _damaged_part(data, damaged_from, position, claimed)
            yield records
            damaged_from = position = start + head.size + _MARKER_BYTES
            claimed = 0
        else:
            claimed += head.records
            position = _behind(markers, data, position)
    if damaged_from < len(data):
        yield _damaged_part(data, damaged_from, len(data), claimed)


def _damaged_part(data: bytes, start: int, end: int, records: int) -> DamagedPart:
    original = data[start : min(end, start + _ORIGINAL_BYTES)]
    return DamagedPart(start, end - start, records, original)


def _read_header(file: BinaryIO) -> tuple[bytes, Any]:
    """Read up to the first block; return the marker and the schema."""
    try:
        schema = fastavro.reader(file).writer_schema  # leaves the file behind its header
    except Exception:  # noqa: BLE001 - whatever a decoder raises on bytes that are no Avro; it quotes them
        raise DamagedAvroError("no Avro header") from None
    file.seek(-_MARKER_BYTES, os.SEEK_CUR)
    return file.read(_MARKER_BYTES), schema


def _behind(markers: Iterable[bytes], data: bytes, position: int) -> int:
    """Where the next marker ends; the end of the data if there is none."""
    found = (data.find(marker, position) for marker in markers)
    return min((start + _MARKER_BYTES for start in found if start >= 0), default=len(data))


def _head(data: bytes) -> _Head:
    """Read how a block begins; all zero for bytes that no block begins with."""
    file = io.BytesIO(data)
    try:
        records, size = _long(file), _long(file)
    except (EOFError, IndexError):  # of fastavro in Python, and compiled
        return _NO_BLOCK
    return _Head(records, size, file.tell()) if records >= 0 and size >= 0 else _NO_BLOCK


def _long(file: BinaryIO) -> int:
    number: Any = fastavro.schemaless_reader(file, "long", None)
    return int(number)


def _decoded(block: bytes, count: int, contract: Contract, written: Any) -> pa.RecordBatch | None:
    """Decode a block that a schema wrote; None if it is not the whole of as many records, or of none."""
    records: list[Any] = []
    try:
        decompressor = zstd.ZstdDecompressor()
        content = decompressor.decompress(block, max_length=_LARGEST_BLOCK_BYTES)
        file = io.BytesIO(content)
        while file.tell() < len(content):
            records.append(fastavro.schemaless_reader(file, written, contract.schema))
        is_whole = decompressor.eof and not decompressor.unused_data and len(records) == count > 0
        return contract.batch(records) if is_whole else None
    except MemoryError:
        raise  # the bytes may be well
    except Exception:  # noqa: BLE001 - whatever a decoder raises on bytes that are no Avro
        return None
