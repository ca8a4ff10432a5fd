"""`sms-receipts report`: exact answers from a dataset made by hand."""

import contextlib
import io
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from analytics.report import main
from tests.analytics.dataset import (
    AS_OF,
    DAY_1,
    DAY_2,
    NOON,
    Dataset,
    event_id,
    failed,
    inbound,
    orphan,
    report,
    send,
    unreported,
    waiting,
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two days with everything that can happen to an SMS; nobody writes to it."""
    made = Dataset(tmp_path_factory.mktemp("analytics") / "dataset")
    made.add(
        "enriched_reports",
        DAY_1,
        [
            report("1", total_ms=1000),
            report("2", total_ms=3000, template_code="SMS_2"),
            report("3", success=False, err_code="MOBILE_SEND_LIMIT", total_ms=9000),
            # First delivered, then failed: the correction counts.
            report("4"),
            report(
                "4", revision=2, success=False, err_code="XX:9999", message_id="m4", total_ms=2000
            ),
            orphan("5"),
            # An orphan whose send turned up later: the same outcome, written again.
            orphan("6"),
            report("6", campaign="autumn", total_ms=4000),
        ],
    )
    made.add(
        "enriched_reports",
        DAY_2,
        [report("7", DAY_2, success=False, err_code=None, total_ms=5000)],
        below="_staging/attempt-1",
    )
    made.add("enriched_reports", DAY_1, [report("gone")], removed_by=1)
    made.add("open_sends", DAY_2, [send("8", DAY_2), send("9", DAY_2, campaign=None)])
    # The second one is stale: its report came after all.
    made.add("unreported_sends", DAY_1, [unreported("10"), unreported("3")])
    made.add("waiting_reports", DAY_2, [waiting("11", DAY_2)])
    made.add(
        "inbound_sms",
        DAY_1,
        [
            inbound("i1"),
            inbound("i2", phone_number="13911112222"),
            inbound("i3", dest_code="10690001"),
        ],
    )
    made.add("failed_events", DAY_1, [failed("f1"), failed("f2"), failed("f2", attempt=2)])
    made.add(
        "failed_sends",
        "2026-11-03",
        [failed("log#1", stage="validate", reason="malformed_time", enqueued_at=None)],
    )
    made.commit()
    return made


@pytest.fixture(scope="module")
def document(dataset: Dataset) -> str:
    """What a machine gets when it asks everything."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["--dataset", str(dataset.directory), "--json"]) == 0
    return printed.getvalue()


@pytest.fixture(scope="module")
def answers(document: str) -> dict[str, Any]:
    """The rows of every answer."""
    return {name: answer["rows"] for name, answer in json.loads(document)["answers"].items()}


def ask(capsys: pytest.CaptureFixture[str], dataset: Dataset, *arguments: str) -> dict[str, Any]:
    """Ask with --json; answer the rows by question."""
    assert main(["--dataset", str(dataset.directory), "--json", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    answers = json.loads(captured.out)["answers"]
    return {name: answer["rows"] for name, answer in answers.items()}


def test_the_overview_counts_every_sms_once(answers: dict[str, Any]) -> None:
    assert answers["overview"] == [
        {
            "sends": 9,
            "reports": 7,
            "delivered": 4,
            "failed": 3,
            "delivery_rate_of_reports": 0.571429,
            "delivery_rate_of_sends": 0.333333,
            "orphans": 1,
            "orphan_share": 0.142857,
            "corrected": 1,
            "open": 2,
            "unreported": 1,
            "waiting": 1,
            "replies": 3,
            "failed_events": 3,
        }
    ]


def test_latency_is_of_the_current_rows(answers: dict[str, Any]) -> None:
    assert answers["latency"] == [
        {"latency": "queueing", "reports": 6, **dict.fromkeys(PERCENTILES, 500)},
        {"latency": "carrier", "reports": 7, **dict.fromkeys(PERCENTILES, 2000)},
        {
            "latency": "total",
            "reports": 6,
            "p50_ms": 3000,
            "p90_ms": 9000,
            "p95_ms": 9000,
            "p99_ms": 9000,
            "max_ms": 9000,
        },
    ]


PERCENTILES = ("p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms")


def test_failure_codes_have_a_meaning_or_are_shown_raw(answers: dict[str, Any]) -> None:
    assert answers["failure_codes"] == [
        {"err_code": code, "failed": 1, "share_of_failed": 0.333333, "meaning": meaning}
        for code, meaning in (
            ("(none)", None),
            ("MOBILE_SEND_LIMIT", "too many SMS to this number in a short time"),
            ("XX:9999", None),
        )
    ]


def test_by_campaign(answers: dict[str, Any]) -> None:
    spring, none, autumn = answers["by_campaign"]
    assert spring == {
        "campaign": "spring",
        "sends": 7,
        "reported": 5,
        "delivered": 2,
        "delivery_rate_of_reports": 0.4,
        "delivery_rate_of_sends": 0.285714,
        "open": 1,
        "unreported": 1,
        "p50_ms": 3000,
        "p95_ms": 9000,
    }
    assert (none["campaign"], none["open"], none["delivery_rate_of_reports"]) == ("(none)", 1, None)
    assert (autumn["campaign"], autumn["delivered"], autumn["p50_ms"]) == ("autumn", 1, 4000)


def test_by_day_the_latest_first(answers: dict[str, Any]) -> None:
    second, first = answers["by_day"]
    assert second == {
        "day": DAY_2,
        "sends": 3,
        "reports": 1,
        "delivered": 0,
        "delivery_rate_of_reports": 0.0,
        "orphans": 0,
        "open": 2,
        "unreported": 0,
        "p50_ms": 5000,
        "p95_ms": 5000,
    }
    assert (first["day"], first["sends"], first["reports"], first["unreported"]) == (DAY_1, 6, 6, 1)


def test_every_other_question_is_answered(answers: dict[str, Any]) -> None:
    assert answers["replies"] == [
        {"dest_code": "10690000", "replies": 2, "people": 2, "last_day": DAY_1},
        {"dest_code": "10690001", "replies": 1, "people": 1, "last_day": DAY_1},
    ]
    assert answers["open_sends"] == [{"age": "24 to 72 h", "open": 2, "oldest_hours": 24}]
    assert answers["unreported_sends"] == [
        {"day": DAY_1, "template_code": "SMS_1", "campaign": "spring", "unreported": 1}
    ]
    failures = [
        (row["origin"], row["reason"], row["failed_events"]) for row in answers["failed_events"]
    ]
    assert failures == [("message", "malformed_json", 2), ("send log entry", "malformed_time", 1)]


def test_only_the_days_asked_about_are_answered(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    (overview,) = ask(capsys, dataset, "--from", DAY_2, "--to", DAY_2, "--sql", "overview")[
        "overview"
    ]
    assert {
        name: overview[name] for name in ("sends", "reports", "open", "waiting", "replies")
    } == {
        "sends": 3,
        "reports": 1,
        "open": 2,
        "waiting": 1,
        "replies": 0,
    }


def test_a_correction_of_a_later_day_counts_for_the_day_it_corrects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Dataset(tmp_path / "dataset")
    made.add("enriched_reports", DAY_1, [report("1")])
    made.add("enriched_reports", DAY_2, [report("1", DAY_2, revision=2, success=False)])
    made.commit()
    one_question = ("--sql", "overview")
    (first_day,) = ask(capsys, made, "--to", DAY_1, *one_question)["overview"]
    assert (first_day["reports"], first_day["delivered"]) == (0, 0)
    (both,) = ask(capsys, made, *one_question)["overview"]
    assert (both["reports"], both["failed"], both["corrected"]) == (1, 1, 1)


def test_among_rows_of_one_revision_the_earliest_report_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Dataset(tmp_path / "dataset")
    later = NOON[DAY_1] + timedelta(seconds=1)
    rows = [
        report("1", revision=2, success=False, err_code="LATER", enqueued_at=later, message_id="a"),
        report("1", revision=2, success=False, err_code="EARLIER", message_id="b"),
        report("1", revision=1),
    ]
    made.add("enriched_reports", DAY_1, rows)
    made.commit()
    (code,) = ask(capsys, made, "--sql", "failure_codes")["failure_codes"]
    assert code["err_code"] == "EARLIER"


def test_an_empty_dataset_answers_zeros(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Dataset(tmp_path / "dataset")
    made.commit()
    answers = ask(capsys, made)
    (overview,) = answers.pop("overview")
    rates = {"delivery_rate_of_reports", "delivery_rate_of_sends", "orphan_share"}
    assert {name for name, value in overview.items() if value is None} == rates
    assert {value for name, value in overview.items() if name not in rates} == {0}
    assert [row["reports"] for row in answers.pop("latency")] == [0, 0, 0]
    assert all(rows == [] for rows in answers.values())


def test_the_document_says_what_it_is_true_of(dataset: Dataset, document: str) -> None:
    described = json.loads(document)
    answers = described.pop("answers")
    assert described == {
        "dataset": str(dataset.directory),
        "epoch": 1,
        "as_of": AS_OF.isoformat(),
        "from": None,
        "to": None,
    }
    assert answers["by_day"]["question"] == "How did each day go?"
    assert "Beijing days" in answers["by_day"]["note"]


def test_tables_for_people_hold_the_same_figures(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--dataset", str(dataset.directory)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "How many SMS were sent, and what became of them?" in shown
    assert "57.14%" in shown
    assert "3,000" in shown
    assert "resolution of one second" in shown


def test_no_answer_holds_personal_data(document: str) -> None:
    for personal in ("13800000000", "13911112222", "secret text", event_id("1", "13800000000")):
        assert personal not in document


def test_long_answers_are_cut_for_people_and_whole_for_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Dataset(tmp_path / "dataset")
    made.add("open_sends", DAY_1, [send(str(n), campaign=f"campaign-{n:02}") for n in range(25)])
    made.commit()
    assert len(ask(capsys, made, "--by", "campaign")["by_campaign"]) == 25
    main(["--dataset", str(made.directory), "--by", "campaign"])
    shown = capsys.readouterr().out
    assert shown.count("campaign-") == 20
    assert "5 more rows" in shown


def test_the_questions_are_listed(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dataset", str(dataset.directory), "--sql", "list"]) == 0
    shown = capsys.readouterr().out
    assert "failure_codes" in shown
    assert "Why do SMS fail?" in shown
    assert "views" not in shown
    assert main(["--dataset", str(dataset.directory), "--sql", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["replies"].startswith("How many people replied")


def test_somebodys_own_sql_replaces_and_adds(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "by_length.sql").write_text("-- How long?\nSELECT 1 AS one, 0.5::DECIMAL(2,1) AS half;")
    (own / "replies.sql").write_text("SELECT 'nan'::DOUBLE AS nothing")
    answers = ask(capsys, dataset, "--sql_dir", str(own))
    assert answers["by_length"] == [{"one": 1, "half": 0.5}]
    assert answers["replies"] == [{"nothing": None}]
    assert answers["overview"][0]["sends"] == 9
    assert list(ask(capsys, dataset, "--sql_dir", str(own), "--by", "length")) == ["by_length"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_what_cannot_be_asked_is_said_in_a_sentence(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ("--dataset", str(dataset.directory))
    assert "no question by_phone: choose one of overview" in refused(capsys, *here, "--by", "phone")
    assert "swap them" in refused(capsys, *here, "--from", DAY_2, "--to", DAY_1)
    assert "is no directory" in refused(capsys, *here, "--sql_dir", str(tmp_path / "no"))
    (tmp_path / "bad.sql").write_text("SELECT nothing FROM reports")
    with_own = (*here, "--sql_dir", str(tmp_path), "--sql", "bad")
    assert "question bad cannot be asked: Binder Error" in refused(capsys, *with_own)
    (tmp_path / "bad.sql").write_text("SELECT CAST(phone_number || 'x' AS INTEGER) FROM reports")
    said = refused(capsys, *with_own)
    assert "cannot be answered (ConversionException)" in said
    assert "138" not in said


def test_without_a_dataset_the_command_says_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = ("--dataset", str(tmp_path / "none"))
    assert "run `sms-receipts run` with its --dataset first" in refused(capsys, *nowhere)
    Dataset(tmp_path / "new")
    assert "no committed epoch yet" in refused(capsys, "--dataset", str(tmp_path / "new"))
    (tmp_path / "new" / "catalog.sqlite").write_bytes(b"no database at all, nowhere near one")
    assert "cannot be read (DatabaseError)" in refused(capsys, "--dataset", str(tmp_path / "new"))


def test_a_missing_or_damaged_file_is_named_with_the_fix(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    (file,) = dataset.directory.glob("inbound_sms/*/*.parquet")
    file.write_bytes(b"PAR1")
    assert "inbound_sms is no Parquet file any more" in refused(
        capsys, "--dataset", str(dataset.directory)
    )
    file.unlink()
    said = refused(capsys, "--dataset", str(dataset.directory))
    assert "lacks 1 file(s) that its catalog names, inbound_sms/" in said
