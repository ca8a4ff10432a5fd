"""The commit log: a commit happens as a whole or not at all, whatever dies when."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.catalog import Catalog, Commit, ReplacedFilesError
from pipeline.errors import AlreadyRunningError, OutputError
from transforms import tables
from transforms.moments import day_number
from transforms.send_log import Consumed
from transforms.tables import WrittenFile, write_table

NOW = datetime(2026, 11, 2, tzinfo=timezone.utc)
DAY = "2026-11-01"
DAY_NUMBER = day_number(DAY)
ROOT = Path(__file__).parents[2]


def at_noon() -> datetime:
    return NOW


def stage(catalog: Catalog, attempt: str, *biz_ids: str) -> list[WrittenFile]:
    """Write a file of open sends, as an attempt does."""
    schema = tables.OPEN_SENDS.schema
    rows = [
        dict.fromkeys(schema.names)
        | {
            "biz_id": biz_id,
            "phone_number": "1",
            "tags": [],
            "requested_at": datetime(2026, 11, 1, 4, tzinfo=timezone.utc),
        }
        for biz_id in biz_ids
    ]
    os.makedirs(catalog.staging(attempt))
    table = pa.Table.from_pylist(rows, schema=schema)
    return list(write_table(tables.OPEN_SENDS, table, catalog.staging(attempt)))


def commit_of(
    files: Sequence[WrittenFile], *, removed: Sequence[WrittenFile] = (), name: str = "a.avro"
) -> Commit:
    return Commit(
        kind="run",
        as_of_ms=1,
        counts={"messages": 1},
        added=files,
        removed=[file.path for file in removed],
        archive_files={name: [20758]},
        send_log={"/log.jsonl": Consumed(100, "digest")},
    )


def open_files(catalog: Catalog) -> list[Path]:
    return [Path(catalog.absolute(file.path)) for file in catalog.files("open_sends")]


def test_what_is_committed_is_there(tmp_path: Path) -> None:
    with Catalog(str(tmp_path), at_noon) as catalog:
        files = stage(catalog, "one", "a", "b")
        assert catalog.commit(commit_of(files), "one") == 1

        assert open_files(catalog) == [tmp_path / files[0].path]
        assert open_files(catalog)[0].is_file()
        assert [(file.dt, file.rows) for file in catalog.files("open_sends")] == [(DAY, 2)]
        assert catalog.unconsumed(["a.avro", "b.avro"]) == ["b.avro"]
        assert catalog.archive_days() == {"a.avro": [20758]}
        assert catalog.send_log_consumed() == {"/log.jsonl": Consumed(100, "digest")}
        assert list((tmp_path / "_staging").iterdir()) == []


def test_a_commit_outlives_its_process(tmp_path: Path) -> None:
    with Catalog(str(tmp_path), at_noon) as catalog:
        catalog.commit(commit_of(stage(catalog, "one", "a")), "one")
        before = open_files(catalog)

    with Catalog(str(tmp_path), at_noon) as catalog:
        assert open_files(catalog) == before
        assert catalog.unconsumed(["a.avro"]) == []


def test_an_attempt_that_was_never_committed_never_happened(tmp_path: Path) -> None:
    with Catalog(str(tmp_path), at_noon) as catalog:
        stage(catalog, "one", "a")

    with Catalog(str(tmp_path), at_noon) as catalog:
        assert open_files(catalog) == []
        assert catalog.unconsumed(["a.avro"]) == ["a.avro"]
    assert list((tmp_path / "_staging").iterdir()) == []


class PowerFailureError(Exception):
    """Raised where the process is to die."""


def test_a_crash_between_two_statements_of_a_commit_undoes_all_of_it(tmp_path: Path) -> None:
    with Catalog(str(tmp_path), at_noon) as catalog:
        first = stage(catalog, "one", "a")
        catalog.commit(commit_of(first), "one")
        torn = commit_of(stage(catalog, "two", "b"), removed=first, name="b.avro")
        with pytest.raises(PowerFailureError):
            catalog.commit(torn._replace(send_log=_BreaksWhenRead()), "two")
        assert open_files(catalog) == [tmp_path / first[0].path]

    with Catalog(str(tmp_path), at_noon) as catalog:
        assert open_files(catalog) == [tmp_path / first[0].path]
        assert open_files(catalog)[0].is_file()
        assert catalog.unconsumed(["b.avro"]) == ["b.avro"]


class _BreaksWhenRead(dict[str, Consumed]):
    def items(self) -> "_BreaksWhenRead":  # type: ignore[override]
        raise PowerFailureError


# Commits, and dies where a move into the dataset would begin.
_DIES_BEFORE_THE_MOVE = """
import os, signal, sys
from tests.job.test_catalog import Catalog, at_noon, commit_of, stage
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
with Catalog(sys.argv[1], at_noon) as catalog:
    files = stage(catalog, "one", "a")
    os.replace = die
    catalog.commit(commit_of(files), "one")
"""


@pytest.mark.integration
def test_the_next_start_finishes_the_move_of_a_killed_commit(tmp_path: Path) -> None:
    killed = subprocess.run(  # noqa: S603 (our own command)
        [sys.executable, "-c", _DIES_BEFORE_THE_MOVE, str(tmp_path)], cwd=ROOT, check=False
    )
    assert killed.returncode == -9
    assert [path.name for path in tmp_path.glob("_staging/*")] == ["one"]
    assert list(tmp_path.glob("open_sends/**/*.parquet")) == []

    with Catalog(str(tmp_path), at_noon) as catalog:
        (file,) = open_files(catalog)
        assert file.is_file()
        assert catalog.unconsumed(["a.avro"]) == []
    assert list(tmp_path.glob("_staging/*")) == []


def test_a_commit_whose_files_cannot_be_moved_has_happened_and_is_finished_later(
    tmp_path: Path,
) -> None:
    with Catalog(str(tmp_path), at_noon) as catalog:
        assert not catalog.has_commits()
        in_the_way = _a_file(tmp_path / "open_sends")
        files = stage(catalog, "one", "a")

        assert catalog.commit(commit_of(files), "one") == 1

        assert catalog.has_commits()
        for ask in (lambda: catalog.files("open_sends"), catalog.written):
            with pytest.raises(OutputError, match=r"cannot be written \(.*\): free the disk"):
                ask()
        in_the_way.unlink()
        assert open_files(catalog) == [tmp_path / files[0].path]
        assert open_files(catalog)[0].is_file()


def test_a_failed_attempt_leaves_no_files_behind(tmp_path: Path) -> None:
    with Catalog(str(tmp_path), at_noon) as catalog:
        catalog.commit(commit_of(stage(catalog, "one", "a")), "one")
        stage(catalog, "two", "b")

        catalog.mend()

        assert list(tmp_path.glob("_staging/*")) == []
        assert len(open_files(catalog)) == 1


def test_a_removed_file_is_deleted_one_epoch_late(tmp_path: Path) -> None:
    with Catalog(str(tmp_path), at_noon) as catalog:
        first = stage(catalog, "one", "a")
        catalog.commit(commit_of(first), "one")
        (old,) = open_files(catalog)

        catalog.commit(commit_of(stage(catalog, "two", "b"), removed=first), "two")
        (new,) = open_files(catalog)
        assert new != old
        assert old.is_file()  # somebody may be reading it
        assert catalog.written().files("open_sends", DAY_NUMBER) == [str(new)]

        catalog.commit(commit_of(stage(catalog, "three")), "three")
        assert not old.exists()
        assert open_files(catalog) == [new]


def test_a_compaction_does_not_cut_a_readers_time_short(tmp_path: Path) -> None:
    with Catalog(str(tmp_path), at_noon) as catalog:
        first = stage(catalog, "one", "a")
        catalog.commit(commit_of(first), "one")
        (old,) = open_files(catalog)
        catalog.commit(commit_of(stage(catalog, "two", "b"), removed=first), "two")

        catalog.commit(commit_of(stage(catalog, "three"))._replace(kind="compact"), "three")
        assert old.is_file()

        catalog.commit(commit_of(stage(catalog, "four")), "four")
        assert not old.exists()


def test_what_a_compaction_replaced_stays_for_ten_minutes(tmp_path: Path) -> None:
    now = NOW
    with Catalog(str(tmp_path), lambda: now) as catalog:
        first = stage(catalog, "one", "a")
        catalog.commit(commit_of(first), "one")
        (old,) = open_files(catalog)
        second = commit_of(stage(catalog, "two", "b"), removed=first)
        catalog.commit(second._replace(kind="compact"), "two")

        now += timedelta(minutes=9)
        catalog.commit(commit_of(stage(catalog, "three")), "three")
        assert old.is_file()
        assert str(old) not in catalog.written().files("open_sends", DAY_NUMBER)

        now += timedelta(minutes=2)
        catalog.commit(commit_of(stage(catalog, "four")), "four")
        assert not old.exists()


def test_a_commit_that_removes_what_has_left_before_does_not_happen(tmp_path: Path) -> None:
    with Catalog(str(tmp_path), at_noon) as catalog:
        first, other = stage(catalog, "one", "a"), stage(catalog, "two", "b")
        catalog.commit(commit_of(first), "one")
        catalog.commit(commit_of(other), "two")
        catalog.commit(commit_of(stage(catalog, "three", "c"), removed=first), "three")
        before = open_files(catalog)

        late = commit_of(stage(catalog, "four", "a"), removed=[*first, *other], name="b.avro")
        with pytest.raises(ReplacedFilesError, match="^1 files have left the dataset"):
            catalog.commit(late, "four")

        assert open_files(catalog) == before
        assert catalog.unconsumed(["b.avro"]) == ["b.avro"]


def test_files_can_be_asked_for_by_day(tmp_path: Path) -> None:
    with Catalog(str(tmp_path), at_noon) as catalog:
        catalog.commit(commit_of(stage(catalog, "one", "a")), "one")

        assert len(catalog.files("open_sends", [DAY])) == 1
        assert catalog.files("open_sends", ["2026-11-02"]) == []
        assert catalog.files("open_sends", []) == []
        assert catalog.files("inbound_sms") == []
        assert catalog.days_of_last_commit() == [DAY]


def test_a_run_finds_what_is_written_by_day(tmp_path: Path) -> None:
    with Catalog(str(tmp_path), at_noon) as catalog:
        assert catalog.written().files("open_sends", DAY_NUMBER) == []
        (file,) = stage(catalog, "one", "a")
        catalog.commit(commit_of([file]), "one")

        assert catalog.written().files("open_sends", DAY_NUMBER) == [str(tmp_path / file.path)]
        assert catalog.written().files("open_sends", DAY_NUMBER + 1) == []


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with (
        Catalog(str(tmp_path), at_noon),
        pytest.raises(AlreadyRunningError, match=r"Another .* is writing to .*--dataset\.$"),
        Catalog(str(tmp_path), at_noon),
    ):
        pass


def test_the_lock_goes_with_the_writer(tmp_path: Path) -> None:
    for _ in range(2):
        with Catalog(str(tmp_path), at_noon) as catalog:
            assert catalog.files("open_sends") == []


def test_a_reader_is_never_in_the_way(tmp_path: Path) -> None:
    with Catalog(str(tmp_path), at_noon) as catalog:
        catalog.commit(commit_of(stage(catalog, "one", "a")), "one")
        reader = sqlite3.connect(f"file:{tmp_path}/catalog.sqlite?mode=ro", uri=True)
        try:
            reader.execute("BEGIN")
            count = "SELECT count(*) FROM data_files WHERE removed_by IS NULL"
            assert reader.execute(count).fetchone() == (1,)

            catalog.commit(commit_of(stage(catalog, "two", "b")), "two")

            assert reader.execute(count).fetchone() == (1,)
        finally:
            reader.close()


def _a_file(path: Path) -> Path:
    path.write_text("not a directory", encoding="ascii")
    return path


def _below_a_file(path: Path) -> Path:
    return _a_file(path) / "dataset"


@pytest.mark.parametrize("place", [_a_file, _below_a_file])
def test_a_dataset_that_cannot_be_written_is_told_in_a_sentence(
    tmp_path: Path, place: Callable[[Path], Path]
) -> None:
    dataset = place(tmp_path / "file")

    with (
        pytest.raises(OutputError, match=r"^The dataset .* cannot be written \(.*\): .*\.$"),
        Catalog(str(dataset), at_noon),
    ):
        pass


def test_a_file_that_is_no_catalog_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "catalog.sqlite").write_text("no database at all, but long enough to be one" * 9)

    with (
        pytest.raises(OutputError, match=r"cannot be written \(file is not a database\)"),
        Catalog(str(tmp_path), at_noon),
    ):
        pass

    (tmp_path / "catalog.sqlite").unlink()
    with Catalog(str(tmp_path), at_noon):
        pass  # the lock of the failed start is gone


def test_a_staged_file_that_is_gone_keeps_the_commit_from_happening(tmp_path: Path) -> None:
    with Catalog(str(tmp_path), at_noon) as catalog:
        missing = WrittenFile("open_sends", DAY, f"open_sends/dt={DAY}/x.parquet", 1, 1)
        os.makedirs(catalog.staging("one"))

        with pytest.raises(OutputError, match="No such file"):
            catalog.commit(commit_of([missing]), "one")

        assert open_files(catalog) == []
        assert catalog.unconsumed(["a.avro"]) == ["a.avro"]


def test_a_catalog_of_a_later_layout_is_left_alone(tmp_path: Path) -> None:
    with Catalog(str(tmp_path), at_noon) as catalog:
        catalog.commit(commit_of(stage(catalog, "one", "a")), "one")
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite")) as database:
        database.execute("PRAGMA user_version = 1000")
    before = (tmp_path / "catalog.sqlite").read_bytes()

    with (
        pytest.raises(
            OutputError, match="written by a later version .* layout 1000.* use that version"
        ),
        Catalog(str(tmp_path), at_noon),
    ):
        pass

    assert (tmp_path / "catalog.sqlite").read_bytes() == before
