"""The end of a run in words, and the books it closes."""

from collections import Counter

import pytest

from pipeline.ledger import LedgerError
from pipeline.run import RunCounts
from pipeline.summary import graph_summary, require_closed_ledger, run_summary


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


def test_a_run_without_news_says_so_in_three_lines() -> None:
    assert lines_of(run_summary(RunCounts())) == {"received": 0, "archived": 0, "acknowledged": 0}


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
