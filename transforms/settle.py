"""The end of the bounded graph: a bucket at a time, match what is known and write what leaves."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import PCollection
from typing_extensions import override

from transforms import keys, tables
from transforms.enrich import SETTLED_SCHEMA, Facts, enrich
from transforms.enrich_rows import (
    ENRICHED_SCHEMA,
    REPORT_SCHEMA,
    SEND_SCHEMA,
    UNREPORTED_SCHEMA,
)
from transforms.intake import Kind, Scope
from transforms.manifest import Note, counts_note, file_note
from transforms.match import Patience
from transforms.shuffle import Slice, read_slices
from transforms.tables import (
    Table,
    WrittenFile,
    distinct_days,
    read_rows_of_keys,
    write_table,
)
from transforms.unseen import seen_schema, unseen


@dataclass(frozen=True)
class Settling:
    """How a bucket is settled.

    Attributes:
        staging: directory of the attempt.
        patience: the deadlines.
    """

    staging: str
    patience: Patience


class SettleBuckets(beam.PTransform[PCollection[tuple[int, Slice]], PCollection[Note]]):
    """Match and write all that was brought together; the output is notes for the manifest."""

    def __init__(self, settling: Settling, scope: Scope) -> None:
        super().__init__()
        self._settling = settling
        self._scope = scope

    @override
    def expand(self, slices: PCollection[tuple[int, Slice]]) -> PCollection[Note]:
        notes: PCollection[Note] = (
            slices
            | "GroupByBucket" >> beam.GroupByKey()
            | "MatchAndWrite" >> beam.FlatMap(_settle, self._settling, self._scope)
        )
        return notes


def _settle(
    element: tuple[int, Iterable[Slice]], settling: Settling, scope: Scope
) -> Iterator[Note]:
    _, grouped = element
    slices = [Slice(*part) for part in grouped]
    counts: Counter[str] = Counter()
    for file in _settled_files(slices, settling, scope, counts):
        yield file_note(file)
    yield counts_note(counts)


def _settled_files(
    slices: Sequence[Slice], settling: Settling, scope: Scope, counts: Counter[str]
) -> Iterator[WrittenFile]:
    settled = read_slices(slices, tables.ENRICHED_REPORTS.name, SETTLED_SCHEMA)
    facts = Facts(
        reports=read_slices(slices, Kind.REPORTS, REPORT_SCHEMA),
        waiting=read_slices(slices, tables.WAITING_REPORTS.name, REPORT_SCHEMA),
        sends=read_slices(slices, Kind.SENDS, SEND_SCHEMA),
        open_sends=read_slices(slices, tables.OPEN_SENDS.name, SEND_SCHEMA),
        unreported=read_slices(slices, tables.UNREPORTED_SENDS.name, UNREPORTED_SCHEMA),
        settled=settled,
    )

    def fetch_rows(event_ids: Sequence[str]) -> pa.Table:
        table = tables.ENRICHED_REPORTS
        days = distinct_days(settled, table.day_column)
        paths = [path for day in days for path in scope.past.files(table.name, day)]
        hashes = keys.distinct_hashes([pa.array(event_ids, type=pa.string())])
        rows = [
            found
            for path in paths
            for found in read_rows_of_keys(table, path, ENRICHED_SCHEMA.names, "event_id", hashes)
        ]
        return pa.concat_tables([ENRICHED_SCHEMA.empty_table(), *rows])

    enriched = enrich(facts, settling.patience, fetch_rows)
    inbound = _unseen(slices, Kind.INBOUND, tables.INBOUND_SMS, counts)
    answers = _unseen(slices, Kind.ANSWERS, tables.QUERY_ANSWERS, counts)
    failed = pa.concat_tables(
        [
            _unseen(slices, Kind.FAILED, tables.FAILED_EVENTS, counts),
            read_slices(slices, Kind.ATTEMPTS, tables.FAILED_EVENTS.schema),
        ]
    )
    counts.update(enriched.counts)
    outputs = (
        (tables.ENRICHED_REPORTS, enriched.rows),
        (tables.WAITING_REPORTS, enriched.waiting),
        (tables.OPEN_SENDS, enriched.open_sends),
        (tables.UNREPORTED_SENDS, enriched.unreported),
        (tables.INBOUND_SMS, inbound),
        (tables.QUERY_ANSWERS, answers),
        (tables.FAILED_EVENTS, failed),
        (tables.FAILED_SENDS, read_slices(slices, Kind.FAILED_SENDS, tables.FAILED_SENDS.schema)),
    )
    for table, rows in outputs:
        written = list(write_table(table, rows, settling.staging, scope.days))
        counts[f"rows/{table.name}"] = sum(file.rows for file in written)
        counts[f"other_days/{table.name}"] = rows.num_rows - counts[f"rows/{table.name}"]
        yield from written


def _unseen(slices: Sequence[Slice], kind: str, table: Table, counts: Counter[str]) -> pa.Table:
    rows = read_slices(slices, kind, table.schema)
    newcomers = unseen(rows, read_slices(slices, table.name, seen_schema(table)), table)
    counts[f"duplicate_{kind}"] += rows.num_rows - newcomers.num_rows
    return newcomers
