"""The command line: flags, what they mean, and the settings that come of them."""

import argparse
import contextlib
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import Final, NamedTuple, NoReturn

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import create_runner

from pipeline.engines import Engine, flink_environment_flags, is_given
from pipeline.epochs import JobSettings
from pipeline.errors import OperatorError
from pipeline.mns.settings import MnsSettings
from transforms.breaker import DEFAULT_LIMIT, FailureLimit
from transforms.moments import DAY_MS, LATEST, day_number, to_ms

DEFAULT_ARCHIVE: Final = ".sms-receipts/archive"
DEFAULT_DATASET: Final = ".sms-receipts/dataset"
_MOST_LANDING_PROCESSES: Final = 64
_HIGHEST_PORT: Final = 65_535
DEFAULT_PATIENCE_SECS: Final = 72 * 3600
_LONGEST_PATIENCE_SECS: Final = 365 * 24 * 3600
# DirectRunner turns into Prism where its binary can be had, with other semantics; see DECISIONS.md.
_LOCAL_RUNNER: Final = "FnApiRunner"
_SPELLINGS: Final = {"DirectRunner": _LOCAL_RUNNER, "direct": _LOCAL_RUNNER}

# What the queue flags mean; their defaults are those of MnsSettings.
_MNS_FLAGS: Final = {
    "queues": "queues to read, comma separated, as the console names them (required)",
    "mns_endpoint": "http(s)://host[:port] of the account that owns the queues",
    "dybaseapi_endpoint": "http(s)://host[:port] of the service that hands out queue tokens",
    "wait_secs": "how long one receive waits for a message, 0-30",
    "drain_wait_secs": "the same with --until-empty",
    "fetchers": "receiving threads per queue; each does 16 messages a round trip",
    "ack_threads": "threads that acknowledge",
    "prefetch_messages": "messages received ahead of the archive",
    "max_bundle_messages": "an archive file closes at this many messages...",
    "max_bundle_secs": "...or at this age",
    "visibility_timeout_secs": "how long a renewed lease hides its message",
    "renewal_margin_secs": "a lease is renewed when less than this is left of it",
    "max_hold_secs": "a message held longer goes back to its queue",
    "start_tries": "tries before giving up on a service that has never answered",
    "stop_secs": "how long SIGTERM waits for answers of the queues, and for the epoch at hand",
}


class Address(NamedTuple):
    """Where to listen; port 0 is any free one."""

    host: str
    port: int


@dataclass(frozen=True)
class RunOptions:
    """What ``sms-receipts run`` was asked to do."""

    mns: MnsSettings
    job: JobSettings
    follow: bool
    epoch_secs: float
    landing_processes: int
    failure_limit: FailureLimit
    metrics_address: Address | None


@dataclass(frozen=True)
class BackfillOptions:
    """What ``sms-receipts backfill`` was asked to do; ``as_of`` None means now."""

    job: JobSettings
    days: range
    as_of: datetime | None


def run_options(argv: Sequence[str]) -> RunOptions:
    """Read the flags of ``run``.

    Raises:
        OperatorError: a flag is wrong or missing.
    """
    parser = Parser(
        prog="sms-receipts run",
        description="Take messages off the queues, archive and acknowledge them, and turn the archive "
        "into tables. Account keys come from Alibaba's credential chain, e.g. the environment variables "
        "ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET.",
        epilog="Every other flag is Beam's, e.g. --direct_num_workers.",
    )
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument(
        "--until-empty",
        "--until_empty",
        action="store_true",
        help="stop when the queues are empty and the archive is processed",
    )
    mode.add_argument("--follow", action="store_true", help="go on until SIGTERM or Ctrl-C")
    parser.add_argument(
        "--epoch_secs",
        type=float,
        default=10.0,
        help="with --follow: receive so long, then process (default %(default)s)",
    )
    parser.add_argument(
        "--landing_processes",
        type=int,
        default=1,
        help="processes that take messages off the queues, this one included: one per core that the "
        "queues can keep busy (default %(default)s)",
    )
    add_failure_limit_flags(parser)
    parser.add_argument(
        "--metrics_port",
        type=_address,
        metavar="[HOST:]PORT",
        help="serve metrics for Prometheus there; HOST is 127.0.0.1 unless given, PORT 0 is any free one",
    )
    add_job_flags(parser)
    add_queue_flags(parser)
    flags, beam_args = parser.parse_known_args(argv)
    if not 0 < flags.epoch_secs < math.inf:
        raise OperatorError("--epoch_secs must be a number more than 0.")
    if not 1 <= flags.landing_processes <= _MOST_LANDING_PROCESSES:
        raise OperatorError(f"--landing_processes must be 1-{_MOST_LANDING_PROCESSES}.")
    return RunOptions(
        mns=mns_settings(flags),
        job=job_settings(flags, beam_args),
        follow=flags.follow,
        epoch_secs=flags.epoch_secs,
        landing_processes=flags.landing_processes,
        failure_limit=failure_limit(flags),
        metrics_address=flags.metrics_port,
    )


def backfill_options(argv: Sequence[str]) -> BackfillOptions:
    """Read the flags of ``backfill``.

    Raises:
        OperatorError: a flag is wrong or missing.
    """
    parser = Parser(
        prog="sms-receipts backfill",
        description="Recompute days from the archive and the send log, and replace their partitions.",
        epilog="Every other flag is Beam's: --runner=FlinkRunner --flink_master=host:8081, say.",
    )
    parser.add_argument("--from", dest="first", required=True, help="first Beijing day, YYYY-MM-DD")
    parser.add_argument("--to", dest="last", required=True, help="last Beijing day, YYYY-MM-DD")
    parser.add_argument(
        "--as_of", help="measure patience against this moment (ISO 8601 with offset; default now)"
    )
    add_job_flags(parser)
    flags, beam_args = parser.parse_known_args(argv)
    first, last = parse_day("--from", flags.first), parse_day("--to", flags.last)
    if last < first:
        raise OperatorError("--to is before --from: swap them.")
    return BackfillOptions(
        job=job_settings(flags, beam_args),
        days=range(first, last + 1),
        as_of=_moment("--as_of", flags.as_of) if flags.as_of else None,
    )


class Parser(argparse.ArgumentParser):
    """Refuses wrong flags as every operator error is refused: one sentence, exit code 2."""

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        # Abbreviated flags would swallow those that are meant for Beam.
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Refuse."""
        raise OperatorError(f"{message}; {self.prog} --help explains the flags.")


def add_failure_limit_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say when too many messages cannot be decoded."""
    parser.add_argument(
        "--max_failed_share",
        type=float,
        default=DEFAULT_LIMIT.share,
        help="stop, with nothing more acknowledged, when more than this share of a queue's last messages "
        "cannot be decoded, 0-1; 1 never stops (default %(default)s)",
    )
    parser.add_argument(
        "--failed_share_window_messages",
        type=int,
        default=DEFAULT_LIMIT.window_messages,
        help="how many last messages that share is of (default %(default)s); while it has seen fewer than "
        "half as many, the missing ones count as good",
    )


def failure_limit(flags: argparse.Namespace) -> FailureLimit:
    """Make settings of those flags.

    Raises:
        OperatorError: a flag is wrong.
    """
    try:
        return FailureLimit(flags.max_failed_share, flags.failed_share_window_messages)
    except ValueError as error:
        raise OperatorError(f"{error}.") from None


def add_queue_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which queues are read, and how."""
    queues = parser.add_argument_group("queues")
    for setting in fields(MnsSettings):
        flag = setting.name if setting.name.endswith("_endpoint") else f"mns_{setting.name}"
        if setting.name == "queues":
            queues.add_argument("--mns_queues", required=True, help=_MNS_FLAGS["queues"])
            continue
        queues.add_argument(
            f"--{flag}",
            dest=setting.name,
            type=type(setting.default),
            default=setting.default,
            help=f"{_MNS_FLAGS[setting.name]} (default {setting.default})",
        )


def mns_settings(flags: argparse.Namespace) -> MnsSettings:
    """Make settings of those flags.

    Raises:
        OperatorError: a flag is wrong.
    """
    settings = {name: getattr(flags, name) for name in _MNS_FLAGS if name != "queues"}
    names = tuple(name.strip() for name in flags.mns_queues.split(",") if name.strip())
    try:
        return MnsSettings(queues=names, **settings)
    except ValueError as error:
        raise OperatorError(f"{error}.") from None


def add_job_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where archive, tables and send log are, and who runs the graph."""
    parser.add_argument(
        "--archive", default=DEFAULT_ARCHIVE, help="raw messages (default %(default)s)"
    )
    parser.add_argument("--dataset", default=DEFAULT_DATASET, help="tables (default %(default)s)")
    parser.add_argument("--send_log", help="glob of the send log: .jsonl, .avro or .parquet files")
    parser.add_argument(
        "--join_patience_secs",
        type=int,
        default=DEFAULT_PATIENCE_SECS,
        help="how long sends and reports wait for each other (default %(default)s, three days)",
    )
    parser.add_argument(
        "--runner",
        default=_LOCAL_RUNNER,
        help="Beam runner of the bounded graph (default %(default)s; DirectRunner means the same)",
    )


def job_settings(flags: argparse.Namespace, beam_args: Sequence[str]) -> JobSettings:
    """Make settings of those flags, and of all that no command knows: they are Beam's.

    Raises:
        OperatorError: a flag is wrong.
    """
    patience = parse_patience(flags.join_patience_secs)
    runner = _SPELLINGS.get(flags.runner, flags.runner)
    _require_runner(runner)
    require_beam_flags(beam_args, may_be_unknown=runner != _LOCAL_RUNNER)
    return JobSettings(
        archive=directory("--archive", flags.archive),
        dataset=directory("--dataset", flags.dataset),
        patience=patience,
        send_log=flags.send_log,
        beam_args=[f"--runner={runner}", *_environment(runner, beam_args), *beam_args],
    )


def _environment(runner: str, beam_args: Sequence[str]) -> list[str]:
    """Choose what runs the code on a Flink cluster, unless it was said; elsewhere Beam chooses well."""
    if runner != Engine.FLINK.value or is_given("--environment_type", beam_args):
        return []
    is_cluster = is_given("--flink_master", beam_args)
    return flink_environment_flags(None, None) if is_cluster else []


def parse_patience(secs: int) -> timedelta:
    """Read ``--join_patience_secs``.

    Raises:
        OperatorError: it is negative, or more than a year.
    """
    if not 0 <= secs <= _LONGEST_PATIENCE_SECS:
        raise OperatorError(f"--join_patience_secs must be 0-{_LONGEST_PATIENCE_SECS} (a year).")
    return timedelta(seconds=secs)


def directory(flag: str, path: str) -> str:
    """Read the name of a directory, as an absolute path.

    Raises:
        OperatorError: it is a URL, or nothing.
    """
    if not path or "://" in path:
        raise OperatorError(f"{flag} must be a directory of a file system, and not {path!r}.")
    return os.path.abspath(path)


def _require_runner(runner: str) -> None:
    try:
        create_runner(runner)
    except (ValueError, ImportError, AttributeError):
        raise OperatorError(
            f"There is no Beam runner {runner}: use FnApiRunner, PrismRunner, FlinkRunner or DataflowRunner."
        ) from None


def require_beam_flags(beam_args: Sequence[str], *, may_be_unknown: bool) -> None:
    """Refuse what nobody would read: Beam ignores what it does not know, so a slip would go unseen.

    Args:
        beam_args: flags that no command of ours knows.
        may_be_unknown: whether they may be unknown to Beam's Python, too: engines elsewhere have flags that
            only they know.

    Raises:
        OperatorError: a flag is wrong, or an argument belongs to none.
    """
    for before, argument in zip(["", *beam_args], beam_args, strict=False):
        if not argument.startswith("-") and ("=" in before or not before.startswith("--")):
            raise OperatorError(f"{argument!r} belongs to no flag: put a glob in quotes.")
    options = PipelineOptions(list(beam_args))
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            known = options.get_all_options()
            unknown = options.get_all_options(retain_unknown_options=True).keys() - known.keys()
    except SystemExit:
        # Beam prints the usage of all its flags, and at the end what is wrong.
        raise OperatorError(f"{shown.getvalue().strip().rpartition('error: ')[2]}.") from None
    if unknown and not may_be_unknown:
        raise OperatorError(f"There is no flag --{min(unknown)}: --help explains the flags.")


def _address(text: str) -> Address:
    """Read ``[HOST:]PORT``."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdecimal() or int(port) > _HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is no [HOST:]PORT, as 9464 is")
    return Address(host.strip("[]") or "127.0.0.1", int(port))


def parse_day(flag: str, text: str) -> int:
    """Read a Beijing day, ``YYYY-MM-DD``, as its number.

    Raises:
        OperatorError: it is none.
    """
    try:
        return day_number(date.fromisoformat(text).isoformat())
    except ValueError:
        raise OperatorError(f"{flag} must be a day, as 2026-11-01 is.") from None


def parse_days(first: str | None, last: str | None) -> range | None:
    """Read ``--from`` and ``--to`` as Beijing days; a missing one has no limit, and None has none at all.

    Raises:
        OperatorError: one is no day, or they are the wrong way round.
    """
    if first is None and last is None:
        return None
    start = parse_day("--from", first) if first else 0
    stop = parse_day("--to", last) + 1 if last else to_ms(LATEST) // DAY_MS
    if stop <= start:
        raise OperatorError("--to is before --from: swap them.")
    return range(start, stop)


def _moment(flag: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise OperatorError(
            f"{flag} must be a moment with its offset, as 2026-11-01T08:00:00+08:00 is."
        )
    return moment
