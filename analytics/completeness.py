"""How complete are the tables? Which sends no report has come for, and how many SMS of each day they know."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Final, NamedTuple

import duckdb
import pyarrow as pa

from analytics.catalog import DatasetError, Snapshot, read_snapshot
from analytics.connection import open_snapshot, open_tables

# Keys of sends: what a send, its report and every question about it have in common.
KEYS: Final = pa.schema([("biz_id", pa.string()), ("phone_number", pa.string())])

_BEIJING: Final = timezone(timedelta(hours=8))

# Asked often, so it is asked of the tables: the views would look at every report of a month.
_SILENT_SENDS: Final = """
WITH silent AS (
    SELECT biz_id, phone_number, requested_at FROM open_sends
    UNION ALL
    SELECT biz_id, phone_number, requested_at FROM unreported_sends
),
asked_for AS (
    SELECT
        biz_id, phone_number, min(requested_at) AS requested_at,
        md5(biz_id || '|' || phone_number) AS event_id
    FROM silent ANTI JOIN left_out USING (biz_id, phone_number)
    WHERE requested_at >= $since AND requested_at < $until
    GROUP BY biz_id, phone_number
),
reported AS (SELECT event_id FROM enriched_reports SEMI JOIN asked_for USING (event_id))
SELECT biz_id, phone_number, requested_at
FROM asked_for ANTI JOIN reported USING (event_id)
ORDER BY requested_at, biz_id, phone_number
"""

# A send counts on the day it was asked for, a report on the day it was sent: a day ends for both at midnight
# in Beijing, and the few sends of that second move a report to the next day. An orphan without a phone number
# is left out: it tells that one of several SMS was reported, and not which; a query tells that.
_BY_DAY: Final = """
WITH by_send AS (
    SELECT
        day, count(*) AS logged,
        count(*) FILTER (state <> 'reported') AS silent
    FROM sends
    WHERE ($sign IS NULL OR sign_name = $sign) AND ($templates IS NULL OR template_code IN $templates)
    GROUP BY day
),
by_report AS (
    SELECT
        day, count(*) FILTER (success) AS delivered,
        count(*) FILTER (NOT success) AS failed
    FROM reports
    WHERE
        ($sign IS NULL OR sign_name = $sign) AND ($templates IS NULL OR template_code IN $templates)
        AND (match <> 'orphan' OR phone_number IS NOT NULL)
    GROUP BY day
)
SELECT
    day, coalesce(logged, 0) AS logged, coalesce(silent, 0) AS silent,
    coalesce(delivered, 0) AS delivered, coalesce(failed, 0) AS failed
FROM by_send FULL JOIN by_report USING (day)
ORDER BY day
"""


class DayCounts(NamedTuple):
    """What the dataset knows of one Beijing day, in SMS.

    ``logged`` are sends of the send log, ``silent`` those of them without a report; ``delivered`` and
    ``failed`` are reported SMS, orphans included, by their current outcome.
    """

    day: date
    logged: int
    silent: int
    delivered: int
    failed: int


def silent_sends(
    dataset: str | os.PathLike[str], since: datetime, until: datetime, left_out: pa.Table
) -> pa.Table:
    """List the sends that no report has come for, oldest first: biz_id, phone_number, requested_at.

    Args:
        dataset: the directory that ``sms-receipts run`` writes.
        since: the earliest moment of the sends.
        until: the moment that they all were before.
        left_out: keys of sends to leave out, in the schema :data:`KEYS`.

    Raises:
        DatasetError: there is no dataset, or a file of it is damaged.
    """

    def ask(snapshot: Snapshot) -> pa.Table:
        first, last = (moment.astimezone(_BEIJING).date() for moment in (since, until))
        with closing(open_tables(snapshot, first, last)) as connection:
            connection.from_arrow(left_out).create_view("left_out")
            moments = {"since": since, "until": until}
            return connection.sql(_SILENT_SENDS, params=moments).to_arrow_table()

    return _answer(dataset, ask)


def count_by_day(
    dataset: str | os.PathLike[str],
    first: date,
    last: date,
    sign_name: str | None = None,
    template_codes: Sequence[str] | None = None,
) -> list[DayCounts]:
    """Count the SMS of each Beijing day that has some.

    Args:
        dataset: the directory that ``sms-receipts run`` writes.
        first: the first day.
        last: the last one.
        sign_name: of one sign; None for all.
        template_codes: of these templates, so of no orphan; None for all.

    Raises:
        DatasetError: there is no dataset, or a file of it is damaged.
    """

    def ask(snapshot: Snapshot) -> pa.Table:
        with closing(open_snapshot(snapshot, first, last, None)) as connection:
            chosen = {"sign": sign_name, "templates": template_codes}
            return connection.sql(_BY_DAY, params=chosen).to_arrow_table()

    return [DayCounts(**row) for row in _answer(dataset, ask).to_pylist()]


def _answer(dataset: str | os.PathLike[str], ask: Callable[[Snapshot], pa.Table]) -> pa.Table:
    """Ask one snapshot; a newer one if a commit moved its files meanwhile."""
    for _ in range(2):
        try:
            return ask(read_snapshot(Path(dataset)))
        except duckdb.IOException:
            continue
    raise DatasetError(
        f"A file of the dataset at {dataset} cannot be read: check the disk and your rights, or recompute "
        "its day with `sms-receipts backfill`."
    )
