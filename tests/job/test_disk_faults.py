"""Disks that fail: one sentence, exit code 2, and nothing is deleted from a queue that is not archived."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import OutputError
from tests.emulator_process import EmulatorProcess
from tests.job.commands import Job
from tests.job.small_job import NOON, SmallJob, report
from transforms.archive import write_archive_file

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

# Whoever may have a mount namespace needs no other right to be root in it.
_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


def _why_not() -> str:
    """Why no disk can be mounted here; nothing if one can."""
    if shutil.which("unshare") is None:
        return "no command unshare (util-linux, Linux)"
    tried = subprocess.run(  # noqa: S603
        [*_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return tried.stderr.strip() if tried.returncode else ""


def test_disks_that_are_full_or_read_only() -> None:
    """The tests of failing_disks.py, where disks can be mounted without anybody else seeing them."""
    reason = _why_not()
    if reason:
        pytest.skip(f"full and read-only disks need a mount namespace: {reason}")
    inside = Path(__file__).with_name("failing_disks.py")

    ended = subprocess.run(  # noqa: S603
        [*_NAMESPACE, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(inside)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"= 6 passed in ", ended.stdout), ended.stdout


def test_an_archive_that_cannot_be_looked_through_is_told(tmp_path: Path) -> None:
    job = SmallJob(tmp_path)
    job.settings = replace(job.settings, archive=str(tmp_path / ("x" * 300)))

    for work in (lambda: job.epoch(NOON), lambda: job.backfill("2026-11-01", "2026-11-01", NOON)):
        with pytest.raises(
            OutputError, match=r"The archive .* cannot be read \(File name too long\)"
        ):
            work()


def test_a_damaged_archive_file_is_told_and_the_rest_is_used(
    emulator: EmulatorProcess, tmp_path: Path
) -> None:
    job = Job(emulator, tmp_path)
    job.send_log.mkdir()
    messages = [report(f"biz-{number}") for number in range(1500)]
    path = Path(write_archive_file(str(job.archive), messages, NOON))
    path.write_bytes(path.read_bytes()[:-100])

    ended = job.run()

    assert ended.exit_code == 0, ended.err
    (warning,) = [line for line in ended.err.splitlines() if " WARNING " in line]
    assert re.search(rf"{path} is damaged at byte [\d,]+: \d+ of its 1,500 messages", warning)
    assert ended.counts["damaged_archive_file"] == ended.counts["failed"] > 0
    assert ended.counts["decoded"] + ended.counts["failed"] == 1500 + ended.counts["received"]
    assert "The ledger is closed" in ended.out
