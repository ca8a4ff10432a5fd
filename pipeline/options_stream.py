"""The flags of ``sms-receipts stream``."""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from pipeline.engines import (
    PRISM_FLAGS,
    Engine,
    FlinkSettings,
    engine_of,
    flink_environment_flags,
    is_given,
    require_dataflow,
)
from pipeline.errors import EngineError, OperatorError
from pipeline.mns.settings import MnsSettings
from pipeline.options import (
    DEFAULT_ARCHIVE,
    DEFAULT_PATIENCE_SECS,
    Parser,
    add_failure_limit_flags,
    add_queue_flags,
    failure_limit,
    mns_settings,
    parse_patience,
    require_beam_flags,
)
from pipeline.pubsub.settings import PubSubSettings
from transforms.breaker import FailureLimit
from transforms.join import Joining

# MNS keeps a message for seven days at most: so long a report may come again.
_DEFAULT_MEMORY_SECS: Final = 7 * 24 * 3600
_LONGEST_MEMORY_SECS: Final = 400 * 24 * 3600
_DEFAULT_BUCKETS: Final = 16
_MOST_BUCKETS: Final = 1024
_POSITIONS: Final = "send-log-positions.json"
_FOLLOWS_FOREVER: Final = "--shutdown_sources_after_idle_ms"


@dataclass(frozen=True)
class SinkSettings:
    """Where rows go; at least one is set.

    Attributes:
        parquet: directory of Parquet files, local or in an object store.
        avro: directory of Avro files.
        file_secs: a row is in a file after at most so long.
        topics: ``projects/P/topics/PREFIX`` of Pub/Sub topics.
        creates_topics: whether those that are missing are made.
        bigquery: ``PROJECT.DATASET``.
        creates_tables: whether its tables that are missing are made.
    """

    parquet: str | None = None
    avro: str | None = None
    file_secs: float = 60.0
    topics: str | None = None
    creates_topics: bool = False
    bigquery: str | None = None
    creates_tables: bool = False

    def __post_init__(self) -> None:
        """Refuse a stream that leads nowhere."""
        if not (self.parquet or self.avro or self.topics or self.bigquery):
            raise ValueError(
                "Rows need a place to go: give one or more of --parquet_sink, --avro_sink, --pubsub_sink and "
                "--bigquery_sink"
            )
        if not 0 < self.file_secs < math.inf:
            raise ValueError("--file_sink_secs must be a number more than 0")


@dataclass(frozen=True)
class StreamOptions:
    """What ``sms-receipts stream`` was asked to do.

    Attributes:
        engine: who runs the graph.
        flink: how it runs there, if that is Flink.
        mns: the queues, and how to read them.
        subscriptions: Pub/Sub subscriptions of the send log.
        send_log: glob of the send log's files; None if it comes by Pub/Sub, or there is none.
        send_log_positions: the file that says how far they were read.
        archive: raw messages; a directory that all workers see, or a place in an object store.
        poll_secs: how long a reader that found nothing waits before it looks again.
        limit: how many messages may fail to decode.
        joining: how reports meet their sends.
        sinks: where rows go.
        job_name: what the engine calls the job.
        is_detached: leave once the job runs.
        beam_args: flags for Beam, ``--runner`` among them.
    """

    engine: Engine
    flink: FlinkSettings | None
    mns: MnsSettings
    subscriptions: tuple[PubSubSettings, ...]
    send_log: str | None
    send_log_positions: str
    archive: str
    poll_secs: float
    limit: FailureLimit
    joining: Joining
    sinks: SinkSettings
    job_name: str
    is_detached: bool
    beam_args: Sequence[str]

    @property
    def readers(self) -> int:
        """How many readers share a queue."""
        return self.flink.parallelism if self.flink is not None else 1


def stream_options(argv: Sequence[str]) -> StreamOptions:
    """Read the flags of ``stream``.

    Raises:
        OperatorError: a flag is wrong or missing, or the engine cannot stream.
    """
    parser = _parser()
    flags, beam_args = parser.parse_known_args(argv)
    engine = engine_of(flags.runner)
    if is_given(_FOLLOWS_FOREVER, beam_args):
        raise EngineError(
            f"{_FOLLOWS_FOREVER} ends a stream before its rows have left: leave it out; a signal stops it."
        )
    if flags.detach and engine is not Engine.FLINK:
        raise EngineError(f"--detach is for Flink: on {engine.value} leave it out.")
    if flags.send_log and engine is Engine.DATAFLOW:
        raise EngineError(
            "--send_log follows files of one machine, and Dataflow's come and go: publish the send log and "
            "use --send_log_subscription."
        )
    try:
        flink = _flink_settings(flags) if engine is Engine.FLINK else None
        sinks = SinkSettings(
            parquet=_place("--parquet_sink", flags.parquet_sink),
            avro=_place("--avro_sink", flags.avro_sink),
            file_secs=flags.file_sink_secs,
            topics=flags.pubsub_sink,
            creates_topics=flags.create_topics,
            bigquery=flags.bigquery_sink,
            creates_tables=flags.create_tables,
        )
        joining = _joining(flags)
        subscriptions = _subscriptions(flags, flink)
    except ValueError as error:
        raise OperatorError(f"{error}.") from None
    mns = mns_settings(flags)
    if not 0 < flags.poll_secs < math.inf:
        raise OperatorError("--poll_secs must be a number more than 0.")
    if flink is not None:
        _require_hold(mns, flink)
    require_beam_flags(beam_args, may_be_unknown=engine is not Engine.PRISM)
    return StreamOptions(
        engine=engine,
        flink=flink,
        mns=mns,
        subscriptions=subscriptions,
        send_log=flags.send_log,
        send_log_positions=_positions(flags),
        archive=_place("--archive", flags.archive) or "",
        poll_secs=flags.poll_secs,
        limit=failure_limit(flags),
        joining=joining,
        sinks=sinks,
        job_name=flags.job_name,
        is_detached=flags.detach,
        beam_args=[*_engine_flags(engine, flink, flags), *beam_args],
    )


def _parser() -> Parser:
    parser = Parser(
        prog="sms-receipts stream",
        description="Run without end on an engine that keeps state: take messages off the queues, archive "
        "and acknowledge them, join reports with their sends, and send the rows to sinks. SIGTERM or Ctrl-C "
        "stops it.",
        epilog="Every other flag is Beam's or the engine's, and handed on.",
    )
    parser.add_argument(
        "--runner", required=True, help="PrismRunner (for trials), FlinkRunner or DataflowRunner"
    )
    parser.add_argument(
        "--archive",
        default=DEFAULT_ARCHIVE,
        help="raw messages: a directory that all workers see, or a URL of an object store (default "
        "%(default)s)",
    )
    group = parser.add_argument_group("the send log")
    send_log = group.add_mutually_exclusive_group()
    send_log.add_argument(
        "--send_log_subscription",
        action="append",
        default=[],
        metavar="projects/P/subscriptions/S",
        help="Pub/Sub subscription that brings it; may be repeated",
    )
    send_log.add_argument(
        "--send_log", help="glob of .jsonl files to follow, for one reader on one machine"
    )
    group.add_argument(
        "--send_log_positions",
        metavar="FILE",
        help="says how far the files were read (default: send-log-positions.json in the archive's directory)",
    )
    _add_join_flags(parser)
    _add_sink_flags(parser)
    add_failure_limit_flags(parser)
    _add_engine_flags(parser)
    add_queue_flags(parser)
    return parser


def _add_join_flags(parser: argparse.ArgumentParser) -> None:
    join = parser.add_argument_group("the join")
    join.add_argument(
        "--join_patience_secs",
        type=int,
        default=DEFAULT_PATIENCE_SECS,
        help="how long sends and reports wait for each other (default %(default)s, three days)",
    )
    join.add_argument(
        "--join_memory_secs",
        type=int,
        default=_DEFAULT_MEMORY_SECS,
        help="how long what has left is remembered, to know repeats and corrections; no shorter than the "
        "patience (default %(default)s, seven days)",
    )
    join.add_argument(
        "--join_buckets",
        type=int,
        default=_DEFAULT_BUCKETS,
        help="how many parts the join's state is cut into: eight for each task, since a bundle pays for "
        "each; a job that goes on from a savepoint keeps its number (default %(default)s)",
    )


def _add_sink_flags(parser: argparse.ArgumentParser) -> None:
    sinks = parser.add_argument_group("sinks, one at least")
    sinks.add_argument(
        "--parquet_sink", metavar="DIRECTORY", help="Parquet files, by table and day"
    )
    sinks.add_argument("--avro_sink", metavar="DIRECTORY", help="Avro files, by table and day")
    sinks.add_argument(
        "--file_sink_secs",
        type=float,
        default=60.0,
        help="a row is in a file after at most so long (default %(default)s)",
    )
    sinks.add_argument(
        "--pubsub_sink",
        metavar="projects/P/topics/PREFIX",
        help="Pub/Sub topics with Avro schemas: PREFIX-enriched-reports and so on",
    )
    sinks.add_argument(
        "--create_topics",
        action="store_true",
        help="make topics and schemas that are missing; a topic keeps nothing for later subscriptions",
    )
    sinks.add_argument("--bigquery_sink", metavar="PROJECT.DATASET", help="BigQuery tables")
    sinks.add_argument(
        "--create_tables", action="store_true", help="make BigQuery tables that are missing"
    )


def _add_engine_flags(parser: argparse.ArgumentParser) -> None:
    engine = parser.add_argument_group("the engine")
    engine.add_argument(
        "--job_name",
        default="sms-receipts",
        help="what the engine calls the job (default %(default)s)",
    )
    engine.add_argument(
        "--poll_secs",
        type=float,
        default=0.5,
        help="how long a reader that found nothing more waits before it looks again; a look takes no more "
        "than --mns_prefetch_messages, and makes an archive file (default %(default)s)",
    )
    engine.add_argument(
        "--environment_type",
        help="what runs the Python code; Prism: this process; Flink: PROCESS, a program of this package on "
        "the task managers' machines, or DOCKER",
    )
    engine.add_argument("--environment_config", help="its settings, as Beam wants them")
    flink = parser.add_argument_group("Flink")
    flink.add_argument("--flink_master", metavar="HOST:PORT", help="the cluster's REST API")
    flink.add_argument(
        "--checkpointing_interval",
        type=int,
        help="milliseconds between checkpoints; what is acknowledged waits for two (required)",
    )
    flink.add_argument(
        "--min_pause_between_checkpoints",
        type=int,
        default=FlinkSettings.min_pause_between_checkpoints_ms,
        help="milliseconds from the end of one to the beginning of the next (default %(default)s)",
    )
    flink.add_argument(
        "--max_bundle_time_mills",
        type=int,
        default=FlinkSettings.max_bundle_time_ms,
        help="milliseconds that Flink keeps a bundle open (default %(default)s)",
    )
    flink.add_argument(
        "--parallelism",
        type=int,
        default=FlinkSettings.parallelism,
        help="tasks that read, join and write; a queue has as many readers (default %(default)s)",
    )
    flink.add_argument("--savepoint_path", help="go on from this savepoint, or retained checkpoint")
    flink.add_argument(
        "--savepoint_directory",
        help="where a stop leaves its savepoint (default: what the cluster is configured for)",
    )
    flink.add_argument(
        "--detach", action="store_true", help="leave once the job runs, and say how it is stopped"
    )


def _flink_settings(flags: argparse.Namespace) -> FlinkSettings:
    if flags.flink_master is None or flags.checkpointing_interval is None:
        missing = "flink_master" if flags.flink_master is None else "checkpointing_interval"
        raise ValueError(
            f"--{missing} is missing: FlinkRunner needs the address of a cluster's REST API "
            "(--flink_master=127.0.0.1:8081), and checkpoints (--checkpointing_interval=10000, in "
            "milliseconds): only they keep state, and only they let messages be acknowledged"
        )
    return FlinkSettings(
        master=flags.flink_master,
        checkpointing_interval_ms=flags.checkpointing_interval,
        parallelism=flags.parallelism,
        min_pause_between_checkpoints_ms=flags.min_pause_between_checkpoints,
        max_bundle_time_ms=flags.max_bundle_time_mills,
        savepoint_path=flags.savepoint_path,
        savepoint_directory=flags.savepoint_directory,
    )


def _joining(flags: argparse.Namespace) -> Joining:
    patience = parse_patience(flags.join_patience_secs)
    if not (flags.send_log or flags.send_log_subscription):
        patience = timedelta()  # nobody to wait for: reports leave at once, as in sms-receipts run
    if not flags.join_patience_secs <= flags.join_memory_secs <= _LONGEST_MEMORY_SECS:
        raise ValueError(
            f"--join_memory_secs must be from --join_patience_secs to {_LONGEST_MEMORY_SECS}"
        )
    if not 1 <= flags.join_buckets <= _MOST_BUCKETS:
        raise ValueError(f"--join_buckets must be 1-{_MOST_BUCKETS}")
    return Joining(flags.join_buckets, patience, timedelta(seconds=flags.join_memory_secs))


def _positions(flags: argparse.Namespace) -> str:
    if flags.send_log_positions is None and flags.send_log and "://" in flags.archive:
        raise OperatorError(
            "--send_log_positions is missing: how far the send log's files were read is noted on their "
            "machine, and not in an object store."
        )
    positions: str = flags.send_log_positions or os.path.join(flags.archive, _POSITIONS)
    return os.path.abspath(positions)


def _subscriptions(
    flags: argparse.Namespace, flink: FlinkSettings | None
) -> tuple[PubSubSettings, ...]:
    names = flags.send_log_subscription
    if len(set(names)) != len(names):
        raise ValueError("--send_log_subscription names one twice: name each once")
    if flink is None:
        return tuple(map(PubSubSettings, names))
    # Twice, since checkpoints take time, and messages wait ahead of the bundle. No longer: where a task moves
    # and its old worker lives on, that one keeps for so long what it has handed out, and reports wait, and
    # may leave, without these sends.
    hold_secs = max(PubSubSettings.max_hold_secs, 2 * flink.longest_unacknowledged_secs)
    return tuple(
        PubSubSettings(name, readers=flink.parallelism, max_hold_secs=hold_secs) for name in names
    )


def _require_hold(mns: MnsSettings, flink: FlinkSettings) -> None:
    needed = flink.longest_unacknowledged_secs + mns.max_bundle_secs
    if mns.max_hold_secs < needed:
        raise OperatorError(
            f"--mns_max_hold_secs={mns.max_hold_secs:g} is too short for --checkpointing_interval="
            f"{flink.checkpointing_interval_ms}: a message is acknowledged with the second checkpoint after "
            f"it was read, so it is held for up to {needed:g} s, a restart included."
        )


def _engine_flags(
    engine: Engine, flink: FlinkSettings | None, flags: argparse.Namespace
) -> list[str]:
    given, config = flags.environment_type, flags.environment_config
    general = [f"--runner={engine.value}", "--streaming", f"--job_name={flags.job_name}"]
    if flink is not None:
        return [*general, *flink.flags(), *flink_environment_flags(given, config)]
    if engine is Engine.DATAFLOW:
        require_dataflow()
        environment = {"type": given, "config": config}
        return general + [
            f"--environment_{key}={set_}" for key, set_ in environment.items() if set_
        ]
    if given not in {None, "LOOPBACK"} or config is not None:
        raise EngineError(
            "On PrismRunner the code runs in this process, or it could not be told to stop: leave out "
            "--environment_type and --environment_config."
        )
    return [*general, "--environment_type=LOOPBACK", *PRISM_FLAGS]


def _place(flag: str, path: str | None) -> str | None:
    """A directory, made absolute, or a URL as it is."""
    if path is None:
        return None
    if not path:
        raise OperatorError(f"{flag} must be a directory, or a URL of an object store.")
    return path if "://" in path else os.path.abspath(path)
