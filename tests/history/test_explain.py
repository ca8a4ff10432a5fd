"""``sms-receipts explain``: a job with one send of every kind, told from its files as they are."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import analytics
from pipeline.__main__ import main
from pipeline.catalog import Catalog, Commit
from pipeline.errors import OperatorError
from pipeline.explain.text import document, text
from tests.history.explaining import (
    ANN,
    ASKED,
    BATCH,
    BOB,
    BROKEN,
    CLEO,
    CORRECTED,
    DAY,
    FIRST,
    FOURTH,
    HOUR,
    MANY,
    MATCHED,
    MINUTE,
    NUMBERLESS,
    ORPHAN,
    PRIVATE,
    SECOND_EPOCH,
    SILENT,
    UNREAD,
    WAITING,
    broken,
    current_files,
    explained,
    files,
    flags,
    only,
    said,
    varied_job,
)
from tests.history.failed_job import FailedJob
from tests.job.small_job import NOON, QUEUE, SmallJob, report
from transforms import tables
from transforms.moments import to_ms
from transforms.tables import read_rows, write_file

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def _job(tmp_path_factory: pytest.TempPathFactory) -> SmallJob:
    return varied_job(tmp_path_factory.mktemp("explained") / "job")


@pytest.fixture
def job(_job: SmallJob, tmp_path: Path) -> SmallJob:
    """A copy of that job, to do with as a test likes."""
    shutil.copytree(_job.archive.parent, tmp_path / "job")
    return SmallJob(tmp_path / "job")


def test_a_matched_send_is_told_in_order_with_its_redelivery_and_its_duplicate(
    job: SmallJob,
) -> None:
    told = only(explained(job, MATCHED, f"--send_log={job.send_log}"))

    assert [(moment.kind, moment.what) for moment in told.moments] == [
        ("send log", "SendSms was called"),
        (
            "message",
            "delivered, speaks for revision 1; archived 2 times (redelivered)",
        ),
        (
            "decision",
            "revision 1, delivered: the first report; matched with its send",
        ),
        ("message", "delivered, a duplicate: another message said so before"),
    ]
    assert [moment.at for moment in told.moments] == sorted(moment.at for moment in told.moments)
    log, first, *_ = told.moments
    assert log.places[0].file == f"{job.send_log}#0"
    assert first.fields["dequeue_count"] == [1, 2]
    assert [place.commit.number for place in first.places if place.commit] == [1, 2]
    assert all((job.archive / place.file).is_file() for place in first.places)
    (row_file,) = files(told, "the first report")
    assert (job.dataset / row_file).is_file()
    assert (told.state, told.verdict) == (
        "delivered",
        "delivered; 1 revision; current is revision 1",
    )
    assert told.next_steps == []


def test_without_the_send_log_the_tables_say_what_was_in_it(job: SmallJob) -> None:
    explanation = explained(job, MATCHED)
    assert said(only(explanation), "send log") == ["SendSms was called, as the tables have it"]
    assert explanation.searched.send_log_files is None


def test_a_correction_is_a_decision_of_its_own(job: SmallJob) -> None:
    told = only(explained(job, CORRECTED))
    assert said(told, "decision") == [
        "revision 1, failed (MK:0001): the first report; matched with its send",
        "revision 2, delivered: a correction: a later report says otherwise; matched with its send",
    ]
    first, second = [moment for moment in told.moments if moment.kind == "decision"]
    assert (first.is_current, second.is_current) == (False, True)
    assert (first.at, second.at) == (FIRST, SECOND_EPOCH)
    assert told.verdict == "delivered; 2 revisions; current is revision 2"


def test_a_real_report_takes_the_place_of_a_querys_answer(job: SmallJob) -> None:
    told = only(explained(job, ASKED))
    assert said(told, "answer", "message", "decision") == [
        "Alibaba was asked: no verdict yet",
        "Alibaba was asked: delivered",
        "revision 1, delivered: the answer of a query; matched with its send",
        "delivered, speaks for revision 2",
        "revision 2, delivered: the real report, which confirms the answer of the query and takes its "
        "place; matched with its send",
    ]
    answered, kept = files(told, "Alibaba was asked: delivered")
    assert answered.startswith("QuerySendDetails/")
    assert kept.startswith("query_answers/")
    assert told.verdict == "delivered; 2 revisions; current is revision 2"


def test_an_orphan_is_joined_with_the_send_that_was_logged_late(job: SmallJob) -> None:
    told = only(explained(job, ORPHAN))
    assert said(told, "decision") == [
        "revision 1, delivered: the first report; an orphan: no send log entry",
        "revision 1, delivered: its send log entry came; matched with its send",
    ]
    assert told.moments[-1].is_current
    assert "orphan" not in told.verdict


def test_a_report_waits_for_its_send(job: SmallJob) -> None:
    told = only(explained(job, WAITING))
    assert told.state == "waiting"
    assert said(told, "decision") == [
        "delivered: waits for its send log entry until 2026-11-08 12:00:00"
    ]
    assert told.next_steps == [
        "log the send just as it was given to SendSms: the next epoch joins the two"
    ]


def test_a_send_without_a_report_ends_with_the_command_that_asks(job: SmallJob) -> None:
    told = only(explained(job, SILENT, at=4 * DAY))
    assert said(told, "decision") == ["unreported: no report had come within the patience"]
    assert told.verdict == (
        "no report came within the patience; asked at 2026-11-01 14:00:00, Alibaba said: no verdict yet"
    )
    (step,) = told.next_steps
    assert step.startswith(
        "no report after 4 days: sms-receipts reconcile --from=2026-11-01 --to=2026-11-01 "
    )
    assert f"--dataset={job.dataset}" in step
    (late,) = only(explained(job, SILENT, at=31 * DAY)).next_steps
    assert late == "nothing: Alibaba answers about the last 30 days only"
    (early,) = only(explained(job, SILENT, at=59 * MINUTE)).next_steps
    assert early.startswith("wait: ")


def test_what_cannot_be_decoded_is_found_by_its_bytes(job: SmallJob) -> None:
    told = only(explained(job, BROKEN))
    assert said(told, "failed") == [
        "decode, malformed_base64: expected base64 or JSON text (attempt 1)"
    ]
    (step, _) = told.next_steps
    assert step.startswith("sms-receipts replay --message_id=BROKEN --dataset=")


def test_what_no_epoch_has_read_is_found_in_archive_and_send_log(job: SmallJob) -> None:
    told = only(explained(job, UNREAD, f"--send_log={job.send_log}"))
    assert said(told) == [
        "SendSms was called; no epoch has read it yet",
        "delivered, not in the tables; no epoch has read it yet",
    ]
    assert told.state == "not processed"
    assert told.next_steps == ["let sms-receipts run finish its next epoch"]
    searched = explained(job, UNREAD).searched
    assert (searched.archive_files, searched.unread_files, searched.messages) == (1, 1, 1)


def test_every_recipient_of_a_call_has_a_story_and_one_can_be_chosen(job: SmallJob) -> None:
    told = explained(job, BATCH)
    assert [(each.phone_number, each.state) for each in told.recipients] == [
        (CLEO, "unreported"),
        (ANN, "delivered"),
        (BOB, "failed"),
        (None, "delivered"),
    ]
    chosen = explained(job, BATCH, f"--phone_number={BOB}").recipients
    assert [each.phone_number for each in chosen] == [BOB, None]
    assert "an orphan: its send is not in the send log" in chosen[1].verdict
    with pytest.raises(OperatorError) as refused:
        explained(job, BATCH, "--phone_number=13600000000")
    assert "13600000000" not in str(refused.value)


def test_a_report_without_a_number_belongs_to_the_only_recipient(job: SmallJob) -> None:
    told = only(explained(job, NUMBERLESS))
    assert told.phone_number == ANN
    assert said(told, "message") == ["delivered, speaks for revision 1"]


def test_of_many_recipients_each_has_a_line(job: SmallJob) -> None:
    told = text(explained(job, MANY))
    assert told.count("139****000") == 7
    assert "Verdict: 7 unreported." in told
    assert told.count("Next: ") == 1
    assert "decision" not in told
    assert told.startswith(
        f"{MANY}: 7 recipients; {job.dataset} as of commit 4, 2026-11-06 12:00:00."
    )


def test_nobody_sees_numbers_and_texts_without_asking_for_them(job: SmallJob) -> None:
    log = job.send_log.rename(job.send_log.with_name(f"{ANN}.jsonl"))
    more = [f"--send_log={log}"]
    told = {biz_id: explained(job, biz_id, *more) for biz_id in (MATCHED, BATCH, ASKED, BROKEN)}
    for explanation in told.values():
        for written in (text(explanation), document(explanation)):
            leaked = [private for private in PRIVATE if private in written]
            assert not leaked
            # These bytes would tell as much.
            assert broken(BROKEN).body.decode().splitlines()[0] not in written
    assert "138****0001" in text(told[MATCHED])
    assert "template_param=(17 characters)" in text(told[MATCHED])
    answered = [row["message_id"] for row in job.tables().answers.values()]
    assert answered
    assert not any(message_id in text(told[ASKED]) for message_id in answered)

    asked_for = "".join(
        writing(explained(job, biz_id, "--show_personal_data", *more))
        for biz_id in told
        for writing in (text, document)
    )
    assert [private for private in PRIVATE if private not in asked_for] == []


def test_of_compacted_rows_the_file_that_holds_them_now_is_told(job: SmallJob) -> None:
    assert main(["compact", f"--dataset={job.dataset}"]) == 0
    partition = "enriched_reports/dt=2026-11-01/"
    (large,) = [path for path in current_files(job) if path.startswith(partition)]

    for biz_id in (CORRECTED, ORPHAN, ASKED):
        explanation = explained(job, biz_id)
        decisions = [each for each in only(explanation).moments if each.kind == "decision"]
        assert [each.places[0].file for each in decisions] == [large] * 2
        assert "(written by commit 5, compact, with rows of older files)" in text(explanation)
        assert [each.is_current for each in decisions] == [False, True]
    corrected = [
        each for each in only(explained(job, CORRECTED)).moments if each.kind == "decision"
    ]
    # Their messages tell when they were written first.
    assert [each.at for each in corrected] == [FIRST, SECOND_EPOCH]
    assert corrected[1].what.startswith("revision 2, delivered: a correction")
    assert corrected[1].what.endswith(" (then or later)")
    assert "its send log entry came" in said(only(explained(job, ORPHAN)))[-1]


def test_row_groups_that_cannot_hold_the_id_are_left_out_and_no_others(job: SmallJob) -> None:
    table, day = tables.ENRICHED_REPORTS, "2026-11-01"
    with Catalog(str(job.dataset), lambda: FOURTH + HOUR) as catalog:
        (path, *_) = catalog.files(table.name, [day])
        row = read_rows(table, catalog.absolute(path.path)).slice(0, 1)
        groups = [
            pa.concat_tables([row.set_column(4, row.field(4), [[name]]) for name in pair])
            for pair in (("S1", "S3"), ("S5", "S5"), ("S5", "S8"))
        ]
        assert row.schema.names[4] == "biz_id"
        sorted_file = write_file(table, day, groups, catalog.staging("s"), is_sorted=True)
        catalog.commit(Commit("compact", to_ms(FOURTH), {}, [sorted_file], [], {}, {}), "s")
    for biz_id, count in (("S1", 1), ("S3", 1), ("S5", 3), ("S8", 1)):
        decisions = said(only(explained(job, biz_id)), "decision")
        assert len(decisions) == count
    for biz_id in ("S0", "S2", "S4", "S9"):
        with pytest.raises(OperatorError):
            explained(job, biz_id)


def test_what_counts_is_what_the_views_say(job: SmallJob) -> None:
    with analytics.connect(job.dataset) as connection:
        reports = connection.sql(
            "SELECT biz_id, phone_number, revision, success, origin FROM reports"
        ).fetchall()
    assert len(reports) == 8
    for biz_id, phone_number, *row in reports:
        told = explained(job, biz_id).recipients
        (current,) = [each.current for each in told if each.phone_number == phone_number]
        assert current is not None
        assert [current[name] for name in ("revision", "success", "origin")] == row


def test_it_works_while_a_job_holds_the_lock_and_leaves_no_trace(
    job: SmallJob, capsys: pytest.CaptureFixture[str]
) -> None:
    with Catalog(str(job.dataset), lambda: FOURTH):
        before = sorted(job.dataset.rglob("*.parquet"))
        assert main(["explain", MATCHED, *flags(job)]) == 0
        assert sorted(job.dataset.rglob("*.parquet")) == before
    told = capsys.readouterr()
    assert "Verdict: delivered; 1 revision; current is revision 1.\n" in told.out
    assert told.err == ""

    assert main(["explain", CORRECTED, *flags(job, "--json")]) == 0
    written = json.loads(capsys.readouterr().out)
    (recipient,) = written["recipients"]
    assert (recipient["state"], recipient["revision"]) == ("delivered", 2)
    assert [moment["kind"] for moment in recipient["history"]].count("decision") == 2
    assert written["searched"]["days"] == ["2026-11-01"]


def test_an_unknown_id_says_where_was_looked(
    job: SmallJob, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", BOB, *flags(job)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "Nothing is known of this BIZ_ID. Looked in " in told.err
    assert "1 archive file, 1 of them not read by an epoch yet (1 message)" in told.err
    assert BOB not in told.err, "an id that was mistyped may be a number"

    assert main(["explain", BOB, *flags(job, "--from=2026-11-01")]) == 2
    assert "archive files with records of 2026-11-01" in capsys.readouterr().err

    assert main(["explain", MATCHED, "--dataset=/nowhere"]) == 2
    assert "There is no dataset at /nowhere" in capsys.readouterr().err


def test_days_narrow_the_search(job: SmallJob) -> None:
    listed = len(list(job.archive.rglob("*.avro")))
    told = explained(job, MATCHED, "--from=2026-11-01", "--to=2026-11-01")
    assert only(told).state == "delivered"
    # Without days, those of its rows are enough.
    assert explained(job, MATCHED).searched.archive_files == listed - 1
    both = explained(job, MATCHED, "--from=2026-11-01", "--to=2026-11-02").searched
    assert (both.archive_files, both.days) == (listed, ["2026-11-01", "2026-11-03"])
    with pytest.raises(OperatorError, match="Nothing is known"):
        explained(job, MATCHED, "--from=2026-11-03")


def test_refused_lines_and_other_formats_of_the_send_log_are_searched(
    job: SmallJob, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    entry = {"biz_id": UNREAD, "phone_number": BOB, "requested_at": NOON}
    pq.write_table(pa.Table.from_pylist([entry, {**entry, "biz_id": "1^0"}]), logs / "a.parquet")
    refused = json.dumps({"biz_id": UNREAD, "phone_number": 1})
    (logs / "b.jsonl").write_text(f"{{}}\n{refused}\n")

    told = explained(job, UNREAD, f"--send_log={logs}").recipients

    assert [(each.phone_number, each.state) for each in told] == [
        (ANN, "not processed"),
        (BOB, "not processed"),
        (None, "failed event"),
    ]
    assert files(told[1], "SendSms was called") == [str(logs / "a.parquet")]
    assert files(told[2], "refused, wrong_type: phone_number") == [str(logs / "b.jsonl#3")]


def test_a_failed_event_and_its_replay_are_told(tmp_path: Path) -> None:
    job = FailedJob(tmp_path / "job")
    job.send(MATCHED)
    job.fail(report(MATCHED, message_id="R1"))
    told = only(explained(job, MATCHED))
    assert told.verdict == "reported by a failed event, which can be decoded now"
    assert said(told, "message", "failed") == [
        "decode, unknown_shape: an earlier version could not read this (attempt 1)",
        "delivered, not in the tables",
    ]
    assert len(told.next_steps) == 1
    assert told.next_steps[0].startswith("sms-receipts replay --message_id=R1 ")

    job.epoch(NOON + MINUTE)
    job.replay(NOON + HOUR)

    told = only(explained(job, MATCHED))
    assert said(told, "failed", "decision")[1:] == [
        "replayed with success (attempt 2)",
        "revision 1, delivered: the first report, replayed; matched with its send",
    ]
    assert told.next_steps == []


def test_a_damaged_archive_costs_only_its_damaged_block(job: SmallJob) -> None:
    numbered = [report(f"9{number:017}^0", ANN, message_id=f"N{number}") for number in range(1500)]
    job.land(*numbered)
    (large,) = job.archive.glob("*/*/*-1500-*.avro")
    whole = large.read_bytes()
    middle = len(whole) // 2
    large.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])

    told = explained(job, f"9{1499:017}^0")

    assert said(only(told)) == ["delivered, not in the tables; no epoch has read it yet"]
    (note,) = told.searched.notes
    assert f"{large.name} is damaged: " in note
    assert " of its 1,500 messages cannot be read, and may have been about this send." in note


def test_a_missing_archive_is_told_and_the_tables_still_speak(job: SmallJob) -> None:
    shutil.rmtree(job.archive / QUEUE)
    told = explained(job, MATCHED)
    assert only(told).state == "delivered"
    (note,) = told.searched.notes
    assert "lacks 3 files with records of these days" in note
    shutil.rmtree(job.archive)
    assert explained(job, MATCHED).searched.notes == [
        f"There is no archive at {job.archive}: correct --archive."
    ]


def test_what_an_earlier_version_wrote_is_explained(tmp_path: Path) -> None:
    corpus = Path(__file__).parents[1] / "corpus" / "0.1.0"
    shutil.copytree(corpus, tmp_path / "corpus")
    earlier = SmallJob(tmp_path / "corpus")
    with analytics.connect(earlier.dataset) as connection:
        current = connection.sql(
            "SELECT biz_id, phone_number, revision, success FROM reports"
            " WHERE phone_number IS NOT NULL"
        ).fetchall()
        silent = connection.sql(
            "SELECT biz_id, phone_number, state FROM sends WHERE state <> 'reported'"
        ).fetchall()
        waiting = connection.sql(
            "SELECT biz_id, phone_number, 'waiting' FROM waiting WHERE phone_number IS NOT NULL"
        ).fetchall()
    assert current
    assert silent
    assert waiting
    for biz_id, phone_number, revision, success in current:
        told = explained(earlier, biz_id, f"--phone_number={phone_number}")
        one = next(each for each in told.recipients if each.phone_number == phone_number)
        assert one.current is not None
        assert (one.current["revision"], one.current["success"]) == (revision, success)
        assert said(one, "message")
        assert told.searched.notes == []
    for biz_id, phone_number, state in (*silent, *waiting):
        told = explained(earlier, biz_id, f"--phone_number={phone_number}")
        assert state in {each.state for each in told.recipients}
