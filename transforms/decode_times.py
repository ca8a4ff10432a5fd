"""The time formats of Alibaba's SMS messages, to UTC.

Times without an offset are Beijing time, always: no daylight saving since 1991. A parser takes
exactly its documented format, ASCII digits only, and raises ValueError for everything else; the
column parser gives the same verdicts, for a whole column at once.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.moments import BEIJING, EARLIEST, LATEST

_SPACED: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2}) ([0-9]{2}):([0-9]{2}):([0-9]{2})")
_COMPACT: Final = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})")
_RFC_822: Final = re.compile(
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), )?([0-9]{1,2}) "
    r"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) ([0-9]{4}) "
    r"([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-5][0-9])"
)
_MONTHS: Final = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
]  # fmt: skip

_SPACED_LENGTH: Final = len("yyyy-MM-dd HH:mm:ss")
_DIGITS: Final = [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18]
_BEIJING_OFFSET_SECS: Final = 8 * 3600
_NINE: Final = np.uint8(9)
_SEPARATORS: Final = ((4, "-"), (7, "-"), (10, " "), (13, ":"), (16, ":"))
_MONTHS_A_YEAR, _HOURS, _SIXTY = 12, 24, 60

# First day of every month of 2000 to 2099, in days since 1970, and of the month after them.
_MONTH_STARTS: Final = (
    np.arange("2000-01", "2100-02", dtype="datetime64[M]").astype("datetime64[D]").astype(np.int32)
)
_FIRST_MONTH: Final = 2000 * 12 + 1
_LAST_MONTH: Final = len(_MONTH_STARTS) - 1


def parse_spaced(text: str) -> datetime:
    """Parse ``yyyy-MM-dd HH:mm:ss``, Beijing time."""
    return _from_beijing(_SPACED.fullmatch(text))


def parse_compact(text: str) -> datetime:
    """Parse ``yyyyMMddHHmmss``, Beijing time."""
    return _from_beijing(_COMPACT.fullmatch(text))


def parse_rfc_822(text: str) -> datetime:
    """Parse ``Thu, 25 Nov 2021 10:27:00 +0800``; the offset is required, the weekday is not."""
    match = _RFC_822.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 822 time with an offset")
    day, month, year, hour, minute, second, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    local = datetime(
        int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second),
        tzinfo=timezone(offset if sign == "+" else -offset),
    )  # fmt: skip
    return _to_utc(local)


def _from_beijing(match: re.Match[str] | None) -> datetime:
    if match is None:
        raise ValueError("not this time format")
    year, month, day, hour, minute, second = map(int, match.groups())
    return _to_utc(datetime(year, month, day, hour, minute, second, tzinfo=BEIJING))


def _to_utc(local: datetime) -> datetime:
    try:
        moment = local.astimezone(timezone.utc)
    except OverflowError as error:
        raise ValueError("out of range") from error
    if not EARLIEST <= moment < LATEST:
        raise ValueError("out of range")
    return moment


class ParsedTimes(NamedTuple):
    """A column of times and which of them are to be trusted.

    Attributes:
        times: ``timestamp('ms', tz='UTC')``; null where the text was null or is not accepted.
        accepted: True where the text was null or fits; False where :func:`parse_spaced` decides.
    """

    times: pa.Array
    accepted: npt.NDArray[np.bool_]


def parse_spaced_column(texts: pa.Array) -> ParsedTimes:
    """Parse a string column in the format of :func:`parse_spaced`, 0.05 us a row.

    Times of other centuries than this one are left to :func:`parse_spaced`.
    """
    present = np.asarray(texts.is_valid())
    rows = np.flatnonzero(present)
    offsets = np.frombuffer(texts.buffers()[1], np.int32, len(texts) + 1, texts.offset * 4)
    sized = np.diff(offsets)[rows] == _SPACED_LENGTH
    rows = rows[sized]
    accepted = ~present
    millis = np.zeros(len(texts), np.int64)
    if len(rows):
        characters = np.frombuffer(texts.buffers()[2], np.uint8)
        first = offsets[rows[0]]
        if offsets[rows[-1]] - first == (len(rows) - 1) * _SPACED_LENGTH:  # nothing between them
            end = first + len(rows) * _SPACED_LENGTH
            grid = np.ascontiguousarray(characters[first:end].reshape(-1, _SPACED_LENGTH).T)
        else:
            grid = characters[offsets[rows] + np.arange(_SPACED_LENGTH)[:, np.newaxis]]
        seconds, valid = _read_grid(grid)
        accepted[rows] = valid
        millis[rows] = seconds * 1000
    missing = ~(accepted & present)
    return ParsedTimes(pa.array(millis, pa.timestamp("ms", tz="UTC"), mask=missing), accepted)


def _read_grid(grid: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Read 19 rows of characters, one column per time, as UTC seconds and their validity.

    Two digits fit a byte; where they are no digits the sums wrap, and the row is not valid.
    """
    digits = grid - np.uint8(ord("0"))
    valid = (digits[_DIGITS] <= _NINE).all(axis=0)
    for place, separator in _SEPARATORS:
        valid &= grid[place] == ord(separator)
    century, of_century, month, day, hour, minute, second = (
        digits[place] * np.uint8(10) + digits[place + 1] for place in (0, 2, 5, 8, 11, 14, 17)
    )
    months = (century.astype(np.int32) * 100 + of_century) * 12 + month - _FIRST_MONTH
    valid &= (month >= 1) & (month <= _MONTHS_A_YEAR) & (months >= 0) & (months < _LAST_MONTH)
    months *= valid
    month_start = _MONTH_STARTS[months]
    valid &= (day >= 1) & (day <= _MONTH_STARTS[months + 1] - month_start)
    valid &= (hour < _HOURS) & (minute < _SIXTY) & (second < _SIXTY)
    days = month_start + day - 1
    return (
        days * np.int64(86400)
        + hour * np.int32(3600)
        + minute * np.int32(60)
        + second
        - _BEIJING_OFFSET_SECS
    ), valid
