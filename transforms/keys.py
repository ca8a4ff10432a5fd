"""Identity: which bucket a key falls into, and the event id that everybody can recompute.

Two hashes, two purposes. :func:`hash_strings` only spreads rows over buckets and finds candidates for
a match; equal hashes are always checked against the strings. :func:`event_id` is the published id: MD5,
because every SQL dialect that an analyst may use can compute it too.
"""

from collections.abc import Iterable
from hashlib import md5
from typing import Final, TypeAlias

import datafusion
import datafusion.functions
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Hashes: TypeAlias = npt.NDArray[np.uint64]

_WORD: Final = 8
_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads consecutive ids
_FOLD: Final = np.uint64(32)
# So many rows are hashed one by one in the time that a session of DataFusion takes to begin.
_FEW_ROWS: Final = 1000


def hash_strings(strings: pa.StringArray) -> Hashes:
    """Hash each string to 64 bits, eight bytes at a time, the same in every process.

    Args:
        strings: n strings or nulls; a null hashes like the empty string.

    Returns:
        n unsigned 64-bit hashes. Not collision free: compare the strings where it matters.
    """
    count = len(strings)
    hashes: Hashes = np.full(count, _MULTIPLIER, dtype=np.uint64)
    if count == 0:
        return hashes
    _, offset_buffer, data_buffer = strings.buffers()
    offsets = np.frombuffer(
        offset_buffer, dtype=np.int32, count=count + 1, offset=strings.offset * 4
    )
    lengths = np.diff(offsets)
    if strings.null_count:
        lengths = np.where(strings.is_valid().to_numpy(zero_copy_only=False), lengths, 0)
    shortest, longest = int(lengths.min()), int(lengths.max())
    if longest == 0:
        return hashes
    data = np.frombuffer(data_buffer, dtype=np.uint8)
    padded = np.zeros(len(data) + _WORD, dtype=np.uint8)
    padded[: len(data)] = data
    # Every byte position read as the start of a little-endian word: one gather per eight bytes.
    words: Hashes = np.ndarray(len(data) + 1, dtype="<u8", buffer=padded, strides=(1,))
    starts = offsets[:-1].astype(np.int64)
    for position in range(0, longest, _WORD):
        if position < shortest:
            left = min(_WORD, shortest - position)
        if position < shortest and (left == _WORD or shortest == longest):
            whole: Hashes = words[starts + position]
            hashes = _mix(hashes, _low_bytes(whole, np.uint64(left)), np.uint64(left))
            continue
        lefts = np.clip(lengths - position, 0, _WORD).astype(np.uint64)
        word = words[np.minimum(starts + position, len(data))]
        mixed = _mix(hashes, _low_bytes(word, np.maximum(lefts, np.uint64(1))), lefts)
        hashes = np.where(lefts > 0, mixed, hashes)
    return hashes


def _low_bytes(words: Hashes, count: Hashes | np.uint64) -> Hashes:
    """Keep the ``count`` first bytes (1 to 8) of each little-endian word."""
    unused_bits = (np.uint64(_WORD) - count) * np.uint64(8)
    kept: Hashes = (words << unused_bits) >> unused_bits
    return kept


def _mix(hashes: Hashes, words: Hashes, lengths: Hashes | np.uint64) -> Hashes:
    mixed: Hashes = (hashes ^ words ^ lengths) * _MULTIPLIER
    mixed ^= mixed >> _FOLD
    return mixed


def distinct_hashes(columns: Iterable[pa.StringArray]) -> Hashes:
    """Hash the strings of some columns; ascending, each hash once."""
    hashes = [hash_strings(strings) for strings in columns]
    return np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *hashes]))


def are_among(strings: pa.ChunkedArray, hashes: Hashes) -> npt.NDArray[np.bool_]:
    """Tell of n strings whether they are among some others, known by their :func:`distinct_hashes`.

    A string that only shares its hash with one of them passes for it.
    """
    if not len(hashes):
        return np.zeros(len(strings), dtype=np.bool_)
    sought = hash_strings(strings.combine_chunks())
    places = np.minimum(np.searchsorted(hashes, sought), len(hashes) - 1)
    found: npt.NDArray[np.bool_] = hashes[places] == sought
    return found


def combine(first: Hashes, second: Hashes) -> Hashes:
    """Hash pairs: position by position, order matters."""
    return _mix(first * _MULTIPLIER, second, np.uint64(0))


def buckets(strings: pa.StringArray, count: int) -> npt.NDArray[np.int32]:
    """Spread n strings over ``count`` buckets; equal strings always share one."""
    remainders = hash_strings(strings) % np.uint64(count)
    return np.asarray(remainders, dtype=np.int32)


def event_id(biz_id: str, phone_number: str | None) -> str:
    """Name the SMS: ``md5(biz_id || '|' || coalesce(phone_number, ''))`` as 32 hex digits."""
    return md5(f"{biz_id}|{phone_number or ''}".encode(), usedforsecurity=False).hexdigest()


def event_ids(biz_ids: pa.StringArray, phone_numbers: pa.StringArray) -> pa.StringArray:
    """Name many SMS at once; see :func:`event_id`.

    A loop over hashlib takes 0.85 us a row; DataFusion's md5 over the column 0.32, and 0.6 ms to begin.
    """
    if len(biz_ids) <= _FEW_ROWS:
        pairs = zip(biz_ids.to_pylist(), phone_numbers.to_pylist(), strict=True)
        return pa.array([event_id(*pair) for pair in pairs], type=pa.string())
    names = pc.binary_join_element_wise(biz_ids, phone_numbers.fill_null(""), "|")
    # One partition: rows stay in their order. A session for each call: it keeps every table it was shown.
    session = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(1))
    frame = session.from_arrow(pa.table({"name": names}))
    digests = frame.select(datafusion.functions.md5(datafusion.col("name")))
    return digests.to_arrow_table().column(0).cast(pa.string()).combine_chunks()


def message_event_id(biz_id: str, message_id: str) -> str:
    """Name a report that carries no phone number and whose recipient is unknown.

    Several recipients may share a ``biz_id``, so only the message itself can tell two such reports
    apart: taking them for duplicates would drop a verdict.
    """
    return md5(f"{biz_id}|message:{message_id}".encode(), usedforsecurity=False).hexdigest()
