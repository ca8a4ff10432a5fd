"""Send log entries from columns: Parquet and Avro files, checked a batch at a time.

The type of a column is right or wrong for a whole file (:func:`require_columns`); a value of the right type
may still be missing, empty or out of range, which fails its row alone.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from transforms.failures import Reason, UnusableError
from transforms.moments import EARLIEST, LATEST, to_ms
from transforms.send_log_checks import (
    IDENTIFIERS,
    SCHEMA,
    TAGS_TYPE,
    TEXTS,
    TIME_RANGE,
    TIME_TYPE,
    Checked,
    Refused,
    SendLogFileError,
)

_REQUIRED: Final = (*IDENTIFIERS, "requested_at")
_MICROSECONDS_OR_FINER: Final = frozenset({"us", "ns"})
_Mask = npt.NDArray[np.bool_]


def require_columns(columns: pa.Schema, path: str) -> None:
    """Check the types of a file's columns.

    What an unknown column or a struct's field is called is not repeated: in a file that was made from one
    without a header, it is somebody's phone number.

    Raises:
        SendLogFileError: a column is missing, unknown, there twice, or of a type that does not convert
            without loss.
    """
    names = Counter(columns.names)
    wrong = [f"it lacks the column {name}" for name in _REQUIRED if name not in names]
    wrong += [f"it has the column {name} twice" for name in SCHEMA.names if names[name] > 1]
    for place, column in enumerate(columns, 1):
        kind = _kind(column.type)
        if column.name not in SCHEMA.names:
            wrong.append(
                f"its column {place} is none of a send log entry: leave it out or use tags"
            )
        elif column.name == "tags":
            if not _is_tags(column.type):
                wrong.append(f"tags is {kind}, expected a map of text to text")
        elif column.name == "requested_at":
            if not pa.types.is_timestamp(column.type):
                wrong.append(f"requested_at is {kind}, expected a timestamp with a time zone")
            elif column.type.tz is None:
                wrong.append(
                    "requested_at has no time zone: write it as an instant in UTC, not as local time"
                )
        elif not _is_text(column.type):
            wrong.append(f"{column.name} is {kind}, expected text")
    if wrong:
        raise SendLogFileError(f"The send log file {path} cannot be used: {'; '.join(wrong)}.")


def check_columns(batch: pa.RecordBatch, first_row: int) -> Checked:
    """Convert and validate a batch whose columns passed :func:`require_columns`.

    Null ``tags`` are no tags; digits of ``requested_at`` below the millisecond are dropped.

    Args:
        batch: any number of rows.
        first_row: where the batch starts in its file.
    """
    columns = {field.name: _convert(batch, field) for field in SCHEMA}
    wrong = _wrong_rows(columns)
    arrays = [columns[name] for name in SCHEMA.names]
    if not wrong:
        return Checked(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA), [])
    lenient = pa.schema([field.with_nullable(True) for field in SCHEMA])
    rows = pa.RecordBatch.from_arrays(arrays, schema=lenient)
    refused = [
        Refused(first_row + row, _as_json(rows, row), "validate", wrong[row])
        for row in sorted(wrong)
    ]
    kept = np.ones(batch.num_rows, dtype=np.bool_)
    kept[list(wrong)] = False
    entries = rows.filter(pa.array(kept))
    return Checked(pa.RecordBatch.from_arrays(entries.columns, schema=SCHEMA), refused)


def _kind(kind: pa.DataType) -> str:
    """Name a type without what it is made of."""
    return str(kind).partition("<")[0].partition("[")[0]


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_null(kind)
    )


def _is_tags(kind: pa.DataType) -> bool:
    if pa.types.is_map(kind):
        return _is_text(kind.key_type) and _is_text(kind.item_type)
    return bool(pa.types.is_null(kind))


def _convert(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    """Bring a column into the contract's type."""
    is_given = field.name in batch.schema.names
    column = batch.column(field.name) if is_given else pa.nulls(batch.num_rows)
    if field.name == "tags":
        return _convert_tags(column)
    if field.name == "requested_at" and not pa.types.is_null(column.type):
        # Truncation is the one loss that is wanted: contracts keep milliseconds.
        return column.cast(TIME_TYPE, safe=column.type.unit not in _MICROSECONDS_OR_FINER)
    return column.cast(field.type)


def _convert_tags(tags: pa.Array) -> pa.Array:
    if pa.types.is_null(tags.type):
        no_text = pa.array([], pa.string())
        offsets = pa.array(np.zeros(len(tags) + 1, np.int32))
        return pa.MapArray.from_arrays(offsets, no_text, no_text, type=TAGS_TYPE)
    # Without their validity, rows of null are what they mean: maps of nothing.
    names, values = tags.keys.cast(pa.string()), tags.items.cast(pa.string())
    return pa.MapArray.from_arrays(tags.offsets, names, values, type=TAGS_TYPE)


def _wrong_rows(columns: Mapping[str, pa.Array]) -> dict[int, UnusableError]:
    """Tell which rows are no entries, and the first reason of each."""
    wrong: dict[int, UnusableError] = {}
    for reason, detail, mask in _wrong_values(columns):
        for row in np.flatnonzero(mask).tolist():
            wrong.setdefault(row, UnusableError(reason, detail))
    return wrong


def _wrong_values(columns: Mapping[str, pa.Array]) -> Iterator[tuple[Reason, str, _Mask]]:
    """Yield what is wrong somewhere in a batch, and in which rows."""
    for name in _REQUIRED:
        if columns[name].null_count:
            mask = columns[name].is_null().to_numpy(zero_copy_only=False)
            yield "missing_field", f"{name}: expected a value", mask
    for name in IDENTIFIERS:
        is_empty = pc.equal(pc.binary_length(columns[name]), 0)
        if pc.any(is_empty).as_py():
            yield "empty_identifier", f"{name}: expected text that is not empty", _mask(is_empty)
    times = columns["requested_at"].cast(pa.int64())
    is_outside = pc.or_(pc.less(times, to_ms(EARLIEST)), pc.greater_equal(times, to_ms(LATEST)))
    if pc.any(is_outside).as_py():
        yield "malformed_time", TIME_RANGE, _mask(is_outside)
    for name in TEXTS:
        if _may_hold_nul(columns[name]):
            has_nul = pc.match_substring(columns[name], "\x00")
            yield "nul_character", f"{name}: expected text without NUL", _mask(has_nul)
    yield from _wrong_tags(columns["tags"])


def _wrong_tags(tags: pa.Array) -> Iterator[tuple[Reason, str, _Mask]]:
    names, values = tags.keys, tags.items
    if values.null_count:
        mask = _rows_of(tags, values.is_null().to_numpy(zero_copy_only=False))
        yield "wrong_type", "tags: expected a map of text to text", mask
    for texts in (names, values):
        if _may_hold_nul(texts):
            mask = _rows_of(tags, _mask(pc.match_substring(texts, "\x00")))
            yield "nul_character", "tags: expected text without NUL", mask


def _mask(flags: pa.Array) -> _Mask:
    """Turn true, false and null into true and false."""
    return np.asarray(flags.fill_null(False).to_numpy(zero_copy_only=False), dtype=np.bool_)


def _rows_of(tags: pa.Array, is_wrong_tag: _Mask) -> _Mask:
    """Tell which maps hold a wrong tag."""
    wrong_before = np.concatenate(([0], np.cumsum(is_wrong_tag)))
    offsets = tags.offsets.to_numpy()
    return np.asarray(wrong_before[offsets[1:]] > wrong_before[offsets[:-1]], dtype=np.bool_)


def _may_hold_nul(texts: pa.Array) -> bool:
    """Look for a zero byte in a column's buffer: much cheaper than asking each text."""
    buffer = texts.buffers()[2]
    return buffer is not None and not np.frombuffer(buffer, np.uint8).all()


def _as_json(rows: pa.RecordBatch, row: int) -> bytes:
    """Write a row as a line of the JSON format would be; nulls are left out."""
    single = rows.slice(row, 1)
    position = SCHEMA.get_field_index("requested_at")
    times = single.column(position)
    if not _is_datetime(times):
        single = single.set_column(position, "requested_at", times.cast(pa.int64()))
    (record,) = single.to_pylist(maps_as_pydicts="lossy")
    present: dict[str, Any] = {name: value for name, value in record.items() if value is not None}
    return msgspec.json.encode(present)


def _is_datetime(times: pa.Array) -> bool:
    """Tell whether Python can name these times."""
    (ms,) = times.cast(pa.int64()).to_pylist()
    return ms is None or to_ms(EARLIEST) <= ms < to_ms(LATEST)
