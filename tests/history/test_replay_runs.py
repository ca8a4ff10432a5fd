"""Replay on the real graph: what an earlier version refused comes in as if it had always been read."""

import base64
import json
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from pipeline.__main__ import main
from pipeline.catalog import Catalog
from pipeline.epochs import NewInput, epoch_input, run_bounded_graph
from pipeline.errors import AlreadyRunningError, OutputError
from pipeline.replay import dry_run, failed_units, snapshot
from schemas.records import MnsMessage
from tests.history.failed_job import FailedJob
from tests.job.oracle import BEIJING, Rows
from tests.job.small_job import NOON, QUEUE, report
from transforms.failures import Reason
from transforms.replay import Choice

pytestmark = pytest.mark.integration

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
SOON, LATER = NOON + 10 * MINUTE, NOON + 20 * MINUTE


@pytest.fixture
def job(tmp_path: Path) -> FailedJob:
    return FailedJob(tmp_path)


def poison(message_id: str = "poison") -> MnsMessage:
    """A message that no version can read."""
    return report("x", message_id=message_id)._replace(body=b"\xff no report at all")


def inbound(message_id: str, sent_at: datetime = NOON) -> MnsMessage:
    body = {
        "phone_number": "13800000001",
        "content": "TD",
        "dest_code": "10690000",
        "sign_name": "Example",
        "sequence_id": 7,
        "send_time": sent_at.astimezone(BEIJING).strftime("%Y-%m-%d %H:%M:%S"),
    }
    return MnsMessage(
        message_id=message_id,
        queue_name=QUEUE.replace("SmsReport", "SmsUp"),
        message_type="SmsUp",
        enqueued_at=sent_at + timedelta(seconds=6),
        dequeue_count=1,
        body=base64.b64encode(json.dumps(body).encode()),
    )


def from_queues(rows: Rows) -> Rows:
    """The same rows as if none of them had been replayed."""
    return {key: row | {"origin": "mns"} for key, row in rows.items()}


def test_what_succeeds_is_joined_and_settled_and_poison_stays(job: FailedJob) -> None:
    job.send("a")
    job.fail(report("a"), report("b"), poison(), inbound("reply"))
    job.epoch(SOON)
    before = job.attempts()

    counts = job.replay(LATER)

    assert (counts["succeeded/failed_events"], counts["failed_again/failed_events"]) == (3, 1)
    tables, expected = job.tables(), job.expected(LATER)
    assert {row["origin"] for row in (*tables.enriched.values(), *tables.waiting.values())} == {
        "replay"
    }
    tables.enriched, tables.waiting = from_queues(tables.enriched), from_queues(tables.waiting)
    assert tables == expected
    assert job.open_events() == {"poison": 2}
    # Attempts are added; what was there stays as it was.
    assert [row for row in job.attempts() if row["attempt"] == 1] == before
    (again,) = (row for row in job.attempts() if row["attempt"] == 2 and not row["replayed_at"])
    assert (again["reason"], again["failed_at"]) == ("malformed_base64", LATER)
    assert again["original"] == poison().body
    settled = [row for row in job.attempts() if row["replayed_at"]]
    assert [(row["attempt"], row["reason"], row["failed_at"], row["replayed_at"]) for row in settled] == [
        (2, "unknown_shape", NOON, LATER)
    ] * 3  # fmt: skip


def test_a_second_replay_changes_nothing(job: FailedJob) -> None:
    job.send("a")
    job.fail(report("a"), poison())
    job.epoch(SOON)
    job.replay(LATER)
    before, attempts, commits = job.tables(), job.attempts(), job.commits

    counts = job.replay(LATER + MINUTE)

    assert counts["chosen/failed_events"] == counts["failed_as_before/failed_events"] == 1
    assert (job.tables(), job.attempts(), job.commits) == (before, attempts, commits)
    assert commits[-1] == "replay"
    assert list((job.dataset / "_staging").iterdir()) == []


def test_a_backfill_afterwards_gives_the_same_rows(job: FailedJob) -> None:
    job.send("a")
    job.fail(report("a"), report("b"), poison(), inbound("reply"))
    job.epoch(SOON)
    job.replay(LATER)

    job.backfill("2026-11-01", "2026-11-01", LATER)

    assert job.tables() == job.expected(LATER)
    assert job.open_events() == {"poison": 1}
    assert job.replay(LATER)["chosen/failed_events"] == 1


def test_a_backfill_finds_records_that_are_far_from_where_their_message_failed(
    job: FailedJob,
) -> None:
    job.send("a")
    job.fail(report("a", enqueued_at=NOON + 20 * DAY), report("b", sent_at=NOON + 20 * DAY))
    as_of = NOON + 21 * DAY
    job.epoch(as_of)
    job.replay(as_of)

    job.backfill("2026-11-01", "2026-11-01", as_of)

    tables, expected = job.tables(), job.expected(as_of)
    tables.waiting = from_queues(tables.waiting)
    assert tables == expected


def test_a_dry_run_counts_what_a_replay_will_do_and_writes_nothing(job: FailedJob) -> None:
    job.send("a")
    job.fail(report("a"), poison())
    job.fail(report("b"), reason="malformed_time")
    job.fail_sends(b'{"biz_id": "b", "phone_number": "13800000001"}')
    job.epoch(SOON)
    files = {path: path.stat().st_mtime_ns for path in job.dataset.rglob("*") if path.is_file()}

    # Beside a job that holds the dataset.
    with Catalog(str(job.dataset), lambda: SOON):
        promised = job.dry_run(LATER)

    catalog = {path for path in files if path.name.startswith(("catalog.sqlite", "_lock"))}
    assert {
        path: path.stat().st_mtime_ns
        for path in job.dataset.rglob("*")
        if path.is_file() and path not in catalog
    }.items() <= files.items()
    done = job.replay(LATER)
    assert promised == {name: done[name] for name in promised}
    assert promised["replay/unknown_shape/succeeded"] == 1
    assert promised["replay/unknown_shape/failed_again"] == 1
    assert promised["replay/malformed_time/succeeded"] == 1
    assert promised["replay/malformed_time/failed_again"] == 1


def test_a_redelivered_message_changes_nothing_after_its_replay(job: FailedJob) -> None:
    job.send("a")
    job.fail(report("a"), poison(), inbound("reply"))
    job.epoch(SOON)
    job.replay(LATER)
    before, attempts = job.tables(), job.attempts()

    job.land(report("a"), poison(), inbound("reply"))
    counts = job.epoch(LATER)

    assert (counts["duplicate_reports"], counts["duplicate_failed"]) == (1, 1)
    assert counts["duplicate_inbound"] == 1
    assert (job.tables(), job.attempts()) == (before, attempts)


def test_what_came_once_more_and_was_read_is_settled_by_a_replay(job: FailedJob) -> None:
    job.send("a")
    job.fail(report("a"), inbound("reply"))
    job.land(report("a"), inbound("reply"))
    job.epoch(SOON)
    before = job.tables()

    counts = job.replay(LATER)

    assert (counts["duplicate_reports"], counts["duplicate_inbound"]) == (1, 1)
    before.failed = {}
    assert job.tables() == before == job.expected(LATER)


def test_a_replayed_report_is_a_correction_where_it_says_something_else(job: FailedJob) -> None:
    job.send("a")
    job.fail(report("a", err_code="EXPIRED", enqueued_at=NOON + MINUTE))
    job.land(report("a"))
    job.epoch(SOON)

    job.replay(LATER)

    tables = job.tables()
    (row,) = tables.current().values()
    assert (row["revision"], row["err_code"]) == (2, "EXPIRED")
    tables.enriched = from_queues(tables.enriched)
    assert tables == job.expected(LATER)


def test_a_replayed_send_meets_its_report(job: FailedJob) -> None:
    good = json.dumps(
        {"biz_id": "a", "phone_number": "13800000001", "requested_at": "2026-11-01T11:59:59+08:00"}
    ).encode()
    job.fail_sends(b"\xff", good, b'{"biz_id": ')
    job.land(report("a"))
    assert job.epoch(SOON)["waiting_after"] == 1

    counts = job.replay(LATER)

    assert counts["chosen/failed_sends"] == 3
    assert (counts["succeeded/failed_sends"], counts["matched_sends"]) == (1, 1)
    (row,) = job.tables().current().values()
    assert (row["match"], row["requested_at"]) == ("matched", NOON - timedelta(seconds=1))
    opened = job.open_events("failed_sends")
    assert opened == {f"{job.send_log}#0": 2, f"{job.send_log}#{3 + len(good)}": 2}
    attempts = job.attempts("failed_sends")
    assert job.replay(LATER + DAY)["failed_as_before/failed_sends"] == 2
    assert job.attempts("failed_sends") == attempts
    assert {row["original"] for row in attempts} == {b"\xff", good, b'{"biz_id": '}


def test_any_choices_in_any_order_end_in_the_same_rows(job: FailedJob) -> None:
    random = Random(5)  # noqa: S311
    reasons: tuple[Reason, ...] = ("unknown_shape", "malformed_time", "wrong_type")
    messages = [
        report(
            f"{number % 40}",
            err_code=random.choice(("DELIVERED", "EXPIRED")),
            sent_at=NOON + random.randrange(3) * DAY,
            enqueued_at=NOON + 3 * DAY + timedelta(seconds=number),
            message_id=f"{number}",
        )
        for number in range(120)
    ]
    random.shuffle(messages)
    job.send("0", requested_at=NOON)
    for number in range(1, 30):
        job.send(str(number), requested_at=NOON + random.randrange(3) * DAY)
    for index, reason in enumerate(reasons):
        job.fail(*messages[index * 30 : index * 30 + 30], poison(reason), reason=reason)
    job.land(*messages[90:])
    as_of = NOON + 4 * DAY
    job.epoch(as_of)

    for reason in random.sample(reasons, 3):
        counts = job.replay(as_of, Choice(reasons=frozenset([reason])))
        assert counts["succeeded/failed_events"] == 30

    assert job.open_events() == dict.fromkeys(reasons, 2)
    tables, expected = job.tables(), job.expected(as_of)
    assert from_queues(tables.current()) == expected.current()
    assert tables.failed == expected.failed


def test_a_replay_that_was_killed_never_happened(job: FailedJob) -> None:
    job.send("a")
    job.fail(report("a"), poison())
    job.epoch(SOON)
    before, attempts = job.tables(), job.attempts()
    units = failed_units(snapshot(str(job.dataset)), Choice())
    with Catalog(str(job.dataset), lambda: LATER) as catalog:
        given = epoch_input(catalog, NewInput((), (), units), LATER)
        assert run_bounded_graph(catalog.staging("killed"), job.settings, given).files

    with Catalog(str(job.dataset), lambda: LATER):
        assert (job.tables(), job.attempts()) == (before, attempts)
    job.replay(LATER)

    assert job.open_events() == {"poison": 2}
    assert [row["origin"] for row in job.tables().enriched.values()] == ["replay"]


def test_a_replay_is_refused_while_another_process_writes(job: FailedJob) -> None:
    job.fail(poison())
    with (
        Catalog(str(job.dataset), lambda: SOON),
        pytest.raises(AlreadyRunningError, match="Another sms-receipts process is writing"),
    ):
        job.replay(LATER)


def test_the_command_tells_first_and_does_then(
    job: FailedJob, capsys: pytest.CaptureFixture[str]
) -> None:
    job.send("a")
    job.fail(report("a"), poison())
    job.epoch(SOON)
    flags = ["replay", f"--dataset={job.dataset}", f"--send_log={job.send_log}"]

    assert main(flags) == 0
    told = capsys.readouterr()
    assert job.open_events() == {"a/13800000001/DELIVERED": 1, "poison": 1}
    assert main([*flags, "--apply"]) == 0
    done = capsys.readouterr().out
    assert main([*flags, "--apply", "--stage=validate"]) == 0
    none = capsys.readouterr().out

    assert told.out == (
        "\n"
        "failed with                  would succeed  would fail again      as last time\n"
        "unknown_shape                            1                 1                 0\n"
        "all                                      1                 1                 0\n"
        "\n"
        "Nothing was written: this was a dry run.\n"
        "Next: sms-receipts replay --apply, with the same flags, while no other process writes to the "
        "dataset\n"
    )
    assert "replay: 2 rows of failed events to look at, in 1 parts" in told.err
    assert "1 left the open failed events and are in the tables; 1 stay." in done
    assert f"Next: sms-receipts report --sql=failed_events --dataset {job.dataset}" in done
    assert "Nothing was changed" in none
    assert job.open_events() == {"poison": 2}


def test_a_dry_run_whose_files_another_process_merged_says_so(job: FailedJob) -> None:
    job.fail(poison())

    def merge(_: str) -> None:
        for path in job.dataset.rglob("*.parquet"):
            path.unlink()

    with pytest.raises(
        OutputError, match="was changed by another process meanwhile: try once more"
    ):
        dry_run(str(job.dataset), Choice(), LATER, merge)
