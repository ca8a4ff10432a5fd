"""A small dataset by hand: Parquet files, and the catalog that says which of them count."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime, timezone
from hashlib import md5
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analytics.connection import TABLES
from schemas.contracts import contract

DAY_1, DAY_2 = "2026-11-01", "2026-11-02"
# Noon in Beijing on each day.
NOON = {
    DAY_1: datetime(2026, 11, 1, 4, tzinfo=timezone.utc),
    DAY_2: datetime(2026, 11, 2, 4, tzinfo=timezone.utc),
}
AS_OF = datetime(2026, 11, 3, 4, tzinfo=timezone.utc)

# The catalog as the job writes it.
_LAYOUT = (
    "PRAGMA journal_mode = WAL",
    """CREATE TABLE epochs (epoch INTEGER PRIMARY KEY, kind TEXT NOT NULL, as_of_ms INTEGER NOT NULL,
    committed_at_ms INTEGER NOT NULL, counts TEXT NOT NULL)""",
    """CREATE TABLE data_files (path TEXT PRIMARY KEY, table_name TEXT NOT NULL, dt TEXT NOT NULL,
    rows INTEGER NOT NULL, bytes INTEGER NOT NULL, added_by INTEGER NOT NULL, removed_by INTEGER)""",
)


class Dataset:
    """Writes files and commits them, as the job does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files = 0
        directory.mkdir()
        for statement in _LAYOUT:
            self._execute(statement)

    def commit(self, as_of: datetime = AS_OF) -> None:
        as_of_ms = int(as_of.timestamp() * 1000)
        self._execute(
            "INSERT INTO epochs (kind, as_of_ms, committed_at_ms, counts) VALUES ('run', ?, ?, '{}')",
            (as_of_ms, as_of_ms),
        )

    def add(
        self,
        table: str,
        day: str,
        rows: Sequence[Mapping[str, Any]],
        *,
        below: str = "",
        removed_by: int | None = None,
    ) -> Path:
        """Add a file; ``below`` is where it stands while it is on its way."""
        self._files += 1
        path = Path(table, f"dt={day}", f"{self._files}.parquet")
        target = self.directory / below / path
        target.parent.mkdir(parents=True, exist_ok=True)
        schema = contract(TABLES[table]).arrow
        blank = {field.name: None for field in schema}
        filled = [{**blank, **row} for row in rows]
        pq.write_table(pa.Table.from_pylist(filled, schema=schema), target)
        self._execute(
            "INSERT INTO data_files VALUES (?, ?, ?, ?, 1, 1, ?)",
            (str(path), table, day, len(rows), removed_by),
        )
        return target

    def _execute(self, statement: str, values: Sequence[object] = ()) -> None:
        with closing(sqlite3.connect(self.directory / "catalog.sqlite")) as connection, connection:
            connection.execute(statement, values)


def event_id(biz_id: str, phone_number: str) -> str:
    return md5(f"{biz_id}|{phone_number}".encode()).hexdigest()


def send(biz_id: str, day: str = DAY_1, **more: object) -> dict[str, Any]:
    return {
        "biz_id": biz_id,
        "phone_number": "13800000000",
        "sign_name": "Example",
        "template_code": "SMS_1",
        "campaign": "spring",
        "tags": {},
        "requested_at": NOON[day],
        **more,
    }


def unreported(biz_id: str, day: str = DAY_1, **more: object) -> dict[str, Any]:
    return {**send(biz_id, day, **more), "event_id": event_id(biz_id, "13800000000")}


def report(biz_id: str, day: str = DAY_1, **more: object) -> dict[str, Any]:
    return {
        **send(biz_id, day),
        "event_id": event_id(biz_id, "13800000000"),
        "revision": 1,
        "match": "matched",
        "origin": "mns",
        "success": True,
        "err_code": "DELIVERED",
        "send_time": NOON[day],
        "unknown_fields": {},
        "message_id": f"message-{biz_id}",
        "enqueued_at": NOON[day],
        "queueing_ms": 500,
        "carrier_ms": 2000,
        "total_ms": 2500,
        **more,
    }


def orphan(biz_id: str, day: str = DAY_1, **more: object) -> dict[str, Any]:
    nothing = dict.fromkeys(
        ("sign_name", "template_code", "campaign", "requested_at", "queueing_ms", "total_ms")
    )
    return {**report(biz_id, day), **nothing, "match": "orphan", **more}


def failed(message_id: str, **more: object) -> dict[str, Any]:
    return {
        "event_id": event_id("failed", message_id),
        "stage": "decode",
        "reason": "malformed_json",
        "detail": "not JSON",
        "schema_name": "delivery_report",
        "schema_fingerprint": "0",
        "original": b"13800000000",
        "message_id": message_id,
        "enqueued_at": NOON[DAY_1],
        "failed_at": AS_OF,
        "attempt": 1,
        "pipeline_version": "0",
        **more,
    }


def inbound(message_id: str, day: str = DAY_1, **more: object) -> dict[str, Any]:
    return {
        "phone_number": "13800000000",
        "send_time": NOON[day],
        "content": "secret text",
        "dest_code": "10690000",
        "unknown_fields": {},
        "message_id": message_id,
        "enqueued_at": NOON[day],
        **more,
    }


def waiting(biz_id: str, day: str = DAY_1) -> dict[str, Any]:
    return {
        "biz_id": biz_id,
        "success": True,
        "send_time": NOON[day],
        "unknown_fields": {},
        "message_id": f"message-{biz_id}",
        "enqueued_at": NOON[day],
        "origin": "mns",
    }
