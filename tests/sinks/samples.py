"""Rows of every table that leaves a stream, and what a reader must find of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa

from pipeline.sinks.rows import STREAMED, records_of
from schemas.contracts import contract
from tests.analytics.dataset import DAY_1, DAY_2, failed, inbound, orphan, report, unreported
from transforms.packed import pack_rows, unpack_rows
from transforms.row_ids import row_ids

Element = tuple[str, bytes]
# Of each table: id -> record, times as UTC milliseconds.
Contents = dict[str, dict[str, dict[str, Any]]]


class Stored(NamedTuple):
    """A row as it stands in a sink's place."""

    table: str
    id: str
    record: dict[str, Any]


def table_rows(table: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    schema = STREAMED[table].schema
    blank = {field.name: None for field in schema}
    return pa.Table.from_pylist([{**blank, **row} for row in rows], schema=schema)


def element(table: str, *rows: Mapping[str, Any]) -> Element:
    return table, pack_rows(table_rows(table, rows))


def stored(table: str, rows: pa.Table) -> list[Stored]:
    """What stands in rows, each with its id."""
    ids = row_ids(table, rows).to_pylist()
    return [Stored(table, *row) for row in zip(ids, records_of(rows), strict=True)]


def contents(found: Sequence[Stored]) -> Contents:
    """Tell rows by their ids; what shares an id must be the same row."""
    told: Contents = {name: {} for name in STREAMED}
    for row in found:
        assert told[row.table].setdefault(row.id, row.record) == row.record
    return told


def _elements(part: int) -> list[Element]:
    """Half of the rows of all kinds; every id occurs once."""
    keys = [f"{part}-{number}" for number in range(7)]
    day = (DAY_1, DAY_2)[part % 2]
    late = report(keys[0], day, revision=2, success=False, err_code="EXPIRED", message_id="late")
    answer = {
        **unreported(keys[0], day),
        "answer": "awaiting",
        "message_id": f"a{part}",
        "enqueued_at": late["enqueued_at"],
    }
    known = contract("query_answer").arrow.names
    return [
        element("enriched_reports", *(report(key, day, tags={"中": "文"}) for key in keys[:4])),
        element("enriched_reports", late, orphan(keys[5], DAY_1), orphan(keys[6], DAY_2)),
        # The send of an orphan was found: the same revision, another row.
        element("enriched_reports", report(keys[5]), report(keys[4], err_code=None)),
        element("unreported_sends", unreported(keys[1], day), unreported(keys[2], day)),
        # One message, two texts.
        element("inbound_sms", inbound(f"in{part}"), inbound(f"in{part}", content="退订\n")),
        element("failed_events", failed(f"f{part}"), failed(f"empty{part}", original=b"")),
        element("query_answers", {name: answer.get(name) for name in known}),
    ]


PARTS: Final = 4
BUNDLES: Final = [_elements(part) for part in range(PARTS)]
EXPECTED: Final = contents(
    [
        row
        for bundle in BUNDLES
        for table, packed in bundle
        for row in stored(table, unpack_rows(packed))
    ]
)
