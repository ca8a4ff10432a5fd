"""Does a file hold one of the numbers, whatever kind of file it is?

Bytes as they are, and what is below them: messages and their bodies in Avro, columns, dictionaries and
statistics in Parquet, rows in SQLite. What cannot be opened cannot be shown to be free of a number, and that
is an answer of its own.
"""

import codecs
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.archive import ArchiveFileError, is_archive_file, read_archive
from transforms.avro_blocks import DamagedAvroError, count_avro_records
from transforms.erase import UNREADABLE, Persons, any_of_theirs, body_without, messages_without

_BLOCK_BYTES: Final = 1 << 20
_LONGEST_LINE_BYTES: Final = 1 << 16
# More than a number takes, however it is spelled.
_OVERLAP_BYTES: Final = 1024
_ROWS: Final = 10_000
_AVRO: Final = b"Obj\x01"
_PARQUET: Final = b"PAR1"
_SQLITE: Final = b"SQLite format 3\0"
# What SQLite has beside a database.
_UNCOMPRESSED: Final = ("-wal", "-shm", "-journal")
# gzip, zstandard, zip, bzip2, xz.
_COMPRESSED: Final = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"BZh", b"\xfd7zXZ")


class Looked(NamedTuple):
    """What a look into a file says.

    Attributes:
        size: its bytes.
        has_trace: whether one of the numbers is in it, or in its name.
        obstacle: why it could not be looked through; None if it was.
    """

    size: int
    has_trace: bool
    obstacle: str | None = None


def look_into(persons: Persons, path: str, name: str) -> Looked:
    """Look for the numbers everywhere in a file.

    Args:
        persons: whose numbers.
        path: the file.
        name: as much of the path as counts as its name.

    Raises:
        FileNotFoundError: it is gone.
    """
    size = 0
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            head = file.read(len(_SQLITE))
            file.seek(0)
            has_trace = persons.numbers.is_in(name) or _is_in_bytes(persons, file)
        if has_trace:
            return Looked(size, has_trace=True)
        return _looked_below(persons, path, head, size)
    except FileNotFoundError:
        raise
    except OSError as error:
        return Looked(size, has_trace=False, obstacle=f"it cannot be read: {error.strerror}")


def _looked_below(persons: Persons, path: str, head: bytes, size: int) -> Looked:
    if is_archive_file(path):
        return _looked_into_archive_file(persons, path, size)
    if head.startswith(_COMPRESSED):
        return Looked(size, has_trace=False, obstacle="it is compressed, and none of ours")
    try:
        if head.startswith(_AVRO):
            has_trace = any(_are_in_avro(persons, path))
        elif head.startswith(_PARQUET):
            has_trace = any(_are_in_parquet(persons, path))
            if not has_trace and _has_unreadable_originals(path):
                return Looked(size, has_trace, "it has bytes of damaged archive files")
        elif head == _SQLITE:
            has_trace = any(_are_in_sqlite(persons, path))
        elif _is_text(path) or path.endswith(_UNCOMPRESSED):
            has_trace = False
        else:
            return Looked(size, has_trace=False, obstacle="it is of no kind that can be opened")
    except (pa.ArrowException, sqlite3.Error, DamagedAvroError) as error:
        return Looked(size, has_trace=False, obstacle=f"it is damaged ({type(error).__name__})")
    return Looked(size, has_trace=has_trace)


def _is_text(path: str) -> bool:
    """Tell whether a file is text: then all of it was to be seen in its bytes."""
    with open(path, "rb") as file:
        head = file.read(_BLOCK_BYTES)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # its end may be cut off
    except UnicodeDecodeError:
        return False
    return "\0" not in text


def _looked_into_archive_file(persons: Persons, path: str, size: int) -> Looked:
    try:
        archived = read_archive(path)
    except ArchiveFileError:
        return Looked(size, has_trace=False, obstacle="it is damaged")
    has_trace = any(messages_without(persons, batch).is_changed for batch in archived.batches)
    lost = f"{archived.lost:,} of its {archived.file.messages:,} messages cannot be read"
    return Looked(size, has_trace, lost if archived.lost else None)


def _is_in_bytes(persons: Persons, file: BinaryIO) -> bool:
    tail = b""
    while block := file.read(_BLOCK_BYTES):
        block = tail + block + file.readline(_LONGEST_LINE_BYTES)
        may_be = persons.numbers.may_be_in(pa.array([block], pa.binary()))[0]
        if may_be and persons.numbers.is_in(block):
            return True
        # A line ends every number.
        tail = b"" if block.endswith(b"\n") else block[-_OVERLAP_BYTES:]
    return False


def _are_in_avro(persons: Persons, path: str) -> Iterator[bool]:
    with open(path, "rb") as file:
        count = count_avro_records(file)
        file.seek(0)
        try:
            for record in fastavro.reader(file):
                yield _is_in_value(persons, record)
                count -= 1
        except Exception:  # noqa: BLE001 - whatever a decoder raises on bytes that are no Avro; it quotes them
            raise DamagedAvroError("a block that cannot be decoded") from None
    if count:
        raise DamagedAvroError("not as many records as promised")


def _is_in_value(persons: Persons, value: object) -> bool:
    """Tell of a value in an Avro record, however deep."""
    if isinstance(value, Mapping):
        return any(_is_in_value(persons, member) for member in (*value, *value.values()))
    if isinstance(value, (list, tuple)):
        return any(_is_in_value(persons, member) for member in value)
    if isinstance(value, bytes):
        return body_without(persons, value) is not value
    return isinstance(value, (str, int)) and persons.numbers.is_in(str(value))


def _are_in_parquet(persons: Persons, path: str) -> Iterator[bool]:
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    for chunk in chunks:
        if chunk.is_stats_set and chunk.statistics.has_min_max:
            edges = (chunk.statistics.min, chunk.statistics.max)
            yield any(
                persons.numbers.is_in(edge) for edge in edges if isinstance(edge, (str, bytes))
            )
    # As dictionaries, so that what a dictionary has and no row uses is looked at, too.
    has_dictionary = {chunk.path_in_schema for chunk in chunks if chunk.has_dictionary_page}
    with pq.ParquetFile(path, read_dictionary=sorted(has_dictionary)) as file:
        for number in range(len(groups)):
            for column in file.read_row_group(number).columns:
                for part in column.chunks:
                    yield any(_are_in(persons, leaf) for leaf in _leaves(part))


def _has_unreadable_originals(path: str) -> bool:
    """Tell whether a file of failed events has some that nobody can read."""
    with pq.ParquetFile(path) as file:
        if not {"reason", "original"} <= set(file.schema_arrow.names):
            return False
        reasons = file.read(["reason"]).column("reason")
        return bool(pc.any(pc.equal(reasons, UNREADABLE)).as_py())


def _leaves(array: pa.Array) -> Iterator[pa.Array]:
    """The texts, bytes and whole numbers in an array, however deep."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        yield from _leaves(array.dictionary)
    elif pa.types.is_map(kind):
        yield from _leaves(array.keys)
        yield from _leaves(array.items)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _leaves(array.values)
    elif pa.types.is_struct(kind):
        for member in array.flatten():
            yield from _leaves(member)
    elif pa.types.is_integer(kind):
        yield array.cast(pa.string())
    else:
        yield array


def _are_in_sqlite(persons: Persons, path: str) -> Iterator[bool]:
    uri = f"{Path(path).resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as database:
        names = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        for (name,) in names:
            quoted = str(name).replace('"', '""')
            rows = database.execute(f'SELECT * FROM "{quoted}"')  # noqa: S608 - its own table
            while some := rows.fetchmany(_ROWS):
                values: list[Any] = [value for row in some for value in row]
                texts = [str(value) for value in values if isinstance(value, (str, int))]
                yield _are_in(persons, pa.array(texts, pa.string()))


def _are_in(persons: Persons, array: pa.Array) -> bool:
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        return any_of_theirs(persons, array.drop_null().cast(pa.binary()))
    return bool(np.any(persons.numbers.are_in(array)))
