"""A DuckDB connection in which the dataset's tables, and the views that questions are asked of, exist."""

import os
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import duckdb

from analytics.catalog import DataFile, DatasetError, Snapshot, read_tables
from analytics.questions import SETUP, read_sql
from schemas.contracts import Contract, contract
from schemas.row_keys import ROW_KEYS

# The dataset's tables and the contract of their rows.
TABLES: Final[Mapping[str, str]] = {
    "enriched_reports": "enriched_report",
    "inbound_sms": "inbound_sms",
    "unreported_sends": "unreported_send",
    "failed_events": "failed_event",
    "failed_sends": "failed_event",
    "open_sends": "send_log_entry",
    "waiting_reports": "delivery_report",
    "query_answers": "query_answer",
}

# Rows of one SMS may stand on neighbouring days (the request and the send, a report and its correction).
# Files this far outside of the days asked about are read too, so that corrections are never missed.
_MARGIN: Final = timedelta(days=3)
# A send log entry that fails again does so on another day, any time later.
_UNBOUNDED: Final = frozenset(("failed_sends",))

# Few rows stand in the files of a stream more than once: only those are compared with each other.
_ONCE: Final = """
CREATE TEMP TABLE repeated_{table} AS
SELECT {name} FROM every_{table} GROUP BY {name} HAVING count(*) > 1;
CREATE VIEW {table} AS
SELECT * FROM every_{table} ANTI JOIN repeated_{table} USING ({name})
UNION ALL
SELECT DISTINCT ON ({key}) * FROM every_{table} SEMI JOIN repeated_{table} USING ({name})
"""


def connect(
    dataset: str | os.PathLike[str],
    *,
    first_day: date | None = None,
    last_day: date | None = None,
    sql_dir: str | os.PathLike[str] | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open the dataset as of its last committed epoch; nothing is ever written to it.

    Args:
        dataset: the directory that ``sms-receipts run`` writes, or the Parquet files of ``sms-receipts
            stream``. The latter have no open sends and no waiting reports: the engine's state has them.
        first_day: the first Beijing day that the views show; None for no limit.
        last_day: the last one; None for no limit.
        sql_dir: a directory whose SQL files take the place of those of the same name in ``analytics/sql``.

    Returns:
        An in-memory connection with one relation per table of the dataset (a table without files is
        empty, not missing), the views of ``analytics/sql/views.sql``, and the variables ``first_day``,
        ``last_day`` and ``as_of``. Later epochs do not show: connect again.

    Raises:
        DatasetError: there is no dataset, nothing was committed to it yet, or a file of it is damaged.
        duckdb.Error: a file of ``sql_dir`` is not valid SQL, or a commit just moved a file: try again.
    """
    return open_snapshot(
        read_tables(Path(dataset)),
        first_day,
        last_day,
        None if sql_dir is None else Path(sql_dir),
    )


def open_snapshot(
    snapshot: Snapshot, first_day: date | None, last_day: date | None, sql_dir: Path | None
) -> duckdb.DuckDBPyConnection:
    """As :func:`connect`, of a snapshot that was read before."""
    connection = open_tables(snapshot, first_day, last_day)
    try:
        for name in SETUP:
            connection.execute(read_sql(name, sql_dir))
    except BaseException:
        connection.close()
        raise
    return connection


def open_tables(
    snapshot: Snapshot, first_day: date | None, last_day: date | None
) -> duckdb.DuckDBPyConnection:
    """As :func:`open_snapshot`, but without the views, which look at every report of the days."""
    connection = duckdb.connect()
    try:
        connection.execute("SET TimeZone = 'UTC'")
        for table, contract_name in TABLES.items():
            files = snapshot.files.get(table, ())
            if table not in _UNBOUNDED:
                files = _near(files, first_day, last_day)
            key = ROW_KEYS.get(table, ()) if snapshot.epoch is None else ()
            _create_table(connection, table, contract_name, files, key)
        connection.execute("SET VARIABLE first_day = CAST(? AS DATE)", [first_day])
        connection.execute("SET VARIABLE last_day = CAST(? AS DATE)", [last_day])
        connection.execute("SET VARIABLE as_of = CAST(? AS TIMESTAMPTZ)", [snapshot.as_of])
    except BaseException:
        connection.close()
        raise
    return connection


def _create_table(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    contract_name: str,
    files: Sequence[DataFile],
    key: Sequence[str],
) -> None:
    """Let a table exist; with a ``key``, of the rows that share one only the first is in it."""
    columns = connection.from_arrow(contract(contract_name).arrow.empty_table())
    if not files:
        columns.create(table)
        return
    paths = [str(file.path) for file in files]
    try:
        rows = connection.read_parquet(paths, union_by_name=True, hive_partitioning=False)
        complete = _complete(rows, columns, contract(contract_name))
        if key:
            # The views of a connection are made of relations, which know no DISTINCT.
            complete.create_view(f"every_{table}")
            connection.execute(_ONCE.format(table=table, name=key[0], key=", ".join(key)))
            return
        complete.create_view(table)
    except duckdb.IOException:
        raise  # a commit may have moved or removed a file: a newer snapshot knows
    except duckdb.Error as error:
        raise DatasetError(
            f"A file of the table {table} is no Parquet file any more ({type(error).__name__}): "
            "restore it, or recompute its day with `sms-receipts backfill`."
        ) from error


def _complete(
    rows: duckdb.DuckDBPyRelation, columns: duckdb.DuckDBPyRelation, version: Contract
) -> duckdb.DuckDBPyRelation:
    """Give the present columns to rows of earlier versions: as ``Contract.complete`` does, with defaults."""
    complete = []
    for name, kind in zip(columns.columns, columns.types, strict=True):
        column, value = duckdb.ColumnExpression(name), version.default(name)
        default = duckdb.ConstantExpression({} if value == [] else value).cast(kind)
        if name not in rows.columns:
            column = default.alias(name)
        elif value is not None:
            column = duckdb.CoalesceOperator(column, default).alias(name)
        complete.append(column)
    return rows.select(*complete)


def _near(
    files: Sequence[DataFile], first_day: date | None, last_day: date | None
) -> Sequence[DataFile]:
    """Leave out the files that are too far from the days asked about to matter."""
    first = (first_day - _MARGIN).isoformat() if first_day else ""
    last = (last_day + _MARGIN).isoformat() if last_day else "9999-12-31"
    return [file for file in files if file.day is None or first <= file.day <= last]
