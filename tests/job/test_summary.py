"""The end of a run in words, and the books it closes."""

from collections import Counter

import pytest

from pipeline.errors import OutputError
from pipeline.health import RunCounts, Snapshot
from pipeline.landing import Landed
from pipeline.ledger import LedgerError
from pipeline.summary import (
    graph_summary,
    require_closed_ledger,
    run_summary,
    status_line,
    troubles_of,
)


def run_of(**landed: int) -> RunCounts:
    """A run that landed and processed four messages, one of which cannot be decoded."""
    counts = RunCounts(landed=Counter({"received": 4, "archived": 4, "acknowledged": 4} | landed))
    counts.add_epoch(
        {
            "messages": 4,
            "decoded_messages": 3,
            "failed_messages": 1,
            "failed/unknown_shape": 1,
            "rows/failed_events": 1,
            "reports": 3,
            "reports_to_match": 3,
            "matched_reports": 1,
            "orphan_reports": 1,
            "rows/enriched_reports": 2,
            "waiting_after": 1,
            "rows/waiting_reports": 1,
            "sends": 2,
            "sends_to_match": 2,
            "matched_sends": 1,
            "open_after": 1,
            "rows/open_sends": 1,
        }
    )
    return counts


def lines_of(summary: str) -> dict[str, int]:
    return {line[:20].strip(): int(line[20:32].replace(",", "")) for line in summary.splitlines()}


def test_every_count_has_its_line() -> None:
    lines = lines_of(run_summary(run_of()))

    assert lines["received"] == lines["archived"] == lines["acknowledged"] == 4
    assert (lines["decoded"], lines["failed"], lines["unknown_shape"]) == (3, 1, 1)
    assert (lines["reports"], lines["matched"], lines["orphan"]) == (3, 1, 1)
    assert (lines["waiting"], lines["sends"], lines["open"]) == (1, 2, 1)


def test_what_went_wrong_on_the_way_has_its_lines_too() -> None:
    lines = lines_of(run_summary(run_of(lost_leases=2, receive_faults=7)))

    assert (lines["lost leases"], lines["receive faults"]) == (2, 7)
    assert {"lost leases", "receive faults"}.isdisjoint(lines_of(run_summary(run_of())))


def test_a_run_without_news_says_so_in_three_lines() -> None:
    assert lines_of(run_summary(RunCounts())) == {"received": 0, "archived": 0, "acknowledged": 0}


@pytest.mark.parametrize(
    ("landed", "remark"),
    [
        ({"acknowledged": 4}, "deleted from the queues"),
        ({"acknowledged": 3, "unacknowledged": 1}, "1 came or will come once more"),
        # Deleted, but the answer was lost: nothing comes again.
        ({"acknowledged": 3, "unconfirmed": 1}, "deleted from the queues"),
    ],
)
def test_the_summary_tells_what_comes_once_more(landed: dict[str, int], remark: str) -> None:
    (line,) = (
        line for line in run_summary(run_of(**landed)).splitlines() if line.startswith("ack")
    )
    assert line.endswith(f"  {remark}")


def test_the_graphs_own_summary_knows_no_queues() -> None:
    lines = lines_of(graph_summary(run_of().processed))

    assert "received" not in lines
    assert lines["reports"] == 3


def test_a_closed_ledger_is_told_in_a_sentence() -> None:
    assert require_closed_ledger(run_of()) == (
        "The ledger is closed: 4 messages = 3 decoded + 1 failed; every record is in exactly one place."
    )


@pytest.mark.parametrize(
    ("landed", "what"),
    [
        ({"received": 5}, "received"),
        ({"received": 5, "archived": 5}, "archived"),
        ({"received": 5, "archived": 5, "acknowledged": 5}, "processed"),
        ({"acknowledged": 3}, "archived"),
    ],
)
def test_a_message_that_is_nowhere_is_missed(landed: dict[str, int], what: str) -> None:
    with pytest.raises(LedgerError, match=f"counts of {what} messages do not add up"):
        require_closed_ledger(run_of(**landed))


@pytest.mark.parametrize(
    "landed",
    [
        {"received": 6, "released": 2},
        {"acknowledged": 3, "unacknowledged": 1},
        {"acknowledged": 3, "unconfirmed": 1},
    ],
)
def test_a_message_that_comes_once_more_is_no_loss(landed: dict[str, int]) -> None:
    assert "The ledger is closed" in require_closed_ledger(run_of(**landed))


def test_messages_of_an_earlier_run_belong_to_the_books() -> None:
    counts = run_of(received=3, archived=3, acknowledged=3)
    counts.pending_before = 1

    assert "The ledger is closed" in require_closed_ledger(counts)


def test_messages_left_for_a_later_run_belong_to_the_books() -> None:
    counts = run_of(received=9, archived=9, acknowledged=9)
    counts.pending_after = 5

    assert "The ledger is closed" in require_closed_ledger(counts)


def test_books_that_add_up_do_not_hide_what_kept_the_tables_back() -> None:
    counts = run_of(received=9, archived=9, acknowledged=9)
    counts.pending_after, counts.failure = 5, OutputError("The disk is full.")

    with pytest.raises(OutputError, match=r"^The disk is full\.$"):
        require_closed_ledger(counts)

    counts.pending_after = 4
    with pytest.raises(LedgerError):
        require_closed_ledger(counts)


def test_two_epochs_add_up_as_one() -> None:
    counts = run_of()
    counts.landed.update(received=2, archived=2, acknowledged=2)
    counts.add_epoch(
        {
            "messages": 2,
            "decoded_messages": 2,
            "reports": 2,
            "reports_to_match": 2,
            "waiting_before": 1,
            "matched_reports": 3,
            "rows/enriched_reports": 3,
            "open_before": 1,
            "sends": 2,
            "sends_to_match": 2,
            "matched_sends": 3,
            "waiting_after": 0,
            "rows/waiting_reports": 0,
            "open_after": 0,
            "rows/open_sends": 0,
        }
    )

    assert "6 messages = 5 decoded + 1 failed" in require_closed_ledger(counts)
    assert counts.epochs == 2
    assert counts.processed["waiting_before"] == 0
    assert counts.processed["waiting_after"] == 0
    assert counts.processed["matched_reports"] == 4


QUEUE = "Alicom-Queue-1000000000000001-SmsReport"
NOTHING = Landed(*(0 for _ in Landed._fields))
# A run that does what it should.
WELL = Snapshot(
    landed=NOTHING._replace(
        received=12_345, archived=12_345, acknowledged=12_344, unacknowledged=1, redelivered=2
    ),
    last_read=NOTHING._replace(received=1000, archived=1000, acknowledged=999, unacknowledged=1),
    processed={
        "matched_reports": 9_000,
        "waiting_after": 12,
        "open_after": 41,
        "failed_messages": 3,
        "failed/malformed_json": 1,
        "failed/unknown_shape": 2,
    },
    epochs=7,
    since_epoch_secs=4.0,
    unprocessed_messages=0,
    oldest_unprocessed_secs=0.0,
    oldest_held_secs=0.0,
    silent_secs={QUEUE: 31.0},
    token_secs={QUEUE: 119.0},
    failed_share={QUEUE: 0.02},
    processing_failure=None,
)


def test_a_run_that_is_well_says_so_in_a_line() -> None:
    assert status_line(WELL) == (
        "status: ok | queues: 12,345 received, 12,345 archived, 12,344 deleted (99.99%), 2 redelivered, "
        "token good for 119 s | tables: 9,000 matched, 12 waiting, 41 open, "
        "3 failed (2 unknown_shape, 1 malformed_json), up to date"
    )


def test_a_run_in_trouble_says_what_it_is_before_anything_else() -> None:
    line = status_line(
        WELL._replace(
            silent_secs={QUEUE: 200.0},
            token_secs={QUEUE: -1.0, f"{QUEUE}2": 500.0},
            oldest_held_secs=7_300.0,
            oldest_unprocessed_secs=130,
        )
    )

    assert line == (
        f"status: TROUBLE: no answer from {QUEUE} for 3 min; the token of {QUEUE} has ended, no new one "
        "came | queues: 12,345 received, 12,345 archived, 12,344 deleted (99.99%), 2 redelivered, "
        "oldest at hand 2 h, token good for 0 s | tables: 9,000 matched, 12 waiting, 41 open, "
        "3 failed (2 unknown_shape, 1 malformed_json), 2 min behind"
    )


def test_a_run_that_has_seen_nothing_is_well() -> None:
    line = status_line(WELL._replace(landed=NOTHING, processed={}, epochs=0, token_secs={}))

    assert line == (
        "status: ok | queues: 0 received, 0 archived, 0 deleted (100%), 0 redelivered | "
        "tables: 0 matched, 0 failed, up to date"
    )


def test_only_the_most_frequent_reasons_are_named() -> None:
    reasons = ("empty_body", "wrong_type", "lone_surrogate", "nul_character", "missing_field")
    failed = {f"failed/{reason}": number for number, reason in enumerate(reasons, start=1)}

    line = status_line(WELL._replace(processed={"failed_messages": 15, **failed}))

    assert ", 15 failed (5 missing_field, 4 nul_character, 3 lone_surrogate, 3 others)," in line


@pytest.mark.parametrize(
    ("change", "trouble"),
    [
        ({"silent_secs": {QUEUE: 7_201.0}}, f"no answer from {QUEUE} for 2 h"),
        ({"token_secs": {QUEUE: 0.0}}, f"the token of {QUEUE} has ended, no new one came"),
        ({"failed_share": {QUEUE: 0.3}}, f"30% of the last messages of {QUEUE} cannot be used"),
        (
            {"last_read": NOTHING._replace(received=1000, archived=1000, unacknowledged=11)},
            "11 of 1,000 archived messages could not be deleted, they come again",
        ),
        (
            {"unprocessed_messages": 5_000, "oldest_unprocessed_secs": 1_000.0},
            "5,000 messages wait in the archive",
        ),
        (
            {"processing_failure": "sends.parquet cannot be read: replace it."},
            "the tables cannot be brought up to date, landing goes on: sends.parquet cannot be read: "
            "replace it.",
        ),
        (
            {"processed": {"damaged_messages": 40}},
            "40 messages are lost in damaged archive files",
        ),
    ],
)
def test_every_trouble_has_its_words(change: dict[str, object], trouble: str) -> None:
    assert list(troubles_of(WELL._replace(**change)).values()) == [trouble]  # type: ignore[arg-type]


def test_a_trouble_keeps_its_name_while_its_figures_change() -> None:
    earlier, later = (WELL._replace(silent_secs={QUEUE: secs}) for secs in (200.0, 300.0))

    assert troubles_of(earlier).keys() == troubles_of(later).keys()
    assert troubles_of(earlier) != troubles_of(later)
