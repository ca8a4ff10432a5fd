"""Which days Alibaba is asked about, and how questions are dealt out."""

from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.asking import days_to_ask, write_lanes
from transforms.decode_query import Question

# A minute after midnight of 2 November in Beijing.
MIDNIGHT = datetime(2026, 11, 1, 16, tzinfo=timezone.utc)
LATER = MIDNIGHT + timedelta(days=7)
BEFORE, AFTER = date(2026, 11, 1), date(2026, 11, 2)


def asked_for(minutes: float, as_of: datetime = LATER) -> list[date]:
    """The days for a send so long after midnight."""
    question = Question("1^0", "13800000001", MIDNIGHT + timedelta(minutes=minutes))
    return list(days_to_ask(question, as_of))


@pytest.mark.parametrize(
    ("minutes", "days"),
    [
        (-12 * 60, [BEFORE]),
        (-61, [BEFORE]),
        # It may have waited an hour before it was sent.
        (-60, [BEFORE, AFTER]),
        (-0.01, [BEFORE, AFTER]),
        # The sender's clock may be fast by some minutes.
        (0, [AFTER, BEFORE]),
        (4.9, [AFTER, BEFORE]),
        (5, [AFTER]),
        (12 * 60, [AFTER]),
    ],
)
def test_a_send_near_midnight_may_be_filed_under_the_neighbouring_day(
    minutes: float, days: list[date]
) -> None:
    assert asked_for(minutes) == days


def test_no_day_is_asked_for_that_is_still_to_come() -> None:
    assert asked_for(-30, as_of=MIDNIGHT - timedelta(minutes=1)) == [BEFORE]
    assert asked_for(-30, as_of=MIDNIGHT) == [BEFORE, AFTER]


def test_no_other_day_is_asked_for_that_alibaba_has_forgotten() -> None:
    assert asked_for(1, as_of=MIDNIGHT + timedelta(days=29)) == [AFTER, BEFORE]
    assert asked_for(1, as_of=MIDNIGHT + timedelta(days=30)) == [AFTER]
    # A run may take longer than that; the send's own day is asked for anyway.
    assert asked_for(1, as_of=MIDNIGHT + timedelta(days=40)) == [AFTER]


@pytest.mark.parametrize(
    ("questions", "workers", "lanes"),
    [
        (5, 2, [["0", "2", "4"], ["1", "3"]]),
        (2, 4, [["0"], ["1"]]),
        (1, 1, [["0"]]),
    ],
)
def test_every_lane_has_the_oldest_questions_first(
    tmp_path: Path, questions: int, workers: int, lanes: list[list[str]]
) -> None:
    table = pa.table(
        {
            "biz_id": [str(number) for number in range(questions)],
            "phone_number": ["13800000001"] * questions,
            "requested_at": [MIDNIGHT] * questions,
        }
    )
    paths = write_lanes(table, workers, str(tmp_path))
    dealt = [pa.ipc.open_file(path).read_all()["biz_id"].to_pylist() for path in paths]
    assert dealt == lanes
