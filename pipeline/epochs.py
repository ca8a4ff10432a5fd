"""Epochs: one bounded run over what is new, and one atomic commit.

An epoch reads the archive files and send log lines that no epoch has read, plus the open sends, the waiting
reports, and the written rows of the days that have news. It writes below the staging directory, checks that
its counts add up, and commits. Killed anywhere before the commit, it never happened; the next start does it
again and gets the same rows.
"""

import logging
import math
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.catalog import Catalog, Commit
from pipeline.errors import OutputError, SendLogError
from pipeline.graph import BoundedInput, bounded_graph, replay_graph
from pipeline.graph_faults import operators_sentences
from pipeline.ledger import LedgerError, require_balance
from pipeline.send_log_slices import consumed_up_to, send_log_slices
from pipeline.stopping import given_up_to_stop
from transforms import tables
from transforms.archive import ArchiveError, ArchiveFile, list_archive
from transforms.decode_query import QUERY_MESSAGE_TYPE
from transforms.intake import Scope
from transforms.manifest import Manifest, read_manifest
from transforms.match import Patience
from transforms.moments import DAY_MS, day_name, to_ms
from transforms.replay import FailedUnit
from transforms.send_log import SendLogSlice
from transforms.settle import Settling
from transforms.tables import NOTHING_WRITTEN, Written

# A bucket is matched in memory: this many reports with their sends take about 150 MB and 0.3 s.
_ROWS_PER_BUCKET: Final = 100_000
# A unit is decoded by one worker at a time; larger ones save files, smaller ones spread the work.
_MESSAGES_PER_UNIT: Final = 125_000
# One commit per so many messages, some ten seconds of work: a backlog makes progress that neither a crash nor
# a stop, which does not wait for ever, undoes.
_MESSAGES_PER_EPOCH: Final = 1_000_000
# What a send takes in a file of its kind, roughly; only the number of buckets depends on it.
_BYTES_PER_SEND: Final = {".jsonl": 250, ".avro": 60, ".parquet": 60}
_LOGGER: Final = logging.getLogger(__name__)
_CARRIED: Final = (tables.OPEN_SENDS, tables.WAITING_REPORTS)


@dataclass(frozen=True)
class JobSettings:
    """What runs of the bounded graph have in common.

    Attributes:
        archive: root of the archive.
        dataset: root of the tables; every worker must be able to write there.
        patience: how long an open send and a waiting report wait for each other.
        send_log: glob of the send log's files. Without one there is nothing to wait for: reports leave
            at once.
        beam_args: flags for Beam, ``--runner`` among them.
    """

    archive: str
    dataset: str
    patience: timedelta
    send_log: str | None
    beam_args: Sequence[str]

    @property
    def days_apart(self) -> int:
        """How many Beijing days may lie between a send and its report."""
        return 1 + math.ceil(self.patience / timedelta(days=1))

    def deadlines(self, as_of: datetime) -> Patience:
        """The deadlines of a run at ``as_of``."""
        before_ms = to_ms(as_of - self.patience)
        return Patience(before_ms if self.send_log else to_ms(as_of) + DAY_MS, before_ms)


@dataclass(frozen=True)
class NewInput:
    """What no epoch has read yet; or failed events to read again, and nothing else."""

    archive_files: Sequence[ArchiveFile]
    send_log: Sequence[SendLogSlice]
    failed: Sequence[FailedUnit] = ()

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.archive_files or self.send_log or self.failed)

    @property
    def messages(self) -> int:
        """How many messages wait in the archive files."""
        return sum(file.messages for file in self.archive_files)

    @property
    def answers(self) -> int:
        """How many of them are answers that reconcile has archived: no queue brought them."""
        return sum(
            file.messages for file in self.archive_files if file.queue_name == QUERY_MESSAGE_TYPE
        )


def epochs_of(new: NewInput) -> Iterator[NewInput]:
    """Cut a backlog into epochs, one at least: all sends first, then messages in the order they landed."""
    batch: list[ArchiveFile] = []
    messages = 0
    send_log = new.send_log
    for file in new.archive_files:
        batch.append(file)
        messages += file.messages
        if messages >= _MESSAGES_PER_EPOCH:
            yield NewInput(batch, send_log)
            batch, messages, send_log = [], 0, ()
    if batch or send_log or not new:
        yield NewInput(batch, send_log)


@dataclass(frozen=True)
class RunInput:
    """Everything one run of the bounded graph depends on, besides the settings.

    Attributes:
        new: what to decode.
        as_of: the moment of the run.
        carried: files of open sends and waiting reports, as ``(table, path)``.
        past: what is written already.
        days: the Beijing days to recompute; None for everything that is new.
    """

    new: NewInput
    as_of: datetime
    carried: Sequence[tuple[str, str]] = ()
    past: Written = NOTHING_WRITTEN
    days: range | None = None


def archive_files(
    settings: JobSettings,
    landed_from: date | None = None,
    choose: Callable[[Sequence[str]], Sequence[str]] | None = None,
) -> list[ArchiveFile]:
    """List the archive, as :func:`list_archive` does.

    Raises:
        OutputError: it cannot be looked through.
    """
    try:
        return list_archive(settings.archive, landed_from=landed_from, choose=choose)
    except ArchiveError as failure:
        raise OutputError(str(failure)) from None


def require_send_log(catalog: Catalog, settings: JobSettings) -> None:
    """Refuse to go on without a send log where there was one: what waits would stop waiting at once.

    Raises:
        SendLogError: it is missing.
    """
    if settings.send_log:
        return
    if catalog.send_log_consumed() or catalog.files(tables.WAITING_REPORTS.name):
        raise SendLogError(
            f"The dataset {settings.dataset} was made with a send log: give --send_log, or its reports would "
            "no longer wait for their sends (an empty directory, if there is no send log any more)."
        )


def find_new_input(
    catalog: Catalog, settings: JobSettings, landed_from: date | None = None
) -> NewInput:
    """Look for archive files and send log lines that no epoch has read.

    Args:
        catalog: the dataset's.
        settings: where to look.
        landed_from: skip what landed on earlier UTC days; None looks through the whole archive.

    Raises:
        OutputError: the archive cannot be looked through.
        SendLogError: the send log cannot be read, or is missing.
    """
    archived = archive_files(settings, landed_from, catalog.unconsumed)
    require_send_log(catalog, settings)
    send_log = (
        send_log_slices(settings.send_log, catalog.send_log_consumed()) if settings.send_log else []
    )
    return NewInput(archived, send_log)


def run_epoch(
    catalog: Catalog, settings: JobSettings, new: NewInput, as_of: datetime
) -> Counter[str]:
    """Process what is new, and commit.

    Returns:
        The counts of the epoch.

    Raises:
        OutputError: the dataset cannot be written; nothing was committed.
        LedgerError: the counts do not add up; nothing was committed.
        GivenUpError: a stop did not wait for it; nothing was committed.
    """
    given = epoch_input(catalog, new, as_of)
    attempt = uuid.uuid4().hex
    with given_up_to_stop():
        manifest = run_bounded_graph(catalog.staging(attempt), settings, given)
    commit = Commit(
        kind="run",
        as_of_ms=to_ms(as_of),
        counts=manifest.counts,
        added=manifest.files,
        removed=[os.path.relpath(path, catalog.dataset) for _, path in given.carried],
        archive_files={
            os.path.relpath(path, settings.archive): days
            for path, days in manifest.archive_days.items()
        },
        send_log={part.path: consumed_up_to(part.path, part.end) for part in sorted(new.send_log)},
    )
    catalog.commit(commit, attempt)
    return manifest.counts


def epoch_input(catalog: Catalog, new: NewInput, as_of: datetime) -> RunInput:
    """What an epoch works on: what is new, what waits, and what is written already."""
    carried = [
        (table.name, catalog.absolute(file.path))
        for table in _CARRIED
        for file in catalog.files(table.name)
    ]
    return RunInput(new, as_of, carried, catalog.written())


def run_bounded_graph(staging: str, settings: JobSettings, given: RunInput) -> Manifest:
    """Run the bounded graph on any runner; what it wrote waits in ``staging``.

    What archive files do not give back is told to the operator, a line for each file.

    Raises:
        OutputError: the staging directory cannot be written, or a file is gone.
        SendLogError: the send log cannot be read.
        LedgerError: the counts do not add up.
    """
    spill = os.path.join(staging, "spill")
    with operators_sentences(settings.dataset):
        bucket_count = _bucket_count(given)
    scope = Scope(spill, bucket_count, given.as_of, given.past, given.days, settings.days_apart)
    settling = Settling(staging, settings.deadlines(given.as_of))
    graph_input = BoundedInput(
        units=list(_units(given.new.archive_files)),
        send_log=given.new.send_log,
        failed=given.new.failed,
        carried=given.carried,
    )
    with operators_sentences(settings.dataset):
        os.makedirs(spill, exist_ok=True)
        with beam.Pipeline(options=PipelineOptions(list(settings.beam_args))) as pipeline:
            graph = replay_graph if given.new.failed else bounded_graph
            graph(pipeline, graph_input, scope, settling)
        manifest = read_manifest(staging)
        shutil.rmtree(spill)
    require_balance(manifest.counts)
    if manifest.counts["messages"] != given.new.messages + manifest.counts["chosen/failed_events"]:
        raise LedgerError(
            f"The archive files' names promise {given.new.messages} messages, but "
            f"{manifest.counts['messages']} were counted. Nothing was committed; this is a bug of "
            "sms-receipts."
        )
    for damage in manifest.damage:
        days = manifest.archive_days[damage.path]
        _LOGGER.warning("%s", damage.sentence(day_name(days[0]), day_name(days[-1])))
    return manifest


def is_due(catalog: Catalog, settings: JobSettings, as_of: datetime) -> bool:
    """Tell whether somebody's patience has run out, from the files' statistics alone.

    Raises:
        OutputError: one of them is damaged, or gone.
    """
    deadlines = settings.deadlines(as_of)
    with operators_sentences(settings.dataset):
        requested_ms = _earliest(catalog, tables.OPEN_SENDS.name, "requested_at")
        enqueued_ms = _earliest(catalog, tables.WAITING_REPORTS.name, "enqueued_at")
    return requested_ms < deadlines.sends_before_ms or enqueued_ms < deadlines.reports_before_ms


def _earliest(catalog: Catalog, table: str, column: str) -> float:
    """The smallest moment of a column, in UTC milliseconds; infinite for an empty table."""
    earliest = math.inf
    for file in catalog.files(table):
        metadata = tables.read_metadata(catalog.absolute(file.path))
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            columns = map(group.column, range(group.num_columns))
            chunk = next(part for part in columns if part.path_in_schema == column)
            earliest = min(earliest, to_ms(chunk.statistics.min))
    return earliest


def _units(files: Sequence[ArchiveFile]) -> Iterator[list[str]]:
    unit: list[str] = []
    messages = 0
    for file in files:
        unit.append(file.path)
        messages += file.messages
        if messages >= _MESSAGES_PER_UNIT:
            yield unit
            unit, messages = [], 0
    if unit:
        yield unit


def _bucket_count(given: RunInput) -> int:
    sends = sum(
        (part.end - part.start) // _BYTES_PER_SEND[os.path.splitext(part.path)[1]]
        for part in given.new.send_log
    )
    waiting: int = sum(tables.read_metadata(path).num_rows for _, path in given.carried)
    failed = sum(unit.rows for unit in given.new.failed)
    rows = max(given.new.messages + failed, sends + waiting)
    return max(1, math.ceil(rows / _ROWS_PER_BUCKET))
