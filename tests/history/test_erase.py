"""Records without a person: theirs go, others' stay byte for byte."""

import base64
import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import OperatorError
from pipeline.options_erase import erase_options
from schemas.contracts import contract
from schemas.records import MnsMessage
from tests.decode.samples import (
    GLOBE,
    INTERNATIONAL,
    MAINLAND,
    OLDER_INTERNATIONAL,
    REPLY,
    body_of,
    json_text,
)
from transforms.archive import is_archive_file, list_archive, read_archive, write_archive_file
from transforms.archive_replacement import replace, stage, staged
from transforms.decode_sends import single_object
from transforms.erase import Persons, body_without, messages_without, rows_without
from transforms.phone_numbers import Numbers
from transforms.tables import ENRICHED_REPORTS, FAILED_EVENTS, INBOUND_SMS

PERSON = "13812345678"
NOW = datetime(2026, 11, 1, 4, tzinfo=timezone.utc)
QUEUE = "Alicom-Queue-1000000000000001-SmsReport"
PERSONS = Persons(Numbers([PERSON]), frozenset({"shared^0"}))
OTHER = "13900000001"


def mainland(phone_number: str | None = PERSON, **fields: Any) -> dict[str, Any]:
    return {**MAINLAND, "phone_number": phone_number, **fields}


SEND = {"biz_id": "1^0", "phone_number": PERSON, "requested_at": NOW}


def avro_send(**fields: Any) -> bytes:
    sends = contract("send_log_entry")
    return single_object(sends.fingerprint, sends.encode({**SEND, **fields}))


THEIRS = {
    "mainland": body_of(mainland()),
    "with its country code": body_of(mainland(f"+86{PERSON}")),
    "plain JSON": json_text(mainland()),
    "escaped": body_of(json_text(mainland()).replace(b'"138', rb'"\u0031\u00338')),
    "ASCII JSON": body_of(json.dumps(mainland(OTHER, err_msg=f"三{PERSON}")).encode()),
    "international": body_of({**INTERNATIONAL, "To": f"86{PERSON}"}),
    "older international": body_of({**OLDER_INTERNATIONAL, "PhoneNumber": f"86{PERSON}"}),
    "globe": body_of({**GLOBE, "to": f"0086{PERSON}"}),
    "reply": body_of({**REPLY, "phone_number": PERSON}),
    "text of another's reply": body_of({**REPLY, "content": "问 138-1234-5678"}),
    "unknown field": body_of(mainland(OTHER, contact={"phones": [PERSON]})),
    "a field's name": body_of({**mainland(OTHER), PERSON: 1}),
    "a JSON number": body_of(mainland(OTHER, sequence=int(PERSON))),
    "an array of theirs alone": body_of([mainland(), {**REPLY, "phone_number": PERSON}]),
    "no recipient": body_of(mainland(None, biz_id="shared^0")),
    "an empty recipient": body_of(mainland("", biz_id="shared^0")),
    "no recipient, no JSON": b'{"biz_id": "shared^0", "success": tru',
    "no recipient abroad": body_of(
        {name: value for name, value in {**GLOBE, "message_id": "shared^0"}.items() if name != "to"}
    ),
    "raw digits": PERSON.encode(),
    "garbage": b"\xff\xfe" + PERSON.encode() + b"\x00\xff",
    "cut short": body_of(mainland())[:-7],
    "cut in front": body_of(mainland())[5:],
    "broken in the middle": body_of(mainland())[:20] + b"*\xff" + body_of(mainland())[20:],
    "URL-safe": base64.urlsafe_b64encode(json_text(mainland(OTHER, err_msg=f"???>>>{PERSON}"))),
    "base64 twice": base64.b64encode(body_of(mainland())),
    "in lines": base64.encodebytes(json_text(mainland())),
    "UTF-16": json.dumps(mainland()).encode("utf-16"),
    "UTF-16 below base64": base64.b64encode(json.dumps(mainland()).encode("utf-16")),
    "GBK below base64": base64.b64encode(f'{{"content":"好{PERSON}'.encode("gbk")),
    "a byte order mark": b"\xef\xbb\xbf" + json_text(mainland()),
    "too deep": b"[" * 5000 + PERSON.encode(),
    "a send": json.dumps(SEND, default=str).encode(),
    "a send in Avro": avro_send(),
    "a tag of another's send": avro_send(phone_number=OTHER, tags={"asked by": f"+86 {PERSON}"}),
    # The length of a text of 24 bytes is the digit 0, and stands directly before it.
    "a text behind a digit": avro_send(phone_number=OTHER, campaign=f"{PERSON} and friends."),
    "a broken send": avro_send(campaign=f"{PERSON} and friends.")[:-4],
    "a send of a schema that nobody knows": b"\xc3\x01" + bytes(8) + b"0" + PERSON.encode() + b"1",
    "one key twice": b'{"phone_number":"%b","phone_number":"1"}' % PERSON.encode(),
}
OTHERS = {
    "mainland": body_of(mainland(OTHER)),
    "a longer number": body_of(mainland(f"{PERSON}9")),
    "an identifier": body_of(mainland(OTHER, biz_id=f"900{PERSON}1234^0")),
    "milliseconds": body_of({**REPLY, "sequence_id": f"{PERSON}00"}),
    "another recipient of their send": body_of(mainland(OTHER, biz_id="shared^0")),
    "no recipient of another's send": body_of(mainland(None)),
    "another's broken report of their send": json_text(mainland(OTHER, biz_id="shared^0"))[:-9],
    "an array": body_of([mainland(OTHER), REPLY]),
    "another's send": avro_send(phone_number=OTHER),
    "a send to another, in one call": avro_send(phone_number=OTHER, biz_id="shared^0"),
    "an identifier in a send": avro_send(phone_number=OTHER, biz_id=f"900{PERSON}1234^0"),
    "a broken send to another": avro_send(phone_number=OTHER)[:-4],
    "garbage": b"\xff no report at all",
    "an empty one": b"",
    "no JSON": base64.b64encode(b"nothing to see here, move along"),
    "deep": b"[" * 5000,
}


@pytest.mark.parametrize("body", THEIRS.values(), ids=THEIRS)
def test_a_body_of_theirs_goes_whatever_it_looks_like(body: bytes) -> None:
    assert body_without(PERSONS, body) is None
    left = messages_without(PERSONS, messages(body_of(REPLY), body))
    assert (left.removed, left.shortened) == (1, 0)
    assert left.rows.column("body").to_pylist() == [body_of(REPLY)]


@pytest.mark.parametrize("body", OTHERS.values(), ids=OTHERS)
def test_a_body_of_others_stays_what_it_is(body: bytes) -> None:
    assert body_without(PERSONS, body) is body
    batch = messages(body)
    left = messages_without(PERSONS, batch)
    assert left.rows is batch
    assert not left.is_changed


@pytest.mark.parametrize("is_plain", [True, False])
def test_of_an_array_only_their_records_go(is_plain: bool) -> None:
    # Spelled as no encoder of ours would: what stays must not have been written anew.
    first = b'{ "phone_number":"13900000001" ,"success":  true, "x": 1.50e+1,"biz_id":"\\u0061^0" }'
    last = json_text({**REPLY, "sequence_id": 12345678901234567890})
    nameless = json_text(mainland(None, biz_id="shared^0"))
    text = b" [" + b" , ".join([first, json_text(mainland()), nameless, last]) + b"]\n"
    body = text.lstrip() if is_plain else base64.b64encode(text)

    left = body_without(PERSONS, body)

    assert left is not None
    assert (left if is_plain else base64.b64decode(left)) == b"[" + first + b"," + last + b"]"
    remaining = messages_without(PERSONS, messages(body_of(REPLY), body, body_of(mainland())))
    assert (remaining.removed, remaining.shortened) == (1, 1)
    assert remaining.rows.column("body").to_pylist() == [body_of(REPLY), left]
    assert remaining.rows.schema == contract("mns_message").arrow


def test_a_message_goes_for_its_id_too() -> None:
    batch = messages(body_of(REPLY), message_id=f"x/{PERSON}/y")
    assert messages_without(PERSONS, batch).removed == 1


def test_a_row_goes_for_any_of_its_columns() -> None:
    row = {
        "phone_number": OTHER,
        "send_time": NOW,
        "content": "TD",
        "dest_code": "1069",
        "sequence_id": None,
        "sign_name": None,
        "unknown_fields": {},
        "message_id": "m",
        "enqueued_at": NOW,
    }
    changed: Sequence[dict[str, Any]] = (
        {"phone_number": PERSON},
        {"content": f"问{PERSON}"},
        {"sign_name": f"+86 {PERSON}"},
        {"unknown_fields": {"x": rf'"\u4e09{PERSON}"'}},
        {"unknown_fields": {"x": "1", PERSON: "1"}},
        {"message_id": PERSON},
        {"content": f"{PERSON}0"},
        {"content": "anything"},
    )
    batch = contract("inbound_sms").batch([row | change for change in changed])

    left = rows_without(PERSONS, INBOUND_SMS, pa.Table.from_batches([batch]))

    assert left.removed == 6
    assert left.rows.column("content").to_pylist() == [f"{PERSON}0", "anything"]


def test_a_row_without_a_number_goes_if_its_send_was_theirs() -> None:
    schema = ENRICHED_REPORTS.schema
    keys = [("shared^0", None), ("shared^0", OTHER), ("own^0", None), ("own^0", PERSON)]
    columns = {
        "biz_id": pa.array([biz_id for biz_id, _ in keys]),
        "phone_number": pa.array([phone_number for _, phone_number in keys]),
    }
    rows = pa.Table.from_arrays(
        [columns.get(field.name, pa.nulls(4, field.type)) for field in schema], schema=schema
    )

    left = rows_without(PERSONS, ENRICHED_REPORTS, rows)

    assert left.rows.select(["biz_id", "phone_number"]).to_pylist() == [
        {"biz_id": "shared^0", "phone_number": OTHER},
        {"biz_id": "own^0", "phone_number": None},
    ]


def test_a_failed_event_keeps_the_records_of_others() -> None:
    body = body_of([mainland(OTHER, send_time="when?"), mainland()])
    schema = FAILED_EVENTS.schema
    originals = [body, body_of(mainland()), b"\xff", body_of(mainland(OTHER))]
    rows = pa.Table.from_arrays(
        [
            pa.array(originals, pa.binary())
            if field.name == "original"
            else pa.nulls(4, field.type)
            for field in schema
        ],
        schema=schema,
    )

    left = rows_without(PERSONS, FAILED_EVENTS, rows)

    assert (left.removed, left.shortened) == (1, 1)
    shortened = body_of([mainland(OTHER, send_time="when?")])
    kept = left.rows.column("original").to_pylist()
    assert [json.loads(base64.b64decode(kept[0])), *kept[1:]] == [
        json.loads(base64.b64decode(shortened)),
        b"\xff",
        originals[3],
    ]


def messages(*bodies: bytes, message_id: str = "m") -> pa.RecordBatch:
    rows = [
        {
            "message_id": message_id,
            "queue_name": QUEUE,
            "message_type": "SmsReport",
            "enqueued_at": NOW,
            "dequeue_count": 1,
            "body": body,
        }
        for body in bodies
    ]
    return contract("mns_message").batch(rows)


# -- the archive ----------------------------------------------------------------------------------------


def archive_of(root: Path) -> tuple[Path, str]:
    """An archive file of five messages, and what is staged in its place: the first three."""
    many = [
        MnsMessage(f"m{minute}", QUEUE, "SmsReport", NOW.replace(minute=minute), 1, b"x")
        for minute in range(5)
    ]
    old = Path(write_archive_file(str(root), many, NOW))
    (batch,) = read_archive(str(old)).batches
    return old, stage(str(old), [batch.slice(0, 2), batch.slice(2, 1)])


def test_what_is_staged_is_not_in_the_archive_yet(tmp_path: Path) -> None:
    old, new = archive_of(tmp_path)

    assert [file.path for file in list_archive(str(tmp_path))] == [str(old)]
    assert not is_archive_file(staged(new))
    assert is_archive_file(new)


@pytest.mark.parametrize("times", [1, 2])
def test_what_is_staged_takes_its_place_and_its_name_keeps_its_promise(
    tmp_path: Path, times: int
) -> None:
    old, new = archive_of(tmp_path)

    for _ in range(times):
        replace(str(old), new)

    (file,) = list_archive(str(tmp_path))
    assert file.path == new
    assert (file.messages, file.first_enqueued_at, file.last_enqueued_at) == (
        3,
        NOW,
        NOW.replace(minute=2),
    )
    archived = read_archive(new)
    ids = [row for batch in archived.batches for row in batch.column("message_id").to_pylist()]
    assert (ids, archived.lost) == (["m0", "m1", "m2"], 0)


def test_nothing_may_take_its_place(tmp_path: Path) -> None:
    old, _ = archive_of(tmp_path)

    replace(str(old), None)
    replace(str(old), None)

    assert list_archive(str(tmp_path)) == []


def test_a_file_stays_if_what_was_to_take_its_place_is_gone(tmp_path: Path) -> None:
    old, new = archive_of(tmp_path)
    Path(staged(new)).unlink()

    with pytest.raises(FileNotFoundError):
        replace(str(old), new)

    assert old.exists()


# -- the command line -----------------------------------------------------------------------------------


def test_numbers_come_from_flags_and_from_standard_input() -> None:
    given = ["--phone_number=-", f"--phone=+86{OTHER}"]

    options = erase_options(given, [f"{PERSON}\n", "\n", " 0065 8123 4567 \n"])

    assert options.numbers.masked == ["138******78", "139******01", "658*****67"]
    assert not options.is_applied
    assert not options.removes_unreadable
    assert PERSON not in repr(options)


@pytest.mark.parametrize(
    ("given", "typed", "sentence"),
    [
        (["--phone_number=1381234567x"], "", "^--phone_number is no phone number"),
        (["--phone_number=-"], f"{PERSON}\n\n1381234567x\n", "^Line 3 of standard input is no phone number"),
        (["--phone_number=-"], "\n", "^There is no phone number on standard input"),
        ([f"--phone_number={OTHER}", "1381234567x"], "", "^1 arguments belong to no flag"),
        ([], "", "required: --phone_number"),
        ([f"--phone_number={OTHER}", "--archive=s3://x"], "", "^--archive must be a directory"),
    ],
)  # fmt: skip
def test_wrong_flags_are_told_and_no_number_is_repeated(
    given: list[str], typed: str, sentence: str
) -> None:
    with pytest.raises(OperatorError, match=sentence) as refused:
        erase_options(given, typed.splitlines(keepends=True))

    assert "1381234567x" not in str(refused.value)
