"""A number is found in whatever file it is; what cannot be opened is said to be so."""

import gzip
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.records import MnsMessage
from tests.decode.samples import MAINLAND, body_of
from transforms.archive import write_archive_file
from transforms.erase import Persons
from transforms.phone_numbers import Numbers
from transforms.traces import Looked, look_into

PERSON, LONGER = "13812345678", "138123456789"
PERSONS = Persons(Numbers([PERSON]))
NOW = datetime(2026, 11, 1, 4, tzinfo=timezone.utc)


def look(path: Path) -> Looked:
    return look_into(PERSONS, str(path), path.name)


def parquet(path: Path, column: pa.Array, **how: Any) -> None:
    pq.write_table(pa.table({"column": column}), path, compression="zstd", **how)


def avro(path: Path, value: object, codec: str) -> None:
    fields = [
        {"name": "value", "type": ["string", "bytes", "long", {"type": "map", "values": "string"}]}
    ]
    with path.open("wb") as file:
        records = [{"value": "x" * 50}] * 50 + [{"value": value}]
        fastavro.writer(file, {"type": "record", "name": "r", "fields": fields}, records, codec)


def archive(path: Path, body: bytes) -> Path:
    messages = [MnsMessage("m", "q-SmsReport", "SmsReport", NOW, 1, body)]
    return Path(write_archive_file(str(path), messages, NOW))


def database(path: Path, text: str, *, is_deleted: bool = False) -> None:
    with closing(sqlite3.connect(path)) as opened, opened:
        opened.execute("PRAGMA secure_delete = OFF")
        opened.execute("CREATE TABLE t (number INTEGER, text TEXT)")
        opened.execute("INSERT INTO t VALUES (1, ?)", (f"a {text} b",))
        opened.commit()
        if is_deleted:
            opened.execute("DELETE FROM t")


def pages(text: str) -> pa.Array:
    """A column in whose dictionary a text is, though no row has it."""
    return pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int32()), pa.array(["x", text]))


# How a text comes into a file.
KINDS: dict[str, Callable[[Path, str], object]] = {
    "text": lambda path, text: path.write_text(f"a {text}\nb"),
    "UTF-16": lambda path, text: path.write_text(f"a {text}\nb", "utf-16"),
    "JSON": lambda path, text: path.write_text(json.dumps({"content": f"三{text}"})),
    "at the edge of what is read at once": lambda path, text: path.write_bytes(
        b"x" * ((1 << 20) - 5) + text.encode() + b"x" * (1 << 20)
    ),
    "at the edge of the longest line": lambda path, text: path.write_bytes(
        b"x" * ((1 << 20) + (1 << 16) - 5) + text.encode() + b"x" * (1 << 20)
    ),
    "Parquet": lambda path, text: parquet(path, pa.array(["x", f"a {text}"])),
    "Parquet, bytes": lambda path, text: parquet(path, pa.array([b"x", body_of({"n": text})])),
    "Parquet, whole numbers": lambda path, text: parquet(path, pa.array([1, int(text)])),
    "Parquet, maps": lambda path, text: parquet(
        path, pa.array([[("a", "1")], [(text, "1")]], pa.map_(pa.string(), pa.string()))
    ),
    "Parquet, lists of structs": lambda path, text: parquet(path, pa.array([[{"a": "1"}, {"a": text}]])),
    "Parquet, a dictionary's page": lambda path, text: parquet(path, pages(text)),
    "Parquet, metadata": lambda path, text: pq.write_table(
        pa.table({"c": [1]}).replace_schema_metadata({"who": f"a {text}"}), path
    ),
    "Avro": lambda path, text: avro(path, f"a {text}", "deflate"),
    "Avro, bytes": lambda path, text: avro(path, body_of({"n": text}), "zstandard"),
    "Avro, whole numbers": lambda path, text: avro(path, int(text), "deflate"),
    "Avro, maps": lambda path, text: avro(path, {"a": text}, "deflate"),
    "SQLite": database,
    "SQLite, a free page": lambda path, text: database(path, text, is_deleted=True),
}  # fmt: skip


@pytest.mark.parametrize("write", KINDS.values(), ids=KINDS)
def test_a_number_is_found_in_every_kind_of_file(
    write: Callable[[Path, str], object], tmp_path: Path
) -> None:
    write(tmp_path / "with", PERSON)
    write(tmp_path / "without", LONGER)

    found = {path.name: look(path) for path in tmp_path.iterdir()}
    assert found == {
        "with": ((tmp_path / "with").stat().st_size, True, None),
        "without": ((tmp_path / "without").stat().st_size, False, None),
    }


@pytest.mark.parametrize(("number", "is_theirs"), [(PERSON, True), (LONGER, False)])
def test_a_number_is_found_in_the_archive(number: str, is_theirs: bool, tmp_path: Path) -> None:
    path = archive(tmp_path, body_of({**MAINLAND, "phone_number": number}))

    assert look(path).has_trace == is_theirs
    assert look(path).obstacle is None


def test_a_name_is_a_trace_too(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.touch()

    assert look_into(PERSONS, str(path), f"to/{PERSON}.txt").has_trace


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def test_what_cannot_be_opened_is_said_to_be_so(tmp_path: Path) -> None:
    avro(tmp_path / "avro", "x", "deflate")
    parquet(tmp_path / "parquet", pa.array(["x"]))
    database(tmp_path / "sqlite", "x")
    archived = archive(tmp_path, body_of(MAINLAND))
    for path in (tmp_path / "avro", tmp_path / "parquet", archived):
        _cut(path)
    (tmp_path / "sqlite").write_bytes((tmp_path / "sqlite").read_bytes()[:200])
    shutil.copy(tmp_path / "parquet", tmp_path / "x.parquet")
    with (tmp_path / "x.parquet").open("r+b") as file:
        file.write(b"PAR0")
    (tmp_path / "gzip").write_bytes(gzip.compress(PERSON.encode()))

    obstacles = {path.name: look(path).obstacle for path in tmp_path.iterdir() if path.is_file()}
    obstacles["archived"] = look(archived).obstacle

    assert obstacles == {
        "avro": "it is damaged (DamagedAvroError)",
        "parquet": "it is damaged (ArrowInvalid)",
        "sqlite": "it is damaged (DatabaseError)",
        "x.parquet": "it is of no kind that can be opened",
        "gzip": "it is compressed, and none of ours",
        "archived": "1 of its 1 messages cannot be read",
    }
