"""The command line of ``compact``: which days, and whether in earnest."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import OperatorError
from pipeline.options import DEFAULT_DATASET, Parser, parse_day
from transforms.moments import day_name


@dataclass(frozen=True)
class CompactOptions:
    """What ``sms-receipts compact`` was asked to do.

    Attributes:
        dataset: root of the tables.
        first: the first Beijing day, YYYY-MM-DD; None for no limit.
        last: the last one.
        dry_run: only say what would be rewritten.
    """

    dataset: str
    first: str | None
    last: str | None
    dry_run: bool


def compact_options(argv: Sequence[str]) -> CompactOptions:
    """Read the flags of ``compact``.

    Raises:
        OperatorError: a flag is wrong.
    """
    parser = Parser(
        prog="sms-receipts compact",
        description="Write the days of the tables anew as few files, sorted by biz_id (inbound SMS by phone "
        "number, failed events by message id). The rows stay what they are. Works alone, and beside "
        "sms-receipts run --follow, which commits what is ready between two epochs; readers go on. Days that "
        "are compact are left alone. Needs room on the disk for a second copy of what is rewritten: the "
        "files that were replaced are deleted ten minutes later, by the next command that writes.",
    )
    parser.add_argument("--from", dest="first", help="first Beijing day, YYYY-MM-DD (default: all)")
    parser.add_argument("--to", dest="last", help="last Beijing day, YYYY-MM-DD")
    parser.add_argument("--dataset", default=DEFAULT_DATASET, help="tables (default %(default)s)")
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="only say what would be rewritten; nothing is written",
    )
    flags = parser.parse_args(argv)
    first = _day("--from", flags.first)
    last = _day("--to", flags.last)
    if first and last and last < first:
        raise OperatorError("--to is before --from: swap them.")
    return CompactOptions(os.path.abspath(flags.dataset), first, last, flags.dry_run)


def _day(flag: str, text: str | None) -> str | None:
    return day_name(parse_day(flag, text)) if text else None
