"""The command line of ``explain``: which send, and where to look for it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from pipeline.errors import OperatorError
from pipeline.options import (
    DEFAULT_ARCHIVE,
    DEFAULT_DATASET,
    DEFAULT_PATIENCE_SECS,
    Parser,
    parse_days,
    parse_patience,
)


@dataclass(frozen=True)
class ExplainOptions:
    """What ``sms-receipts explain`` was asked to do.

    Attributes:
        biz_id: the send.
        phone_number: the one recipient to tell about; None for all.
        archive: root of the archive.
        dataset: root of the tables.
        send_log: glob of the send log's files; None if the tables' word on it will do.
        patience: that of the job, to say until when something waits.
        days: the Beijing days (numbers) of the send; None to look it up in all of the tables.
        shows_personal_data: whether phone numbers and texts are shown as they are.
        json: print one JSON document.
    """

    biz_id: str
    phone_number: str | None = field(repr=False)
    archive: str
    dataset: str
    send_log: str | None
    patience: timedelta
    days: range | None
    shows_personal_data: bool
    json: bool


def explain_options(argv: Sequence[str]) -> ExplainOptions:
    """Read the flags of ``explain``.

    Raises:
        OperatorError: a flag is wrong or missing.
    """
    parser = Parser(
        prog="sms-receipts explain",
        description="Tell everything that is known about one send, in order of time: its send log entry, "
        "every archived message about it, what was decided when, and which file holds what; at the end what "
        "counts now, and what to do. Nothing is written, and sms-receipts run may go on meanwhile. The exit "
        "code is 2 if nothing is known.",
    )
    parser.add_argument("biz_id", metavar="BIZ_ID", help="as SendSms answered it; quote its ^")
    parser.add_argument(
        "--phone_number", help="only this recipient, spelled as it was given to SendSms"
    )
    parser.add_argument(
        "--from",
        dest="first",
        help="first Beijing day on which it may have been sent, YYYY-MM-DD; without days the tables are "
        "searched for it, all of them, and the archive only where these, or no epoch yet, have been",
    )
    parser.add_argument("--to", dest="last", help="last such day")
    parser.add_argument(
        "--show-personal-data",
        "--show_personal_data",
        action="store_true",
        help="print phone numbers and texts, which are masked and left out otherwise",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--archive", default=DEFAULT_ARCHIVE, help="raw messages (default %(default)s)"
    )
    parser.add_argument("--dataset", default=DEFAULT_DATASET, help="tables (default %(default)s)")
    parser.add_argument(
        "--send_log",
        help="glob of the send log, to be searched too: it also has what is not read yet",
    )
    parser.add_argument(
        "--join_patience_secs",
        type=int,
        default=DEFAULT_PATIENCE_SECS,
        help="that of the job (default %(default)s, three days)",
    )
    flags, others = parser.parse_known_args(argv)
    if others:
        # What was typed may be a phone number, so it is not repeated.
        raise OperatorError(
            f"There are too many arguments ({len(others)}): sms-receipts explain --help explains which "
            "there are, beside BIZ_ID."
        )
    if not flags.biz_id:
        raise OperatorError("BIZ_ID is empty.")
    return ExplainOptions(
        biz_id=flags.biz_id,
        phone_number=flags.phone_number,
        archive=os.path.abspath(flags.archive),
        dataset=os.path.abspath(flags.dataset),
        send_log=flags.send_log,
        patience=parse_patience(flags.join_patience_secs),
        days=parse_days(flags.first, flags.last),
        shows_personal_data=flags.show_personal_data,
        json=flags.json,
    )
