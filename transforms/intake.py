"""What comes into the bounded graph: archived messages, send log slices, and what is left of the past.

Each transform opens files and hands on claim checks (see :mod:`transforms.shuffle`), plus *notes*: the
counts that must add up at the end, and which archive file holds records of which days.
"""

import gc
import resource
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.pvalue import AsIter, PCollection, TaggedOutput
from typing_extensions import override

from transforms.archive import ArchivedMessages, read_archive
from transforms.damage import damage_of, failed_parts
from transforms.decode import DecodedMessages, decode_messages
from transforms.enrich import SETTLED_COLUMNS
from transforms.enrich_rows import SEND_SCHEMA
from transforms.manifest import Note, counts_note, damage_note, days_note, record_days_note
from transforms.moments import DAY_MS, beijing_day, beijing_days, milliseconds
from transforms.replay import FailedUnit, try_again
from transforms.send_log import SendLogSlice, read_send_log
from transforms.shuffle import Slice, SliceWriter, key_hashes
from transforms.tables import (
    ENRICHED_REPORTS,
    FAILED_EVENTS,
    INBOUND_SMS,
    NOTHING_WRITTEN,
    QUERY_ANSWERS,
    TABLES,
    UNREPORTED_SENDS,
    Table,
    Written,
    distinct_days,
    read_rows,
    read_rows_of_keys,
)
from transforms.tally import tally_of

# The sender's clock may be ahead of Alibaba's: a send then seems to be asked for after it was sent.
_CLOCK_SKEW_MS: Final = 5 * 60 * 1000

_OPEN_FILES: Final = 65_536

NOTES: Final[Literal["notes"]] = "notes"
DAYS: Final[Literal["days"]] = "days"


class Kind:
    """What a slice holds; the tables' own names where the rows are rows of a table."""

    REPORTS: Final = "reports"
    SENDS: Final = "sends"
    INBOUND: Final = "inbound"
    ANSWERS: Final = "answers"
    FAILED: Final = "failed"
    FAILED_SENDS: Final = "failed_sends"
    ATTEMPTS: Final = "attempts"


class Past(NamedTuple):
    """A day of a table whose rows may speak of keys that have news."""

    table: str
    day: int


class PastRows(NamedTuple):
    """What is loaded of a past table: these columns of rows whose key is one of those in the news.

    ``key`` is a column of the table, of the slices that are its news, and what spreads both over the buckets.
    """

    columns: Sequence[str]
    key: str
    news: Collection[str]


_BY_NAME: Final = {table.name: table for table in TABLES}
_PAST_ROWS: Final[Mapping[str, PastRows]] = {
    ENRICHED_REPORTS.name: PastRows(SETTLED_COLUMNS, "biz_id", (Kind.REPORTS, Kind.SENDS)),
    UNREPORTED_SENDS.name: PastRows(
        ("event_id", *SEND_SCHEMA.names), "biz_id", (Kind.REPORTS, Kind.SENDS)
    ),
    **{
        table.name: PastRows(("message_id", table.day_column), "message_id", (kind,))
        for table, kind in (
            (INBOUND_SMS, Kind.INBOUND),
            (QUERY_ANSWERS, Kind.ANSWERS),
            (FAILED_EVENTS, Kind.FAILED),
        )
    },
}


@dataclass(frozen=True)
class Scope:
    """Where one run works, and on what.

    Attributes:
        spill: directory for slices, readable by all workers.
        bucket_count: how many buckets keys are spread over.
        as_of: the moment of the run; nothing below looks at a clock.
        past: what is written already.
        days: the Beijing days (numbers, see :mod:`transforms.moments`) to recompute; None for all.
        margin: records of so many days more are read, too: sends before and reports after the days, since
            the two may be that far apart; and of one day on the other side, for clocks that disagree.
    """

    spill: str
    bucket_count: int
    as_of: datetime
    past: Written = NOTHING_WRITTEN
    days: range | None = None
    margin: int = 1

    def keep_sends(self, sends: pa.Table) -> pa.Table:
        """Keep the sends of the days to recompute, and those whose reports may be among theirs."""
        return self.keep(sends, "requested_at", before=self.margin, after=1)

    def keep_reports(self, reports: pa.Table) -> pa.Table:
        """Keep the reports of the days to recompute, and those of sends of these days."""
        return self.keep(reports, "send_time", before=1, after=self.margin)

    def keep(self, rows: pa.Table, column: str, before: int = 0, after: int = 0) -> pa.Table:
        """Keep the rows of the days to recompute, and of some days around them."""
        if self.days is None or not rows.num_rows:
            return rows
        days = beijing_days(milliseconds(rows.column(column)))
        inside = (days >= self.days.start - before) & (days < self.days.stop + after)
        return rows if inside.all() else rows.filter(pa.array(inside))


class Intake(NamedTuple):
    """Slices by bucket, the past days that they touch, and notes."""

    slices: PCollection[tuple[int, Slice]]
    days: PCollection[Past]
    notes: PCollection[Note]


_Taken: TypeAlias = (
    tuple[int, Slice] | TaggedOutput[Literal["days"], Past] | TaggedOutput[Literal["notes"], Note]
)


class _FilesFn(beam.DoFn):
    """Opens files; keeps the garbage collector from walking millions of short-lived values."""

    @override
    def setup(self) -> None:
        # The default threshold of 700 makes row loops 20 to 45 % slower, and these make no cycles.
        gc.set_threshold(100_000, 20, 20)
        _allow_open_files()


def _allow_open_files() -> None:
    """Raise the usual limit of 1,024: a unit of work keeps a file open for every bucket of a large run."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class DecodeArchive(beam.PTransform[PCollection[Sequence[str]], Intake]):
    """Decode units of archive files; what cannot be decoded becomes a failed event."""

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self._scope = scope

    @override
    def expand(self, units: PCollection[Sequence[str]]) -> Intake:
        return _intake(units, _DecodeArchiveFn(self._scope))


class DecodeSendLog(beam.PTransform[PCollection[SendLogSlice], Intake]):
    """Decode slices of the send log; what cannot be decoded becomes a failed event."""

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self._scope = scope

    @override
    def expand(self, slices: PCollection[SendLogSlice]) -> Intake:
        return _intake(slices, _DecodeSendLogFn(self._scope))


class DecodeFailed(beam.PTransform[PCollection[FailedUnit], Intake]):
    """Decode failed events once more; every attempt that says something new becomes a row of its own."""

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self._scope = scope

    @override
    def expand(self, units: PCollection[FailedUnit]) -> Intake:
        return _intake(units, _DecodeFailedFn(self._scope))


def _intake(elements: PCollection[Any], decode: beam.DoFn) -> Intake:
    outputs = elements | "Decode" >> beam.ParDo(decode).with_outputs(DAYS, NOTES, main="slices")
    return Intake(outputs.slices, outputs[DAYS], outputs[NOTES])


class _DecodeArchiveFn(_FilesFn):
    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    @override
    def process(self, unit: Sequence[str]) -> Iterator[_Taken]:
        scope = self._scope
        counts: Counter[str] = Counter()
        touched: set[Past] = set()
        with SliceWriter(scope.spill, scope.bucket_count) as writer:
            for path in unit:
                archived = read_archive(path)
                days = _days_of_lost_messages(archived, scope)
                for decoded in _decoded(archived, scope.as_of):
                    counts.update(decoded.counts)
                    reports = pa.Table.from_batches([decoded.reports])
                    inbound = pa.Table.from_batches([decoded.inbound])
                    answers = pa.Table.from_batches([decoded.answers])
                    sends = pa.Table.from_batches([decoded.sends])
                    failed = pa.Table.from_batches([decoded.failed])
                    days.update(
                        *(
                            distinct_days(reports, "send_time"),
                            distinct_days(inbound, "send_time"),
                            distinct_days(answers, "requested_at"),
                            _days_that_need(sends, scope.margin),
                            distinct_days(failed, "enqueued_at"),
                        )
                    )
                    reports = scope.keep_reports(reports)
                    inbound = scope.keep(inbound, "send_time")
                    answers = scope.keep(answers, "requested_at")
                    sends = scope.keep_sends(sends)
                    failed = scope.keep(failed, "enqueued_at")
                    counts["other_days/reports"] += decoded.reports.num_rows - reports.num_rows
                    counts["other_days/inbound"] += decoded.inbound.num_rows - inbound.num_rows
                    counts["other_days/answers"] += decoded.answers.num_rows - answers.num_rows
                    counts["other_days/sends"] += decoded.sends.num_rows - sends.num_rows
                    counts["other_days/failed"] += decoded.failed.num_rows - failed.num_rows
                    writer.add(Kind.REPORTS, reports, "biz_id")
                    writer.add(Kind.INBOUND, inbound, "message_id")
                    writer.add(Kind.ANSWERS, answers, "message_id")
                    writer.add(Kind.SENDS, sends, "biz_id")
                    writer.add(Kind.FAILED, failed, "message_id")
                    touched |= _past_of_reports(reports)
                    touched |= _past_of(inbound, INBOUND_SMS)
                    touched |= _past_of(answers, QUERY_ANSWERS)
                    touched |= _past_of_sends(sends)
                    touched |= _past_of(failed, FAILED_EVENTS)
                yield TaggedOutput(NOTES, days_note(path, sorted(days)))
                if archived.lost:
                    yield TaggedOutput(NOTES, damage_note(damage_of(archived)))
            yield from writer.slices()
        for past in sorted(touched):
            yield TaggedOutput(DAYS, past)
        yield TaggedOutput(NOTES, counts_note(counts))


def _decoded(archived: ArchivedMessages, failed_at: datetime) -> Iterator[DecodedMessages]:
    for messages in archived.batches:
        yield decode_messages(messages, failed_at)
    if archived.lost:
        yield failed_parts(archived, failed_at)


def _days_of_lost_messages(archived: ArchivedMessages, scope: Scope) -> set[int]:
    """The days to which lost messages may belong, so that a backfill of these days reads the file again."""
    if not archived.lost:
        return set()
    first, last = archived.file.first_enqueued_at, archived.file.last_enqueued_at
    return set(range(beijing_day(first) - scope.margin, beijing_day(last) + 1))


class _DecodeSendLogFn(_FilesFn):
    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    @override
    def process(self, part: SendLogSlice) -> Iterator[_Taken]:
        scope = self._scope
        counts: Counter[str] = Counter()
        touched: set[Past] = set()
        with SliceWriter(scope.spill, scope.bucket_count) as writer:
            for decoded in read_send_log(part, scope.as_of):
                counts.update(decoded.counts)
                entries = pa.Table.from_batches([decoded.entries])
                entries = scope.keep_sends(entries)
                counts["other_days/sends"] += decoded.entries.num_rows - entries.num_rows
                writer.add(Kind.SENDS, entries, "biz_id")
                touched |= _past_of_sends(entries)
                if scope.days is None:
                    failed = pa.Table.from_batches([decoded.failed])
                    writer.add(Kind.FAILED_SENDS, failed, "message_id")
                else:
                    counts["other_days/failed_sends"] += decoded.failed.num_rows
            yield from writer.slices()
        for past in sorted(touched):
            yield TaggedOutput(DAYS, past)
        yield TaggedOutput(NOTES, counts_note(counts))


class _DecodeFailedFn(_FilesFn):
    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    @override
    def process(self, unit: FailedUnit) -> Iterator[_Taken]:
        scope = self._scope
        kind = Kind.ATTEMPTS if unit.table == FAILED_EVENTS.name else Kind.FAILED_SENDS
        counts: Counter[str] = Counter()
        touched: set[Past] = set()
        record_days: defaultdict[int, set[int]] = defaultdict(set)
        with SliceWriter(scope.spill, scope.bucket_count) as writer:
            for tried in try_again(unit, scope.as_of):
                counts.update(tried.counts)
                tally_of(scope.spill).add(tried=tried.tried)
                writer.add(Kind.REPORTS, tried.reports, "biz_id")
                writer.add(Kind.INBOUND, tried.inbound, "message_id")
                writer.add(Kind.ANSWERS, tried.answers, "message_id")
                writer.add(Kind.SENDS, tried.sends, "biz_id")
                writer.add(kind, tried.attempts, "message_id")
                touched |= _past_of_reports(tried.reports)
                touched |= _past_of(tried.inbound, INBOUND_SMS)
                touched |= _past_of(tried.answers, QUERY_ANSWERS)
                touched |= _past_of_sends(tried.sends)
                for rows, column in (
                    (tried.reports, "send_time"),
                    (tried.inbound, "send_time"),
                    (tried.answers, "requested_at"),
                ):
                    for enqueued, day in _days_of_messages_and_records(rows, column):
                        record_days[enqueued].add(day)
                for enqueued in tried.sends_enqueued:
                    record_days[enqueued] |= _days_that_need(tried.sends, scope.margin)
            yield from writer.slices()
        for past in sorted(touched):
            yield TaggedOutput(DAYS, past)
        for enqueued, days in sorted(record_days.items()):
            yield TaggedOutput(NOTES, record_days_note(enqueued, sorted(days)))
        yield TaggedOutput(NOTES, counts_note(counts))


def _days_of_messages_and_records(rows: pa.Table, column: str) -> set[tuple[int, int]]:
    """The pairs of Beijing days on which a message was enqueued and its record belongs, where they differ."""
    enqueued, belongs = (
        beijing_days(milliseconds(rows.column(name))) for name in ("enqueued_at", column)
    )
    differ = np.unique(np.stack([enqueued, belongs])[:, enqueued != belongs], axis=1)
    return set(zip(*differ.tolist(), strict=True))


def _days_that_need(sends: pa.Table, margin: int) -> set[int]:
    """The Beijing days of sends, and those after them whose reports may be theirs.

    A backfill of a day reads files with records from the day before it on: one of the ``margin`` days before
    it has its sends.
    """
    return {
        day for sent in distinct_days(sends, "requested_at") for day in range(sent, sent + margin)
    }


def _past_of(rows: pa.Table, table: Table) -> set[Past]:
    return {Past(table.name, day) for day in distinct_days(rows, table.day_column)}


def _past_of_reports(reports: pa.Table) -> set[Past]:
    """A report may repeat a row of its day, or end the wait of a send of up to a day before."""
    rows = {Past(ENRICHED_REPORTS.name, day) for day in distinct_days(reports, "send_time")}
    days = _days_near(reports, "send_time", DAY_MS, _CLOCK_SKEW_MS)
    return rows | {Past(UNREPORTED_SENDS.name, day) for day in days}


def _past_of_sends(entries: pa.Table) -> set[Past]:
    """A send may repeat a settled one, or belong to an orphan of up to a day after."""
    repeated = {Past(UNREPORTED_SENDS.name, day) for day in distinct_days(entries, "requested_at")}
    days = _days_near(entries, "requested_at", _CLOCK_SKEW_MS, DAY_MS)
    return repeated | {Past(ENRICHED_REPORTS.name, day) for day in days}


def _days_near(rows: pa.Table, column: str, before_ms: int, after_ms: int) -> set[int]:
    """The Beijing days on which a time column's rows have their counterparts; neither is above a day."""
    if not rows.num_rows:
        return set()
    times = milliseconds(rows.column(column))
    moved = np.concatenate([times - before_ms, times, times + after_ms])
    return {int(day) for day in np.unique(beijing_days(moved))}


class LoadPast(beam.PTransform[PCollection[Past], PCollection[tuple[int, Slice]]]):
    """Load what was written about the keys that have news, and nothing else.

    It is looked for on the days that have news. What waits (``LoadCarried``) and has no news needs no past:
    a key of which rows were written does not wait any more.
    """

    def __init__(self, scope: Scope, news: PCollection[tuple[int, Slice]]) -> None:
        """Prepare to load; ``news`` are the slices of all that was decoded."""
        super().__init__()
        self._scope = scope
        self._news = news

    @override
    def expand(self, days: PCollection[Past]) -> PCollection[tuple[int, Slice]]:
        slices: PCollection[tuple[int, Slice]] = (
            days
            | "KeyByDay" >> beam.Map(_with_no_value)
            | "DistinctDays" >> beam.GroupByKey()
            | "Load" >> beam.ParDo(_LoadPastFn(self._scope), AsIter(self._news))
        )
        return slices


def _with_no_value(past: Past) -> tuple[tuple[str, int], None]:
    return (past.table, past.day), None


class _LoadPastFn(beam.DoFn):
    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    @override
    def process(
        self, element: tuple[tuple[str, int], Iterable[None]], news: Iterable[tuple[int, Slice]]
    ) -> Iterator[tuple[int, Slice]]:
        (table, day), _ = element
        columns, key, kinds = _PAST_ROWS[table]
        paths = self._scope.past.files(table, day)
        if not paths:
            return
        slices = (Slice(*part) for _, part in news)
        hashes = key_hashes((part for part in slices if part.kind in kinds), key)
        with SliceWriter(self._scope.spill, self._scope.bucket_count) as writer:
            for path in paths:
                for rows in read_rows_of_keys(_BY_NAME[table], path, columns, key, hashes):
                    writer.add(table, rows, key)
            yield from writer.slices()


class LoadCarried(beam.PTransform[PCollection[tuple[str, str]], PCollection[tuple[int, Slice]]]):
    """Load what waits: all open sends and all waiting reports, as ``(table, path)``."""

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self._scope = scope

    @override
    def expand(self, files: PCollection[tuple[str, str]]) -> PCollection[tuple[int, Slice]]:
        slices: PCollection[tuple[int, Slice]] = files | "Load" >> beam.ParDo(
            _LoadCarriedFn(self._scope)
        )
        return slices


class _LoadCarriedFn(beam.DoFn):
    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    @override
    def process(self, file: tuple[str, str]) -> Iterator[tuple[int, Slice]]:
        table, path = file
        with SliceWriter(self._scope.spill, self._scope.bucket_count) as writer:
            writer.add(table, read_rows(_BY_NAME[table], path), "biz_id")
            yield from writer.slices()
