"""An epoch costs what its news cost: of the past it loads the keys that have news, and no others."""

from collections.abc import Iterable
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.combiners import ToList

from tests.job.small_job import NOON
from transforms.intake import Kind, LoadPast, Past, Scope
from transforms.moments import day_number
from transforms.shuffle import Slice, SliceWriter, read_slices
from transforms.tables import INBOUND_SMS, Written, write_table

TODAY = Past(INBOUND_SMS.name, day_number("2026-11-01"))
LOADED = pa.schema([INBOUND_SMS.schema.field(name) for name in ("message_id", "send_time")])


def inbound(*message_ids: str) -> pa.Table:
    rows = [
        dict.fromkeys(INBOUND_SMS.schema.names)
        | {
            "content": "R",
            "dest_code": "1",
            "unknown_fields": [],
            "message_id": message_id,
            "send_time": NOON,
            "enqueued_at": NOON,
        }
        for message_id in message_ids
    ]
    return pa.Table.from_pylist(rows, schema=INBOUND_SMS.schema)


@pytest.mark.integration
def test_of_a_day_only_the_keys_with_news_are_loaded(tmp_path: Path) -> None:
    dataset, spill = str(tmp_path / "dataset"), str(tmp_path / "spill")
    for ids in (["a", "b"], ["c", "d"], ["e"]):
        list(write_table(INBOUND_SMS, inbound(*ids), dataset))
    with SliceWriter(spill, bucket_count=1) as writer:
        writer.add(Kind.INBOUND, inbound("d", "new"), "message_id")
        writer.add(Kind.INBOUND, inbound("a"), "message_id")
        # News of other kinds are none of this table's.
        writer.add(Kind.FAILED, inbound("e"), "message_id")
        slices = list(writer.slices())
    scope = Scope(spill, 1, NOON, Written(dataset, frozenset()))

    def loaded(parts: Iterable[tuple[int, Slice]]) -> list[str]:
        past = [Slice(*part) for _, part in parts]
        return sorted(read_slices(past, INBOUND_SMS.name, LOADED)["message_id"].to_pylist())

    with beam.Pipeline("FnApiRunner") as pipeline:
        news = pipeline | "News" >> beam.Create(slices)
        days = pipeline | "Days" >> beam.Create([TODAY, TODAY._replace(day=TODAY.day - 1), TODAY])
        ids = days | LoadPast(scope, news) | ToList() | beam.Map(loaded)
        assert_that(ids, equal_to([["a", "d"]]))
