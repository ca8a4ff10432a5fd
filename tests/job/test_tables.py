"""Rows to Parquet: one file per Beijing day, with the contract's columns."""

from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.contracts import contract
from transforms import keys, tables
from transforms.moments import day_name, day_number
from transforms.tables import (
    TableFileError,
    Written,
    WrittenFile,
    distinct_days,
    read_metadata,
    read_rows,
    read_rows_of_keys,
    write_table,
)

# The last moment of 1 November in Beijing, and the first of the 2nd.
LAST_MOMENT = datetime(2026, 11, 1, 15, 59, 59, 999_000, tzinfo=timezone.utc)
MIDNIGHT = datetime(2026, 11, 1, 16, tzinfo=timezone.utc)


def sends(*requested_at: datetime) -> pa.Table:
    schema = contract("send_log_entry").arrow
    rows: list[dict[str, Any]] = [
        dict.fromkeys(schema.names)
        | {"biz_id": str(number), "phone_number": "1", "tags": [("a", "b")], "requested_at": moment}
        for number, moment in enumerate(requested_at)
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def read_all_keys(path: str) -> list[pa.Table]:
    hashes = keys.distinct_hashes([pa.array(["0"])])
    return list(read_rows_of_keys(tables.OPEN_SENDS, path, ["requested_at"], "biz_id", hashes))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (file,) = write_table(tables.OPEN_SENDS, sends(MIDNIGHT), str(tmp_path))
    path = tmp_path / file.path
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole[:4] + bytes(len(whole) - 12) + whole[-8:]):
        path.write_bytes(damaged)
        for read in (partial(read_rows, tables.OPEN_SENDS), read_metadata, read_all_keys):
            with pytest.raises(
                TableFileError, match=f"^The file {path} of the dataset is damaged "
            ):
                read(str(path))


def test_only_the_rows_of_the_keys_are_read_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 2)
    rows = sends(*(MIDNIGHT + timedelta(hours=hour) for hour in range(7)))
    parts = [
        next(write_table(tables.OPEN_SENDS, rows.slice(i, 1), str(tmp_path))) for i in range(7)
    ]
    paths = [str(tmp_path / part.path) for part in parts]
    merged = tables.merge_files(tables.OPEN_SENDS, "2026-11-02", paths, str(tmp_path))
    path = str(tmp_path / merged.path)
    assert read_metadata(path).num_row_groups == 4

    hashes = keys.distinct_hashes([pa.array(["6", "unknown"]), pa.array(["2", "3"])])
    found = list(
        read_rows_of_keys(tables.OPEN_SENDS, path, ["requested_at", "biz_id"], "biz_id", hashes)
    )

    assert [part.column("biz_id").to_pylist() for part in found] == [["2", "3"], ["6"]]
    assert found[1].column_names == ["requested_at", "biz_id"]
    assert (
        list(
            read_rows_of_keys(
                tables.OPEN_SENDS, path, ["biz_id"], "biz_id", keys.distinct_hashes([])
            )
        )
        == []
    )


def test_only_parquet_files_count_as_written(tmp_path: Path) -> None:
    (file,) = write_table(tables.OPEN_SENDS, sends(MIDNIGHT), str(tmp_path))
    (tmp_path / file.path).with_name(".nfs0000000000000001").write_bytes(b"deleted under a reader")
    written = Written(str(tmp_path), frozenset())
    assert written.files("open_sends", day_number(file.dt)) == [str(tmp_path / file.path)]


def test_rows_are_parted_at_midnight_in_beijing(tmp_path: Path) -> None:
    rows = sends(LAST_MOMENT, MIDNIGHT, MIDNIGHT + timedelta(hours=1))

    first, second = write_table(tables.OPEN_SENDS, rows, str(tmp_path))

    assert (first.dt, first.rows) == ("2026-11-01", 1)
    assert (second.dt, second.rows) == ("2026-11-02", 2)
    assert pq.read_table(tmp_path / first.path, partitioning=None) == rows.slice(0, 1)
    assert pq.read_table(tmp_path / second.path, partitioning=None) == rows.slice(1)


def test_a_file_says_where_it_is_and_how_large(tmp_path: Path) -> None:
    (file,) = write_table(tables.OPEN_SENDS, sends(MIDNIGHT), str(tmp_path))

    assert file == WrittenFile(
        table="open_sends",
        dt="2026-11-02",
        path=file.path,
        rows=1,
        size=(tmp_path / file.path).stat().st_size,
    )
    assert Path(file.path).parent == Path("open_sends", "dt=2026-11-02")


def test_a_file_says_which_version_of_which_contract_its_rows_have(tmp_path: Path) -> None:
    (file,) = write_table(tables.OPEN_SENDS, sends(MIDNIGHT), str(tmp_path))

    said = read_metadata(str(tmp_path / file.path)).metadata

    assert said[b"sms_receipts.contract"] == b"send_log_entry"
    fingerprint = contract("send_log_entry").fingerprint
    assert said[b"sms_receipts.schema_fingerprint"].decode() == fingerprint


def test_two_files_of_one_day_never_share_a_name(tmp_path: Path) -> None:
    first, second = (
        file
        for _ in range(2)
        for file in write_table(tables.OPEN_SENDS, sends(MIDNIGHT), str(tmp_path))
    )

    assert first.path != second.path


def test_rows_of_other_days_are_left_out(tmp_path: Path) -> None:
    second = day_number("2026-11-02")
    rows = sends(LAST_MOMENT, MIDNIGHT)

    (file,) = write_table(tables.OPEN_SENDS, rows, str(tmp_path), range(second, second + 1))

    assert (file.dt, file.rows) == ("2026-11-02", 1)


def test_no_rows_are_no_file(tmp_path: Path) -> None:
    assert list(write_table(tables.OPEN_SENDS, sends(), str(tmp_path))) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("table", tables.TABLES, ids=lambda table: table.name)
def test_every_table_has_a_contract_with_its_day_column(table: tables.Table) -> None:
    assert pa.types.is_timestamp(table.schema.field(table.day_column).type)


def test_the_days_of_a_column_are_told_once_and_in_order() -> None:
    rows = sends(MIDNIGHT, LAST_MOMENT, MIDNIGHT)

    days = distinct_days(rows, "requested_at")

    assert [day_name(day) for day in days] == ["2026-11-01", "2026-11-02"]


def test_missing_times_have_no_day() -> None:
    times = pa.table({"at": pa.array([None, None], pa.timestamp("ms", tz="UTC"))})

    assert distinct_days(times, "at") == []
