"""How many SMS of each day the tables know: one side of a comparison with Alibaba's own totals."""

from __future__ import annotations

import os
from datetime import date
from typing import Final, NamedTuple

from analytics.connection import connect

# A send counts on the day it was asked for, a report on the day it was sent: a day ends for both at midnight
# in Beijing, and the few sends of that second move a report to the next day.
_BY_DAY: Final = """
WITH by_send AS (
    SELECT
        day, count(*) AS logged,
        count(*) FILTER (state <> 'reported') AS silent
    FROM sends
    WHERE ($sign IS NULL OR sign_name = $sign)
    GROUP BY day
),
by_report AS (
    SELECT
        day, count(*) FILTER (success) AS delivered,
        count(*) FILTER (NOT success) AS failed
    FROM reports
    WHERE ($sign IS NULL OR sign_name = $sign)
    GROUP BY day
)
SELECT
    day, coalesce(logged, 0), coalesce(silent, 0), coalesce(delivered, 0), coalesce(failed, 0)
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


def count_by_day(
    dataset: str | os.PathLike[str], first: date, last: date, sign_name: str | None
) -> list[DayCounts]:
    """Count the SMS of each Beijing day that has some, of one sign or of all.

    Raises:
        DatasetError: there is no dataset, or a file of it is damaged.
    """
    with connect(dataset, first_day=first, last_day=last) as connection:
        rows = connection.execute(_BY_DAY, {"sign": sign_name}).fetchall()
    return [DayCounts(*row) for row in rows]
