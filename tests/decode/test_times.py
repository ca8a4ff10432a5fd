"""The column parser and the scalar parser read the same times."""

from datetime import datetime, timezone

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transforms.decode_times import parse_spaced, parse_spaced_column

WELL_FORMED = st.datetimes().map(lambda time: f"{time:%Y-%m-%d %H:%M:%S}".rjust(19, "0"))
ALMOST = st.from_regex(
    r"\A(19|20|99)[0-9]{2}[-:][01][0-9]-[0-3][0-9][ T][0-2][0-9]:[0-6][0-9]:[0-6][0-9]\Z"
)
TEXTS = st.none() | WELL_FORMED | ALMOST | st.text(max_size=20)


def scalar(text: str) -> datetime | None:
    try:
        return parse_spaced(text)
    except ValueError:
        return None


@given(st.lists(TEXTS, max_size=8), st.integers(0, 3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_the_column_parser_accepts_is_what_the_scalar_parser_reads(
    texts: list[str | None], skipped: int
) -> None:
    parsed = parse_spaced_column(pa.array(texts, pa.string()).slice(skipped))
    for text, time, accepted in zip(
        texts[skipped:], parsed.times.to_pylist(), parsed.accepted, strict=True
    ):
        if text is None:
            assert accepted
            assert time is None
        elif accepted:
            assert time == scalar(text)
            assert time is not None
        else:
            assert time is None
            read = scalar(text)
            assert read is None or not 2000 < read.year < 2099


def test_every_day_of_this_century_is_read_in_columns() -> None:
    texts = [
        f"{year}-{month:02}-{day:02} 23:59:59"
        for year in range(2000, 2100)
        for month in range(1, 13)
        for day in range(1, 32)
    ]
    parsed = parse_spaced_column(pa.array(texts))
    assert parsed.times.to_pylist() == [scalar(text) for text in texts]
    assert parsed.accepted.sum() == 36_525
    assert parsed.times[0].as_py() == datetime(2000, 1, 1, 15, 59, 59, tzinfo=timezone.utc)
