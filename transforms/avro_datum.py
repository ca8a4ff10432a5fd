"""One Avro datum from bytes, by the letter.

fastavro reads what no writer writes: a negative branch of a union, numbers of any length, bytes after the
end. In a file that has checksums and counts this does not matter; of a message it would make a record that
nobody has sent.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

# From the bytes and a position in them to a value and the position behind it.
_Read: TypeAlias = Callable[[bytes, int], tuple[Any, int]]

_LAST_SHIFT: Final = 63  # a long has ten groups of seven bits at most
_LONG_BITS: Final = 64


class DatumError(ValueError):
    """Raised when bytes are no datum of a schema; says nothing of what they hold."""


class DatumReader:
    """Reads records of one schema, whose fields are texts, whole numbers and maps of texts, or null."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Compile a record's schema; times are read as the numbers that they are.

        Raises:
            TypeError: it has a field of another type.
        """
        self._fields: Final[Sequence[_Read]] = [_reader(each["type"]) for each in schema["fields"]]

    def read(self, data: bytes, start: int) -> list[Any]:
        """Read the record that fills ``data`` from ``start`` on; its values in the schema's order.

        Raises:
            DatumError: there is none, or something follows it.
        """
        values = []
        at = start
        try:
            for read in self._fields:
                value, at = read(data, at)
                values.append(value)
        except (IndexError, UnicodeDecodeError):
            raise DatumError from None
        if at != len(data):
            raise DatumError
        return values


def _reader(avro: Any) -> _Read:  # noqa: ANN401 (JSON)
    match avro:
        case "string":
            return _read_text
        case "long" | {"type": "long"}:
            return _read_long
        case {"type": "map", "values": "string"}:
            return _read_map
        case ["null", branch]:
            return _optional(_reader(branch))
    raise TypeError("a send log entry has texts, whole numbers and maps of texts")


def _read_long(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    at += 1
    number = byte & 0x7F
    shift = 7
    while byte & 0x80:
        if shift > _LAST_SHIFT:
            raise DatumError
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
    if number >> _LONG_BITS:
        raise DatumError
    return (number >> 1) ^ -(number & 1), at


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    size, at = _read_long(data, at)
    end = at + size
    if size < 0 or end > len(data):
        raise DatumError
    return data[at:end].decode(), end


def _read_map(data: bytes, at: int) -> tuple[dict[str, str], int]:
    """Read blocks of pairs up to an empty one; of a name that comes twice the last one counts."""
    pairs: dict[str, str] = {}
    while True:
        count, at = _read_long(data, at)
        if not count:
            return pairs, at
        end = None
        if count < 0:  # the writer tells the block's size, for who wants to skip it
            count = -count
            size, at = _read_long(data, at)
            end = at + size
        for _ in range(count):
            name, at = _read_text(data, at)
            pairs[name], at = _read_text(data, at)
        if end is not None and end != at:
            raise DatumError


def _optional(read: _Read) -> _Read:
    def read_branch(data: bytes, at: int) -> tuple[Any, int]:
        branch, at = _read_long(data, at)
        if branch == 0:
            return None, at
        if branch == 1:
            return read(data, at)
        raise DatumError

    return read_branch
