"""The graphs, one screen each: read them as tables of contents."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import apache_beam as beam
from apache_beam.pvalue import PCollection

from pipeline.inboxes.inbox import InboxSpec
from pipeline.inboxes.reading import Reading
from pipeline.inboxes.source import ReadInboxes
from transforms.archive import ArchiveRaw
from transforms.breaker import FailureLimit
from transforms.decode_bundles import DecodeMessages
from transforms.intake import (
    DecodeArchive,
    DecodeFailed,
    DecodeSendLog,
    Intake,
    LoadCarried,
    LoadPast,
    Scope,
)
from transforms.join import Joining, JoinReports
from transforms.limit_failures import LimitFailures
from transforms.manifest import WriteManifest, counts_note
from transforms.replay import FailedUnit
from transforms.send_log import SendLogSlice
from transforms.settle import SettleBuckets, Settling

# Rows of tables, packed: (name of the table, transforms.packed).
Rows: TypeAlias = PCollection[tuple[str, bytes]]


@dataclass(frozen=True)
class BoundedInput:
    """What one run of the bounded graph works on.

    Attributes:
        units: archive files, several to a unit of work.
        send_log: slices of the send log.
        failed: failed events to try again, for :func:`replay_graph`.
        carried: files of open sends and waiting reports, as ``(table, path)``.
    """

    units: Sequence[Sequence[str]]
    send_log: Sequence[SendLogSlice]
    failed: Sequence[FailedUnit]
    carried: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Streaming:
    """How the unbounded graph works.

    Attributes:
        run_id: names what the steps of a worker share: inboxes, tally, breaker.
        reading: how bundles are cut and acknowledged.
        limit: how many messages may be unusable before nothing more is acknowledged.
        archive: directory or URL.
        joining: how reports and sends wait for each other.
        clock: tells the time (aware); pickled by name.
    """

    run_id: str
    reading: Reading
    limit: FailureLimit
    archive: str
    joining: Joining
    clock: Callable[[], datetime]


def streaming_graph(
    pipeline: beam.Pipeline,
    inboxes: Sequence[InboxSpec],
    streaming: Streaming,
    sinks: Mapping[str, beam.PTransform[Rows, Any]],
) -> None:
    """Queues and subscriptions to sinks, for ever; the steps up to the join are fused with the source."""
    run_id, clock = streaming.run_id, streaming.clock
    read = ReadInboxes(inboxes, streaming.reading, run_id=run_id, clock=clock)
    received = pipeline | "ReadInboxes" >> read
    usable = received | "LimitFailures" >> LimitFailures(streaming.limit, clock, run_id=run_id)
    archived = usable | "ArchiveRaw" >> ArchiveRaw(streaming.archive, clock, run_id=run_id)

    news = archived | "DecodeMessages" >> DecodeMessages(streaming.joining.bucket_count, clock)
    rows = news | "JoinReports" >> JoinReports(streaming.joining)

    for name, write in sinks.items():
        rows | name >> write


def bounded_graph(
    pipeline: beam.Pipeline, given: BoundedInput, scope: Scope, settling: Settling
) -> None:
    """Archive files and send log to tables."""
    units = pipeline | "ArchiveFiles" >> beam.Create(given.units, reshuffle=True)
    archived = units | "DecodeArchive" >> DecodeArchive(scope)

    parts = pipeline | "SendLogSlices" >> beam.Create(given.send_log, reshuffle=True)
    logged = parts | "DecodeSendLog" >> DecodeSendLog(scope)

    _settle(pipeline, (archived, logged), given.carried, scope, settling)


def replay_graph(
    pipeline: beam.Pipeline, given: BoundedInput, scope: Scope, settling: Settling
) -> None:
    """Failed events to tables."""
    units = pipeline | "FailedEvents" >> beam.Create(given.failed, reshuffle=True)
    replayed = units | "DecodeFailed" >> DecodeFailed(scope)

    _settle(pipeline, (replayed,), given.carried, scope, settling)


def _settle(
    pipeline: beam.Pipeline,
    intakes: Sequence[Intake],
    carried_files: Sequence[tuple[str, str]],
    scope: Scope,
    settling: Settling,
) -> None:
    """What was decoded, bring together with what is there; match, write, report."""
    news = tuple(intake.slices for intake in intakes) | "News" >> beam.Flatten()
    days = tuple(intake.days for intake in intakes) | "DaysWithNews" >> beam.Flatten()
    past = days | "LoadPast" >> LoadPast(scope, news)

    files = pipeline | "CarriedFiles" >> beam.Create(carried_files, reshuffle=True)
    carried = files | "LoadCarried" >> LoadCarried(scope)

    slices = (news, past, carried) | "Slices" >> beam.Flatten()
    settled = slices | "SettleBuckets" >> SettleBuckets(settling, scope)

    # A run without any input is a run, too, and its manifest says so.
    ran = pipeline | "Ran" >> beam.Create([counts_note({})])
    noted = (intake.notes for intake in intakes)
    notes = (ran, *noted, settled) | "Notes" >> beam.Flatten()
    notes | "WriteManifest" >> WriteManifest(settling.staging)
