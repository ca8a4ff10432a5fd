"""Time as records have it: UTC milliseconds, and the Beijing days that tables are partitioned by."""

from datetime import datetime, timedelta, timezone
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Milliseconds: TypeAlias = npt.NDArray[np.int64]

# Everything that Alibaba sends is naive Beijing time, and tables are partitioned by the Beijing day.
# China has had no daylight saving since 1991, so a fixed offset is exact for every SMS ever sent.
BEIJING: Final = timezone(timedelta(hours=8))
_BEIJING_OFFSET_MS: Final = 8 * 3600 * 1000
DAY_MS: Final = 24 * 3600 * 1000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Outside of these a time has no Beijing day that Python or a partition could name.
EARLIEST: Final = _EPOCH
LATEST: Final = datetime(9999, 12, 31, tzinfo=timezone.utc)

_MILLISECOND: Final = timedelta(milliseconds=1)


def to_ms(moment: datetime) -> int:
    """Count the whole milliseconds from 1970 UTC to an aware moment."""
    return (moment - _EPOCH) // _MILLISECOND


def from_ms(ms: int) -> datetime:
    """Name a moment, aware and in UTC.

    Raises:
        OverflowError: Python cannot name it.
    """
    return _EPOCH + ms * _MILLISECOND


def milliseconds(times: pa.Array | pa.ChunkedArray) -> Milliseconds:
    """Take UTC milliseconds out of a timestamp column; nulls become 0."""
    filled = times.cast(pa.int64())
    if filled.null_count:
        filled = filled.fill_null(0)
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.int64)


def beijing_days(times_ms: Milliseconds) -> npt.NDArray[np.int64]:
    """Turn UTC milliseconds into Beijing calendar days, counted from 1970-01-01."""
    return (times_ms + _BEIJING_OFFSET_MS) // DAY_MS


def beijing_day(moment: datetime) -> int:
    """Name the Beijing calendar day of an aware moment, counted from 1970-01-01."""
    return (to_ms(moment) + _BEIJING_OFFSET_MS) // DAY_MS


def day_name(day: int) -> str:
    """Spell a day number as ``YYYY-MM-DD``, as partitions do."""
    return from_ms(int(day) * DAY_MS).date().isoformat()


def day_number(name: str) -> int:
    """Read ``YYYY-MM-DD`` back into a day number.

    Raises:
        ValueError: the text is not such a date.
    """
    return to_ms(datetime.strptime(name, "%Y-%m-%d").replace(tzinfo=timezone.utc)) // DAY_MS
