"""Disks that are really full or read-only; test_disk_faults.py runs this in a mount namespace of its own."""

import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import requests

from pipeline.catalog import Catalog, Commit
from pipeline.errors import OutputError
from tests.emulator_process import EmulatorProcess
from tests.history.compacting import Dataset
from tests.job.commands import Ended, Job
from tests.job.oracle import archived_messages, expected_tables, tables_of
from tests.job.small_job import NOON, SmallJob, report
from transforms import tables
from transforms.tables import WrittenFile

SOON = NOON + timedelta(hours=1)
KB = 1024


class Disk:
    """A file system in memory."""

    def __init__(self, mounted_at: Path) -> None:
        self.mounted_at = mounted_at

    def mount(self, *options: str) -> None:
        subprocess.run(["mount", *options, self.mounted_at], check=True)  # noqa: S603, S607

    def resize(self, size: int) -> None:
        self.mount("-o", f"remount,rw,size={size}")

    def fill(self) -> None:
        """Leave no room at all."""
        self.resize(shutil.disk_usage(self.mounted_at).used)

    def protect(self) -> None:
        """Let nobody write."""
        self.mount("-o", "remount,ro")


@pytest.fixture
def disk_at() -> Iterator[Callable[[Path, int], Disk]]:
    """Mount a disk of so many bytes at a directory that is not there yet."""
    disks: list[Disk] = []

    def mount(mounted_at: Path, size: int) -> Disk:
        mounted_at.mkdir(parents=True)
        disk = Disk(mounted_at)
        disk.mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs")
        disks.append(disk)
        return disk

    yield mount
    for disk in disks:
        subprocess.run(["umount", disk.mounted_at], check=True)  # noqa: S603, S607


def told(ended: Ended) -> str:
    assert ended.exit_code == 2, ended.err
    assert "Traceback" not in ended.err
    return ended.sentence


def waiting(emulator: EmulatorProcess) -> set[str]:
    """The ids of all messages that the queues hold."""
    ids: set[str] = set()
    for queue in (emulator.report_queue, emulator.reply_queue):
        truth = requests.get(f"{emulator.url}/emulator/queues/{queue}", timeout=10).json()
        ids.update(*truth.values())
    return ids


def started(start_emulator: Callable[..., EmulatorProcess], root: Path) -> tuple[Job, set[str]]:
    """A job, and the ids of the messages that wait for it."""
    emulator = start_emulator("--traffic=3000", f"--traffic_send_log={root / 'send_log'}")
    return Job(emulator, root), waiting(emulator)


def assert_complete(job: Job, ended: Ended, messages: set[str]) -> None:
    assert ended.exit_code == 0, ended.err
    assert "The ledger is closed" in ended.out
    assert waiting(job.emulator) == set()
    assert {message["message_id"] for message in archived_messages(job.archive)} == messages
    expected = expected_tables(job.archive, job.send_log_files, job.as_of(), timedelta(days=3))
    assert tables_of(job.dataset) == expected


def test_an_archive_that_is_read_only_then_full_costs_no_message(
    start_emulator: Callable[..., EmulatorProcess],
    disk_at: Callable[[Path, int], Disk],
    tmp_path: Path,
) -> None:
    disk = disk_at(tmp_path / "archive", 40 * KB)
    job, messages = started(start_emulator, tmp_path)

    disk.protect()
    assert re.search(r"The archive .* \(Read-only file system\): free space", told(job.run()))
    assert waiting(job.emulator) == messages

    disk.resize(40 * KB)
    sentence = told(job.run("--mns_max_bundle_messages=256"))
    assert re.search(r"The archive .* \(No space left on device\): free space", sentence)
    archived = {message["message_id"] for message in archived_messages(job.archive)}
    assert 0 < len(archived) < len(messages), "the disk was full in the middle"
    assert messages - waiting(job.emulator) <= archived, "nothing was deleted that is not archived"

    disk.resize(10_000 * KB)
    assert_complete(job, job.run("--mns_visibility_timeout_secs=60"), messages)


def test_a_dataset_that_is_read_only_then_full_costs_no_message(
    start_emulator: Callable[..., EmulatorProcess],
    disk_at: Callable[[Path, int], Disk],
    tmp_path: Path,
) -> None:
    disk = disk_at(tmp_path / "dataset", 400 * KB)
    job, messages = started(start_emulator, tmp_path)

    disk.protect()
    assert re.search(r"The dataset .* \(Read-only file system\): free the disk", told(job.run()))
    assert waiting(job.emulator) == messages

    disk.resize(400 * KB)
    sentence = told(job.run())
    assert re.search(r"The dataset .* \(No space left on device.*\): free the disk", sentence)
    assert waiting(job.emulator) == set(), "the archive's disk is another one"

    disk.resize(10_000 * KB)
    assert_complete(job, job.run(), messages)


def test_wherever_in_an_epoch_the_disk_is_full_the_next_start_completes_it(
    disk_at: Callable[[Path, int], Disk], tmp_path: Path
) -> None:
    """The disk grows a little after each failure, so that every step of the way is the first to fail."""
    size = 16 * KB
    disk = disk_at(tmp_path / "disk", size)
    job = job_on(disk, tmp_path)
    sentences: list[str] = []

    while not sentences or sentences[-1]:
        try:
            job.epoch(SOON)
            sentences.append("")
        except OutputError as failure:
            sentences.append(str(failure))
            size += 12 * KB
            disk.resize(size)

    assert any("brought up to date (No space left on device" in each for each in sentences)
    assert any("cannot be written (database or disk is full)" in each for each in sentences)
    with closing(sqlite3.connect(job.dataset / "catalog.sqlite")) as catalog:
        assert catalog.execute("SELECT count(*) FROM epochs").fetchone() == (1,)
    assert job.tables() == job.expected(SOON)


def test_a_backfill_on_a_full_disk_changes_nothing(
    disk_at: Callable[[Path, int], Disk], tmp_path: Path
) -> None:
    disk = disk_at(tmp_path / "disk", 10_000 * KB)
    job = job_on(disk, tmp_path)
    job.epoch(SOON)
    before = job.tables()
    room = shutil.disk_usage(disk.mounted_at).used

    for spare in (0, 24 * KB):
        disk.resize(room + spare)
        with pytest.raises(OutputError, match="The dataset "):
            job.backfill("2026-10-30", "2026-11-01", SOON)
        disk.resize(10_000 * KB)
        assert job.tables() == before

    job.backfill("2026-10-30", "2026-11-01", SOON)
    assert job.tables() == before


def test_a_compaction_on_a_full_disk_changes_nothing(
    disk_at: Callable[[Path, int], Disk], tmp_path: Path
) -> None:
    disk = disk_at(tmp_path / "disk", 10_000 * KB)
    dataset = Dataset(disk.mounted_at / "dataset")
    dataset.fill()
    before = dataset.rows()
    room = shutil.disk_usage(disk.mounted_at).used

    for spare in (0, 8 * KB, 16 * KB):
        disk.resize(room + spare)
        with pytest.raises(
            OutputError,
            match=r"The dataset .* \((No space left|database or disk is full|disk I/O error).*\): free",
        ):
            dataset.compact()
        disk.resize(10_000 * KB)
        assert dataset.rows() == before
        assert len(dataset.files(tables.INBOUND_SMS)) == 4

    dataset.compact()
    assert dataset.rows() == before
    assert dataset.leftovers() == []


def test_a_commit_on_a_full_disk_did_not_happen(
    disk_at: Callable[[Path, int], Disk], tmp_path: Path
) -> None:
    disk = disk_at(tmp_path / "disk", 10_000 * KB)
    table = tables.OPEN_SENDS.name
    files = [
        WrittenFile(table, "2026-11-01", f"{table}/{number}.parquet", 1, 1) for number in range(999)
    ]
    commit = Commit("run", 1, {}, files, [], {}, {})
    with Catalog(str(disk.mounted_at), lambda: NOON) as catalog:
        Path(catalog.staging("attempt"), table).mkdir(parents=True)
        disk.fill()

        with pytest.raises(OutputError, match=r"\(database or disk is full\): free the disk"):
            catalog.commit(commit, "attempt")

        assert catalog.files(table) == []
        disk.resize(10_000 * KB)
        assert catalog.commit(commit, "attempt") == 1
        assert len(catalog.files(table)) == len(files)


def job_on(disk: Disk, root: Path) -> SmallJob:
    """A job with reports and sends of three days, whose dataset is on the disk."""
    job = SmallJob(root / "job")
    job.dataset = disk.mounted_at / "dataset"
    job.settings = replace(job.settings, dataset=str(job.dataset))
    for part in range(3):
        numbers = range(part, 120, 3)
        job.land(*(report(f"{each}", sent_at=NOON - timedelta(days=each % 3)) for each in numbers))
    for number in range(100):
        job.send(f"{number}", requested_at=NOON - timedelta(days=number % 3, seconds=1))
    return job
