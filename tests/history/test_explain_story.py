"""Why a row of a report was written: the history of one recipient, as rows in any order tell it."""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from itertools import permutations
from typing import Any

import pytest

from analytics.catalog import CommitRecord, History, Snapshot
from pipeline.explain.search import Searched, StoredRow, Traces
from pipeline.explain.story import Recipient, tell
from pipeline.explain.text import text
from pipeline.options_explain import explain_options

NOON = datetime(2026, 11, 1, 4, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
PHONE = "13800000001"


def commit(number: int, kind: str = "run") -> CommitRecord:
    return CommitRecord(number, kind, NOON + number * HOUR, NOON + number * HOUR)


def row(by: CommitRecord, revision: int, err_code: str = "DELIVERED", **more: Any) -> StoredRow:
    """A row of ``enriched_reports``."""
    columns = {
        "biz_id": "1^0",
        "phone_number": PHONE,
        "message_id": err_code,
        "enqueued_at": NOON,
        "send_time": NOON,
        "requested_at": NOON,
        "success": err_code == "DELIVERED",
        "err_code": err_code,
        "origin": "mns",
        "match": "matched",
        "revision": revision,
        **more,
    }
    return StoredRow("enriched_reports", columns, f"{by.number}/{revision}.parquet", by)


def told(rows: Sequence[StoredRow]) -> Recipient:
    history = History(Snapshot(1, NOON, {}), {}, {}, {}, {})
    searched = Searched(history, 0, [], 0, 0, 0, None, [])
    explanation = tell(Traces(rows, [], [], searched), explain_options(["1^0"]), NOON + HOUR)
    assert PHONE not in text(explanation)
    (recipient,) = explanation.recipients
    return recipient


FIRST, SECOND, THIRD = commit(1), commit(2), commit(3)
ORPHAN: dict[str, Any] = {"match": "orphan", "requested_at": None}


@pytest.mark.parametrize(
    ("rows", "reasons"),
    [
        (
            [row(FIRST, 1, **ORPHAN), row(SECOND, 1)],
            ["the first report", "its send log entry came"],
        ),
        (
            [row(FIRST, 1, "E1"), row(FIRST, 2), row(SECOND, 3, "E2")],
            [
                "the first report",
                "a correction: a later report says otherwise",
                "a correction: a later report says otherwise",
            ],
        ),
        (
            [row(FIRST, 1), row(SECOND, 1, "E1"), row(SECOND, 2)],
            ["the first report", "an earlier report, found later", "revision 1 before, ranked anew"],
        ),
        (
            [row(FIRST, 1), row(SECOND, 1, "E1", origin="query"), row(SECOND, 2)],
            [
                "the first report",
                "the answer of a query, which ranks before what a queue brings",
                "revision 1 before, ranked anew",
            ],
        ),
        (
            [row(FIRST, 1, "E1", origin="query"), row(SECOND, 2)],
            [
                "the answer of a query",
                "the real report, which corrects the answer of the query and takes its place",
            ],
        ),
        (
            [row(FIRST, 1), row(SECOND, 1, message_id="A", enqueued_at=NOON - HOUR)],
            ["the first report", "an earlier report says the same"],
        ),
        (
            [row(FIRST, 1), row(SECOND, 1, requested_at=NOON - HOUR)],
            ["the first report", "written again, with an earlier send log entry"],
        ),
        ([row(FIRST, 1, origin="replay")], ["the first report, replayed"]),
        # Merged, and the archive is gone: the ranks are all there is to tell.
        (
            [row(commit(9, "compact"), 1, **ORPHAN), row(commit(9, "compact"), 1),
             row(commit(9, "compact"), 2, "E1")],
            ["the first report", "its send log entry came", "a correction: a later report says otherwise"],
        ),
    ],
)  # fmt: skip
def test_every_row_has_its_reason_whatever_the_order_of_the_files(
    rows: Sequence[StoredRow], reasons: Sequence[str]
) -> None:
    for shuffled in permutations(rows):
        recipient = told(shuffled)
        decisions = [each.what for each in recipient.moments if each.kind == "decision"]
        assert len(decisions) == len(reasons)
        for decision, reason in zip(decisions, reasons, strict=True):
            assert f": {reason}; " in decision
        (current,) = [each for each in recipient.moments if each.is_current]
        assert recipient.current is not None
        assert current.what.startswith(f"revision {recipient.current['revision']}, ")
        assert recipient.current["revision"] == max(each.row["revision"] for each in rows)
