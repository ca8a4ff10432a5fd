"""Reports and sends of one SMS, and a dataset in memory that the grouped join writes to."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import pyarrow as pa

from transforms.enrich import SETTLED_SCHEMA, Facts, enrich
from transforms.enrich_rows import (
    ENRICHED_SCHEMA,
    REPORT_SCHEMA,
    SEND_SCHEMA,
    UNREPORTED_SCHEMA,
)
from transforms.match import Patience

NOON = datetime(2026, 11, 1, 4, 0, tzinfo=timezone.utc)
NOBODY_WAITS = Patience(2**62, 2**62)
EVERYBODY_WAITS = Patience(0, 0)


def report(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "biz_id": "900619746936498440^0",
        "phone_number": "13800000001",
        "success": True,
        "err_code": "DELIVERED",
        "err_msg": None,
        "out_id": None,
        "sms_size": 1,
        "send_time": NOON,
        "report_time": NOON + timedelta(seconds=5),
        "unknown_fields": [],
        "message_id": "M1",
        "enqueued_at": NOON + timedelta(seconds=6),
        "origin": "mns",
    }
    return fields | changes


def send(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = dict.fromkeys(SEND_SCHEMA.names)
    fields |= {
        "biz_id": "900619746936498440^0",
        "phone_number": "13800000001",
        "sign_name": "Shop",
        "template_code": "SMS_1",
        "tags": [("team", "growth")],
        "requested_at": NOON - timedelta(seconds=1),
    }
    return fields | changes


class Dataset:
    """What an epoch carries to the next one, in memory."""

    def __init__(self) -> None:
        self.rows = ENRICHED_SCHEMA.empty_table()
        self.waiting = REPORT_SCHEMA.empty_table()
        self.open_sends = SEND_SCHEMA.empty_table()
        self.unreported = UNREPORTED_SCHEMA.empty_table()
        self.counts: Counter[str] = Counter()

    def epoch(
        self,
        reports: Sequence[dict[str, Any]],
        sends: Sequence[dict[str, Any]],
        patience: Patience = EVERYBODY_WAITS,
    ) -> Counter[str]:
        facts = Facts(
            reports=pa.Table.from_pylist(list(reports), schema=REPORT_SCHEMA),
            waiting=self.waiting,
            sends=pa.Table.from_pylist(list(sends), schema=SEND_SCHEMA),
            open_sends=self.open_sends,
            unreported=self.unreported,
            settled=self.rows.select(SETTLED_SCHEMA.names),
        )
        result = enrich(facts, patience, self._fetch)
        self.rows = pa.concat_tables([self.rows, result.rows])
        self.waiting = result.waiting
        self.open_sends = result.open_sends
        self.unreported = pa.concat_tables([self.unreported, result.unreported])
        require_balance(result.counts)
        self.counts.update(result.counts)
        return result.counts

    def _fetch(self, event_ids: Sequence[str]) -> pa.Table:
        wanted = set(event_ids)
        rows = [row for row in self.rows.to_pylist() if row["event_id"] in wanted]
        return pa.Table.from_pylist(rows, schema=ENRICHED_SCHEMA)

    def current(self) -> dict[str, dict[str, Any]]:
        """The rule that readers follow: highest revision, then a query's answer, then the earliest report."""
        current: dict[str, dict[str, Any]] = {}

        def rank(row: dict[str, Any]) -> tuple[Any, ...]:
            requested_at = row["requested_at"]
            return (
                -row["revision"],
                row["origin"] != "query",
                row["enqueued_at"],
                row["message_id"],
                row["match"],
                requested_at is None,
                requested_at or NOON,
            )

        for row in sorted(self.rows.to_pylist(), key=rank):
            current.setdefault(row["event_id"], row)
        return current


def require_balance(counts: Counter[str]) -> None:
    """Nothing comes in that does not go out."""
    assert counts["reports_to_match"] + counts["waiting_before"] == (
        counts["matched_reports"]
        + counts["orphan_reports"]
        + counts["duplicate_reports"]
        + counts["waiting_after"]
    ), counts
    assert counts["sends_to_match"] + counts["open_before"] + counts["unreported_before"] == (
        counts["matched_sends"]
        + counts["open_after"]
        + counts["unreported_new"]
        + counts["unreported_kept"]
        + counts["duplicate_sends"]
    ), counts
