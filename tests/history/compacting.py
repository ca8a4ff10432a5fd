"""Datasets of many small files, what they hold, and compactions of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from analytics.catalog import read_snapshot
from pipeline.catalog import Catalog, Commit
from pipeline.compact import Compacted, compact
from pipeline.options_compact import compact_options
from tests.job.oracle import Row
from transforms import tables
from transforms.moments import to_ms
from transforms.tables import Table, WrittenFile, write_table

NOON: Final = datetime(2026, 11, 1, 4, tzinfo=timezone.utc)
TODAY, YESTERDAY = "2026-11-01", "2026-10-31"
TABLES: Final = (tables.UNREPORTED_SENDS, tables.INBOUND_SMS)


def rows_of(table: Table, names: Sequence[str], moment: datetime = NOON) -> pa.Table:
    """Rows of that day, told apart by their names."""
    schema = table.schema
    rows = [
        dict.fromkeys(schema.names)
        | {
            "event_id": f"event {name}",
            "biz_id": f"biz {name}",
            "phone_number": f"1380000{name}",
            "message_id": f"message {name}",
            "content": "R",
            "dest_code": "1",
            "send_time": moment,
            "requested_at": moment,
            "enqueued_at": moment,
            "tags": [("team", "growth"), ("area", name)],
            "unknown_fields": [("sign", '"x"')],
        }
        for name in names
    ]
    return pa.Table.from_pylist([{key: row[key] for key in schema.names} for row in rows], schema)


class Dataset:
    """A dataset at ``root``, and the moment that its writers find it to be."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = NOON
        self.said: list[str] = []

    def clock(self) -> datetime:
        return self.now

    def open(self) -> Catalog:
        return Catalog(str(self.root), self.clock)

    def fill(self, epochs: int = 4) -> None:
        """Commit some epochs, each with two rows of both tables on both days."""
        with self.open() as catalog:
            for number in range(epochs):
                commit_epoch(catalog, number)

    def compact(self, *flags: str, say: Callable[[str], None] | None = None) -> Compacted:
        options = compact_options([f"--dataset={self.root}", *flags])
        return compact(options, self.clock, say or self.said.append)

    def files(self, table: Table, day: str = TODAY) -> list[Path]:
        with self.open() as catalog:
            return [Path(catalog.absolute(file.path)) for file in catalog.files(table.name, [day])]

    def rows(self) -> dict[str, list[Row]]:
        """Every row of the tables, whatever file holds it, as a reader finds it."""
        files = read_snapshot(self.root).files
        return {
            table.name: sorted(
                (
                    row
                    for file in files[table.name]
                    for row in pq.read_table(file.path, partitioning=None).to_pylist()
                ),
                key=lambda row: str(row["phone_number"]),
            )
            for table in TABLES
        }

    def leftovers(self) -> list[str]:
        """What lies below the directories in which files wait."""
        waiting = (self.root / name for name in ("_staging", "_compact"))
        return [str(path) for each in waiting if each.is_dir() for path in each.iterdir()]


def commit_epoch(catalog: Catalog, number: int, kind: str = "run") -> None:
    """Commit an epoch of two rows of both tables on both days, out of order."""
    names = [f"{97 - number}-{serial}" for serial in range(2)]
    attempt = f"epoch{number}"
    files = [
        file
        for table in TABLES
        for moment in (NOON, NOON - timedelta(days=1))
        for file in write_table(
            table,
            rows_of(table, [f"{name}-{moment.day}" for name in names], moment),
            catalog.staging(attempt),
        )
    ]
    catalog.commit(Commit(kind, to_ms(NOON), {}, files, [], {}, {}), attempt)


def recompute(catalog: Catalog) -> None:
    """Replace every file by one of the same rows, as a backfill does."""
    attempt = "backfill"
    added: list[WrittenFile] = []
    removed = []
    for table in TABLES:
        for file in catalog.files(table.name):
            paths = [catalog.absolute(file.path)]
            staging = catalog.staging(attempt)
            added.append(tables.merge_files(table, file.dt, paths, staging))
            removed.append(file.path)
    catalog.commit(Commit("backfill", to_ms(NOON), {}, added, removed, {}, {}), attempt)
