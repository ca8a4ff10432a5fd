"""What the readers of the send log's formats have in common."""

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Final, NamedTuple

import pyarrow as pa

from schemas.contracts import contract
from transforms.failures import Stage, UnusableError
from transforms.moments import EARLIEST, LATEST, to_ms

CONTRACT_NAME: Final = "send_log_entry"
SCHEMA: Final[pa.Schema] = contract(CONTRACT_NAME).arrow
TAGS_TYPE: Final[pa.DataType] = SCHEMA.field("tags").type
TIME_TYPE: Final[pa.DataType] = SCHEMA.field("requested_at").type
# What a send is joined by; one that is empty could never meet its report.
IDENTIFIERS: Final = ("biz_id", "phone_number")
TEXTS: Final = tuple(field.name for field in SCHEMA if field.type == pa.string())

TIME_RANGE: Final = f"requested_at: expected a time between {EARLIEST:%Y} and {LATEST:%Y}"


class SendLogFileError(Exception):
    """Raised when a whole file of the send log cannot be used; one sentence with cause and fix."""


class Refused(NamedTuple):
    """One record that is no send log entry.

    ``position`` is where it stands in its file (a byte offset or a row), ``original`` the record itself.
    """

    position: int
    original: bytes
    stage: Stage
    error: UnusableError


class Checked(NamedTuple):
    """Entries (columns of :data:`SCHEMA`) and what was refused among the same records."""

    entries: pa.RecordBatch
    refused: Sequence[Refused]


def has_plausible_times(entries: pa.RecordBatch) -> bool:
    """Tell whether every ``requested_at`` lies in the range that can be stored and partitioned."""
    times = entries.column("requested_at").cast(pa.int64())
    if not len(times):
        return True
    values = times.to_numpy()
    return bool(values.min() >= to_ms(EARLIEST) and values.max() < to_ms(LATEST))


def to_maps(tags: Sequence[dict[str, str]]) -> pa.MapArray:
    """Lay out the tags of some entries."""
    return pa.MapArray.from_arrays(
        pa.array(list(accumulate(map(len, tags), initial=0)), pa.int32()),
        pa.array(list(chain.from_iterable(tags)), pa.string()),
        pa.array([value for each in tags for value in each.values()], pa.string()),
        type=TAGS_TYPE,
    )
