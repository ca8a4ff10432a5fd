"""The fast way and the careful way give the same verdict on anything."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.contracts import contract
from tests.decode.samples import (
    ENQUEUED_AT,
    FAILED_AT,
    GLOBE,
    INTERNATIONAL,
    MAINLAND,
    OLDER_INTERNATIONAL,
    REPLY,
    body_of,
    json_text,
    typed_messages,
)
from transforms.decode import decode_messages
from transforms.decode_shapes import decode_body
from transforms.failures import UnusableError

TYPES = st.sampled_from(
    ["SmsReport"] * 6 + ["DypnsSmsVerifyReport", "SmsUp", "GlobeSmsReport", "VoiceReport"]
)
SAMPLES = st.sampled_from(
    [MAINLAND] * 8 + [INTERNATIONAL, OLDER_INTERNATIONAL, GLOBE, REPLY, {"x": 1}]
)
TIMES = st.sampled_from(
    [
        "2026-11-01T12:00:00", "2026-11-01 12:00:00Z", "2026-11-01 12:00:00.5", "2026-02-29 00:00:00",
        "2024-02-29 23:59:59", "1969-12-31 23:59:59", "2000-01-01 07:59:59", "2100-01-01 00:00:00",
        "9999-12-31 23:59:59", "0001-01-01 00:00:00", "0000-01-01 00:00:00", "2026-00-10 00:00:00",
        "2026-11-31 00:00:00", "2026-11-01 23:60:00", "2026:11:01 12:00:00", "20261101120000",
        "2026-11-01 12:00:0é", "", "2026-11-01 12:00:000", "+026-11-01 12:00:00",
    ]
)  # fmt: skip
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 120), st.floats(allow_nan=False), TIMES,
    st.sampled_from(["true", "1", "99", "100", "01", "2147483648", "", '"', "\\", "\x00", "中文😀"]),
    st.text(max_size=4), st.just([1]), st.just({"a": {"b": "c"}}),
)  # fmt: skip


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """Draw JSON text near a sample: fields gone, changed, added, and the text itself tampered."""
    fields: dict[str, Any] = dict(draw(SAMPLES))
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=3)):
        if draw(st.booleans()):
            fields.pop(name, None)
        else:
            fields[name] = draw(VALUES)
    if draw(st.integers(0, 5)) == 0:
        fields[draw(st.text(max_size=3))] = draw(VALUES)
    written = json.dumps(fields, ensure_ascii=draw(st.booleans())).encode()
    return draw(st.sampled_from(TAMPERINGS))(written)


def same(text: bytes) -> bytes:
    return text


TAMPERINGS: list[Callable[[bytes], bytes]] = [
    *[same] * 8,
    lambda text: text.replace(b'"success"', b'"success" : false, "success"', 1),
    lambda text: text.replace(b'"out_id"', b'"err_code"', 1),
    lambda text: text.replace(b"1", b"\\u0031", 1),
    lambda text: text.replace(b"e", b"\\u0000", 1),
    lambda text: text.replace(b"e", b"\\\\u0000", 1),
    lambda text: text.replace(b"e", b"\\ud800", 1),
    lambda text: text.replace(b"e", b"\xff", 1),
    lambda text: text.replace(b"1", b"NaN", 1),
    lambda text: text.replace(b":", b" \t\n: ", 2),
    lambda text: b"[" + text + b"]",
    lambda text: b"[" + text + b"," + text + b"]",
    lambda text: text + text,
    lambda text: text[:-5],
    lambda text: b"\xef\xbb\xbf" + text,
]

BODIES = st.one_of(
    texts().map(body_of),
    texts().map(body_of),
    texts(),
    st.binary(max_size=12),
    st.binary(max_size=12).map(body_of),
)


def carefully(message_type: str, body: bytes, message_id: str) -> tuple[list[Any], list[Any], Any]:
    """Decode one message the careful way only; return report rows, inbound rows, failure."""
    origin = {"message_id": message_id, "enqueued_at": ENQUEUED_AT}
    try:
        decoded = decode_body(message_type, body)
    except UnusableError as error:
        return [], [], (message_id, error.reason, error.detail, body)
    reports, inbound = (
        [
            {**record._asdict(), "unknown_fields": [*record.unknown_fields.items()], **origin}
            for record in records
        ]
        for records in (decoded.reports, decoded.inbound)
    )
    return [{**row, "origin": "mns"} for row in reports], inbound, None


def by_message(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: int(row["message_id"][1:]))


@given(st.lists(st.tuples(TYPES, BODIES), max_size=12))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_kernel_agrees_with_the_careful_decoder(typed: list[tuple[str, bytes]]) -> None:
    decoded = decode_messages(typed_messages(typed), FAILED_AT)
    expected = [carefully(kind, body, f"M{n}") for n, (kind, body) in enumerate(typed)]
    assert by_message(decoded.reports.to_pylist()) == [r for rows, _, _ in expected for r in rows]
    assert decoded.inbound.to_pylist() == [row for _, rows, _ in expected for row in rows]
    failed = [
        (row["message_id"], row["reason"], row["detail"], row["original"])
        for row in decoded.failed.to_pylist()
    ]
    assert failed == [failure for _, _, failure in expected if failure]
    contract("delivery_report").require_batch(decoded.reports)
    contract("inbound_sms").require_batch(decoded.inbound)
    contract("failed_event").require_batch(decoded.failed)
    assert decoded.counts["messages"] == len(typed)
    assert decoded.counts["decoded_messages"] + decoded.counts["failed_messages"] == len(typed)
    reasons = Counter(f"failed/{reason}" for _, reason, _, _ in failed)
    assert {k: v for k, v in decoded.counts.items() if "/" in k} == dict(reasons)


@given(TYPES, st.binary(max_size=60))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_bytes_raise_anything_but_a_refusal(message_type: str, noise: bytes) -> None:
    for body in (noise, b"{" + noise, b"[" + noise, body_of(noise), body_of(b"[{" + noise)):
        decode_messages(typed_messages([(message_type, body)]), FAILED_AT)


def test_canonical_rows_stay_canonical_among_thousands_of_others() -> None:
    # More than one slice, the odd ones at its edges.
    bodies = [body_of({**MAINLAND, "biz_id": f"{n}^0"}) for n in range(4100)]
    odd = {
        0: body_of({**MAINLAND, "biz_id": "0^0", "x": 1}),
        1: b"%",
        1999: body_of(json_text({**MAINLAND, "biz_id": "1999^0", "err_msg": 'a "quoted" word'})),
        2000: body_of({**MAINLAND, "biz_id": "2000^0", "report_time": "never"}),
        2001: body_of(b'{"biz_id":"a",' + json_text({**MAINLAND, "biz_id": "2001^0"})[1:]),
        4099: body_of({**MAINLAND, "biz_id": "4099^0", "out_id": None}),
    }
    for row, body in odd.items():
        bodies[row] = body
    decoded = decode_messages(typed_messages(("SmsReport", body) for body in bodies), FAILED_AT)
    assert decoded.failed.column("message_id").to_pylist() == ["M1", "M2000", "M2001"]
    rows = decoded.reports.select(["biz_id", "message_id"]).to_pylist()
    assert all(f"M{row['biz_id'][:-2]}" == row["message_id"] for row in rows)
    assert [row["message_id"] for row in rows[-3:]] == ["M0", "M1999", "M4099"]
    assert len(rows) == 4097
