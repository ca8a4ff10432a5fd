"""Plain Python: a loop, a dict of reports, a dict of sends, Parquet at the end. No framework."""

from __future__ import annotations

import gc
import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.competitors import rows
from benchmarks.generate import Inputs

_ROWS_A_WRITE: Final = 50_000


def run_with_validate(inputs: Inputs, output: Path) -> None:
    """Do the job with json, strptime and ``fastavro.validate`` as documented."""
    _run(inputs, output, rows.WITH_VALIDATE)


def run_with_quiet_validate(inputs: Inputs, output: Path) -> None:
    """Do the job with ``fastavro.validate(raise_errors=False)``."""
    _run(inputs, output, rows.WITH_QUIET_VALIDATE)


def run_with_msgspec(inputs: Inputs, output: Path) -> None:
    """Do the job with a typed msgspec decoder, and without the garbage collector."""
    gc.disable()  # it would walk millions of dicts again and again, and find nothing
    _run(inputs, output, rows.decode_with_msgspec)


def _run(inputs: Inputs, output: Path, decode: rows.Decode) -> None:
    reports: dict[tuple[str, str], rows.Record] = {}
    with _Table(output / "failed_events", rows.FAILED) as failed_events:
        for message in _read(inputs.archive_files):
            try:
                report = decode(message)
            except rows.BadMessageError as error:
                failed_events.add(rows.failed(message, str(error)))
                continue
            key = rows.key(report)
            earlier = reports.get(key)
            reports[key] = report if earlier is None else rows.first((earlier, report))

    sends = {rows.key(entry): rows.from_send_log(entry) for entry in _read(inputs.send_log_avro)}
    enriched_reports = _DatedTable(output / "enriched_reports", rows.ENRICHED)
    for key, report in reports.items():
        enriched = rows.enrich(report, sends.pop(key, None))
        enriched_reports.add(rows.beijing_day(report["send_time"]), enriched)
    enriched_reports.close()
    unreported_sends = _DatedTable(output / "unreported_sends", rows.UNREPORTED)
    for send in sends.values():
        unreported_sends.add(rows.beijing_day(send["requested_at"]), rows.unreported(send))
    unreported_sends.close()


def _read(pattern: str) -> Iterator[Any]:
    for path in sorted(glob.glob(pattern)):
        with open(path, "rb") as file:
            yield from fastavro.reader(file)


class _Table:
    """One Parquet file, written some ten thousand rows at a time."""

    def __init__(self, directory: Path, schema: pa.Schema) -> None:
        directory.mkdir(parents=True)
        self._schema = schema
        self._writer = pq.ParquetWriter(directory / "0.parquet", schema, compression="zstd")
        self._rows: list[rows.Record] = []

    def add(self, row: rows.Record) -> None:
        self._rows.append(row)
        if len(self._rows) == _ROWS_A_WRITE:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows.clear()

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._flush()
        self._writer.close()


class _DatedTable:
    """One directory of Parquet a day."""

    def __init__(self, directory: Path, schema: pa.Schema) -> None:
        self._directory = directory
        self._schema = schema
        self._days: dict[str, _Table] = {}

    def add(self, day: str, row: rows.Record) -> None:
        table = self._days.get(day)
        if table is None:
            table = self._days[day] = _Table(self._directory / f"dt={day}", self._schema)
        table.add(row)

    def close(self) -> None:
        for table in self._days.values():
            table.close()
