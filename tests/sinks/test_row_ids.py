"""Ids of rows: the same for the same row whenever it is written, others for all other rows."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from pipeline.sinks.rows import STREAMED
from schemas.row_keys import ROW_KEYS
from tests.analytics.dataset import AS_OF, failed, inbound, orphan, report, unreported
from tests.sinks.samples import table_rows
from transforms.row_ids import row_ids


def ids(table: str, *rows: Mapping[str, Any]) -> list[str]:
    found: list[str] = row_ids(table, table_rows(table, rows)).to_pylist()
    return found


def test_an_id_does_not_change_between_versions() -> None:
    assert ids("enriched_reports", report("1"), orphan("1")) == [
        "1d86690a01c6348764cfad9cb673f695",
        "5752a72e157db35a9dc1a5948769b2ce",
    ]
    assert ids("unreported_sends", unreported("1")) == ["ac5441353236af0f1599ba1a120c4980"]


@pytest.mark.parametrize(
    "other",
    [
        orphan("1"),
        report("2"),
        report("1", revision=2),
        report("1", success=False),
        report("1", err_code=None),
        report("1", err_code=""),
        report("1", message_id="another"),
        report("1", requested_at=AS_OF),
    ],
)
def test_a_row_that_says_something_else_of_an_sms_has_another_id(other: dict[str, Any]) -> None:
    assert len(set(ids("enriched_reports", report("1"), other))) == 2


def test_nothing_and_an_empty_text_are_told_apart() -> None:
    rows = (
        inbound("1", sequence_id=None, sign_name=""),
        inbound("1", sequence_id="", sign_name=None),
        inbound("1", sequence_id=None, sign_name=None),
        inbound("1", sequence_id="", sign_name=""),
        inbound("1", sequence_id="null", sign_name="null"),
    )
    assert len(set(ids("inbound_sms", *rows))) == len(rows)


def test_the_texts_of_one_message_are_told_apart_and_its_redelivery_is_not() -> None:
    first, second = inbound("1", content="1"), inbound("1", content="2")
    once = ids("inbound_sms", first, second)
    assert len(set(once)) == 2
    assert ids("inbound_sms", second, first) == once[::-1]


def test_when_a_message_failed_does_not_matter_but_how_often() -> None:
    later = failed("1", failed_at=AS_OF + timedelta(hours=1))
    first, again, retried = ids("failed_events", failed("1"), later, failed("1", attempt=2))
    assert first == again != retried


@pytest.mark.parametrize("table", STREAMED)
def test_the_columns_that_tell_a_row_are_in_its_table(table: str) -> None:
    assert set(ROW_KEYS[table]) <= set(STREAMED[table].schema.names)
    assert "failed_at" not in ROW_KEYS[table]
