"""Rows that another version of the program has packed fit, or are refused without quoting them."""

import traceback

import pyarrow as pa
import pytest

from pipeline.errors import OutputError
from pipeline.sinks.rows import STREAMED, rows_of
from tests.analytics.dataset import inbound
from tests.sinks.samples import table_rows
from transforms.packed import pack_rows

_SMS = STREAMED["inbound_sms"]
_ROWS = table_rows("inbound_sms", [inbound("1")])
_PHONES = pa.array(["13800000000"])


def _with(name: str, column: pa.Array) -> pa.Table:
    return _ROWS.set_column(_ROWS.schema.get_field_index(name), name, column)


def test_columns_that_were_wider_are_brought_to_this_version() -> None:
    wider = _ROWS.column("phone_number").cast(pa.large_string())
    assert rows_of(_SMS, pack_rows(_with("phone_number", wider))).equals(_ROWS)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("send_time", _PHONES),
        ("content", pa.array([b"13800000000\xff"])),
        ("content", pa.array([["13800000000"]])),
        ("message_id", pa.nulls(1, pa.string())),
    ],
)
def test_a_column_that_does_not_fit_is_named_and_its_values_are_not(
    column: str, values: pa.Array
) -> None:
    packed = pack_rows(_with(column, values))
    says = rf"^Rows of inbound_sms do not fit this version's column\(s\) {column}: another version"
    with pytest.raises(OutputError, match=says) as refused:
        rows_of(_SMS, packed)
    assert "13800000000" not in "".join(traceback.format_exception(refused.value))


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(OutputError, match=r"column\(s\) content: another version"):
        rows_of(_SMS, pack_rows(_ROWS.drop_columns(["content"])))
