"""Reduce a competitor's output to a digest that is equal if and only if the rows are.

Rows may be in any order and in any number of files; types may differ where the tool has no other
(text for bytes, naive UTC for UTC). Every column counts: its digest is the sum of the hashes of its
values, and one more sum over whole rows ties the columns of a row together.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final, TypeAlias

import duckdb

Digest: TypeAlias = dict[str, dict[str, int]]

_TIMES: Final = ("send_time", "report_time", "enqueued_at", "requested_at")
_MAPS: Final = ("tags", "unknown_fields")
_NUMBERS: Final = ("revision", "sms_size", "queueing_ms", "carrier_ms", "total_ms")
_REPORT: Final = (
    "event_id", "revision", "match", "origin", "biz_id", "phone_number", "success", "err_code",
    "err_msg", "out_id", "sms_size", "send_time", "report_time", "unknown_fields", "message_id",
    "enqueued_at",
)  # fmt: skip
_SEND: Final = (
    "sign_name", "template_code", "template_param", "sms_up_extend_code", "campaign", "tags",
    "requested_at", "request_id",
)  # fmt: skip

# failed_events: detail, schema and version are the pipeline's own; the competitors have none.
_TABLES: Final = {
    "enriched_reports": (*_REPORT, *_SEND, "queueing_ms", "carrier_ms", "total_ms", "dt"),
    "unreported_sends": ("event_id", "biz_id", "phone_number", "out_id", *_SEND, "dt"),
    "failed_events": ("event_id", "reason", "original", "message_id", "enqueued_at"),
}
_GROUPS: Final = {"enriched_reports": "match", "failed_events": "reason"}


def digest(output: Path) -> Digest:
    """Digest every table in ``output``: rows, rows by match or reason, and a sum a column."""
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        return {table: _digest_table(database, table, _files(output, table)) for table in _TABLES}


def counts(digested: Digest) -> dict[str, int]:
    """Pick the row counts out of a digest, named as the generator names them."""
    named = {table: columns["rows"] for table, columns in digested.items()}
    for table, group in _GROUPS.items():
        prefix = f"{group}="
        for name, rows in digested[table].items():
            if name.startswith(prefix):
                named[name.removeprefix(prefix)] = rows
    return named


def differences(one: Digest, other: Digest) -> list[str]:
    """Name each table and column whose digests differ."""
    return [
        f"{table}.{name}"
        for table in _TABLES
        for name in sorted(one[table].keys() | other[table].keys())
        if one[table].get(name) != other[table].get(name)
    ]


def _files(output: Path, table: str) -> list[str]:
    catalog = output / "catalog.sqlite"
    if not catalog.exists():
        return sorted(str(file) for file in (output / table).glob("**/*.parquet"))
    reader = sqlite3.connect(f"{catalog.as_uri()}?mode=ro", uri=True)
    try:
        paths = reader.execute(
            "SELECT path FROM data_files WHERE table_name = ? AND removed_by IS NULL", (table,)
        ).fetchall()
    finally:
        reader.close()
    return sorted(str(output / path) for (path,) in paths)


def _digest_table(
    database: duckdb.DuckDBPyConnection, table: str, files: list[str]
) -> dict[str, int]:
    if not files:
        return {"rows": 0}
    columns = {name: f"hash({_comparable(name)})" for name in _TABLES[table]}
    sums = [f"sum({expression}::HUGEINT)" for expression in columns.values()]
    whole_row = f"sum(hash({', '.join(columns.values())})::HUGEINT)"
    source = "read_parquet($files, hive_partitioning = true, hive_types = {'dt': DATE})"
    if table == "failed_events":
        source = "read_parquet($files)"
    given = {"files": files}
    everything = f"SELECT count(*), {whole_row}, {', '.join(sums)} FROM {source}"  # noqa: S608
    found = database.execute(everything, given).fetchone()
    assert found is not None
    digested = dict(zip(("rows", "whole rows", *columns), found, strict=True))
    if group := _GROUPS.get(table):
        grouped = f"SELECT {group}, count(*) FROM {source} GROUP BY 1"  # noqa: S608
        for value, rows in database.execute(grouped, given).fetchall():
            digested[f"{group}={value}"] = rows
    return digested


def _comparable(column: str) -> str:
    if column in _TIMES:
        return f"epoch_ms({column})"
    if column in _MAPS:
        return f"list_sort(map_entries({column}))::VARCHAR"
    if column in _NUMBERS:
        return f"{column}::BIGINT"
    if column == "original":
        return "original::BLOB"
    return column
