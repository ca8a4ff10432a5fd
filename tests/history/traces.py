"""Is anything of a person left below a directory? Found a second time, by other means than the project's.

Every file is taken apart into layers: its bytes, whatever is zstandard in them, what is base64 in those, the
same without NULs and with JSON's escapes undone; and its values, if pyarrow, fastavro or sqlite3 can read it.
In each of them a number is a whole run of digits, or one of some other spellings.
"""

import base64
import io
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import fastavro
import pyarrow.parquet as pq
from backports import zstd

_FRAME = b"\x28\xb5\x2f\xfd"


def traces(root: Path, number: str, *marks: str) -> list[str]:
    """Name every file in which a mainland number is, or one of some marks."""
    spelled = [f"{number[:3]}{between}{number[3:7]}{between}{number[7:]}" for between in (" ", "-")]
    spelled.append("".join(chr(ord("０") + int(digit)) for digit in number))
    runs = {number, *(f"{prefix}{number}" for prefix in ("0", "86", "0086"))}
    found = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        for layer in _layers(path):
            text = layer.decode("utf-8", "replace")
            if runs.intersection(re.findall(r"[0-9]+", text)) or any(
                mark in text for mark in (*spelled, *marks)
            ):
                found.append(f"{path.relative_to(root)}: {text[:80]!r}")
                break
    return found


def _layers(path: Path) -> Iterator[bytes]:
    yield str(path).encode()
    content = path.read_bytes()
    for unpacked in (content, *_frames(content), *_values(path)):
        for opened in (unpacked, *_below_base64(unpacked)):
            yield opened
            yield opened.replace(b"\0", b"")
            yield re.sub(rb"\\+u([0-9a-fA-F]{4})", _character, opened)


def _character(escape: re.Match[bytes]) -> bytes:
    return chr(int(escape[1], 16)).encode("utf-8", "replace")


def _frames(content: bytes) -> Iterator[bytes]:
    """What was compressed: blocks of Avro, and pages of Parquet, those of dictionaries among them."""
    for found in re.finditer(re.escape(_FRAME), content):
        try:
            yield zstd.ZstdDecompressor().decompress(content[found.start() :])
        except zstd.ZstdError:
            continue


def _below_base64(content: bytes) -> Iterator[bytes]:
    for found in re.finditer(rb"[A-Za-z0-9+/]{16,}={0,2}", content):
        for start in range(4):
            letters = found.group().rstrip(b"=")[start:]
            letters = letters[: len(letters) - (len(letters) % 4 == 1)]
            yield base64.b64decode(letters + b"=" * (-len(letters) % 4))


def _values(path: Path) -> Iterator[bytes]:
    if path.read_bytes()[:4] == b"PAR1":
        for row in pq.read_table(path, partitioning=None).to_pylist():
            yield from (
                value if isinstance(value, bytes) else repr(value).encode()
                for value in row.values()
            )
    elif path.suffix == ".avro":
        for message in fastavro.reader(io.BytesIO(path.read_bytes())):
            assert isinstance(message, dict)
            body = message.pop("body")
            yield repr(message).encode()
            yield bytes(body)
    elif path.suffix == ".sqlite":
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            for (table,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'"):
                for row in database.execute(f"SELECT * FROM {table}"):  # noqa: S608
                    yield repr(row).encode()
