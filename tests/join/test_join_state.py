"""The keyed join of one bucket: as the grouped join decides, in any order, from a state that stays small."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.enrich.small_dataset import EVERYBODY_WAITS, NOON, Dataset, report, send
from tests.join.collisions import colliding_biz_ids
from tests.join.small_bucket import MINUTE, NOON_MS, SPANS, Bucket
from transforms import tables
from transforms.join_known import KnownBuckets
from transforms.join_log import LEFT_BAGS
from transforms.join_state import JoinStateError
from transforms.match import Patience

MUCH_LATER = NOON_MS + 100 * MINUTE


def test_a_report_is_enriched_with_a_send_that_came_before() -> None:
    bucket = Bucket()
    assert not bucket.arrive(sends=[send()]).rows
    bucket.arrive([report()])
    (row,) = bucket.enriched.to_pylist()
    assert (row["match"], row["sign_name"], row["total_ms"]) == ("matched", "Shop", 6000)
    assert bucket.open.parts == []


def test_a_report_waits_for_its_send() -> None:
    bucket = Bucket()
    assert not bucket.arrive([report()]).rows
    bucket.arrive(sends=[send()])
    assert bucket.enriched.column("match").to_pylist() == ["matched"]


def test_patience_ends_by_timer_for_reports_and_for_sends() -> None:
    bucket = Bucket()
    bucket.arrive([report(phone_number="13800000002")], [send()])
    assert bucket.timer_ms == NOON_MS - 1000 + SPANS.patience + 1000  # a tick after the send
    bucket.pass_time(MUCH_LATER)
    (orphan,) = bucket.enriched.to_pylist()
    assert (orphan["match"], orphan["phone_number"]) == ("orphan", "13800000002")
    assert bucket.unreported.column("phone_number").to_pylist() == ["13800000001"]
    assert bucket.open.parts == []


def test_an_early_timer_is_harmless_and_set_again() -> None:
    bucket = Bucket()
    bucket.arrive(sends=[send()])
    right = bucket.timer_ms
    assert not bucket.fall_due(NOON_MS).rows
    assert bucket.timer_ms == right
    bucket.pass_time(MUCH_LATER)
    assert bucket.unreported.num_rows == 1


def test_a_late_timer_lets_everybody_leave_who_is_due() -> None:
    bucket = Bucket()
    for minute in range(5):
        at = NOON + timedelta(minutes=minute)
        bucket.arrive(sends=[send(phone_number=f"1380000000{minute}", requested_at=at)])
    bucket.fall_due(NOON_MS + 3 * MINUTE + SPANS.patience + 1)
    assert bucket.unreported.num_rows == 4
    assert len(bucket.waiting()[0]) == 1


def test_who_is_exactly_as_old_as_patience_allows_still_waits() -> None:
    bucket = Bucket()
    bucket.arrive(sends=[send(requested_at=NOON)])
    assert not bucket.fall_due(NOON_MS + SPANS.patience).rows
    assert bucket.fall_due(NOON_MS + SPANS.patience + 1).rows


def test_a_timer_fires_once_a_tick_however_many_are_due() -> None:
    bucket = Bucket()
    sends = [
        send(phone_number=f"138{i:08}", requested_at=NOON + timedelta(milliseconds=i))
        for i in range(2500)
    ]
    bucket.arrive(sends=sends)
    assert bucket.pass_time(NOON_MS + 2 * SPANS.patience) == 3
    assert bucket.unreported.num_rows == 2500


def test_a_timer_that_is_set_is_not_set_again_for_later_facts() -> None:
    bucket = Bucket()
    assert bucket.arrive(sends=[send()]).timer_ms is not None
    later = send(phone_number="13800000002", requested_at=NOON + timedelta(minutes=1))
    assert bucket.arrive(sends=[later]).timer_ms is None
    earlier = send(phone_number="13800000003", requested_at=NOON - timedelta(minutes=1))
    assert bucket.arrive(sends=[earlier]).timer_ms == NOON_MS - MINUTE + SPANS.patience + 1000


def test_a_timer_that_does_not_fire_is_set_again_once_a_tick() -> None:
    bucket = Bucket()
    wanted_ms = bucket.arrive(sends=[send()]).timer_ms
    assert wanted_ms == NOON_MS - 1000 + SPANS.patience + SPANS.tick

    def timer_at(moment_ms: int) -> int | None:
        return bucket.arrive([report(biz_id="another^0")], moment_ms=moment_ms).timer_ms

    ticks = [timer_at(wanted_ms + 100 * step) for step in range(-20, 30)]

    assert [place for place, timer in enumerate(ticks, start=-20) if timer] == [11, 21]
    assert {timer for timer in ticks if timer} == {wanted_ms}


def test_a_late_report_finds_a_send_that_was_given_up() -> None:
    bucket = Bucket()
    bucket.arrive(sends=[send()])
    bucket.pass_time(MUCH_LATER)
    bucket.arrive([report()], moment_ms=MUCH_LATER)
    assert bucket.enriched.column("match").to_pylist() == ["matched"]


def test_what_is_forgotten_leaves_nothing_behind() -> None:
    bucket = Bucket()
    bucket.arrive([report()], [send()])
    assert bucket.state_bytes > 0
    forgotten_ms = NOON_MS + SPANS.memory + SPANS.memory // LEFT_BAGS
    bucket.pass_time(forgotten_ms)
    assert (bucket.state_bytes, bucket.timer_ms) == (0, None)
    bucket.arrive([report()], moment_ms=forgotten_ms)
    assert len(bucket.waiting()[1]) == 1


def test_one_old_message_does_not_make_its_bundle_be_forgotten_early() -> None:
    bucket = Bucket()
    bucket.arrive(sends=[send()])
    old = report(phone_number="13800000009", message_id="M9", enqueued_at=NOON - timedelta(days=9))
    bucket.arrive([report(), old], moment_ms=NOON_MS - 9 * 1440 * MINUTE)
    bucket.pass_time(NOON_MS)
    bucket.arrive([report()])
    bucket.pass_time(MUCH_LATER)
    matches = {row["message_id"]: row["match"] for row in bucket.enriched.to_pylist()}
    assert (bucket.enriched.num_rows, matches) == (2, {"M1": "matched", "M9": "orphan"})


def test_memory_is_forgotten_in_few_steps() -> None:
    bucket = Bucket()
    for minute in range(0, 1000, 20):
        fact = {"phone_number": f"138{minute:08}", "message_id": f"M{minute}"}
        moment_ms = NOON_MS + minute * MINUTE
        bucket.arrive(
            [report(**fact)], [send(phone_number=fact["phone_number"])], moment_ms=moment_ms
        )
        bucket.pass_time(moment_ms)
    assert bucket.pass_time(NOON_MS + 3000 * MINUTE) <= LEFT_BAGS + 2
    assert bucket.state_bytes == 0


def test_a_repeat_reads_only_what_left_when_the_first_did() -> None:
    bucket = Bucket()
    for step in range(LEFT_BAGS):
        fact = {"phone_number": f"138{step:08}"}
        moment_ms = NOON_MS + step * SPANS.memory // LEFT_BAGS
        bucket.arrive([report(**fact)], [send(**fact)], moment_ms=moment_ms)
    assert sum(1 for bag in bucket.left if bag.parts) == LEFT_BAGS
    before = sum(bag.reads for bag in bucket.left)
    bucket.arrive([report(phone_number="13800000003", success=False, err_code="MK:0001")])
    assert sum(bag.reads for bag in bucket.left) - before == 1
    codes = [row["err_code"] for row in bucket.written(tables.ENRICHED_REPORTS)]
    assert codes == ["DELIVERED"] * LEFT_BAGS + ["MK:0001"]


def test_a_late_timer_forgets_nothing_that_came_since() -> None:
    bucket = Bucket()
    bucket.arrive([report()], [send()])
    # It would be forgotten with the first one, if the bag alone counted.
    later_ms = NOON_MS + SPANS.memory
    news = {"biz_id": "later", "message_id": "M2"}
    bucket.arrive([report(**news)], [send(biz_id="later")], moment_ms=later_ms)
    assert sum(1 for bag in bucket.left if bag.parts) == 1
    bucket.fall_due(later_ms + SPANS.memory // LEFT_BAGS)
    assert bucket.arrive([report(**news)], moment_ms=later_ms).counts["duplicate_reports"] == 1


@pytest.mark.parametrize("minutes", [500, 5000])
def test_a_job_that_goes_on_with_another_memory_knows_what_has_left(minutes: int) -> None:
    bucket = Bucket(forgetful=True)
    bucket.arrive([report()], [send()])
    bucket.spans = SPANS._replace(memory=minutes * MINUTE)
    assert bucket.arrive([report()]).counts["duplicate_reports"] == 1
    bucket.pass_time(NOON_MS + 3 * bucket.spans.memory)
    assert bucket.state_bytes == 0


def test_a_redelivered_inbound_message_is_passed_on_once() -> None:
    inbound: dict[str, Any] = dict.fromkeys(tables.INBOUND_SMS.schema.names)
    inbound |= {
        "phone_number": "13800000001", "send_time": NOON, "content": "TD", "dest_code": "1069",
        "unknown_fields": [], "message_id": "U1", "enqueued_at": NOON,
    }  # fmt: skip
    two = [inbound, inbound | {"content": "stop"}]
    bucket = Bucket()
    bucket.arrive(inbound=[*two, *two])
    again = bucket.arrive(inbound=two)
    assert again.counts["duplicate_messages"] == 2
    bucket.arrive(inbound=[inbound | {"message_id": "U2"}])
    contents = [row["content"] for row in bucket.written(tables.INBOUND_SMS)]
    assert contents == ["TD", "stop", "TD"]


def test_one_report_of_a_bulk_send_does_not_rewrite_the_others() -> None:
    bucket = Bucket()
    bucket.arrive(sends=[send(phone_number=f"138{i:08}") for i in range(1000)])
    before = bucket.open_bytes
    bucket.arrive([report(phone_number="13800000007")])
    assert bucket.open_bytes - before < 500
    bucket.arrive([report(phone_number=None, message_id="nobody's")])
    assert bucket.open_bytes - before < 500
    assert len(bucket.waiting()[0]) == 999


def test_the_open_log_stays_short_while_facts_come_and_go() -> None:
    bucket = Bucket()
    standing = [send(phone_number=f"139{i:08}", request_id=f"{i * 7919:032x}") for i in range(500)]
    bucket.arrive(sends=standing)
    whole = bucket.open_bytes
    longest = 0
    for i in range(25):
        phones = [f"138{i:04}{j:04}" for j in range(20)]
        bucket.arrive(sends=[send(phone_number=phone) for phone in phones])
        bucket.arrive([report(phone_number=phone, message_id=phone) for phone in phones])
        longest = max(longest, bucket.open_bytes)
    assert longest <= max(2 * whole, 64 * 1024) + 4096
    assert len(bucket.waiting()[0]) == 500
    assert bucket.enriched.num_rows == 500


@pytest.mark.parametrize("forgetful", [False, True])
def test_a_bundle_that_is_repeated_repeats_its_rows_and_nothing_else(forgetful: bool) -> None:
    bucket = Bucket(forgetful=forgetful)
    bucket.arrive(sends=[send()])
    before = bucket.contents
    first = bucket.arrive([report()])
    bucket.contents = before
    again = bucket.arrive([report()])
    assert again.rows == first.rows


def test_bundles_that_fail_leave_nothing_in_memory() -> None:
    buckets = KnownBuckets(100)
    bucket = Bucket(buckets=buckets)
    bucket.arrive(sends=[send()])
    before = bucket.contents
    for _ in range(10):
        bucket.arrive([report()])
        bucket.contents = before
    assert len(buckets) == 1


FACTS = st.one_of(
    st.builds(
        lambda origin, biz, phone, outcome, number, minute: report(
            origin=origin,
            biz_id=biz,
            phone_number=phone,
            success=outcome == "DELIVERED",
            err_code=outcome,
            message_id=f"M{number}",
            enqueued_at=NOON + timedelta(minutes=minute),
        ),
        st.sampled_from(["mns", "mns", "query"]),
        st.sampled_from(["b1", "b2"]),
        st.sampled_from(["13800000001", "13800000002", None]),
        st.sampled_from(["DELIVERED", "MK:0001"]),
        st.integers(0, 4),
        st.integers(0, 5),
    ),
    st.builds(
        lambda biz, phone, minute: send(
            biz_id=biz, phone_number=phone, requested_at=NOON - timedelta(minutes=minute)
        ),
        st.sampled_from(["b1", "b2"]),
        st.sampled_from(["13800000001", "13800000002"]),
        st.integers(0, 3),
    ),
)
STEPS = st.lists(
    st.tuples(st.lists(FACTS, max_size=4), st.none() | st.integers(-5, 20)), max_size=6
)


def counted(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(repr(sorted(row.items())) for row in rows)


@settings(max_examples=8, deadline=None)
@given(steps=STEPS, forgetful=st.booleans())
def test_step_by_step_it_says_what_the_grouped_join_says(
    steps: list[tuple[list[dict[str, Any]], int | None]], forgetful: bool
) -> None:
    grouped, bucket = Dataset(), Bucket(forgetful=forgetful)
    for facts, minute in steps:
        reports = [fact for fact in facts if "message_id" in fact]
        sends = [fact for fact in facts if "message_id" not in fact]
        grouped.epoch(reports, sends, EVERYBODY_WAITS)
        bucket.arrive(reports, sends)
        if minute is not None:
            as_of_ms = NOON_MS + minute * MINUTE
            deadline = as_of_ms - SPANS.patience
            grouped.epoch([], [], Patience(deadline, deadline))
            bucket.fall_due(as_of_ms)
        assert counted(bucket.enriched.to_pylist()) == counted(grouped.rows.to_pylist())
        assert counted(bucket.unreported.to_pylist()) == counted(grouped.unreported.to_pylist())
        open_sends, waiting = bucket.waiting()
        assert counted(open_sends) == counted(grouped.open_sends.to_pylist())
        assert counted(waiting) == counted(grouped.waiting.to_pylist())


def test_keys_with_equal_hashes_are_told_apart() -> None:
    one, other = colliding_biz_ids()
    bucket = Bucket()
    bucket.arrive(sends=[send(biz_id=one, sign_name="one"), send(biz_id=other, sign_name="other")])
    bucket.arrive([report(biz_id=other)])
    assert bucket.enriched.column("sign_name").to_pylist() == ["other"]
    (waiting,) = bucket.waiting()[0]
    assert waiting["biz_id"] == one
    # What is remembered of one must not pass for the other's.
    bucket.arrive([report(biz_id=one, message_id="M2"), report(biz_id=other)])
    assert bucket.enriched.column("sign_name").to_pylist() == ["other", "one"]
    assert bucket.open.parts == []


def test_an_open_send_takes_less_than_a_kilobyte_of_state() -> None:
    bucket = Bucket()
    for start in range(0, 5000, 250):
        numbers = range(start, start + 250)
        bucket.arrive(
            sends=[
                send(
                    biz_id=f"{i * 7919 % 10**9:018}^0",
                    phone_number=f"138{i * 104729 % 10**8:08}",
                    template_param=f'{{"code":"{i * 31337 % 10**6:06}"}}',
                    request_id=f"{i * 0x9E3779B97F4A7C15 % 2**64:032x}",
                )
                for i in numbers
            ]
        )
    assert bucket.state_bytes / 5000 < 200


def test_a_new_worker_reads_the_state_that_another_one_wrote() -> None:
    bucket = Bucket(forgetful=True)
    bucket.arrive(sends=[send(phone_number=f"138{i:08}") for i in range(10)])
    bucket.arrive([report(phone_number="13800000003")])
    bucket.arrive([report(phone_number="13800000003", message_id="M2")])
    assert bucket.enriched.num_rows == 1
    assert len(bucket.waiting()[0]) == 9


def test_a_state_of_another_number_of_buckets_is_refused() -> None:
    bucket = Bucket()
    bucket.arrive(sends=[send()])
    bucket.bucket_count = 2
    with pytest.raises(JoinStateError, match="--join_buckets=1, not 2: go on with that number"):
        bucket.arrive([report()])
