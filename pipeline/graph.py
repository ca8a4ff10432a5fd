"""The graphs, one screen each: read them as tables of contents."""

from collections.abc import Sequence
from dataclasses import dataclass

import apache_beam as beam

from transforms.intake import DecodeArchive, DecodeSendLog, LoadCarried, LoadPast, Scope
from transforms.manifest import WriteManifest, counts_note
from transforms.send_log import SendLogSlice
from transforms.settle import SettleBuckets, Settling


@dataclass(frozen=True)
class BoundedInput:
    """What one run of the bounded graph works on.

    Attributes:
        units: archive files, several to a unit of work.
        send_log: slices of the send log.
        carried: files of open sends and waiting reports, as ``(table, path)``.
    """

    units: Sequence[Sequence[str]]
    send_log: Sequence[SendLogSlice]
    carried: Sequence[tuple[str, str]]


def bounded_graph(
    pipeline: beam.Pipeline, given: BoundedInput, scope: Scope, settling: Settling
) -> None:
    """Archive files and send log to tables: decode, bring together, match, write, report."""
    units = pipeline | "ArchiveFiles" >> beam.Create(given.units, reshuffle=True)
    archived = units | "DecodeArchive" >> DecodeArchive(scope)

    parts = pipeline | "SendLogSlices" >> beam.Create(given.send_log, reshuffle=True)
    logged = parts | "DecodeSendLog" >> DecodeSendLog(scope)

    news = (archived.slices, logged.slices) | "News" >> beam.Flatten()
    days = (archived.days, logged.days) | "DaysWithNews" >> beam.Flatten()
    past = days | "LoadPast" >> LoadPast(scope, news)

    files = pipeline | "CarriedFiles" >> beam.Create(given.carried, reshuffle=True)
    carried = files | "LoadCarried" >> LoadCarried(scope)

    slices = (news, past, carried) | "Slices" >> beam.Flatten()
    settled = slices | "SettleBuckets" >> SettleBuckets(settling, scope)

    # A run without any input is a run, too, and its manifest says so.
    ran = pipeline | "Ran" >> beam.Create([counts_note({})])
    notes = (ran, archived.notes, logged.notes, settled) | "Notes" >> beam.Flatten()
    notes | "WriteManifest" >> WriteManifest(settling.staging)
