"""What the tests of the engines see in the outputs: each row counts, not each outcome."""

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from schemas.records import MnsMessage
from tests.engines.load import Books
from tests.engines.outputs import differences, found
from transforms.archive import write_archive_file

_NOON = datetime(2026, 11, 1, 4, tzinfo=timezone.utc)
_QUEUE = "Alicom-Queue-1-SmsReport"
_BOOKS = Books(
    outcomes={("e", "DELIVERED"), ("e", "MK:0001")},
    last_outcome={"e": "MK:0001"},
    matches={"e": "matched"},
)


def row(
    message_id: str, code: str = "DELIVERED", revision: int = 1, **others: str
) -> dict[str, Any]:
    minutes = {"DELIVERED": 0, "MK:0001": 60}[code] + int(message_id[1:])
    return {
        "event_id": "e",
        "err_code": code,
        "revision": revision,
        "match": "matched",
        "message_id": message_id,
        "enqueued_at": _NOON + timedelta(minutes=minutes),
        **others,
    }


def told(archive: Path, *rows: dict[str, Any]) -> list[str]:
    tables = {"enriched_reports": list(rows)}
    read = found(Path(), lambda _, table: tables.get(table, []))
    return differences(_BOOKS, read, archive)


CORRECTED = row("m3", "MK:0001", revision=2)


def test_what_was_known_before_explains_itself(tmp_path: Path) -> None:
    earlier = [row("m1", match="orphan"), row("m3", "MK:0001", revision=1)]
    assert told(tmp_path, *earlier, row("m1"), CORRECTED) == []


@pytest.mark.parametrize(
    ("archived", "says"),
    [
        (["m1", "m2"], ["1 outcomes with two rows, e.g. of the messages ('m1', 'm2')"]),
        (["m2", "m1"], []),
        (["m1", "m2", "m1"], []),  # it came again: the first time may have been forgotten
    ],
)
def test_a_repeated_report_has_a_row_only_if_it_came_first(
    tmp_path: Path, archived: list[str], says: list[str]
) -> None:
    for second, message_id in enumerate(archived):
        message = MnsMessage(message_id, _QUEUE, "SmsReport", _NOON, 1, b"")
        os.utime(write_archive_file(str(tmp_path), [message], _NOON), (second, second))
    assert told(tmp_path, row("m1"), row("m2"), CORRECTED) == says


@pytest.mark.parametrize("revision", [1, 3])
def test_the_newest_revision_is_the_number_of_outcomes(tmp_path: Path, revision: int) -> None:
    (said,) = told(tmp_path, row("m1"), row("m3", "MK:0001", revision=revision))
    assert said == "1 events whose revisions do not count their outcomes, e.g. e"
