"""A person is erased from a real job: nothing of them is left, and all that is others' is as it was."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.catalog import Catalog
from pipeline.epochs import find_new_input
from tests.history.person import (
    LATEST,
    LEFT_OF_ARRAY,
    LEFT_OF_BROKEN_ARRAY,
    MARK,
    OTHER,
    OTHERS,
    PERSON,
    PersonsJob,
    array_of,
    without,
)
from tests.history.traces import traces
from tests.job.oracle import current_rows
from tests.job.small_job import NOON, report
from transforms.archive import list_archive, read_archive, write_archive_file

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def _lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lived") / "job"
    PersonsJob(root).live()
    return root


@pytest.fixture
def job(_lived: Path, tmp_path: Path) -> PersonsJob:
    shutil.copytree(_lived, tmp_path / "job")
    return PersonsJob(tmp_path / "job")


def test_a_dry_run_tells_what_would_go_and_changes_nothing(
    job: PersonsJob, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in job.archive.rglob("*")}

    assert job.erase() == 0

    shown = capsys.readouterr()
    assert "this was a dry run" in shown.out
    assert PERSON not in shown.out + shown.err
    assert {path: path.stat().st_mtime_ns for path in job.archive.rglob("*")} == before
    assert traces(job.dataset, PERSON)


def test_nothing_of_them_is_left_and_others_are_as_they_were(
    job: PersonsJob, capsys: pytest.CaptureFixture[str]
) -> None:
    tables, archived = job.tables(), job.archived()
    assert len(traces(job.archive, PERSON, MARK)) >= 5
    assert len(traces(job.dataset, PERSON, MARK)) >= 12

    assert job.erase("--apply") == 0

    shown = capsys.readouterr()
    assert PERSON not in shown.out + shown.err
    assert "No trace was found in" in shown.out
    assert traces(job.archive, PERSON, MARK) == []
    assert traces(job.dataset, PERSON, MARK) == []
    assert job.tables() == without(tables)
    _assert_archive_is_as_it_was(job, archived)
    # What was read stays read, and what was not stays new.
    with Catalog(str(job.dataset), lambda: LATEST) as catalog:
        (new,) = find_new_input(catalog, job.settings).archive_files
        assert len(catalog.archive_days()) == len(list_archive(str(job.archive))) - 1
    assert new.messages == 1


def _assert_archive_is_as_it_was(job: PersonsJob, archived: dict[str, dict[str, object]]) -> None:
    left = job.archived()
    assert left.keys() == {each.message_id for each in OTHERS} | {"u1"}
    shortened = {"array": array_of(LEFT_OF_ARRAY), "broken": array_of(LEFT_OF_BROKEN_ARRAY)}
    for name, row in left.items():
        assert row == {**archived[name], "body": shortened.get(name, archived[name]["body"])}


def test_epochs_and_backfills_go_on_as_if_they_had_never_been_there(job: PersonsJob) -> None:
    job.erase("--apply")
    job.forget()
    kept = job.tables()

    job.epoch(LATEST)

    after = job.tables()
    assert after.waiting.pop(("u1", "unread"))["phone_number"] == OTHER
    assert after == kept
    job.backfill("2026-10-27", "2026-11-02", LATEST)
    recomputed = job.tables()
    del recomputed.waiting["u1", "unread"]
    assert recomputed == kept
    assert traces(job.dataset, PERSON, MARK) == []


def test_erasing_once_more_changes_nothing(
    job: PersonsJob, capsys: pytest.CaptureFixture[str]
) -> None:
    job.erase("--apply")
    files = {path: path.stat().st_mtime_ns for path in _files(job)}
    capsys.readouterr()

    assert job.erase("--apply") == 0

    assert {path: path.stat().st_mtime_ns for path in _files(job)} == files
    assert re.search(r"archived messages +0 +0\n", capsys.readouterr().out)


def _files(job: PersonsJob) -> list[Path]:
    roots = (job.archive, job.dataset)
    return [
        path for root in roots for path in root.rglob("*.*") if path.suffix in {".avro", ".parquet"}
    ]


def test_numbers_from_standard_input_are_erased_together(job: PersonsJob, tmp_path: Path) -> None:
    numbers = tmp_path / "numbers"
    numbers.write_text(f"+86 {PERSON}\n{OTHER}\n")
    flags = ["--phone_number=-", f"--archive={job.archive}", f"--dataset={job.dataset}", "--apply"]

    with numbers.open() as given:
        ended = subprocess.run(  # noqa: S603 (our own command)
            [sys.executable, "-W", "ignore", "-m", "pipeline", "erase", *flags],
            stdin=given, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
        )  # fmt: skip

    assert ended.returncode == 0, ended.stderr
    assert traces(tmp_path / "job" / "archive", OTHER) == traces(job.dataset, OTHER) == []
    assert traces(job.archive, PERSON) == traces(job.dataset, PERSON) == []
    assert "138******78, 139******01" in ended.stdout
    assert {name for name in job.archived() if name.startswith("o")} == {"o3", "o4", "o6", "o8"}


# -- what is not the program's own, or cannot be read ---------------------------------------------------


def test_the_files_of_the_send_log_that_hold_it_are_named(
    job: PersonsJob, capsys: pytest.CaptureFixture[str]
) -> None:
    before = job.send_log.read_bytes()
    (clean := job.send_log.with_name("sends-2.jsonl")).write_text(
        f'{{"biz_id":"900{PERSON}1^0"}}\n'
    )

    assert job.erase("--apply", f"--send_log={job.send_log.parent}/sends*.jsonl") == 0

    shown = capsys.readouterr().out
    assert "a backfill would bring it back from the send log" in shown
    assert str(job.send_log) in shown
    assert str(clean) not in shown
    assert job.send_log.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("archive/notes.txt", f"called +86{PERSON}".encode(), "1 of .* files still hold it"),
        (f"archive/{PERSON}.txt", b"", "1 of .* files still hold it"),
        ("dataset/copy.zst", b"\x28\xb5\x2f\xfd...", "cannot be shown to be free of it.*compressed"),
        ("dataset/inbound_sms/dt=2026-11-01/x.parquet", b"PAR1 cut short", "cannot be shown.*damaged"),
    ],
)  # fmt: skip
def test_what_is_not_ours_is_left_and_told(
    job: PersonsJob,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes,
    sentence: str,
) -> None:
    path = job.archive.parent / name
    path.write_bytes(content)

    assert job.erase("--apply") == 2

    shown = capsys.readouterr()
    assert re.search(sentence, shown.err), shown.err
    assert str(path).replace(PERSON, "138******78") in shown.err
    assert str(path).replace(PERSON, "138******78") in shown.out
    assert PERSON not in shown.out + shown.err
    assert "No trace" not in shown.out
    assert path.read_bytes() == content
    path.unlink()
    assert job.erase("--apply") == 0


def test_a_directory_that_cannot_be_read_is_not_passed_over(
    job: PersonsJob, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = job.dataset / "closed"
    closed.mkdir()
    scandir = os.scandir

    def refusing(path: str) -> object:  # root may read everything, so the system cannot refuse
        if str(path) == str(closed):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)

    assert job.erase("--apply") == 2

    assert str(closed) in capsys.readouterr().err


def test_what_cannot_be_read_is_never_called_free_of_it(
    job: PersonsJob, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _damaged_file(job)

    assert job.erase("--apply") == 2

    shown = capsys.readouterr()
    assert re.search(rf"1 of .* cannot be shown to be free of it, {path} first", shown.err)
    assert "they stay, unless --remove_unreadable is given" in shown.out
    assert path.exists(), "it can still be restored"


def test_what_cannot_be_read_goes_if_it_is_told_to(job: PersonsJob) -> None:
    path = _damaged_file(job)
    job.epoch(LATEST)
    assert "damaged_archive_file" in {row["reason"] for row in _failed(job)}
    assert job.erase("--apply") == 2

    assert job.erase("--apply", "--remove_unreadable") == 0

    assert not path.exists()
    assert "damaged_archive_file" not in {row["reason"] for row in _failed(job)}
    whole = [file for file in list_archive(str(job.archive)) if file.messages > 1000]
    assert len(whole) == 1
    assert read_archive(whole[0].path).lost == 0
    job.forget()
    job.epoch(LATEST)
    before = job.tables()
    job.backfill("2026-10-27", "2026-11-02", LATEST)
    assert job.tables() == before


def _failed(job: PersonsJob) -> list[dict[str, object]]:
    return current_rows(job.dataset, "failed_events")


def _damaged_file(job: PersonsJob) -> Path:
    many = [report(f"many-{number}", OTHER) for number in range(3000)]
    path = Path(write_archive_file(str(job.archive), many, NOON))
    data = path.read_bytes()
    path.write_bytes(
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 16]) + data[len(data) // 2 + 1 :]
    )
    return path


# -- who else is there ----------------------------------------------------------------------------------


def test_a_running_job_must_be_stopped_first(
    job: PersonsJob, capsys: pytest.CaptureFixture[str]
) -> None:
    with Catalog(str(job.dataset), lambda: LATEST):
        assert job.erase() == 0, "a dry run only reads"
        assert job.erase("--apply") == 2

    assert "stop it, erase, and start it again" in capsys.readouterr().err
    assert job.erase("--apply") == 0


def test_another_archive_is_not_taken_for_its_own(
    job: PersonsJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = job.tables()
    for flag in (
        f"--archive={tmp_path}/none",
        f"--archive={tmp_path}",
        f"--dataset={tmp_path}/none",
    ):
        assert job.erase("--apply", flag) == 2

    assert job.tables() == before
    assert not (tmp_path / "none").exists()
    told = capsys.readouterr().err
    assert "There is no archive at" in told
    assert "has none of the 9 files" in told
    assert "There is no dataset at" in told
