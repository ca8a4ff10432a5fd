"""The streaming job: what it is made of, and which engine runs it."""

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.engines import Engine
from pipeline.errors import OutputError
from pipeline.graph import Rows, Streaming, streaming_graph
from pipeline.inboxes.inbox import InboxSpec
from pipeline.inboxes.reading import Reading
from pipeline.mns.spec import MnsInboxSpec
from pipeline.options_stream import SinkSettings, StreamOptions
from pipeline.pubsub.spec import PubSubInboxSpec
from pipeline.send_log_files import SendLogFilesSpec
from pipeline.sinks.bigquery import Dataset, WriteToBigQuery, require_tables
from pipeline.sinks.files import WriteAvro, WriteParquet
from pipeline.sinks.topic_setup import require_topics
from pipeline.sinks.topics import Topics, WriteToTopics
from pipeline.stream_elsewhere import run_on_dataflow
from pipeline.stream_on_flink import run_on_flink
from pipeline.stream_on_prism import run_on_prism
from transforms.archive import ArchiveError, list_archive, require_writable_archive
from transforms.file_store import is_url


def stream(
    options: StreamOptions, clock: Callable[[], datetime], say: Callable[[str], None]
) -> str:
    """Do what ``sms-receipts stream`` was asked to do; return how it ended, and what can be done next.

    Args:
        options: the flags.
        clock: the time, aware; Beam pickles it.
        say: prints a line of progress.

    Raises:
        OperatorError: only the operator can help.
    """
    # Elsewhere a worker lives for one job, which keeps its name when it goes on from a savepoint.
    run_id = uuid.uuid4().hex if options.engine is Engine.PRISM else options.job_name
    pipeline = beam.Pipeline(options=PipelineOptions(list(options.beam_args)))
    _require_places(options)
    for line in plan(options):
        say(line)
    streaming = Streaming(
        run_id=run_id,
        reading=_reading(options),
        limit=options.limit,
        archive=options.archive,
        joining=options.joining,
        clock=clock,
    )
    streaming_graph(pipeline, _inboxes(options), streaming, _sinks(options.sinks, clock))
    if options.engine is Engine.PRISM:
        return run_on_prism(pipeline, run_id, clock, say)
    if options.engine is Engine.FLINK:
        return run_on_flink(pipeline, options, clock, say)
    return run_on_dataflow(pipeline, say)


def plan(options: StreamOptions) -> list[str]:
    """Say in a few lines what comes from where and goes where."""
    send_log = [settings.subscription for settings in options.subscriptions]
    send_log += [options.send_log] if options.send_log else []
    sinks = options.sinks
    places = (sinks.parquet, sinks.avro, sinks.topics, sinks.bigquery)
    patience, memory = options.joining.patience, options.joining.memory
    engine = options.engine.value
    if options.flink is not None:
        engine += (
            f" at {options.flink.master}, {options.flink.parallelism} tasks, a checkpoint every "
            f"{options.flink.checkpointing_interval_ms / 1000:g} s"
        )
    return [
        f"plan: queues    {', '.join(options.mns.queues)}",
        f"plan: send log  {', '.join(send_log) or 'none: reports leave at once, as orphans'}",
        f"plan: archive   {options.archive}",
        f"plan: join      patience {patience}, memory {memory}, {options.joining.bucket_count} buckets",
        f"plan: state     {_state(options)}",
        f"plan: sinks     {', '.join(place for place in places if place)}",
        f"plan: engine    {engine}",
    ]


def _state(options: StreamOptions) -> str:
    """Where the join begins: a command that is merely repeated has lost what was open."""
    if options.flink is not None and options.flink.savepoint_path:
        return f"goes on from {options.flink.savepoint_path}"
    if not _has_messages(options.archive):
        return "new"
    ways = "sms-receipts backfill makes tables of the archive"
    if options.flink is not None:
        ways = f"--savepoint_path goes on from them, {ways}"
    return f"new, though the archive has messages: the sends and reports that waited are not known ({ways})"


def _has_messages(archive: str) -> bool:
    """Whether an archive on this machine has messages; of another one nothing is known."""
    if is_url(archive):
        return False
    try:
        return bool(list_archive(archive, choose=lambda paths: paths[:1]))
    except ArchiveError:
        return False


def _reading(options: StreamOptions) -> Reading:
    return Reading(
        max_bundle_messages=options.mns.max_bundle_messages,
        max_bundle_secs=options.mns.max_bundle_secs,
        # Engines wait between bundles by themselves, and inboxes take turns.
        advance_wait_secs=0.0,
        poll_secs=options.poll_secs,
        # Flink finalizes more than its checkpoint contains; the others do not.
        acknowledges_late=options.engine is Engine.FLINK,
    )


def _inboxes(options: StreamOptions) -> list[InboxSpec]:
    inboxes: list[InboxSpec] = [MnsInboxSpec(options.mns, readers=options.readers)]
    inboxes += map(PubSubInboxSpec, options.subscriptions)
    if options.send_log:
        inboxes.append(SendLogFilesSpec(options.send_log, options.send_log_positions))
    return inboxes


def _sinks(
    settings: SinkSettings, clock: Callable[[], datetime]
) -> dict[str, beam.PTransform[Rows, Any]]:
    sinks: dict[str, beam.PTransform[Rows, Any]] = {}
    if settings.parquet:
        sinks["WriteParquet"] = WriteParquet(settings.parquet, settings.file_secs, clock)
    if settings.avro:
        sinks["WriteAvro"] = WriteAvro(settings.avro, settings.file_secs, clock)
    if settings.topics:
        sinks["WriteToTopics"] = WriteToTopics(Topics(settings.topics))
    if settings.bigquery:
        sinks["WriteToBigQuery"] = WriteToBigQuery(Dataset(settings.bigquery))
    return sinks


def _require_places(options: StreamOptions) -> None:
    """Refuse before the job runs what every bundle would fail with.

    A directory that is not this machine's is not looked at: only the workers see it.
    """
    settings = options.sinks
    is_here = options.engine is Engine.PRISM
    if is_here or is_url(options.archive):
        try:
            require_writable_archive(options.archive)
        except ArchiveError as failure:
            raise OutputError(str(failure)) from None
    for write in (WriteParquet, WriteAvro):
        directory = settings.parquet if write is WriteParquet else settings.avro
        if directory and (is_here or is_url(directory)):
            write(directory).require_usable()
    if settings.topics:
        require_topics(Topics(settings.topics), create=settings.creates_topics)
    if settings.bigquery:
        require_tables(Dataset(settings.bigquery), create=settings.creates_tables)
