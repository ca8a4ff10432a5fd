"""Moments: milliseconds, and days that begin in Beijing."""

from datetime import datetime, timezone

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms import moments


@pytest.mark.parametrize(
    ("utc", "day"),
    [
        ("2026-10-31T15:59:59.999+00:00", "2026-10-31"),
        ("2026-10-31T16:00:00.000+00:00", "2026-11-01"),
        ("2026-11-01T15:59:59.999+00:00", "2026-11-01"),
        ("2026-11-01T16:00:00.000+00:00", "2026-11-02"),
        ("1970-01-01T00:00:00.000+00:00", "1970-01-01"),
        ("1969-12-31T15:59:59.999+00:00", "1969-12-31"),
        ("2028-02-29T12:00:00.000+00:00", "2028-02-29"),
    ],
)
def test_a_day_begins_at_midnight_in_beijing(utc: str, day: str) -> None:
    times = pa.array([datetime.fromisoformat(utc)], pa.timestamp("ms", tz="UTC"))

    (number,) = moments.beijing_days(moments.milliseconds(times)).tolist()

    assert moments.day_name(number) == day
    assert moments.day_number(day) == number


@given(st.integers(0, 7_000_000_000_000))
@settings(max_examples=50)
def test_days_are_those_of_the_standard_library(utc_ms: int) -> None:
    (number,) = moments.beijing_days(np.array([utc_ms])).tolist()

    expected = datetime.fromtimestamp(utc_ms / 1000, moments.BEIJING).date().isoformat()
    assert moments.day_name(number) == expected


def test_missing_times_count_as_zero() -> None:
    times = pa.array([None, datetime(1970, 1, 1, 0, 0, 1, tzinfo=timezone.utc)], pa.timestamp("ms"))

    assert moments.milliseconds(times).tolist() == [0, 1000]


@pytest.mark.parametrize("text", ["2026-13-01", "01.11.2026", "", "2026-11-01T00:00"])
def test_a_text_that_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not match|unconverted|out of range"):
        moments.day_number(text)
