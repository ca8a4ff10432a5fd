"""What notebooks use."""

import sqlite3
from contextlib import closing
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import analytics
from analytics.catalog import read_snapshot
from analytics.connection import TABLES
from schemas.contracts import contract
from tests.analytics.dataset import AS_OF, DAY_1, DAY_2, Dataset, report, unreported, waiting

pytestmark = pytest.mark.integration


def test_every_table_and_view_answers_when_nothing_was_ever_written(tmp_path: Path) -> None:
    made = Dataset(tmp_path / "dataset")
    made.commit()
    with closing(analytics.connect(made.directory)) as connection:
        for table, contract_name in TABLES.items():
            relation = connection.table(table)
            assert relation.columns == contract(contract_name).arrow.names
            assert relation.fetchall() == []
        for view in ("reports", "sends", "replies", "waiting", "failures"):
            assert connection.table(view).fetchall() == []


def test_the_views_show_the_days_asked_about_and_variables_change_them(tmp_path: Path) -> None:
    made = Dataset(tmp_path / "dataset")
    made.add("enriched_reports", DAY_1, [report("1")])
    made.add("enriched_reports", DAY_2, [report("2", DAY_2)])
    made.commit()
    last_day = date.fromisoformat(DAY_1)
    with closing(analytics.connect(made.directory, last_day=last_day)) as connection:
        assert connection.sql("SELECT biz_id, day FROM reports").fetchall() == [("1", last_day)]
        connection.execute("SET VARIABLE last_day = NULL")
        assert connection.sql("SELECT count(*) FROM reports").fetchall() == [(2,)]
        as_of_ms = connection.sql("SELECT epoch_ms(getvariable('as_of'))").fetchall()
        assert as_of_ms == [(int(AS_OF.timestamp() * 1000),)]


def test_files_far_from_the_days_asked_about_are_not_opened(tmp_path: Path) -> None:
    made = Dataset(tmp_path / "dataset")
    made.add("enriched_reports", "2026-10-01", [report("1")]).write_bytes(b"unreadable")
    made.add("enriched_reports", DAY_2, [report("2", DAY_2)])
    made.commit()
    with closing(analytics.connect(made.directory, first_day=date(2026, 11, 1))) as connection:
        assert connection.sql("SELECT biz_id FROM reports").fetchall() == [("2",)]


def test_a_file_is_found_where_it_was_staged_until_it_is_moved(tmp_path: Path) -> None:
    made = Dataset(tmp_path / "dataset")
    staged = made.add("unreported_sends", DAY_1, [unreported("1")], below="_staging/attempt")
    made.commit()
    (file,) = read_snapshot(made.directory).files["unreported_sends"]
    assert (file.path, file.day, file.rows) == (staged, DAY_1, 1)
    final = made.directory / staged.relative_to(made.directory / "_staging/attempt")
    final.parent.mkdir(parents=True)
    staged.rename(final)
    (file,) = read_snapshot(made.directory).files["unreported_sends"]
    assert file.path == final


def test_a_file_from_before_a_field_was_added_still_answers(tmp_path: Path) -> None:
    made = Dataset(tmp_path / "dataset")
    old = made.add("enriched_reports", DAY_1, [report("1")])
    pq.write_table(pq.read_table(old, partitioning=None).drop_columns(["request_id"]), old)
    made.add("enriched_reports", DAY_2, [report("2", DAY_2, request_id="r")])
    made.commit()
    with closing(analytics.connect(made.directory)) as connection:
        rows = connection.sql("SELECT biz_id, request_id FROM reports ORDER BY 1").fetchall()
    assert rows == [("1", None), ("2", "r")]


def test_what_an_old_row_lacks_has_its_default(tmp_path: Path) -> None:
    made = Dataset(tmp_path / "dataset")
    old = made.add("waiting_reports", DAY_1, [waiting("1")])
    lacking = ["origin", "unknown_fields", "out_id"]
    pq.write_table(pq.read_table(old, partitioning=None).drop_columns(lacking), old)
    made.commit()
    question = "SELECT biz_id, origin, unknown_fields, out_id FROM waiting ORDER BY biz_id"
    first: tuple[object, ...] = ("1", "mns", {}, None)
    with closing(analytics.connect(made.directory)) as connection:
        assert connection.sql(question).fetchall() == [first]
        columns = connection.table("waiting_reports").columns
    assert columns == contract("delivery_report").arrow.names
    made.add("waiting_reports", DAY_1, [waiting("2") | {"origin": "replay", "out_id": "o"}])
    with closing(analytics.connect(made.directory)) as connection:
        assert connection.sql(question).fetchall() == [first, ("2", "replay", {}, "o")]


def test_the_dataset_is_left_as_it_was(tmp_path: Path) -> None:
    made = Dataset(tmp_path / "dataset")
    made.add("enriched_reports", DAY_1, [report("1")])
    made.commit()
    before = {file: file.stat().st_mtime_ns for file in made.directory.rglob("*.parquet")}
    catalog = (made.directory / "catalog.sqlite").read_bytes()
    with closing(analytics.connect(made.directory)) as connection:
        connection.sql("SELECT * FROM reports").fetchall()
    assert {f: f.stat().st_mtime_ns for f in made.directory.rglob("*.parquet")} == before
    assert (made.directory / "catalog.sqlite").read_bytes() == catalog


def test_no_dataset_is_an_error_with_a_fix(tmp_path: Path) -> None:
    with pytest.raises(analytics.DatasetError, match="run `sms-receipts run`"):
        analytics.connect(tmp_path)


def test_a_dataset_of_a_later_version_is_not_guessed_at(tmp_path: Path) -> None:
    made = Dataset(tmp_path / "dataset")
    made.commit()
    with closing(sqlite3.connect(made.directory / "catalog.sqlite")) as catalog:
        catalog.execute("PRAGMA user_version = 1000")
    with pytest.raises(analytics.DatasetError, match="written by a later version"):
        analytics.connect(made.directory)
