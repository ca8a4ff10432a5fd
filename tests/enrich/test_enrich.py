"""The join, as sets of facts: whatever the order, the repeats and the epochs, the answer is the same."""

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.enrich.small_dataset import (
    EVERYBODY_WAITS,
    NOBODY_WAITS,
    NOON,
    Dataset,
    report,
    send,
)
from transforms import enrich as enrich_module
from transforms import keys


def only_row(dataset: Dataset) -> dict[str, Any]:
    (row,) = dataset.current().values()
    return row


def test_a_report_is_enriched_with_its_send() -> None:
    dataset = Dataset()
    dataset.epoch([report()], [send(out_id="order-7", campaign="autumn")])
    row = only_row(dataset)
    assert row["match"] == "matched"
    assert row["revision"] == 1
    assert row["event_id"] == keys.event_id("900619746936498440^0", "13800000001")
    assert (row["sign_name"], row["campaign"], row["out_id"]) == ("Shop", "autumn", "order-7")
    assert row["tags"] == [("team", "growth")]
    assert (row["queueing_ms"], row["carrier_ms"], row["total_ms"]) == (1000, 5000, 6000)
    assert dataset.open_sends.num_rows == 0


def test_a_report_waits_for_the_send_log() -> None:
    dataset = Dataset()
    dataset.epoch([report()], [])
    assert dataset.current() == {}
    assert dataset.waiting.num_rows == 1
    dataset.epoch([], [send()])
    assert only_row(dataset)["match"] == "matched"
    assert dataset.waiting.num_rows == 0


def test_an_impatient_report_leaves_as_an_orphan_and_is_matched_when_its_send_comes() -> None:
    dataset = Dataset()
    dataset.epoch([report()], [], NOBODY_WAITS)
    orphan = only_row(dataset)
    assert (orphan["match"], orphan["sign_name"], orphan["queueing_ms"]) == ("orphan", None, None)
    assert orphan["tags"] == []
    dataset.epoch([], [send()])
    row = only_row(dataset)
    assert (row["match"], row["sign_name"], row["queueing_ms"]) == ("matched", "Shop", 1000)
    assert dataset.open_sends.num_rows == 0


def test_a_send_stays_open_then_is_unreported_and_a_late_report_still_finds_it() -> None:
    dataset = Dataset()
    assert dataset.epoch([], [send()])["open_after"] == 1
    assert dataset.epoch([], [], NOBODY_WAITS)["unreported_new"] == 1
    assert dataset.open_sends.num_rows == 0
    counts = dataset.epoch([], [], NOBODY_WAITS)
    assert (counts["unreported_kept"], counts["unreported_new"]) == (1, 0)
    dataset.epoch([report()], [], NOBODY_WAITS)
    assert only_row(dataset)["match"] == "matched"


def test_a_redelivered_message_and_a_repeated_report_are_duplicates() -> None:
    dataset = Dataset()
    again = report(message_id="M2", enqueued_at=NOON + timedelta(minutes=1))
    counts = dataset.epoch([report(), report(), again], [send()])
    assert (counts["matched_reports"], counts["duplicate_reports"]) == (1, 2)
    counts = dataset.epoch([report(), again], [])
    assert (counts["matched_reports"], counts["duplicate_reports"]) == (0, 2)
    assert dataset.rows.num_rows == 1


def test_a_later_different_outcome_is_a_correction() -> None:
    dataset = Dataset()
    dataset.epoch([report()], [send()])
    failed = report(
        success=False, err_code="MK:0001", message_id="M2", enqueued_at=NOON + timedelta(hours=1)
    )
    counts = dataset.epoch([failed], [])
    assert counts["corrections"] == 1
    row = only_row(dataset)
    assert (row["revision"], row["success"], row["err_code"]) == (2, False, "MK:0001")
    assert (row["match"], row["sign_name"], row["total_ms"]) == ("matched", "Shop", 6000)
    counts = dataset.epoch([report(), failed], [])
    assert counts["duplicate_reports"] == 2
    assert only_row(dataset)["revision"] == 2


def test_an_earlier_outcome_that_comes_late_does_not_win() -> None:
    dataset = Dataset()
    failed = report(
        success=False, err_code="MK:0001", message_id="M2", enqueued_at=NOON + timedelta(hours=1)
    )
    dataset.epoch([failed], [send()])
    dataset.epoch([report()], [])
    row = only_row(dataset)
    assert (row["revision"], row["err_code"]) == (2, "MK:0001")


def answer(**changes: Any) -> dict[str, Any]:
    """What QuerySendDetails knows: less than the carrier's own report."""
    return report(**({"origin": "query", "sms_size": None, "message_id": "Q1"} | changes))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_report_from_the_queue_says_more_than_an_answer_whichever_came_first(
    order: tuple[int, int],
) -> None:
    facts = [answer(), report(enqueued_at=NOON + timedelta(hours=2 * order[0]))]
    dataset = Dataset()
    dataset.epoch([], [send()])
    for position in order:
        dataset.epoch([facts[position]], [])
    (row,) = dataset.current().values()
    assert (row["origin"], row["sms_size"], row["sign_name"]) == ("mns", 1, "Shop")


def test_an_answer_closes_a_send_that_was_given_up() -> None:
    dataset = Dataset()
    dataset.epoch([], [send()], NOBODY_WAITS)
    assert dataset.unreported.num_rows == 1
    dataset.epoch([answer(success=False, err_code="MK:0001")], [])
    (row,) = dataset.current().values()
    assert (row["match"], row["success"], row["err_code"]) == ("matched", False, "MK:0001")
    assert dataset.open_sends.num_rows == 0


def test_a_report_without_a_number_belongs_to_the_only_recipient() -> None:
    dataset = Dataset()
    dataset.epoch([report(phone_number=None)], [send()])
    row = only_row(dataset)
    assert (row["match"], row["phone_number"]) == ("matched", "13800000001")
    counts = dataset.epoch([report(message_id="M2")], [])
    assert counts["duplicate_reports"] == 1


def test_a_report_without_a_number_waits_while_no_recipient_is_known() -> None:
    dataset = Dataset()
    dataset.epoch([report(phone_number=None)], [])
    assert dataset.waiting.num_rows == 1
    dataset.epoch([], [send()])
    assert only_row(dataset)["phone_number"] == "13800000001"


def test_reports_without_a_number_among_several_recipients_are_all_kept_as_orphans() -> None:
    dataset = Dataset()
    nameless = [report(phone_number=None, message_id=f"M{i}") for i in range(2)]
    counts = dataset.epoch([*nameless, nameless[0]], [send(), send(phone_number="13800000002")])
    assert (counts["orphan_reports"], counts["duplicate_reports"]) == (2, 1)
    assert len(dataset.current()) == 2
    assert dataset.open_sends.num_rows == 2


def test_a_message_that_left_without_a_number_is_not_counted_again() -> None:
    dataset = Dataset()
    dataset.epoch([report(phone_number=None)], [], NOBODY_WAITS)
    counts = dataset.epoch([report(phone_number=None)], [send()])
    assert (counts["duplicate_reports"], counts["matched_reports"]) == (1, 0)
    assert len(dataset.current()) == 1


def test_records_of_one_message_keep_an_identity_of_their_own() -> None:
    dataset = Dataset()
    dataset.epoch([report(biz_id="another SMS", phone_number=None)], [], NOBODY_WAITS)
    dataset.epoch([report(phone_number=None)], [send()])
    assert sorted(row["match"] for row in dataset.current().values()) == ["matched", "orphan"]


def test_a_repeated_log_entry_of_a_settled_send_is_a_duplicate() -> None:
    dataset = Dataset()
    dataset.epoch([report()], [send(), send()])
    counts = dataset.epoch([], [send(requested_at=NOON)])
    assert counts["duplicate_sends"] == 1
    assert dataset.open_sends.num_rows == 0
    assert dataset.rows.num_rows == 1


def test_one_send_to_many_recipients_is_one_biz_id_and_many_keys() -> None:
    dataset = Dataset()
    phones = [f"1380000{i:04d}" for i in range(1000)]
    dataset.epoch(
        [report(phone_number=phone, message_id=f"M{phone}") for phone in phones],
        [send(phone_number=phone) for phone in phones],
    )
    assert {row["phone_number"] for row in dataset.current().values()} == set(phones)
    assert dataset.counts["matched_reports"] == 1000


REPORTS = st.builds(
    lambda origin, phone, outcome, number, minute: report(
        origin=origin,
        phone_number=phone,
        success=outcome == "DELIVERED",
        err_code=outcome,
        message_id=f"M{number}",
        # A message keeps its enqueue time and its body through every redelivery.
        enqueued_at=NOON + timedelta(minutes=minute),
        report_time=NOON + timedelta(minutes=minute),
    ),
    st.sampled_from(["mns", "mns", "query"]),
    st.sampled_from(["13800000001", "13800000002"]),
    st.sampled_from(["DELIVERED", "MK:0001", "EXPIRED"]),
    st.integers(0, 10**9),
    st.integers(0, 5),
)
SENDS = st.builds(
    lambda phone, minute: send(phone_number=phone, requested_at=NOON - timedelta(minutes=minute)),
    st.sampled_from(["13800000001", "13800000002", "13800000003"]),
    st.integers(0, 2),
)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_order_repeats_and_epochs_do_not_change_the_answer(data: st.DataObject) -> None:
    reports = data.draw(
        st.lists(REPORTS, max_size=6, unique_by=lambda fact: str(fact["message_id"]))
    )
    sends = data.draw(st.lists(SENDS, max_size=4))
    whole = Dataset()
    whole.epoch(reports, sends)
    whole.epoch([], [], NOBODY_WAITS)

    repeats = data.draw(st.lists(st.sampled_from(reports), max_size=3)) if reports else []
    pieces = Dataset()
    arrivals = data.draw(st.permutations([*reports, *repeats, *sends]))
    while arrivals:
        size = data.draw(st.integers(1, len(arrivals)))
        now, arrivals = arrivals[:size], arrivals[size:]
        pieces.epoch(
            [fact for fact in now if "message_id" in fact],
            [fact for fact in now if "message_id" not in fact],
            data.draw(st.sampled_from([EVERYBODY_WAITS, EVERYBODY_WAITS, NOBODY_WAITS])),
        )
    pieces.epoch([], [], NOBODY_WAITS)

    assert pieces.current() == whole.current()
    assert pieces.waiting.num_rows == whole.waiting.num_rows == 0
    reported = set(pieces.current())
    assert {row["event_id"] for row in pieces.unreported.to_pylist()} - reported == {
        row["event_id"] for row in whole.unreported.to_pylist()
    } - reported


@pytest.mark.parametrize("count", [2, 3])
def test_keys_with_equal_hashes_are_told_apart(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    # There is no way to find two such keys in the time of a test, so every key is made to collide.
    monkeypatch.setattr(
        enrich_module,
        "key_hashes",
        lambda *tables: np.zeros(sum(map(len, tables)), dtype=np.uint64),
    )
    dataset = Dataset()
    phones = [f"1380000{i:04d}" for i in range(count)]
    dataset.epoch(
        [report(phone_number=phone, message_id=f"M{phone}") for phone in phones[1:]],
        [send(phone_number=phone, sign_name=phone) for phone in phones],
    )
    assert {row["phone_number"]: row["sign_name"] for row in dataset.current().values()} == {
        phone: phone for phone in phones[1:]
    }
    assert dataset.open_sends.column("phone_number").to_pylist() == phones[:1]
