"""The fast way through the decoder: plain mainland reports, a column at a time.

Nearly every message is the same nine fields in the same types. Those rows are read by one typed
msgspec decoder in a tight loop and laid out as Arrow columns; whatever is not exactly canonical
(unknown fields, explicit nulls, escaped quotes, odd types) is left to
:func:`transforms.decode_shapes.decode_body`, which decides alone. So this module never judges a
message, it only recognises one; a property test holds the two to the same records.

What msgspec would let pass is caught per column: a field named twice (by counting quotes), NUL
characters, and times in other formats.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pybase64 import b64decode

from transforms.decode_times import parse_spaced_column

# Messages of these types may be canonical reports.
CANONICAL_TYPES: Final = ("SmsReport", "DypnsSmsVerifyReport")

# Loops over more rows fall out of the cache, loops over fewer pay for their set-up.
_SLICE_ROWS: Final = 2000

_T = TypeVar("_T")
_NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]

# An SMS has at most some dozen segments; naming them checks and interns the text in one step.
if TYPE_CHECKING:
    _SmsSize = str
else:
    _SmsSize = Literal[tuple(str(size) for size in range(1, 100))]


class _Report(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A canonical SmsReport; times and sizes are still text."""

    biz_id: _NonEmpty
    success: bool
    send_time: str
    phone_number: _NonEmpty | None = None
    err_code: str | None = None
    err_msg: str | None = None
    out_id: str | None = None
    sms_size: _SmsSize | None = None
    report_time: str | None = None


_decode: Final = msgspec.json.Decoder(_Report).decode
_NOT_DECODED: Final = (msgspec.DecodeError, UnicodeDecodeError)


class CanonicalReports(NamedTuple):
    """The reports that were recognised.

    Attributes:
        recognised: For each body, whether it is among them.
        columns: The ``delivery_report`` columns that a body fills, one row per recognised body,
            in order.
    """

    recognised: npt.NDArray[np.bool_]
    columns: pa.RecordBatch


def decode_canonical(bodies: pa.Array) -> CanonicalReports:
    """Recognise the canonical reports among message bodies (a binary column without nulls)."""
    slices = [
        _decode_slice(bodies.slice(start, _SLICE_ROWS))
        for start in range(0, max(1, len(bodies)), _SLICE_ROWS)
    ]
    return CanonicalReports(
        np.concatenate([each.recognised for each in slices]),
        pa.concat_batches([each.columns for each in slices]),
    )


def _decode_slice(bodies: pa.Array) -> CanonicalReports:
    rows = bodies.to_pylist()
    if pc.any(pc.starts_with(bodies, b"{")).as_py():
        opened = map(_open, rows)
    else:
        opened = map(b64decode, rows, repeat(None), repeat(True))
    texts, closed = _collect(opened, (binascii.Error,))
    reports, others = _collect(map(_decode, texts), _NOT_DECODED)
    for row in reversed(others):
        del texts[row]
    recognised = np.ones(len(bodies), np.bool_)
    recognised[closed] = False
    recognised[np.flatnonzero(recognised)[others]] = False

    columns, canonical = _columns(texts, reports)
    if not canonical.all():
        recognised[np.flatnonzero(recognised)[~canonical]] = False
        columns = columns.filter(pa.array(canonical))
    return CanonicalReports(recognised, columns)


def _open(body: bytes) -> bytes:
    return body if body.startswith(b"{") else b64decode(body, None, True)


def _collect(
    results: Iterator[_T], errors: tuple[type[Exception], ...]
) -> tuple[list[_T], list[int]]:
    """Collect results; return them, and the positions where there was an error instead.

    The loop runs in C: ``extend`` keeps what it took before an error, and ``map`` goes on after
    one. That is half the price of a Python loop with a ``try`` in it.
    """
    collected: list[_T] = []
    missing: list[int] = []
    while True:
        try:
            collected.extend(results)
        except errors:
            missing.append(len(collected) + len(missing))
        else:
            return collected, missing


def _columns(
    texts: Sequence[bytes], reports: Sequence[_Report]
) -> tuple[pa.RecordBatch, npt.NDArray[np.bool_]]:
    """Lay reports out as columns, and tell which rows are canonical after all."""
    text = pa.string()
    columns = {
        "biz_id": pa.array([report.biz_id for report in reports], text),
        "phone_number": pa.array([report.phone_number for report in reports], text),
        "err_code": pa.array([report.err_code for report in reports], text),
        "err_msg": pa.array([report.err_msg for report in reports], text),
        "out_id": pa.array([report.out_id for report in reports], text),
        "sms_size": pa.array([report.sms_size for report in reports], text),
        "send_time": pa.array([report.send_time for report in reports], text),
        "report_time": pa.array([report.report_time for report in reports], text),
    }
    canonical = _holds_nothing_else(texts, list(columns.values()))
    sent = parse_spaced_column(columns["send_time"])
    reported = parse_spaced_column(columns["report_time"])
    canonical &= sent.accepted & reported.accepted
    columns["sms_size"] = columns["sms_size"].cast(pa.int32())
    columns["send_time"] = sent.times
    columns["report_time"] = reported.times
    columns["success"] = pa.array([report.success for report in reports], pa.bool_())
    return pa.RecordBatch.from_pydict(columns), canonical


def _holds_nothing_else(
    texts: Sequence[bytes], columns: Sequence[pa.Array]
) -> npt.NDArray[np.bool_]:
    """Tell the rows whose text holds nothing but its string columns and ``success``.

    Every member of an object has the two quotes of its name, and two more when it is a string.
    So a text has exactly 2 + 4 * (its string columns) quotes when no field is there twice, none
    is an explicit null and no quote is escaped; in every other case it has more.
    """
    joined = b"".join(texts)
    plain = np.ones(len(texts), np.bool_)
    strings = sum(len(column) - column.null_count for column in columns)
    if joined.count(b'"') != 2 * len(texts) + 4 * strings:
        quotes = np.array([text.count(b'"') for text in texts], np.int64)
        present = np.sum([column.is_valid() for column in columns], axis=0, dtype=np.int64)
        plain = quotes == 2 + 4 * present
    if b"\\" in joined and b"\\u0000" in joined:
        plain &= np.array([b"\\u0000" not in text for text in texts])
    return plain
