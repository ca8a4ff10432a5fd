"""Replay: failed events are tried again, with the decoders of today.

A row of ``failed_events`` or ``failed_sends`` is an attempt. The one with the highest number says how its
event stands: open, or settled since a replay of it succeeded. Attempts are only ever added, so that it can
be told later when what failed, and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.contracts import contract
from transforms.decode import decode_messages
from transforms.decode_sends import SEND_MESSAGE_TYPE
from transforms.failures import PIPELINE_VERSION, failed_batch, failed_event
from transforms.moments import beijing_days, milliseconds
from transforms.send_log_checks import CONTRACT_NAME
from transforms.send_log_lines import check_records
from transforms.tables import (
    FAILED_EVENTS,
    FAILED_SENDS,
    Table,
    distinct_days,
    read_rows,
    reading,
)

Outcome = Literal["succeeded", "failed_again", "failed_as_before"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("succeeded", "failed_again", "failed_as_before")

TABLES: Final[Mapping[str, Table]] = {table.name: table for table in (FAILED_EVENTS, FAILED_SENDS)}
# What a decoder says of bytes that it refuses.
_VERDICT: Final = (
    "stage",
    "reason",
    "detail",
    "schema_name",
    "schema_fingerprint",
    "pipeline_version",
)
_WITHOUT_ORIGINAL: Final = [name for name in FAILED_EVENTS.schema.names if name != "original"]
# Decoded at once; their bodies are Python objects meanwhile.
_ROWS: Final = 20_000
# Takes the place of a blank, which is no entry, and is none either.
_NO_ENTRY: Final = b"\0"
_NO_MORE_ATTEMPTS: Final = pa.schema([("event_id", pa.string()), ("attempt", pa.int32())])


@dataclass(frozen=True)
class Choice:
    """Which open failed events to replay; what is empty, or None, lets all pass.

    Attributes:
        reasons: why they failed, at last.
        stages: where.
        schemas: the contracts that they were meant for.
        message_ids: MNS's, or ``FILE#POSITION`` of a send log entry.
        days: Beijing days (numbers) on which messages were enqueued, and send log entries failed.
    """

    reasons: frozenset[str] = frozenset()
    stages: frozenset[str] = frozenset()
    schemas: frozenset[str] = frozenset()
    message_ids: frozenset[str] = frozenset()
    days: range | None = None


class RowGroups(NamedTuple):
    """Some row groups of a Parquet file, from ``start`` to before ``stop``."""

    path: str
    start: int
    stop: int


class FailedUnit(NamedTuple):
    """Failed events that one worker tries again.

    Attributes:
        table: ``failed_events`` or ``failed_sends``.
        parts: where they are.
        rows: how many rows are there, settled and others' ones included.
        attempts: files that may hold later attempts of the same events.
        choice: which of them to try.
    """

    table: str
    parts: Sequence[RowGroups]
    rows: int
    attempts: Sequence[str]
    choice: Choice


class Tried(NamedTuple):
    """What became of some failed events.

    Attributes:
        reports: ``delivery_report`` rows of origin ``replay``.
        inbound: ``inbound_sms`` rows.
        answers: ``query_answer`` rows.
        sends: ``send_log_entry`` rows.
        sends_enqueued: the Beijing days on which messages were enqueued that may have brought them.
        attempts: rows to add to their table; none where nothing is new.
        counts: those of the decoders; by table ``chosen/T`` = ``succeeded/T`` + ``failed_again/T`` +
            ``failed_as_before/T`` (as the last replay did: no new attempt); the same by the reason that they
            were chosen with, ``replay/REASON/succeeded`` and so on; ``no_message`` (chosen, but no message
            that could be decoded: a damaged archive file).
    """

    reports: pa.Table
    inbound: pa.Table
    answers: pa.Table
    sends: pa.Table
    sends_enqueued: Sequence[int]
    attempts: pa.Table
    counts: Counter[str]

    @property
    def tried(self) -> int:
        """How many failed events these are."""
        return sum(self.counts[f"chosen/{table}"] for table in TABLES)


class _Decoded(NamedTuple):
    """What the decoders made of failed events, and what they refused once more."""

    reports: pa.RecordBatch
    inbound: pa.RecordBatch
    answers: pa.RecordBatch
    sends: pa.RecordBatch
    failed: pa.RecordBatch
    counts: Counter[str]


def try_again(unit: FailedUnit, tried_at: datetime) -> Iterator[Tried]:
    """Decode the chosen failed events of a unit, some ten thousand at a time.

    Raises:
        TableFileError: a file is damaged.
    """
    later = _later_attempts(unit)
    decode = _decode_lines if unit.table == FAILED_SENDS.name else _decode_bodies
    for part in unit.parts:
        with reading(part.path), pq.ParquetFile(part.path) as file:
            for group in range(part.start, part.stop):
                chosen = _chosen(file, group, unit, later)
                for start in range(0, chosen.num_rows, _ROWS):
                    yield _tried(unit.table, chosen.slice(start, _ROWS), decode, tried_at)


def _later_attempts(unit: FailedUnit) -> pa.Table:
    """The highest attempt of each event that was ever replayed."""
    attempts = [_NO_MORE_ATTEMPTS.empty_table()]
    for path in unit.attempts:
        rows = read_rows(TABLES[unit.table], path, _NO_MORE_ATTEMPTS.names)
        attempts.append(rows.filter(pc.greater(rows.column("attempt"), 1)))
    every = pa.concat_tables(attempts, promote_options="permissive")
    return every.group_by("event_id", use_threads=False).aggregate([("attempt", "max")])


def _chosen(file: pq.ParquetFile, group: int, unit: FailedUnit, later: pa.Table) -> pa.Table:
    """Read the rows of a row group that are to be tried; the originals only if there are any."""
    present = set(file.schema_arrow.names)
    light = [name for name in _WITHOUT_ORIGINAL if name in present]
    rows = contract("failed_event").complete(
        file.read_row_group(group, columns=light), _WITHOUT_ORIGINAL
    )
    is_chosen = pc.and_(_is_open(rows, later), _is_asked_for(rows, unit.choice))
    if not pc.any(is_chosen).as_py():
        return FAILED_EVENTS.schema.empty_table()
    originals = file.read_row_group(group, columns=["original"]).column("original")
    schema = FAILED_EVENTS.schema
    return (
        rows.append_column(schema.field("original"), originals)
        .filter(is_chosen)
        .select(schema.names)
    )


def _is_open(rows: pa.Table, later: pa.Table) -> pa.ChunkedArray:
    attempts = rows.column("attempt")
    place = pc.index_in(rows.column("event_id"), value_set=later.column("event_id"))
    latest = pc.coalesce(later.column("attempt_max").take(place), attempts)
    return pc.and_(pc.equal(attempts, latest), pc.is_null(rows.column("replayed_at")))


def _is_asked_for(rows: pa.Table, choice: Choice) -> pa.ChunkedArray | pa.Array:
    asked_for = pa.repeat(pa.scalar(True), rows.num_rows)
    for name, values in (
        ("reason", choice.reasons),
        ("stage", choice.stages),
        ("schema_name", choice.schemas),
        ("message_id", choice.message_ids),
    ):
        if values:
            wanted = pc.is_in(rows.column(name), value_set=pa.array(sorted(values)))
            asked_for = pc.and_(asked_for, wanted)
    if choice.days is not None:
        moments = pc.coalesce(rows.column("enqueued_at"), rows.column("failed_at"))
        days = beijing_days(milliseconds(moments))
        wanted = pa.array((days >= choice.days.start) & (days < choice.days.stop))
        asked_for = pc.and_(asked_for, wanted)
    return asked_for


def _tried(
    table: str,
    rows: pa.Table,
    decode: Callable[[pa.Table, datetime], _Decoded],
    tried_at: datetime,
) -> Tried:
    counts: Counter[str] = Counter()
    rows = _one_of_each(rows)
    if table == FAILED_EVENTS.name:
        is_message = _is_message(rows)
        of_messages = rows.filter(is_message)
        counts["no_message"] = rows.num_rows - of_messages.num_rows
        rows = of_messages
    decoded: _Decoded = decode(rows, tried_at)
    counts.update(decoded.counts)
    counts[f"chosen/{table}"] = rows.num_rows

    place = pc.index_in(
        rows.column("message_id"), value_set=decoded.failed.column("message_id")
    ).combine_chunks()
    succeeded = rows.filter(pc.is_null(place))
    refused = rows.filter(pc.is_valid(place))
    verdicts = pa.Table.from_batches([decoded.failed.take(pc.drop_null(place))])
    is_known = _is_known(refused, verdicts)
    again, verdicts = (of.filter(pc.invert(is_known)) for of in (refused, verdicts))
    as_before = refused.filter(is_known)
    for outcome, tried in zip(OUTCOMES, (succeeded, again, as_before), strict=True):
        counts[f"{outcome}/{table}"] = tried.num_rows
        for reason in pc.value_counts(tried.column("reason")):
            counts[f"replay/{reason['values']}/{outcome}"] = reason["counts"].as_py()
    version = pa.repeat(PIPELINE_VERSION, succeeded.num_rows)
    now = pa.repeat(pa.scalar(tried_at, pa.timestamp("ms", tz="UTC")), succeeded.num_rows)
    attempts = [
        _next_attempt(succeeded, {"replayed_at": now, "pipeline_version": version}),
        _next_attempt(again, {name: verdicts.column(name) for name in (*_VERDICT, "failed_at")}),
    ]
    reports, inbound, answers, sends = (pa.Table.from_batches([of]) for of in decoded[:4])
    of_sends = succeeded.filter(pc.equal(succeeded.column("message_type"), SEND_MESSAGE_TYPE))
    return Tried(
        reports,
        inbound,
        answers,
        sends,
        distinct_days(of_sends, "enqueued_at"),
        pa.concat_tables(attempts),
        counts,
    )


def _one_of_each(rows: pa.Table) -> pa.Table:
    """Leave out what would be tried twice: the verdicts are put beside their events by message id."""
    codes = rows.column("message_id").combine_chunks().dictionary_encode().indices
    first = np.unique(codes.to_numpy(), return_index=True)[1]
    return rows if len(first) == rows.num_rows else rows.take(pa.array(np.sort(first)))


def _is_message(rows: pa.Table) -> pa.ChunkedArray:
    """Whether an event is a message: of a damaged archive file nobody knows which messages were in it."""
    message_columns = (rows.column(name) for name in ("message_type", "queue_name", "enqueued_at"))
    of_type, of_queue, enqueued = map(pc.is_valid, message_columns)
    return pc.and_(pc.and_(of_type, of_queue), enqueued)


def _is_known(rows: pa.Table, verdicts: pa.Table) -> pa.ChunkedArray:
    """Whether a replay has failed before, and just like this one: then it says nothing new."""
    is_known = pc.greater(rows.column("attempt"), 1)
    for name in _VERDICT:
        is_known = pc.and_(is_known, pc.equal(rows.column(name), verdicts.column(name)))
    return is_known


def _next_attempt(rows: pa.Table, changed: Mapping[str, Any]) -> pa.Table:
    columns = {**changed, "attempt": pc.add(rows.column("attempt"), pa.scalar(1, pa.int32()))}
    schema = rows.schema
    return pa.Table.from_arrays(
        [columns.get(name, rows.column(name)) for name in schema.names], schema=schema
    )


def _decode_bodies(rows: pa.Table, tried_at: datetime) -> _Decoded:
    schema = contract("mns_message").arrow
    columns = {name: rows.column(name) for name in schema.names if name in rows.schema.names}
    columns["body"] = rows.column("original")
    # The archive knows how often it was delivered; no decoder asks.
    columns["dequeue_count"] = pa.chunked_array([pa.repeat(pa.scalar(0, pa.int32()), len(rows))])
    messages = pa.RecordBatch.from_arrays(
        [columns[name].combine_chunks() for name in schema.names], schema=schema
    )
    decoded = decode_messages(messages, tried_at, "replay")
    return _Decoded(
        decoded.reports,
        decoded.inbound,
        decoded.answers,
        decoded.sends,
        decoded.failed,
        decoded.counts,
    )


def _decode_lines(rows: pa.Table, tried_at: datetime) -> _Decoded:
    """Decode send log entries; one that came from columns was kept as the line that it would be."""
    originals = rows.column("original").to_pylist()
    message_ids = rows.column("message_id").to_pylist()
    checked = check_records([original if original.strip() else _NO_ENTRY for original in originals])
    failed = [
        failed_event(
            refused.error,
            stage=refused.stage,
            schema_name=CONTRACT_NAME,
            original=originals[refused.position],
            message_id=message_ids[refused.position],
            failed_at=tried_at,
        )
        for refused in checked.refused
    ]
    counts = Counter(f"failed_sends/{event.reason}" for event in failed)
    counts["sends"] = checked.entries.num_rows
    counts["failed_sends"] = len(failed)
    counts["send_log_records"] = rows.num_rows
    return _Decoded(
        contract("delivery_report").batch([]),
        contract("inbound_sms").batch([]),
        contract("query_answer").batch([]),
        checked.entries,
        failed_batch(failed),
        counts,
    )
