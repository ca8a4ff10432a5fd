"""Avro and Parquet files as a send log might hold them, whole or not, and what must hold of their readers.

A file is read whole, each record an entry or a failed event, or it is refused with a sentence; neither the
sentence nor what caused it repeats anything that the file holds, its column names included.
"""

import io
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from random import Random
from traceback import format_exception
from typing import Any, Final, NamedTuple

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.contracts import contract
from tests.decode.samples import FAILED_AT
from tests.fuzz.inputs import PHONE, SECRETS, BytesRandom, cut, flip, splice
from tests.fuzz.properties import discreet_logs, require_discretion
from transforms.send_log import SendLogSlice, read_send_log, require_send_log_file
from transforms.send_log_checks import SCHEMA, SendLogFileError

_CONTRACT: Final = contract("send_log_entry")
_UTC: Final = timezone.utc
_REQUESTED_AT: Final = datetime(2026, 11, 1, 0, 0, 0, 123_000, tzinfo=_UTC)
_ENTRY: Final[dict[str, Any]] = {
    "biz_id": "900619746936498440^0",
    "phone_number": PHONE,
    "out_id": SECRETS[3],
    "sign_name": SECRETS[2],
    "template_code": "SMS_1",
    "template_param": None,
    "sms_up_extend_code": None,
    "campaign": "spring",
    "tags": {"team": "growth", "variant": ""},
    "requested_at": _REQUESTED_AT,
    "request_id": None,
}
# What is odd in a column of the right type fails its row alone.
_ODD_VALUES: Final[dict[str, list[Any]]] = {
    "requested_at": [
        None,
        _REQUESTED_AT.replace(year=1969),
        datetime(9999, 12, 31, 23, tzinfo=_UTC),
    ],
    "tags": [None, {}, {"a": "\x00"}, {PHONE: SECRETS[4]}],
}
_ODD_TEXTS: Final = [None, "", "a\x00b", "中文😀", SECRETS[1]]
# A column of another type fails the file; a struct's type spells its fields' names.
_ODD_COLUMNS: Final[list[pa.Array]] = [
    pa.array([1]), pa.array([True]), pa.array([PHONE]), pa.array([None]), pa.array([b"\xff"]),
    pa.array([{PHONE: 1}]), pa.array([[SECRETS[1]]]), pa.array([_REQUESTED_AT.replace(tzinfo=None)]),
    pa.array([PHONE]).dictionary_encode(), pa.array([1.5]),
]  # fmt: skip


class LogFile(NamedTuple):
    """One file: its suffix, its bytes, and how many records it holds; None when it is damaged."""

    suffix: str
    content: bytes
    records: int | None


def draw_file(random: Random) -> LogFile:
    """Draw a file: right, odd here and there, or damaged."""
    rows = [dict(_ENTRY, biz_id=f"{number}^0") for number in range(random.choice((0, 1, 5, 60)))]
    if rows and random.randrange(2):
        for _ in range(random.choice((1, 3))):
            row, name = random.choice(rows), random.choice(SCHEMA.names)
            row[name] = random.choice(_ODD_VALUES.get(name, _ODD_TEXTS))
    suffix = random.choice((".avro", ".parquet"))
    content = (_as_avro if suffix == ".avro" else _as_parquet)(random, rows)
    if random.randrange(2):
        return LogFile(suffix, content, len(rows))
    for _ in range(random.choice((1, 1, 2))):
        content = random.choice((flip, flip, flip, splice, cut))(random, content)
    return LogFile(suffix, content, None)


def file_from_bytes(data: bytes) -> LogFile:
    """Read a fuzzer's bytes as a file: as it is, or as the choices that draw one."""
    choice, data = data[:1], data[1:]
    if choice > b"\x7f":
        return draw_file(BytesRandom(data))
    return LogFile(".avro" if choice > b"\x3f" else ".parquet", data, None)


def check_files(files: Sequence[LogFile]) -> Counter[str]:
    """Read files, hold what comes out to everything, and count it."""
    counts: Counter[str] = Counter(files=len(files))
    with discreet_logs(), tempfile.TemporaryDirectory() as directory:
        for number, file in enumerate(files):
            path = Path(directory, f"{number}{file.suffix}")
            path.write_bytes(file.content)
            try:
                require_send_log_file(str(path))
                read = _read(path)
                assert file.records in {None, read["send_log_records"]}, "not all was read"
                counts.update(read)
            except SendLogFileError as error:
                require_discretion(format_exception(error))
                counts["refused files"] += 1
    return counts


def _read(path: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    events: list[str] = []
    for decoded in read_send_log(SendLogSlice(str(path), 0, path.stat().st_size), FAILED_AT):
        _CONTRACT.require_batch(decoded.entries)
        decoded.entries.validate(full=True)
        for entry in decoded.entries.to_pylist(maps_as_pydicts="lossy"):
            fastavro.schemaless_writer(io.BytesIO(), _CONTRACT.schema, entry, strict=True)
        contract("failed_event").require_batch(decoded.failed)
        require_discretion(decoded.failed.column("detail").to_pylist())
        events += decoded.failed.column("message_id").to_pylist()
        assert decoded.counts["sends"] == len(decoded.entries)
        assert decoded.counts["failed_sends"] == len(decoded.failed)
        counts.update(decoded.counts)
    assert counts["send_log_records"] == counts["sends"] + counts["failed_sends"]
    assert len(events) == len(set(events)), "two failed events of one record"
    return counts


def _as_avro(random: Random, rows: list[dict[str, Any]]) -> bytes:
    fields = [dict(field) for field in _CONTRACT.schema["fields"]]
    for field in fields:  # nulls are for the reader to refuse
        kind = field["type"]
        field["type"] = kind if isinstance(kind, list) else ["null", kind]
        field.pop("default", None)
    if not random.randrange(4):
        changed = random.choice(fields)
        changed["name"] = random.choice((changed["name"], f"x{PHONE}"))
        changed["type"] = random.choice(("string", "long", ["null", "bytes"], ["null", "double"]))
        value = {"string": PHONE, "long": int(PHONE)}.get(str(changed["type"]))
        rows = [row | {changed["name"]: value} for row in rows]
    schema = {"type": "record", "name": "Send", "fields": fields}
    written = io.BytesIO()
    codec = random.choice(("null", "deflate", "zstandard"))
    fastavro.writer(written, schema, rows, codec=codec, sync_interval=random.choice((200, 16_000)))
    return written.getvalue()


def _as_parquet(random: Random, rows: list[dict[str, Any]]) -> bytes:
    table = pa.Table.from_pylist(rows, pa.schema([f.with_nullable(True) for f in SCHEMA]))
    if not random.randrange(4):
        name = random.choice((random.choice(SCHEMA.names), PHONE, SECRETS[4]))
        odd = random.choice(_ODD_COLUMNS)
        column = pa.concat_arrays([odd] * len(rows)) if rows else odd[:0]
        if name in table.column_names and random.randrange(8):
            table = table.drop_columns([name])
        table = table.append_column(name, column)
    if not random.randrange(8):
        table = table.remove_column(random.randrange(table.num_columns))
    written = io.BytesIO()
    pq.write_table(
        table,
        written,
        compression=random.choice(("none", "snappy", "zstd")),
        row_group_size=random.choice((3, 100)),
        data_page_version=random.choice(("1.0", "2.0")),
        use_dictionary=bool(random.randrange(2)),
    )
    return written.getvalue()
