"""The graphs, one screen each: read them as tables of contents."""

from collections.abc import Sequence
from dataclasses import dataclass

import apache_beam as beam

from transforms.intake import (
    DecodeArchive,
    DecodeFailed,
    DecodeSendLog,
    LoadCarried,
    LoadPast,
    Scope,
)
from transforms.manifest import WriteManifest, counts_note
from transforms.replay import FailedUnit
from transforms.send_log import SendLogSlice
from transforms.settle import SettleBuckets, Settling


@dataclass(frozen=True)
class BoundedInput:
    """What one run of the bounded graph works on.

    Attributes:
        units: archive files, several to a unit of work.
        send_log: slices of the send log.
        failed: failed events to try again.
        carried: files of open sends and waiting reports, as ``(table, path)``.
    """

    units: Sequence[Sequence[str]]
    send_log: Sequence[SendLogSlice]
    failed: Sequence[FailedUnit]
    carried: Sequence[tuple[str, str]]


def bounded_graph(
    pipeline: beam.Pipeline, given: BoundedInput, scope: Scope, settling: Settling
) -> None:
    """Archive files, send log and failed events to tables: decode, bring together, match, write, report."""
    units = pipeline | "ArchiveFiles" >> beam.Create(given.units, reshuffle=True)
    archived = units | "DecodeArchive" >> DecodeArchive(scope)

    parts = pipeline | "SendLogSlices" >> beam.Create(given.send_log, reshuffle=True)
    logged = parts | "DecodeSendLog" >> DecodeSendLog(scope)

    failed = pipeline | "FailedEvents" >> beam.Create(given.failed, reshuffle=True)
    replayed = failed | "DecodeFailed" >> DecodeFailed(scope)

    days = (archived.days, logged.days, replayed.days) | "DaysWithNews" >> beam.Flatten()
    past = days | "LoadPast" >> LoadPast(scope)

    files = pipeline | "CarriedFiles" >> beam.Create(given.carried, reshuffle=True)
    carried = files | "LoadCarried" >> LoadCarried(scope)

    decoded = (archived.slices, logged.slices, replayed.slices)
    slices = (*decoded, past, carried) | "Slices" >> beam.Flatten()
    settled = slices | "SettleBuckets" >> SettleBuckets(settling, scope)

    # A run without any input is a run, too, and its manifest says so.
    ran = pipeline | "Ran" >> beam.Create([counts_note({})])
    notes = (ran, archived.notes, logged.notes, replayed.notes, settled) | "Notes" >> beam.Flatten()
    notes | "WriteManifest" >> WriteManifest(settling.staging)
