"""The command lines of ``reconcile`` and ``audit``: what history is asked about, and how."""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final
from urllib.parse import urlsplit

from pipeline.epochs import JobSettings
from pipeline.errors import OperatorError
from pipeline.options import DEFAULT_DATASET, Parser, add_job_flags, job_settings, parse_day
from pipeline.sms_api import DYSMSAPI_ENDPOINT, MOST_QUERIES_PER_SEC, QUERY_DAYS
from transforms.moments import day_name

_MOST_WORKERS: Final = 256
# QuerySendStatistics (397330).
_TEMPLATE_TYPES: Final = (0, 1, 2, 3, 7)
_LONGEST_SECS: Final = QUERY_DAYS * 24 * 3600


@dataclass(frozen=True)
class ReconcileOptions:
    """What ``sms-receipts reconcile`` was asked to do.

    Attributes:
        job: archive, dataset and how they are processed.
        dysmsapi_endpoint: ``http(s)://host[:port]`` of the SMS API.
        after: how old a send must be: most reports come by themselves.
        again_after: how long an answer stands that was no verdict, before the question is asked again.
        questions_per_sec: of all workers together.
        workers: lanes in which Beam may ask, each with its share of the rate.
        first: the first Beijing day of the sends; None for as far back as Alibaba answers.
        last: the last one; None for no limit.
        every: ask again and again, so often; None for once.
        dry_run: only say what would be asked.
    """

    job: JobSettings
    dysmsapi_endpoint: str
    after: timedelta
    again_after: timedelta
    questions_per_sec: float
    workers: int
    first: date | None
    last: date | None
    every: timedelta | None
    dry_run: bool


@dataclass(frozen=True)
class AuditOptions:
    """What ``sms-receipts audit`` was asked to do: compare Beijing days.

    ``template_codes`` are the templates of ``template_type``: the tables know codes, Alibaba's totals types.
    ``tolerance`` is a share.
    """

    dataset: str
    dysmsapi_endpoint: str
    first: date
    last: date
    sign_name: str | None
    template_type: int | None
    template_codes: Sequence[str] | None
    tolerance: float
    json: bool


def reconcile_options(argv: Sequence[str]) -> ReconcileOptions:
    """Read the flags of ``reconcile``.

    Raises:
        OperatorError: a flag is wrong or missing.
    """
    parser = Parser(
        prog="sms-receipts reconcile",
        description="Ask Alibaba (QuerySendDetails) what became of the sends that no report has come for, "
        f"as far as {QUERY_DAYS} days back, and bring the answers into the tables. Works alone, and beside "
        "sms-receipts run --follow. Account keys come from Alibaba's credential chain; the RAM user needs "
        "dysms:QuerySendDetails.",
        epilog="Every other flag is Beam's: --runner=FlinkRunner --flink_master=host:8081, say.",
    )
    parser.add_argument("--from", dest="first", help="first Beijing day of the sends, YYYY-MM-DD")
    parser.add_argument("--to", dest="last", help="last Beijing day of the sends, YYYY-MM-DD")
    parser.add_argument("--follow", action="store_true", help="go on until SIGTERM or Ctrl-C")
    parser.add_argument(
        "--every_secs",
        type=float,
        default=300.0,
        help="with --follow: look for such sends so often (default %(default)s)",
    )
    parser.add_argument(
        "--after_secs",
        type=float,
        default=3600.0,
        help="ask about sends that are older than this (default %(default)s)",
    )
    parser.add_argument(
        "--again_after_secs",
        type=float,
        default=24 * 3600.0,
        help="ask again about a send that Alibaba had no verdict on, so long after (default %(default)s)",
    )
    parser.add_argument(
        "--qps",
        type=float,
        default=50.0,
        help="questions a second, of all workers together; Alibaba takes "
        f"{MOST_QUERIES_PER_SEC:,} from an account (default %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="lanes that Beam may give to as many workers; one manages some 300 questions a second. "
        "FnApiRunner needs --direct_num_workers as well (default %(default)s)",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="only say how many calls it would take, and how long"
    )
    _add_endpoint_flag(parser)
    add_job_flags(parser)
    flags, beam_args = parser.parse_known_args(argv)
    if flags.follow and (flags.first or flags.last):
        raise OperatorError(
            "--follow asks about all sends: leave out --from and --to, or --follow."
        )
    if not flags.send_log:
        raise OperatorError(
            "--send_log is missing: only the send log knows which sends to ask about."
        )
    first, last = _days(flags.first, flags.last)
    if not 0 < flags.qps <= MOST_QUERIES_PER_SEC:
        raise OperatorError(f"--qps must be more than 0, and {MOST_QUERIES_PER_SEC} at most.")
    if not 1 <= flags.workers <= _MOST_WORKERS:
        raise OperatorError(f"--workers must be 1-{_MOST_WORKERS}.")
    if not 0 < flags.every_secs < math.inf:
        raise OperatorError("--every_secs must be a number more than 0.")
    return ReconcileOptions(
        job=job_settings(flags, beam_args),
        dysmsapi_endpoint=_endpoint(flags.dysmsapi_endpoint),
        after=_duration("--after_secs", flags.after_secs),
        again_after=_duration("--again_after_secs", flags.again_after_secs),
        questions_per_sec=flags.qps,
        workers=flags.workers,
        first=first,
        last=last,
        every=timedelta(seconds=flags.every_secs) if flags.follow else None,
        dry_run=flags.dry_run,
    )


def audit_options(argv: Sequence[str]) -> AuditOptions:
    """Read the flags of ``audit``.

    Raises:
        OperatorError: a flag is wrong or missing.
    """
    parser = Parser(
        prog="sms-receipts audit",
        description="Compare the tables with Alibaba's own totals of each day (QuerySendStatistics). The "
        "exit code is 0 if every day is within the tolerance, 1 if one is not. Account keys come from "
        "Alibaba's credential chain; the RAM user needs dysms:QuerySendStatistics.",
    )
    parser.add_argument("--from", dest="first", required=True, help="first Beijing day, YYYY-MM-DD")
    parser.add_argument("--to", dest="last", required=True, help="last Beijing day, YYYY-MM-DD")
    parser.add_argument("--sign_name", help="only the SMS of this sign")
    parser.add_argument(
        "--template_type",
        type=int,
        choices=_TEMPLATE_TYPES,
        help="only the SMS of templates of this type (0 verification code, 1 notification, 2 promotion, "
        "3 abroad, 7 digital); needs their codes",
    )
    parser.add_argument(
        "--template_code",
        dest="template_codes",
        action="append",
        help="with --template_type: a template of it, as the send log names it; once for each",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.001,
        help="the share of a day's SMS that may be missing or wrong (default %(default)s)",
    )
    parser.add_argument("--dataset", default=DEFAULT_DATASET, help="tables (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    _add_endpoint_flag(parser)
    flags = parser.parse_args(argv)
    first, last = _days(flags.first, flags.last)
    if first is None or last is None:
        raise OperatorError("--from and --to must be days, as 2026-11-01 is.")
    if (flags.template_type is None) != (flags.template_codes is None):
        raise OperatorError(
            "--template_type and --template_code go together: Alibaba counts by the type of a template, the "
            "send log names its code."
        )
    if not 0 <= flags.tolerance <= 1:
        raise OperatorError("--tolerance must be a share from 0 to 1, as 0.001 is.")
    return AuditOptions(
        dataset=os.path.abspath(flags.dataset),
        dysmsapi_endpoint=_endpoint(flags.dysmsapi_endpoint),
        first=first,
        last=last,
        sign_name=flags.sign_name,
        template_type=flags.template_type,
        template_codes=flags.template_codes,
        tolerance=flags.tolerance,
        json=flags.json,
    )


def _add_endpoint_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dysmsapi_endpoint",
        default=DYSMSAPI_ENDPOINT,
        help="http(s)://host[:port] of the SMS API (default %(default)s)",
    )


def _endpoint(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or parts.path not in {"", "/"}:
        raise OperatorError(
            f"--dysmsapi_endpoint must be http(s)://host[:port], as {DYSMSAPI_ENDPOINT} is."
        )
    return text.rstrip("/")


def _days(first: str | None, last: str | None) -> tuple[date | None, date | None]:
    first_day = _day("--from", first) if first else None
    last_day = _day("--to", last) if last else None
    if first_day and last_day and last_day < first_day:
        raise OperatorError("--to is before --from: swap them.")
    return first_day, last_day


def _day(flag: str, text: str) -> date:
    return date.fromisoformat(day_name(parse_day(flag, text)))


def _duration(flag: str, secs: float) -> timedelta:
    if not 0 <= secs <= _LONGEST_SECS:
        raise OperatorError(f"{flag} must be 0-{_LONGEST_SECS} ({QUERY_DAYS} days).")
    return timedelta(seconds=secs)
