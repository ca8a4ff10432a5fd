"""Send log entries that came as messages: JSON, or Avro in single-object encoding."""

import io
import json
from datetime import datetime, timezone
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.contracts import contract, versions
from tests.decode.samples import MAINLAND, body_of, decode
from transforms.decode_sends import decode_sends, is_avro, single_object, texts_in
from transforms.moments import from_ms

CONTRACT = contract("send_log_entry")
CANARY = "13800001111"
NOON = datetime(2026, 11, 1, 4, tzinfo=timezone.utc)
ENTRY: dict[str, Any] = {
    "biz_id": "706715193751989145^0",
    "phone_number": CANARY,
    "out_id": None,
    "sign_name": "鸣鸟",
    "template_code": "SMS_1",
    "template_param": None,
    "sms_up_extend_code": None,
    "campaign": "",
    "tags": {"team": "growth", "": "x"},
    "requested_at": NOON,
    "request_id": None,
}


def avro(**changed: Any) -> bytes:
    return single_object(CONTRACT.fingerprint, CONTRACT.encode({**ENTRY, **changed}))


def line(**changed: Any) -> bytes:
    fields = {**ENTRY, "requested_at": "2026-11-01T12:00:00+08:00", **changed}
    return json.dumps(fields, ensure_ascii=False).encode()


def rows(*bodies: bytes) -> list[dict[str, Any]]:
    decoded: list[dict[str, Any]] = decode(*bodies, message_type="SendLogEntry").sends.to_pylist(
        maps_as_pydicts="strict"
    )
    return decoded


def refusal(body: bytes) -> tuple[str, str, str]:
    decoded = decode(avro(), body, message_type="SendLogEntry")
    (row,) = decoded.failed.to_pylist()
    assert (row["message_id"], row["original"]) == ("M1", body)
    assert row["schema_name"] == "send_log_entry"
    assert CANARY not in row["detail"]
    assert len(decoded.sends) == 1  # and takes nothing else with it
    assert decoded.counts["failed_messages"] == decoded.counts[f"failed/{row['reason']}"] == 1
    return row["stage"], row["reason"], row["detail"]


@pytest.mark.parametrize(
    "body", [avro(), line(), line() + b"\n", json.dumps(json.loads(line()), indent=1).encode()]
)
def test_an_entry_is_what_was_logged(body: bytes) -> None:
    assert rows(body) == [ENTRY]


def test_entries_come_beside_reports() -> None:
    decoded = decode(avro(), line(biz_id="2"), message_type="SendLogEntry")
    assert sorted(decoded.sends.column("biz_id").to_pylist()) == ["2", ENTRY["biz_id"]]
    assert decoded.counts["sends"] == decoded.counts["decoded_messages"] == 2
    assert not decode(body_of(MAINLAND)).sends.num_rows


def test_every_published_version_is_read() -> None:
    assert CONTRACT.fingerprint in {version.fingerprint for version in versions("send_log_entry")}
    for version in versions("send_log_entry"):
        assert rows(single_object(version.fingerprint, version.encode(ENTRY))) == [ENTRY]


def test_a_map_may_come_in_blocks_that_tell_their_size() -> None:
    pairs = [b"\x08team\x0cgrowth", b"\x00\x02x"]
    whole = avro()
    assert (one := b"\x04" + b"".join(pairs) + b"\x00") in whole
    for spelled in (
        b"\x02" + pairs[0] + b"\x02" + pairs[1] + b"\x00",
        b"\x03" + bytes([2 * len(b"".join(pairs))]) + b"".join(pairs) + b"\x00",
        b"\x01" + bytes([2 * len(pairs[0])]) + pairs[0] + b"\x02" + pairs[1] + b"\x00",
    ):
        assert rows(whole.replace(one, spelled)) == [ENTRY]
    wrong = b"\x03" + bytes([2 * len(b"".join(pairs)) + 2]) + b"".join(pairs) + b"\x00"
    assert refusal(whole.replace(one, wrong))[1] == "malformed_avro"


_BRANCH = b"\x16" + CANARY.encode() + b"\x00"  # the number, and that there is no out_id


@pytest.mark.parametrize(
    "body",
    [
        avro() + b"\x00",
        avro() + avro(),
        avro()[:-1],
        avro()[:12],
        avro()[:10],
        avro().replace(_BRANCH, _BRANCH[:-1] + b"\x01"),  # branch -1: the last one, for Python
        avro().replace(_BRANCH, _BRANCH[:-1] + b"\x04"),  # branch 2
        avro().replace(_BRANCH, _BRANCH[:-1] + b"\x80" * 9 + b"\x02"),  # more than 64 bits
        avro().replace(_BRANCH, _BRANCH[:-1] + b"\x80" * 10 + b"\x00"),  # more than ten groups
        avro().replace(_BRANCH, b"\x01" + _BRANCH[1:]),  # a length of -1
        avro().replace(_BRANCH, b"\x16" + b"\xff" * 11 + b"\x00"),  # no UTF-8
    ],
)
def test_avro_that_is_not_exactly_one_record_fails(body: bytes) -> None:
    detail = "expected one record of send_log_entry and nothing behind it"
    assert refusal(body) == ("decode", "malformed_avro", detail)


@pytest.mark.parametrize("body", [b"\xc3\x01", avro()[:9], avro()[:2] + b"\0" * 8 + avro()[10:]])
def test_avro_of_a_schema_that_nobody_published_fails(body: bytes) -> None:
    detail = "expected Avro of a published version of send_log_entry"
    assert refusal(body) == ("decode", "unknown_schema", detail)


def test_avro_with_the_fingerprint_of_another_contract_fails() -> None:
    report = contract("mns_message")
    assert refusal(single_object(report.fingerprint, b""))[1] == "unknown_schema"


def _with_time(ms: int) -> bytes:
    encoded = io.BytesIO()
    fastavro.schemaless_writer(encoded, CONTRACT.schema, {**ENTRY, "requested_at": ms})
    return single_object(CONTRACT.fingerprint, encoded.getvalue())


@pytest.mark.parametrize(
    ("body", "reason", "detail"),
    [
        (avro(biz_id=""), "empty_identifier", "biz_id: expected text that is not empty"),
        (avro(phone_number=""), "empty_identifier", "phone_number: expected text that is not empty"),
        (avro(campaign="a\0"), "nul_character", "campaign: expected text without NUL"),
        (avro(tags={"\0": ""}), "nul_character", "tags: expected text without NUL"),
        (_with_time(-1), "malformed_time", "requested_at: expected a time between 1970 and 9999"),
        (_with_time(2**62), "malformed_time", "requested_at: expected a time between 1970 and 9999"),
    ],
)  # fmt: skip
def test_avro_is_held_to_the_rules_of_the_send_logs_files(
    body: bytes, reason: str, detail: str
) -> None:
    assert refusal(body) == ("validate", reason, detail)


@pytest.mark.parametrize(
    ("body", "stage", "reason"),
    [
        (b"", "decode", "empty_body"),
        (b" \n", "decode", "empty_body"),
        (b"{", "decode", "malformed_json"),
        (line() + b"\n" + line(), "decode", "malformed_json"),
        (b"[%s]" % line(), "decode", "unknown_shape"),
        (body_of(ENTRY | {"requested_at": "2026-11-01T04:00:00Z"}), "decode", "malformed_json"),  # base64
        (b"\xff", "decode", "malformed_utf8"),
        (line(phone_number=int(CANARY)), "validate", "wrong_type"),
        (line(requested_at="2026-11-01T12:00:00"), "validate", "malformed_time"),
        (line(unknown=CANARY), "validate", "contract_violation"),
        (avro()[10:], "decode", "malformed_utf8"),
    ],
)  # fmt: skip
def test_json_is_held_to_the_rules_of_the_send_logs_files(
    body: bytes, stage: str, reason: str
) -> None:
    assert refusal(body)[:2] == (stage, reason)


def test_avros_json_says_what_to_use_instead() -> None:
    body = line(out_id={"string": "x"}, requested_at=1_793_505_600_000)
    stage, reason, detail = refusal(body)
    assert (stage, reason) == ("validate", "wrong_type")
    assert detail.endswith("; of a topic with a schema only the encoding BINARY is read")
    assert "BINARY" not in refusal(line(out_id=5))[2]


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


@given(
    st.fixed_dictionaries(
        {
            **dict.fromkeys(("biz_id", "phone_number"), TEXTS.filter(bool)),
            **dict.fromkeys(("out_id", "campaign", "request_id"), st.none() | TEXTS),
            "tags": st.dictionaries(TEXTS, TEXTS, max_size=3),
            "requested_at": st.integers(0, 253_402_127_999_999).map(from_ms),
        }
    )
)
@settings(max_examples=50, deadline=None)
def test_what_any_writer_encodes_is_read_as_it_was(entry: dict[str, Any]) -> None:
    body = single_object(CONTRACT.fingerprint, CONTRACT.encode(entry))
    (row,) = decode_sends([body]).entries.to_pylist(maps_as_pydicts="strict")
    assert {name: row[name] for name in entry} == entry
    texts = [value for value in entry.values() if isinstance(value, str)]
    texts += [text for pair in entry["tags"].items() for text in pair]
    assert is_avro(body)
    assert sorted(texts_in(body) or []) == sorted(texts)
