"""State that an earlier version has written: a job that goes on from a savepoint understands it.

``python -m tests.join.test_frozen_state VERSION`` writes the state of this version; what is there is never
written again.
"""

import base64
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from tests.enrich.small_dataset import NOON, report, send
from tests.join.small_bucket import MINUTE, NOON_MS, SPANS, Bucket
from transforms import tables
from transforms.join_log import read_head
from transforms.packed import unpack

STATES: Final = Path(__file__).parent / "state"
INBOUND: Final[dict[str, Any]] = dict.fromkeys(tables.INBOUND_SMS.schema.names) | {
    "phone_number": "13800000001",
    "send_time": NOON,
    "content": "TD",
    "dest_code": "1069",
    "unknown_fields": [],
    "message_id": "U1",
    "enqueued_at": NOON,
}
GIVEN_UP_MS: Final = NOON_MS + SPANS.patience + MINUTE


def written() -> Bucket:
    """A bucket with something of everything: who has left, was given up, waits; with and without number."""
    bucket = Bucket()
    bucket.arrive([report()], [send(), send(phone_number="13800000002")], inbound=[INBOUND])
    bucket.pass_time(GIVEN_UP_MS)
    late = {"enqueued_at": NOON + timedelta(milliseconds=SPANS.patience)}
    bucket.arrive(
        [
            report(phone_number="13800000003", message_id="M3", **late),
            report(biz_id="nameless^0", phone_number=None, message_id="M4", **late),
        ],
        [send(phone_number="13800000005", requested_at=late["enqueued_at"])],
        moment_ms=GIVEN_UP_MS,
    )
    return bucket


@pytest.mark.parametrize("path", sorted(STATES.glob("*.json")), ids=lambda path: path.stem)
def test_a_job_goes_on_from_the_state_of_an_earlier_version(path: Path) -> None:
    bucket = frozen(path)
    repeated = bucket.arrive([report()], inbound=[INBOUND], moment_ms=GIVEN_UP_MS)
    assert not repeated.rows
    bucket.arrive(
        [
            report(success=False, err_code="MK:0001"),
            report(phone_number="13800000002", message_id="M2"),
            report(phone_number="13800000005", message_id="M5"),
        ],
        [send(phone_number="13800000003"), send(biz_id="nameless^0")],
        moment_ms=GIVEN_UP_MS,
    )
    rows = {
        row["message_id"]: (row["match"], row["err_code"], row["revision"], row["sign_name"])
        for row in bucket.enriched.to_pylist()
    }
    assert rows == {
        "M1": ("matched", "MK:0001", 2, "Shop"),
        **{f"M{number}": ("matched", "DELIVERED", 1, "Shop") for number in range(2, 6)},
    }
    assert bucket.waiting() == ([], [])
    bucket.pass_time(NOON_MS + 3 * SPANS.memory)
    assert bucket.state_bytes == 0


def test_this_version_writes_what_was_frozen_last() -> None:
    """Else its state is another one: freeze it, so that later versions understand both."""
    assert layout(written()) == layout(frozen(max(STATES.glob("*.json"))))


def frozen(path: Path) -> Bucket:
    bucket = Bucket()
    bucket.contents = [
        [base64.b64decode(part) for part in parts] for parts in json.loads(path.read_text("utf-8"))
    ]
    bucket.timer_ms = read_head(bucket.head).armed_ms  # the engine keeps it, too
    return bucket


def layout(bucket: Bucket) -> list[list[list[str]]]:
    """Of each part of each bag: the types of its fields, and the columns of its tables."""
    return [
        [[*_types(part), *(_columns(part) if bag else ())] for part in parts]
        for bag, parts in enumerate(bucket.contents)
    ]


def _types(part: bytes) -> list[str]:
    return [type(field).__name__ for field in msgspec.msgpack.decode(part)]


def _columns(part: bytes) -> list[str]:
    *_, packed = msgspec.msgpack.decode(part)
    return [
        f"{name}.{field.name}: {field.type}"
        for name, rows in unpack(packed).items()
        for field in rows.schema
    ]


if __name__ == "__main__":
    encoded = [[base64.b64encode(part).decode() for part in parts] for parts in written().contents]
    with (STATES / f"{sys.argv[1]}.json").open("x", encoding="utf-8") as file:
        json.dump(encoded, file, indent=1)
        file.write("\n")
