"""A month of reports, drawn from a seed and written as epochs would have written it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import Catalog, Commit
from transforms import keys
from transforms.moments import BEIJING, to_ms
from transforms.tables import ENRICHED_REPORTS, UNREPORTED_SENDS, Table, write_table

LAST_DAY: Final = date(2026, 11, 21)
# Epochs write small files, and the job merges sixteen of about one size: at most fifteen of each are left.
# These are the shares of a day's rows in a file of each size.
_SIZES: Final = (0.0622, 0.004, 0.00025, 0.00002)
_FILES_OF_A_SIZE: Final = 15
_DAY_MS: Final = 86_400_000
_UNREPORTED_SHARE: Final = 0.03
_FAILED_SHARE: Final = 0.1
# Delivered first, failed later: two rows.
_CORRECTED_SHARE: Final = 0.01
_SIGNS: Final = ("Example", "Example Bank", "Example Shop")
_TEMPLATES: Final = tuple(f"SMS_{number}" for number in range(100_001, 100_021))
_AFTERWARDS: Final = datetime(2026, 11, 22, 4, tzinfo=timezone.utc)

_Numbers = npt.NDArray[np.int64]


class Truth(NamedTuple):
    """What Alibaba would say of a day, in SMS."""

    day: date
    sent: int
    delivered: int
    failed: int


def write_month(dataset: Path, days: int, rows: int, seed: int, epochs: int | None) -> list[Truth]:
    """Write a dataset with so many sends a day; returns the totals of each day.

    Args:
        dataset: the directory, which is not there yet.
        days: Beijing days, the last of which is :data:`LAST_DAY`.
        rows: sends of a day.
        seed: the same seed gives the same rows.
        epochs: the files of a day are those of so many epochs; None for the most that merging leaves.
    """
    truths = []
    shares = (
        [share for share in _SIZES for _ in range(_FILES_OF_A_SIZE)]
        if epochs is None
        else [1] * epochs
    )
    random = np.random.default_rng(seed)
    with Catalog(str(dataset), lambda: _AFTERWARDS) as catalog:
        for before in reversed(range(days)):
            day = LAST_DAY - timedelta(days=before)
            reports, unreported, truth = _day(day, rows, random)
            truths.append(truth)
            parts = zip(_parts(reports, shares), _parts(unreported, shares), strict=True)
            _commit(catalog, list(parts))
    return truths


def _parts(rows: pa.Table, shares: Sequence[float]) -> Iterator[pa.Table]:
    edges = np.cumsum([0, *shares]) / sum(shares) * rows.num_rows
    for start, end in itertools.pairwise(edges.astype(int)):
        yield rows.slice(start, end - start)


def _commit(catalog: Catalog, parts: list[tuple[pa.Table, pa.Table]]) -> None:
    staging = catalog.staging("epoch")
    files = [
        file
        for reports, unreported in parts
        for table, rows in ((ENRICHED_REPORTS, reports), (UNREPORTED_SENDS, unreported))
        for file in write_table(table, rows, staging)
    ]
    catalog.commit(Commit("run", to_ms(_AFTERWARDS), {}, files, [], {}, {}), "epoch")


def _day(day: date, rows: int, random: np.random.Generator) -> tuple[pa.Table, pa.Table, Truth]:
    start_ms = to_ms(datetime(day.year, day.month, day.day, tzinfo=BEIJING))
    # No SMS of the last hour: nothing here happens on the next day.
    requested = start_ms + np.sort(random.integers(0, _DAY_MS - 3_600_000, rows))
    serial = np.arange(rows)
    biz_ids = _text(requested * 100_000 + serial % 100_000, "^0")
    numbers = _text(random.integers(13_000_000_000, 14_000_000_000, rows))
    event_ids = keys.event_ids(biz_ids, numbers)
    sends = {
        "event_id": event_ids,
        "biz_id": biz_ids,
        "phone_number": numbers,
        "out_id": _text(random.integers(0, 1 << 40, rows), "-order"),
        "sign_name": _one_of(_SIGNS, rows, random),
        "template_code": _one_of(_TEMPLATES, rows, random),
        "template_param": _text(random.integers(100_000, 999_999, rows), '"}', '{"code":"'),
        "requested_at": requested,
        "request_id": keys.event_ids(event_ids, _one_of(["request"], rows, random)),
    }
    is_reported = random.random(rows) >= _UNREPORTED_SHARE
    success = random.random(rows) >= _FAILED_SHARE
    queueing = random.integers(20, 900, rows)
    carrier = random.exponential(6_000, rows).astype(np.int64) // 1000 * 1000
    sent = requested + queueing
    reports = sends | {
        "revision": np.ones(rows, np.int32),
        "match": _one_of(["matched"], rows, random),
        "origin": _one_of(["mns"], rows, random),
        "success": success,
        "err_code": pc.if_else(pa.array(success), "DELIVERED", "MK:0001"),
        "sms_size": np.ones(rows, np.int32),
        "send_time": sent,
        "report_time": sent + carrier,
        "message_id": keys.event_ids(event_ids, _one_of(["message"], rows, random)),
        "enqueued_at": sent + carrier + 1000,
        "queueing_ms": queueing,
        "carrier_ms": carrier,
        "total_ms": queueing + carrier,
    }
    first = _table(ENRICHED_REPORTS, reports).filter(pa.array(is_reported))
    is_corrected = is_reported & success & (random.random(rows) < _CORRECTED_SHARE)
    later = {
        "revision": np.full(rows, 2, np.int32),
        "success": np.zeros(rows, bool),
        "err_code": _one_of(["MK:0002"], rows, random),
        "message_id": keys.event_ids(event_ids, _one_of(["correction"], rows, random)),
        "enqueued_at": sent + carrier + 600_000,
    }
    corrections = _table(ENRICHED_REPORTS, reports | later).filter(pa.array(is_corrected))
    arrived = pa.concat_tables([first, corrections]).sort_by("enqueued_at")
    unreported = _table(UNREPORTED_SENDS, sends).filter(pa.array(~is_reported))
    delivered = int((is_reported & success & ~is_corrected).sum())
    return arrived, unreported, Truth(day, rows, delivered, int(is_reported.sum()) - delivered)


def _text(numbers: _Numbers, after: str = "", before: str = "") -> pa.StringArray:
    return pc.binary_join_element_wise(before, pa.array(numbers).cast(pa.string()), after, "")


def _one_of(words: list[str] | tuple[str, ...], rows: int, random: np.random.Generator) -> pa.Array:
    return pa.array(words).take(pa.array(random.integers(0, len(words), rows)))


def _table(table: Table, columns: dict[str, object]) -> pa.Table:
    rows = len(columns["biz_id"])  # type: ignore[arg-type]
    arrays = []
    for field in table.schema:
        if pa.types.is_map(field.type):
            empty = np.zeros(rows + 1, np.int32)
            entries = pa.array([], pa.string())
            arrays.append(pa.MapArray.from_arrays(empty, entries, entries).cast(field.type))
        elif field.name in columns:
            arrays.append(pa.array(columns[field.name]).cast(field.type))
        else:
            arrays.append(pa.nulls(rows, field.type))
    return pa.Table.from_arrays(arrays, schema=table.schema)
