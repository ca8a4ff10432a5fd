"""Killed at any moment, an erasure has happened or has not; done again, it has."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from pipeline.catalog import Catalog
from pipeline.epochs import find_new_input
from pipeline.errors import OutputError
from tests.history.person import LATEST, MARK, PERSON, PersonsJob, without
from tests.history.traces import traces
from tests.job.oracle import Tables
from tests.simulation.clock import shared_clock
from tests.simulation.mishaps import Interruption
from tests.simulation.task import Task
from transforms.archive import list_archive

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

_STAGED: Final = r".*/_staging/[0-9a-f]{32}"
_NOTHING_YET: Final = {
    "an unfinished file is deleted": r"remove .*\.avro\.tmp",
    "before a table's file is written": rf"open {_STAGED}/",
    "tables are written": r"open .*/\..*\.avro\.new",
    "an archive file is written, not synced": r"fsync .*\.avro\.new",
    "its name is not synced": r"fsync .*/landed=",
    "all is written, nothing committed": r"sql SELECT coalesce\(max\(epoch\)",
    "in the commit": "sql INSERT INTO data_files",
    "at the end of the commit": "sql DELETE FROM archive_files",
}
_COMMITTED: Final = {
    "committed, no file moved": rf"rename {_STAGED}/",
    "moved, the attempt not removed": rf"rmtree {_STAGED} ",
    "files of tables that left are not deleted": "remove .*/dataset/[a-z]",
    "they are deleted, not forgotten": "sql DELETE FROM data_files",
    "no archive file has its place": r"rename .*\.avro\.new ",
    "an archive file has its place, the old one is there": r"remove .*\.avro$",
    "all archive files are in place, not forgotten": "sql DELETE FROM archive_replacements",
}


class _Launcher:
    """Runs the command line in a process that dies where it is told to."""

    def __init__(self, process: subprocess.Popen[str], root: Path) -> None:
        self._process = process
        self._clock = shared_clock(root / "clock", "http://127.0.0.1:1")
        self._log = root / "log"

    def erase(self, job: PersonsJob, interruption: Interruption) -> int:
        """Erase; returns the exit code, negative for a signal."""
        flags = [f"--phone_number={PERSON}", f"--archive={job.archive}", f"--dataset={job.dataset}"]
        task = Task("erase", [*flags, "--apply"], self._clock, str(self._log), interruption)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{task.to_json()}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def _launched(root: Path) -> Iterator[_Launcher]:
    with subprocess.Popen(  # noqa: S603 (our own command)
        [sys.executable, "-W", "ignore", "-m", "tests.simulation.job"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield _Launcher(process, root)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Launcher]:
    with _launched(tmp_path_factory.mktemp("launcher")) as launcher:
        yield launcher


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> PersonsJob:
    job = PersonsJob(tmp_path_factory.mktemp("lived") / "job")
    job.live()
    return job


@pytest.mark.parametrize("pattern", _NOTHING_YET.values(), ids=_NOTHING_YET)
def test_killed_before_the_commit_nothing_has_happened(
    pattern: str, launcher: _Launcher, lived: PersonsJob, tmp_path: Path
) -> None:
    before, archived = lived.tables(), lived.archived()
    job = _killed(launcher, lived, tmp_path, pattern)

    _open(job)

    assert job.tables() == before
    assert job.archived() == archived
    _assert_erased_when_done_again(job, without(before))


@pytest.mark.parametrize("pattern", _COMMITTED.values(), ids=_COMMITTED)
def test_killed_after_the_commit_the_next_command_does_the_rest(
    pattern: str, launcher: _Launcher, lived: PersonsJob, tmp_path: Path
) -> None:
    after = without(lived.tables())
    job = _killed(launcher, lived, tmp_path, pattern)

    _open(job)

    assert job.tables() == after
    assert (
        traces(job.archive, PERSON, MARK) == traces(job.dataset / "inbound_sms", PERSON, MARK) == []
    )
    _assert_erased_when_done_again(job, after)


def test_an_archive_that_was_moved_away_in_the_middle_is_waited_for(
    launcher: _Launcher, lived: PersonsJob, tmp_path: Path
) -> None:
    after = without(lived.tables())
    job = _killed(launcher, lived, tmp_path, _COMMITTED["no archive file has its place"])
    away = job.archive.rename(tmp_path / "away")

    for _ in range(2):
        with pytest.raises(OutputError, match=r"^An erasure is committed, .* put the archive back"):
            _open(job)

    away.rename(job.archive)
    _open(job)
    _assert_erased_when_done_again(job, after)


def _killed(launcher: _Launcher, lived: PersonsJob, tmp_path: Path, pattern: str) -> PersonsJob:
    shutil.copytree(lived.archive.parent, tmp_path / "job")
    job = PersonsJob(tmp_path / "job")
    assert launcher.erase(job, Interruption("kill", pattern)) == -9, "nobody came by"
    return job


def _open(job: PersonsJob) -> None:
    """Open the dataset as any writer does; what was read must not be new to it."""
    with Catalog(str(job.dataset), lambda: LATEST) as catalog:
        files = find_new_input(catalog, job.settings).archive_files
        known = catalog.archive_days()
    assert len(files) == 1
    assert files[0].messages in {1, 2}
    assert known.keys() | {os.path.relpath(files[0].path, job.archive)} == {
        os.path.relpath(file.path, job.archive) for file in list_archive(str(job.archive))
    }


def _assert_erased_when_done_again(job: PersonsJob, expected: Tables) -> None:
    assert job.erase("--apply") == 0
    assert job.tables() == expected
    assert len(job.archived()) == 12
    assert traces(job.archive, PERSON, MARK) == traces(job.dataset, PERSON, MARK) == []
    _open(job)
