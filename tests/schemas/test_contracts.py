"""What the contracts promise, record by record."""

import io
import json
from datetime import datetime, timezone
from importlib import resources
from typing import Any

import fastavro
import msgspec
import pyarrow as pa
import pytest

from schemas.contracts import ContractError, contract, contract_names

NOW = datetime(2026, 11, 1, 4, 0, tzinfo=timezone.utc)
CANARY = "13800001111"

REPORT: dict[str, Any] = {
    "biz_id": "706715193751989145^0",
    "success": True,
    "send_time": NOW,
    "message_id": "0909FF0D9C3A630C372B8A14BD2011B6",
    "enqueued_at": NOW,
}


def source_of(name: str) -> dict[str, Any]:
    text = (resources.files("schemas") / "avro" / f"{name}.avsc").read_text(encoding="utf-8")
    source: dict[str, Any] = json.loads(text)
    return source


def test_there_is_one_contract_for_each_record() -> None:
    assert contract_names() == (
        "delivery_report",
        "enriched_report",
        "failed_event",
        "inbound_sms",
        "mns_message",
        "query_answer",
        "send_log_entry",
        "unreported_send",
    )


@pytest.mark.parametrize("name", contract_names())
def test_every_record_field_and_enum_is_documented(name: str) -> None:
    source = source_of(name)
    assert source["namespace"] == "sms_receipts"
    assert len(source["doc"]) > 20
    for field in source["fields"]:
        assert len(field["doc"]) > 20, field["name"]
        if isinstance(field["type"], dict) and field["type"]["type"] == "enum":
            assert len(field["type"]["doc"]) > 20
            assert all(symbol in field["type"]["doc"] for symbol in field["type"]["symbols"])


@pytest.mark.parametrize("name", contract_names())
def test_avro_arrow_and_struct_have_the_same_fields_in_the_same_order(name: str) -> None:
    compiled = contract(name)
    names = [field["name"] for field in source_of(name)["fields"]]
    assert compiled.arrow.names == names
    assert [field.name for field in msgspec.structs.fields(compiled.record_type)] == names


@pytest.mark.parametrize("name", contract_names())
def test_a_column_is_nullable_exactly_where_avro_says_null(name: str) -> None:
    for field in source_of(name)["fields"]:
        optional = isinstance(field["type"], list)
        assert contract(name).arrow.field(field["name"]).nullable is optional
        if optional:
            assert field["type"][0] == "null"
            assert field["default"] is None


def test_arrow_types_are_those_of_the_data_model() -> None:
    arrow = contract("delivery_report").arrow
    assert arrow.field("send_time").type == pa.timestamp("ms", tz="UTC")
    assert arrow.field("sms_size").type == pa.int32()
    assert arrow.field("unknown_fields").type == pa.map_(pa.string(), pa.string())
    assert contract("failed_event").arrow.field("original").type == pa.binary()
    assert contract("failed_event").arrow.field("reason").type == pa.string()
    assert contract("enriched_report").arrow.field("total_ms").type == pa.int64()


def test_a_fingerprint_is_16_hex_digits_and_differs_between_records() -> None:
    fingerprints = {contract(name).fingerprint for name in contract_names()}
    assert len(fingerprints) == len(contract_names())
    assert all(len(f) == 16 and int(f, 16) >= 0 for f in fingerprints)


def test_a_message_never_holds_a_receipt_handle() -> None:
    assert not [name for name in contract("mns_message").arrow.names if "handle" in name]


def test_an_encoded_record_reads_back_with_defaults_filled_in() -> None:
    compiled = contract("delivery_report")
    encoded = io.BytesIO(compiled.encode(REPORT))
    decoded = fastavro.schemaless_reader(encoded, compiled.schema, None)
    optional = ("phone_number", "err_code", "err_msg", "out_id", "sms_size", "report_time")
    assert decoded == {
        **REPORT,
        "unknown_fields": {},
        "origin": "mns",
        **dict.fromkeys(optional),
    }


def test_a_field_with_a_default_may_be_absent_from_a_batch_too() -> None:
    compiled = contract("delivery_report")
    batch = compiled.batch([REPORT, {**REPORT, "unknown_fields": {"a": "1"}}])
    compiled.require_batch(batch)
    assert batch.column("unknown_fields").to_pylist() == [[], [("a", "1")]]


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"success": "true"}, "success: expected boolean"),
        ({"sms_size": 2**31}, "sms_size: expected null or int"),
        ({"sms_size": True}, "sms_size: expected null or int"),
        ({"send_time": NOW.replace(tzinfo=None)}, "send_time: expected timestamp-millis"),
        ({"send_time": 0}, "send_time: expected timestamp-millis"),
        ({"out_id": "\ud800"}, "out_id: expected null or string"),
        ({"unknown_fields": {"a": 1}}, "unknown_fields: expected map of string"),
        ({"unknown_fields": None}, "unknown_fields: expected map of string"),
        ({CANARY: CANARY}, "1 unknown field(s)"),
        ({"phone_number": int(CANARY), CANARY: 1},
         "phone_number: expected null or string; 1 unknown field(s)"),
    ],
)  # fmt: skip
def test_a_refusal_names_fields_and_types_and_never_values(
    changes: dict[str, Any], detail: str
) -> None:
    with pytest.raises(ContractError) as refusal:
        contract("delivery_report").require({**REPORT, **changes})
    assert str(refusal.value) == detail
    assert CANARY not in repr(refusal.value)
    assert refusal.value.__suppress_context__


def test_a_missing_required_field_is_named() -> None:
    with pytest.raises(ContractError, match=r"^biz_id: expected string$"):
        contract("delivery_report").encode({k: v for k, v in REPORT.items() if k != "biz_id"})


def test_an_enum_takes_its_symbols_only() -> None:
    compiled = contract("failed_event")
    assert compiled.symbols("stage") == ("archive", "decode", "validate", "enrich", "write")
    assert compiled.symbols("detail") == ()


def report_batch(**changes: pa.Array) -> pa.RecordBatch:
    batch = pa.RecordBatch.from_pylist(
        [{**REPORT, "unknown_fields": {}, "origin": "mns"}],
        schema=contract("delivery_report").arrow,
    )
    for name, column in changes.items():
        batch = batch.set_column(batch.schema.names.index(name), batch.schema.field(name), column)
    return batch


def test_rows_of_an_earlier_version_are_completed_with_defaults() -> None:
    compiled = contract("delivery_report")
    earlier = pa.Table.from_batches([report_batch().drop_columns(["origin", "unknown_fields"])])
    assert compiled.complete(earlier).to_pylist() == report_batch().to_pylist()
    assert compiled.complete(earlier).schema == compiled.arrow
    assert compiled.complete(earlier, ["origin", "biz_id"]).to_pylist() == [
        {"origin": "mns", "biz_id": REPORT["biz_id"]}
    ]


def test_a_batch_that_fits_is_taken() -> None:
    contract("delivery_report").require_batch(report_batch())


def test_a_batch_with_a_null_in_a_required_column_is_refused() -> None:
    batch = report_batch(biz_id=pa.array([None], pa.string()))
    with pytest.raises(ContractError, match=r"^biz_id: expected string$"):
        contract("delivery_report").require_batch(batch)


def test_a_batch_with_other_columns_is_refused() -> None:
    batch = report_batch().drop_columns(["out_id"])
    with pytest.raises(ContractError, match=r"^columns are not those of delivery_report$"):
        contract("delivery_report").require_batch(batch)


def test_a_batch_with_a_foreign_enum_symbol_is_refused() -> None:
    compiled = contract("enriched_report")
    row = {
        **REPORT, "event_id": "0" * 32, "revision": 0, "match": "guessed", "origin": "mns",
        "unknown_fields": {}, "tags": {},
    }  # fmt: skip
    batch = pa.RecordBatch.from_pylist([row], schema=compiled.arrow)
    with pytest.raises(ContractError, match=r"^match: expected one of matched, orphan$"):
        compiled.require_batch(batch)
