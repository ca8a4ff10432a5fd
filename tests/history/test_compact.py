"""``sms-receipts compact``: few sorted files instead of many, the same rows, whoever else is at it."""

import shutil
import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analytics.catalog import read_snapshot
from analytics.connection import connect, open_tables
from pipeline import compact as compact_module
from pipeline.compact import loose_days, plan, summary
from pipeline.errors import AlreadyRunningError, OperatorError, OutputError
from pipeline.ledger import LedgerError
from pipeline.offers import Offer, make_offer, rewriting, staging_of, take_offers
from pipeline.options_compact import compact_options
from tests.history.compacting import (
    NOON,
    TABLES,
    TODAY,
    YESTERDAY,
    Dataset,
    commit_epoch,
    recompute,
)
from transforms import sort, tables
from transforms.tables import INBOUND_SMS, is_sorted, read_rows, write_table

pytestmark = pytest.mark.integration  # many small files take their time


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    filled = Dataset(tmp_path / "dataset")
    filled.fill()
    return filled


def test_each_day_becomes_one_sorted_file_and_keeps_its_rows(dataset: Dataset) -> None:
    before = dataset.rows()

    done = dataset.compact()

    assert dataset.rows() == before
    for table in TABLES:
        for day in (TODAY, YESTERDAY):
            (file,) = dataset.files(table, day)
            keys = pq.read_table(file, partitioning=None).column(table.sort_column).to_pylist()
            assert keys == sorted(keys)
            assert is_sorted(str(file))
            statistics = pq.read_metadata(file).row_group(0)
            ranges = {
                column.path_in_schema: column.statistics.min
                for column in map(statistics.column, range(statistics.num_columns))
                if column.statistics is not None
            }
            assert ranges[table.sort_column] == keys[0]
    assert [(len(day.files), len(files)) for day, files in done.rewritten] == 4 * [(4, 1)]
    assert done.left == []
    assert dataset.leftovers() == []


def test_a_second_time_there_is_nothing_to_do(dataset: Dataset) -> None:
    dataset.compact()
    with dataset.open() as catalog:
        before = catalog.files(INBOUND_SMS.name)

    done = dataset.compact()

    assert summary(done) == "There is nothing to do: every day is compact."
    with dataset.open() as catalog:
        assert catalog.files(INBOUND_SMS.name) == before


def test_only_the_days_asked_for_are_rewritten(dataset: Dataset) -> None:
    dataset.compact(f"--to={YESTERDAY}")

    assert len(dataset.files(INBOUND_SMS, YESTERDAY)) == 1
    assert len(dataset.files(INBOUND_SMS, TODAY)) == 4

    dataset.compact(f"--from={TODAY}")

    assert len(dataset.files(INBOUND_SMS, TODAY)) == 1


def test_a_dry_run_tells_files_and_sizes_and_writes_nothing(dataset: Dataset) -> None:
    before = sorted(dataset.root.glob("*/**"))

    told = plan(loose_days(compact_options([f"--dataset={dataset.root}"])), "D")

    assert [line.split() for line in told.splitlines()[:4]] == [
        ["days", "rows", "files", "after", "MB", "after"],
        ["inbound_sms", "2", "16", "8", "2", "1", "?"],
        ["unreported_sends", "2", "16", "8", "2", "1", "?"],
        [],
    ]
    assert told.splitlines()[4:] == [
        "Nothing was written: this was a dry run.",
        "Next: sms-receipts compact --dataset D",
    ]
    assert sorted(dataset.root.glob("*/**")) == before
    assert not (dataset.root / "_compact_lock").exists()


def test_the_moment_that_answers_are_of_stays(dataset: Dataset) -> None:
    before = read_snapshot(dataset.root).as_of
    dataset.now += timedelta(days=7)

    dataset.compact()

    assert read_snapshot(dataset.root).as_of == before


def test_large_days_get_files_of_bounded_size_and_those_stay(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "ROWS_PER_GROUP", 1)
    monkeypatch.setattr(sort, "ROWS_PER_GROUP", 1)
    monkeypatch.setattr(sort, "_GROUPS_PER_FILE", 3)
    monkeypatch.setattr(compact_module, "LARGE_FILE_ROWS", 3)
    before = dataset.rows()

    dataset.compact()

    assert dataset.rows() == before
    large = dataset.files(INBOUND_SMS)
    keys = sorted(
        pq.read_table(file, partitioning=None).column("phone_number").to_pylist() for file in large
    )
    assert list(map(len, keys)) in ([3, 3, 2], [2, 3, 3], [3, 2, 3])
    assert sum(keys, []) == sorted(sum(keys, []))

    with dataset.open() as catalog:
        commit_epoch(catalog, 7)
    before = dataset.rows()
    dataset.compact()

    assert dataset.rows() == before
    stayed = {file for file in large if len(pq.read_table(file, partitioning=None)) == 3}
    assert stayed < set(dataset.files(INBOUND_SMS))


def test_the_writer_commits_what_is_offered_between_two_epochs(dataset: Dataset) -> None:
    offered = threading.Event()
    compacting = threading.Thread(
        target=lambda: dataset.compact(say=lambda line: offered.set() if "waits" in line else None)
    )
    with dataset.open() as catalog:
        compacting.start()
        assert offered.wait(50)
        assert len(catalog.files(INBOUND_SMS.name)) == 8
        past = catalog.written()
        commit_epoch(catalog, 8)
        take_offers(catalog)
        compacting.join(50)

        # The files of that epoch came too late for it.
        assert len(catalog.files(INBOUND_SMS.name)) == 4
        assert past.leaving < catalog.written().leaving
    assert not compacting.is_alive()
    assert {len(rows) for rows in dataset.rows().values()} == {20}
    assert dataset.leftovers() == []


def test_files_that_a_backfill_replaces_meanwhile_are_compacted_as_they_are_then(
    dataset: Dataset,
) -> None:
    before = dataset.rows()
    offered, replaced = threading.Event(), threading.Event()

    def say(line: str) -> None:
        if "waits" in line:
            offered.set()
            assert replaced.wait(50)

    compacting = threading.Thread(target=lambda: dataset.compact(say=say))
    with dataset.open() as catalog:
        compacting.start()
        assert offered.wait(50)
        recompute(catalog)
    replaced.set()
    compacting.join(50)

    assert not compacting.is_alive()
    assert dataset.rows() == before
    assert len(dataset.files(INBOUND_SMS)) == 1
    assert dataset.leftovers() == []


def test_a_day_that_is_changed_each_time_is_left_as_it_is_and_named(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact_module, "_TRIES", 2)
    before = dataset.rows()
    with dataset.open() as catalog:

        def say(line: str) -> None:
            if "waits" in line:
                recompute(catalog)
                take_offers(catalog)

        # In the thread whose catalog it is.
        done = dataset.compact(say=say)

    assert done.rewritten == []
    assert {(day.table, day.dt) for day in done.left} == {
        (table, day) for table in TABLES for day in (TODAY, YESTERDAY)
    }
    assert "were left as they are: inbound_sms of 2026-10-31, " in summary(done)
    assert summary(done).endswith("Next: the same command again.")
    assert dataset.rows() == before


def test_a_reader_keeps_its_files_for_ten_minutes(dataset: Dataset) -> None:
    snapshot = read_snapshot(dataset.root)
    dataset.compact()
    with closing(open_tables(snapshot, None, None)) as connection:
        dataset.now += timedelta(minutes=9)
        with dataset.open() as catalog:
            commit_epoch(catalog, 9)
        assert connection.execute("SELECT count(*) FROM inbound_sms").fetchall() == [(16,)]

        dataset.now += timedelta(minutes=2)
        with dataset.open():
            pass
        with pytest.raises(duckdb.IOException):
            connection.execute("SELECT count(*) FROM inbound_sms").fetchall()


def test_what_a_killed_compaction_has_offered_is_committed_by_the_next_writer(
    dataset: Dataset,
) -> None:
    before = dataset.rows()
    offer_of(dataset, INBOUND_SMS)

    with dataset.open() as catalog:
        take_offers(catalog)
        assert len(catalog.files(INBOUND_SMS.name, [TODAY])) == 1

    assert dataset.rows() == before
    dataset.compact()
    assert dataset.leftovers() == []


def test_what_a_killed_compaction_has_offered_is_taken_back_by_the_next_one(
    dataset: Dataset,
) -> None:
    before = dataset.rows()
    offer_of(dataset, INBOUND_SMS)
    (dataset.root / "_compact" / "next" / "inbound_sms").mkdir(parents=True)

    with rewriting(str(dataset.root)), dataset.open() as catalog:
        take_offers(catalog)
        assert len(catalog.files(INBOUND_SMS.name, [TODAY])) == 4

    assert dataset.leftovers() == []
    assert dataset.rows() == before


def offer_of(dataset: Dataset, table: tables.Table) -> None:
    """Offer today's rows of a table in one file, as a process does that is killed then."""
    kept = dataset.root.with_name("kept")
    with rewriting(str(dataset.root)) as directory:
        paths = dataset.files(table)
        staging, spill = staging_of(directory), f"{directory}/spill"
        files = list(sort.sort_files(table, TODAY, [str(path) for path in paths], staging, spill))
        make_offer(directory, Offer(files, ["/".join(path.parts[-3:]) for path in paths]))
        shutil.move(directory, kept)
    shutil.move(kept, directory)


def test_one_compaction_at_a_time(dataset: Dataset) -> None:
    with (
        rewriting(str(dataset.root)),
        pytest.raises(AlreadyRunningError, match="Another sms-receipts compact .*: wait for it"),
    ):
        dataset.compact()


def test_a_damaged_file_is_named_and_nothing_is_changed(dataset: Dataset) -> None:
    damaged = dataset.files(INBOUND_SMS, YESTERDAY)[1]
    whole = damaged.read_bytes()
    for bytes_left in (whole[:-20], whole[:200] + bytes(100) + whole[300:], b""):
        damaged.write_bytes(bytes_left)

        with pytest.raises(OutputError, match=f"^The file {damaged} of the dataset is damaged "):
            dataset.compact()

        assert len(dataset.files(INBOUND_SMS, YESTERDAY)) == 4
        assert dataset.leftovers() == []
    damaged.write_bytes(whole)
    dataset.compact()
    assert len(dataset.files(INBOUND_SMS, YESTERDAY)) == 1


def test_too_little_room_to_sort_is_told(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sort, "_MEMORY", "64KB")

    with pytest.raises(OutputError, match=r"cannot be compacted \(no room to sort in .*\): free"):
        dataset.compact()

    assert len(dataset.files(INBOUND_SMS)) == 4
    assert dataset.leftovers() == []


def test_a_file_that_lost_rows_is_not_replaced(dataset: Dataset) -> None:
    path = dataset.files(INBOUND_SMS)[0]
    pq.write_table(pq.read_table(path, partitioning=None).slice(1), path)

    with pytest.raises(LedgerError, match="hold 7 rows, but the catalog counts 8"):
        dataset.compact()

    assert len(dataset.files(INBOUND_SMS)) == 4


def test_what_cannot_be_asked_for_is_told(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="There is no dataset at"):
        Dataset(tmp_path / "elsewhere").compact()
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(OperatorError, match="--to is before --from"):
        dataset.compact(f"--from={TODAY}", f"--to={YESTERDAY}")


@pytest.mark.parametrize("table", tables.TABLES, ids=lambda table: table.name)
def test_the_rows_of_every_table_come_through_a_sort_as_they_are(
    table: tables.Table, tmp_path: Path
) -> None:
    rows = any_rows(table)
    files = [
        file
        for number in range(rows.num_rows)
        for file in write_table(table, rows.slice(number, 1), str(tmp_path))
    ]
    paths = [str(tmp_path / file.path) for file in files]

    (file,) = sort.sort_files(table, TODAY, paths, str(tmp_path / "new"), str(tmp_path / "spill"))

    path = str(tmp_path / "new" / file.path)
    expected = rows.sort_by([(table.sort_column, "ascending")])
    assert read_rows(table, path).equals(expected)
    metadata = pq.read_metadata(path)
    (sorting,) = metadata.row_group(0).sorting_columns
    assert metadata.schema.column(sorting.column_index).path == table.sort_column
    assert list((tmp_path / "spill").iterdir()) == []


def any_rows(table: tables.Table) -> pa.Table:
    """Three rows out of order: with values in all columns, without those that may be null, odd ones."""

    def value(field: pa.Field, number: int) -> object:
        if field.nullable and number == 2 and field.name != table.sort_column:
            return None
        if pa.types.is_timestamp(field.type):
            return NOON + timedelta(milliseconds=number)
        if pa.types.is_map(field.type):
            return [("b", None if number else "x"), ("a", "\U0001f600")][:number]
        if pa.types.is_binary(field.type):
            return bytes([0, 255, number])
        return f"{4 - number} \u2028 {field.name}" if pa.types.is_string(field.type) else number

    columns = [
        pa.array([value(field, number) for number in (1, 2, 3)]).cast(field.type)
        if not pa.types.is_map(field.type)
        else pa.array([value(field, number) for number in (1, 2, 3)], field.type)
        for field in table.schema
    ]
    return pa.Table.from_arrays(columns, schema=table.schema)


def test_the_views_answer_the_same_before_and_after(dataset: Dataset) -> None:
    def answers() -> list[object]:
        with connect(dataset.root) as connection:
            return [
                connection.execute(f"SELECT * FROM {view} ORDER BY ALL").fetchall()  # noqa: S608
                for view in ("sends", "replies")
            ]

    before = answers()
    dataset.compact()
    assert answers() == before
