"""The whole job, as an operator runs it: queue to tables, checked against a second opinion."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

import analytics
from tests.emulator_process import start_emulator_process
from tests.job.commands import Ended, Job
from tests.job.oracle import (
    Tables,
    archived_messages,
    current_rows,
    expected_tables,
    tables_of,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

THREE_DAYS, A_SECOND = timedelta(days=3), timedelta(seconds=1)
TABLES = (
    "enriched_reports", "inbound_sms", "unreported_sends", "failed_events", "failed_sends", "open_sends",
    "waiting_reports",
)  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """What one command said, and what the tables were after it."""

    ended: Ended
    tables: Tables
    rows: dict[str, list[dict[str, Any]]]
    as_of: datetime


@dataclass(frozen=True)
class Story:
    """One dataset's life, command by command; told once, looked at by every test of this module."""

    job: Job
    emulator: dict[str, Any]
    first: Shown
    second: Shown
    impatient: Shown
    backfilled: Shown
    backfilled_again: Shown


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    root = tmp_path_factory.mktemp("story")
    emulator = start_emulator_process(
        "--traffic=3000",
        "--traffic_days=2.5",
        "--traffic_garbage=38",
        f"--traffic_send_log={root / 'send_log'}",
        "--carrier_missing_phone_rate=0.02",
        "--carrier_correction_rate=0.02",
        "--carrier_duplicate_rate=0.05",
        "--carrier_reply_rate=0.03",
    )
    job = Job(emulator, root)

    def shown(ended: Ended) -> Shown:
        assert ended.exit_code == 0, ended.err
        rows = {table: _sorted(current_rows(job.dataset, table)) for table in TABLES}
        return Shown(ended, tables_of(job.dataset), rows, job.as_of())

    try:
        first = shown(job.run())
        told = requests.get(f"{emulator.url}/emulator", timeout=10).json()
        second = shown(job.run())
        impatient = shown(job.run("--join_patience_secs=1"))
        again = (
            f"--from={(impatient.as_of - timedelta(days=5)).date()}",
            f"--to={(impatient.as_of + timedelta(days=1)).date()}",
            f"--as_of={impatient.as_of.isoformat()}",
            "--join_patience_secs=1",
        )
        two_workers = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")
        yield Story(
            job=job,
            emulator=told,
            first=first,
            second=second,
            impatient=impatient,
            backfilled=shown(job.backfill(*again, *two_workers)),
            backfilled_again=shown(job.backfill(*again)),
        )
    finally:
        emulator.stop()


def _sorted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: repr(sorted(row.items())))


def expected(story: Story, as_of: datetime, patience: timedelta) -> Tables:
    return expected_tables(story.job.archive, story.job.send_log_files, as_of, patience)


def test_the_tables_hold_what_a_second_opinion_says(story: Story) -> None:
    tables = story.first.tables

    assert tables == expected(story, story.first.as_of, THREE_DAYS)
    assert len(tables.current()) > 2900
    assert {row["match"] for row in tables.enriched.values()} == {"matched", "orphan"}
    assert max(row["revision"] for row in tables.enriched.values()) == 2
    for rows in (tables.open_sends, tables.waiting, tables.inbound, tables.failed):
        assert rows


def test_every_message_of_the_queues_is_archived_and_gone(story: Story) -> None:
    queues = story.emulator["queues"].values()

    assert sum(story.emulator["delivered"].values()) == len(archived_messages(story.job.archive))
    assert [sum(depths.values()) for depths in queues] == [0, 0]


def test_the_counts_are_those_of_the_other_side(story: Story) -> None:
    counts, carrier = story.first.ended.counts, story.emulator["carrier"]
    told = carrier["reports"] + carrier["duplicates"] + carrier["corrections"]

    assert counts["received"] == counts["archived"] == counts["acknowledged"]
    assert counts["received"] == told + carrier["replies"] + 38
    assert counts["decoded"] == told + carrier["replies"]
    assert (counts["reports"], counts["inbound SMS"]) == (told, carrier["replies"])
    assert counts["failed"] == 38
    assert counts["sends"] == story.emulator["traffic"]["logged_sms"]
    assert counts["open"] == len(story.first.tables.open_sends)
    assert "The ledger is closed" in story.first.ended.out


def test_a_second_run_changes_nothing(story: Story) -> None:
    assert story.second.rows == story.first.rows
    assert story.second.as_of == story.first.as_of
    assert story.second.ended.counts == {"received": 0, "archived": 0, "acknowledged": 0}


def test_patience_runs_out(story: Story) -> None:
    tables = story.impatient.tables

    assert tables == expected(story, story.impatient.as_of, A_SECOND)
    assert (tables.open_sends, tables.waiting) == ({}, {})
    assert tables.unreported.keys() == story.first.tables.open_sends.keys()
    assert story.impatient.ended.counts["unreported"] == len(tables.unreported)


def test_a_backfill_by_two_processes_gives_the_rows_of_the_run(story: Story) -> None:
    for table in TABLES:
        if table == "failed_events":  # they tell when they failed
            assert story.backfilled.tables.failed == story.impatient.tables.failed
        else:
            assert story.backfilled.rows[table] == story.impatient.rows[table], table


def test_a_backfill_gives_the_same_rows_twice(story: Story) -> None:
    assert story.backfilled_again.rows == story.backfilled.rows


def test_analysts_see_what_the_second_opinion_says(story: Story) -> None:
    current = expected(story, story.impatient.as_of, A_SECOND).current()

    connection = analytics.connect(story.job.dataset)
    try:
        query = "SELECT event_id, success, err_code, match, total_ms FROM all_reports"
        found = connection.execute(query).fetchall()
    finally:
        connection.close()

    names = ("event_id", "success", "err_code", "match", "total_ms")
    assert sorted(found, key=repr) == sorted(
        (tuple(row[name] for name in names) for row in current.values()), key=repr
    )


def test_progress_never_shows_whom_an_sms_went_to(story: Story) -> None:
    phones = {row["phone_number"] for row in story.first.tables.enriched.values()} - {None}

    for ended in (story.first.ended, story.impatient.ended, story.backfilled.ended):
        assert not [phone for phone in phones if phone in ended.out or phone in ended.err]


def test_nothing_is_left_behind(story: Story) -> None:
    assert list(Path(story.job.dataset, "_staging").iterdir()) == []


def test_an_answer_may_be_cut_short_by_its_reader(story: Story) -> None:
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "report",
        f"--dataset={story.job.dataset}",
        "--json",
    ]
    with subprocess.Popen(  # noqa: S603 -- our own command
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as report:
        assert report.stdout is not None
        assert report.stderr is not None
        report.stdout.close()  # before the answer is there
        assert report.stderr.read() == b""
    assert report.returncode == 128 + signal.SIGPIPE
