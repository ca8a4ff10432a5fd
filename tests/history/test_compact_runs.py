"""Compactions of a dataset that lives: beside a job and its readers, and killed at any moment."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest

from analytics.catalog import read_snapshot
from analytics.connection import open_snapshot
from benchmarks.kills import Load
from pipeline.clock import utc_now
from pipeline.compact import compact
from pipeline.offers import take_offers
from pipeline.options_compact import compact_options
from tests.emulator_process import EmulatorProcess
from tests.history.compacting import TABLES, TODAY, YESTERDAY, Dataset
from tests.job.commands import Job
from tests.job.oracle import archived_messages, expected_tables, tables_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

_STAGED = r".*/_staging/[0-9a-f]{32}"
# What is about to happen when the compaction is killed.
_KILLS = {
    "it begins": ("open .*/_compact_lock", 1),
    "its directory is made": ("mkdir .*/_compact/offered", 1),
    "a file is written": (r"open .*/_compact/next/.*\.parquet", 1),
    "a file is written, not synced": (r"fsync .*/_compact/next/.*\.parquet", 1),
    "an offer is being written": (r"open .*/_compact/next/offer\.json", 2),
    "an offer is made": ("rename .*/_compact/next ", 1),
    "an offer is taken": ("rename .*/_compact/offered/", 2),
    "an offer is committed": ("sql INSERT INTO epochs", 1),
    "files leave in a commit": ("sql UPDATE data_files", 3),
    "a committed file is moved": (f"rename {_STAGED}/[a-z_]+/dt=", 1),
    "a staging directory is removed": (f"rmtree {_STAGED} ", 2),
    "offers are taken back": ("rename .*/_compact/offered .*", 1),
    "its directory is removed": ("rmtree .*/_compact ", 1),
}


@pytest.fixture(scope="module")
def launcher() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.history.killed_compactions"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize(("pattern", "nth"), _KILLS.values(), ids=_KILLS)
def test_killed_before(
    pattern: str, nth: int, launcher: subprocess.Popen[str], tmp_path: Path
) -> None:
    dataset = Dataset(tmp_path / "dataset")
    dataset.fill(2)
    before = dataset.rows()
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    print(json.dumps([str(dataset.root), pattern, nth]), file=launcher.stdin, flush=True)
    assert launcher.stdout.readline() == "-9\n", (tmp_path / "operations.log").read_text()

    assert dataset.rows() == before, "for who reads the dataset as it was left"
    dataset.now += timedelta(hours=2)
    with dataset.open() as catalog:
        take_offers(catalog)
    assert dataset.rows() == before, "for who goes on with it"
    dataset.compact()

    assert dataset.rows() == before
    assert {len(dataset.files(table, day)) for table in TABLES for day in (TODAY, YESTERDAY)} == {1}
    assert dataset.leftovers() == []
    with dataset.open():
        dataset.now += timedelta(hours=1)
    with dataset.open() as catalog:
        known = {
            catalog.absolute(file.path) for table in TABLES for file in catalog.files(table.name)
        }
    assert {str(path) for path in dataset.root.rglob("*.parquet")} == known


def test_the_job_and_its_readers_go_on_while_it_is_compacted(
    start_emulator: Callable[..., EmulatorProcess],
    tmp_path: Path,
) -> None:
    job = Job(start_emulator(), tmp_path)
    job.send_log.mkdir()
    load = Load(job.emulator.url, job.send_log / "sends.jsonl", per_sec=100, seed=3)
    stop = threading.Event()
    readers = [_Reader(job.dataset, stop) for _ in range(2)]
    with job.follow("--epoch_secs=0.5") as following:
        following.wait_for("queues: reading")
        load.send(100)
        following.wait_for(r"epoch: .* [1-9]\d* matched")
        load.start()
        for reader in readers:
            reader.start()
        rewritten = 0
        for _ in range(2):
            for _ in range(2):
                following.wait_for(r"epoch: [1-9]")
            done = compact(compact_options([f"--dataset={job.dataset}"]), utc_now, _nobody)
            rewritten += len(done.rewritten)
            assert done.left == []
        following.wait_for(r"epoch: [1-9]")
        stop.set()
        for reader in readers:
            reader.join()
        stopped = following.stop()
    load.stop()

    assert stopped.exit_code == 0, stopped.err
    assert rewritten >= 2
    assert [reader.failures for reader in readers] == [[], []]
    assert min(len(reader.seen) for reader in readers) > 3
    for reader in readers:
        assert reader.seen == sorted(reader.seen), "an answer never takes back what was known"
    assert job.run().exit_code == 0
    assert len(archived_messages(job.archive)) == load.reports
    tables = tables_of(job.dataset)
    three_days = timedelta(days=3)
    assert tables == expected_tables(job.archive, job.send_log_files, job.as_of(), three_days)
    assert {(row["event_id"], row["err_code"]) for row in tables.enriched.values()} == load.outcomes


def _nobody(line: str) -> None:
    """Tell nobody."""


class _Reader(threading.Thread):
    """Asks again and again how many outcomes are known, and whether one stands there twice."""

    def __init__(self, dataset: Path, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._dataset = dataset
        self._until = stop
        self.seen: list[int] = []
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._until.is_set():
            try:
                self._look()
            except duckdb.IOException:
                # Open sends are written anew by each epoch, and these take half a second.
                continue
            except Exception as failure:  # noqa: BLE001 - to be told by the test
                self.failures.append(repr(failure))
                return

    def _look(self) -> None:
        with open_snapshot(read_snapshot(self._dataset), None, None, None) as connection:
            ((rows, distinct),) = connection.execute(
                "SELECT count(*), count(DISTINCT (event_id, revision, message_id)) FROM enriched_reports"
            ).fetchall()
        if rows != distinct:
            self.failures.append(f"{rows} rows, {distinct} different ones")
        self.seen.append(rows)
