"""The keyed join in Beam: the rows of the bounded graph in any order, with a runner's timers and state."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.coders import FastPrimitivesCoder
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.testing import test_stream
from apache_beam.testing.util import assert_that
from apache_beam.transforms.window import TimestampedValue

from schemas.contracts import contract
from schemas.records import MnsMessage
from tests.job.oracle import Rows, current_reports, current_rows
from tests.job.small_job import NOON, SmallJob, report
from transforms.decode_bundles import DecodeMessages
from transforms.join import Joining, JoinReports
from transforms.news import unpack_news
from transforms.packed import unpack_rows
from transforms.row_ids import row_ids

pytestmark = pytest.mark.integration

ORDERS = 50
PATIENCE = timedelta(days=3)
JOINING = Joining(bucket_count=4, patience=PATIENCE, memory=timedelta(days=30))
LATER = NOON + timedelta(
    days=2
)  # what is sent then does not lose patience in the middle of the test

# What a row has of its report alone; its send may know an out_id.
REPORT_SIDE = set(contract("delivery_report").arrow.names) - {"out_id"}


def noon() -> datetime:
    return NOON


def sent(
    biz_id: str, phone_number: str = "13800000001", requested_at: datetime | None = None
) -> MnsMessage:
    """A send log entry as it comes from a subscription."""
    entry = {
        "biz_id": biz_id,
        "phone_number": phone_number,
        "template_code": "SMS_1",
        "tags": {"team": "growth"},
        "requested_at": (requested_at or NOON - timedelta(seconds=1)).isoformat(),
    }
    return MnsMessage(
        f"{biz_id}/{phone_number}/{requested_at}",
        "sends",
        "SendLogEntry",
        NOON,
        1,
        json.dumps(entry).encode(),
    )


def inbound(message_id: str) -> MnsMessage:
    body = {
        "phone_number": "13800000001", "send_time": "2026-11-01 12:00:00", "content": "TD",
        "dest_code": "1069", "sequence_id": 7,
    }  # fmt: skip
    return MnsMessage(message_id, "q-SmsUp", "SmsUp", NOON, 1, json.dumps(body).encode())


def facts(name: str) -> list[MnsMessage]:
    """What becomes of some SMS; whatever is told of one has one meaning in every order."""
    corrected = report(f"{name}-b", err_code="MK:0001", enqueued_at=NOON + timedelta(hours=1))
    return [
        sent(f"{name}-a"),
        report(f"{name}-a"),
        sent(f"{name}-b"),
        report(f"{name}-b"),
        corrected,
        corrected,
        report(f"{name}-orphan"),
        *(sent(f"{name}-bulk", f"1380000000{i}") for i in range(4)),
        *(report(f"{name}-bulk", f"1380000000{i}") for i in range(2)),
        sent(f"{name}-nameless", requested_at=LATER),
        report(f"{name}-nameless", None, sent_at=LATER),
        # Once a send was given up, a repeated entry adds nothing, even if it is older: in both graphs.
        sent(f"{name}-twice", requested_at=LATER),
        sent(f"{name}-twice", requested_at=LATER - timedelta(minutes=1)),
        report(f"{name}-twice", sent_at=LATER),
        sent(f"{name}-silent"),
        inbound(f"{name}-up"),
        inbound(f"{name}-up"),
        report(f"{name}-odd")._replace(message_id=f"{name}-odd", body=b"{"),
    ]


def shuffled(orders: int, pieces: int) -> list[list[MnsMessage]]:
    """The facts of many SMS, each in an order of its own, cut at places of its own."""
    chance = random.Random(50)  # noqa: S311 (the same in every run)
    bundles: list[list[MnsMessage]] = [[] for _ in range(pieces)]
    for order in range(orders):
        arrivals = facts(f"order{order}")
        chance.shuffle(arrivals)
        places = sorted(chance.choices(range(pieces), k=len(arrivals)))
        for piece, message in zip(places, arrivals, strict=True):
            bundles[piece].append(message)
    return [bundle for bundle in bundles if bundle]


def streamed(stream: test_stream.TestStream, check: Any, joining: Joining = JOINING) -> None:
    options = PipelineOptions()
    options.view_as(StandardOptions).streaming = True
    pipeline = beam.Pipeline("BundleBasedDirectRunner", options)
    rows = (
        pipeline
        | stream
        | "Typed" >> beam.Map(_same).with_output_types(list[MnsMessage])
        | DecodeMessages(joining.bucket_count, noon)
        | JoinReports(joining)
    )
    assert_that(rows, check)
    pipeline.run().wait_until_finish()


def _same(messages: list[MnsMessage]) -> list[MnsMessage]:
    return messages


def rows_by_table(actual: Sequence[tuple[str, bytes]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for name, packed in actual:
        found.setdefault(name, []).extend(unpack_rows(packed).to_pylist(maps_as_pydicts="strict"))
    return found


def require_each_row_once(actual: Sequence[tuple[str, bytes]]) -> None:
    """Nothing fails here, so nothing comes again: a row id is there once."""
    ids = Counter(
        (name, row_id)
        for name, packed in actual
        for row_id in row_ids(name, unpack_rows(packed)).to_pylist()
    )
    assert [each for each, times in ids.items() if times > 1] == []


def is_explained(row: dict[str, Any], current: Rows) -> bool:
    """Whether a row is the one that counts of its outcome, or what the same report was before.

    Before, its outcome may have had a lower rank; it may have had no send, or a later one.
    """
    of_a_query = row["origin"] == "query"
    counts = current[row["event_id"], row["success"], row["err_code"], of_a_query]
    had_no_better_send = row["requested_at"] is None or (
        counts["requested_at"] is not None and row["requested_at"] >= counts["requested_at"]
    )
    return row == counts or (
        all(row[name] == counts[name] for name in REPORT_SIDE)
        and row["revision"] <= counts["revision"]
        and had_no_better_send
    )


def without_our_time(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "failed_at"}


def test_fifty_orders_give_the_rows_of_the_bounded_graph(tmp_path: Path) -> None:
    bundles = shuffled(ORDERS, 8)
    job = SmallJob(tmp_path)
    for message in (message for bundle in bundles for message in bundle):
        if message.message_type == "SendLogEntry":
            entry = json.loads(message.body)
            at = datetime.fromisoformat(entry["requested_at"])
            job.send(entry["biz_id"], entry["phone_number"], requested_at=at)
    for bundle in bundles:
        job.land(*(message for message in bundle if message.message_type != "SendLogEntry"))
    job.epoch(NOON + timedelta(days=30))
    expected = job.tables()
    assert len(expected.enriched) == ORDERS * 8
    assert len(expected.unreported) == ORDERS * 3

    stream = test_stream.TestStream(coder=FastPrimitivesCoder()).advance_watermark_to(
        NOON.timestamp()
    )
    for number, bundle in enumerate(bundles):
        stream = stream.add_elements([TimestampedValue(bundle, NOON.timestamp())])
        if number == len(bundles) // 2:  # half of the orders lose patience with some of their facts
            stream = stream.advance_watermark_to((NOON + PATIENCE + timedelta(hours=2)).timestamp())
    stream = stream.advance_watermark_to_infinity()

    failed_events = [without_our_time(row) for row in current_rows(job.dataset, "failed_events")]
    assert len(failed_events) == ORDERS

    def check(actual: Sequence[tuple[str, bytes]]) -> None:
        require_each_row_once(actual)
        rows = rows_by_table(actual)
        enriched = current_reports(rows["enriched_reports"])
        assert enriched == expected.enriched
        assert [row for row in rows["enriched_reports"] if not is_explained(row, enriched)] == []
        reported = {row["event_id"] for row in enriched.values()}
        unreported = {row["event_id"]: row for row in rows["unreported_sends"]}
        assert {k: v for k, v in unreported.items() if k not in reported} == expected.unreported
        inbound_rows = {row["message_id"]: row for row in rows["inbound_sms"]}
        assert inbound_rows == expected.inbound
        assert len(rows["inbound_sms"]) == ORDERS
        failed = [without_our_time(row) for row in rows["failed_events"]]
        assert sorted(failed, key=repr) == sorted(failed_events, key=repr)

    streamed(stream, check)


def test_patience_ends_with_the_watermark_and_not_before() -> None:
    due = NOON - timedelta(seconds=1) + PATIENCE
    tick = timedelta(milliseconds=JOINING.spans.tick)
    stream = (
        test_stream.TestStream(coder=FastPrimitivesCoder())
        .advance_watermark_to(NOON.timestamp())
        .add_elements([TimestampedValue([sent("early"), sent("late")], NOON.timestamp())])
        .advance_watermark_to(due.timestamp())
        .add_elements([TimestampedValue([report("early")], due.timestamp())])
        .advance_watermark_to((due + tick).timestamp() + 1)
        .add_elements([TimestampedValue([report("late")], due.timestamp())])
        .advance_watermark_to_infinity()
    )

    def check(actual: Sequence[tuple[str, bytes]]) -> None:
        rows = rows_by_table(actual)
        assert [row["biz_id"] for row in rows["unreported_sends"]] == ["late"]
        assert {(row["biz_id"], row["match"]) for row in rows["enriched_reports"]} == {
            ("early", "matched"),
            ("late", "matched"),
        }

    streamed(stream, check)


def test_what_happens_is_counted() -> None:
    repeated = [sent("a"), report("a"), report("a"), report("a", err_code="MK:0001")]
    pipeline = beam.Pipeline("FnApiRunner")
    rows = (
        pipeline
        | beam.Create([repeated])
        | "Typed" >> beam.Map(_same).with_output_types(list[MnsMessage])
        | DecodeMessages(JOINING.bucket_count, noon)
        | JoinReports(JOINING)
    )
    assert_that(rows, lambda actual: rows_by_table(actual)["enriched_reports"][1])
    result = pipeline.run()
    counted = {
        counter.key.metric.name: counter.committed
        for counter in result.metrics().query()["counters"]
        if counter.key.metric.namespace == "enrich"
    }
    assert counted == {"matched": 2, "duplicates": 1, "corrections": 1}


@pytest.mark.parametrize(
    ("patience", "tick_ms"), [(timedelta(days=3), 259_200), (timedelta(seconds=5), 1000)]
)
def test_a_tick_is_a_thousandth_of_patience_or_a_second(patience: timedelta, tick_ms: int) -> None:
    assert replace(JOINING, patience=patience).spans.tick == tick_ms


def test_a_bundle_brings_one_element_to_each_bucket_with_the_time_of_its_oldest_message() -> None:
    pipeline = beam.Pipeline("FnApiRunner")
    reports = [report(f"{i}") for i in range(40)]
    parts = [
        TimestampedValue(reports[start : start + 10], NOON.timestamp() + start)
        for start in (30, 0, 20, 10)
    ]
    news = (
        pipeline
        | beam.Create(parts)
        | "Stamped" >> beam.Map(_stamped).with_output_types(list[MnsMessage])
        | DecodeMessages(JOINING.bucket_count, noon)
        | "Times" >> beam.Map(_with_time)
    )

    def check(actual: Sequence[tuple[int, int, float]]) -> None:
        assert sorted(bucket for bucket, _, _ in actual) == [0, 1, 2, 3]
        assert sum(count for _, count, _ in actual) == 40
        assert {time for _, _, time in actual} == {NOON.timestamp()}

    assert_that(news, check)
    pipeline.run()


def _stamped(part: Any) -> Any:
    return part


def _with_time(
    news: tuple[int, bytes], timestamp: Any = beam.DoFn.TimestampParam
) -> tuple[int, int, float]:
    bucket, packed = news
    return bucket, unpack_news(packed).reports.num_rows, float(timestamp)


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        ({"bucket_count": 0}, "at least one bucket"),
        ({"patience": timedelta(seconds=-1)}, "negative"),
        ({"memory": PATIENCE - timedelta(seconds=1)}, "as long as patience"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        replace(JOINING, **wrong)
