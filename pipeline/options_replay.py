"""The command line of ``replay``: which failed events, and whether in earnest."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.epochs import JobSettings
from pipeline.options import Parser, add_job_flags, job_settings, parse_days
from schemas.contracts import contract, contract_names
from transforms.replay import Choice


@dataclass(frozen=True)
class ReplayOptions:
    """What ``sms-receipts replay`` was asked to do; unless ``is_applied``, nothing is written."""

    job: JobSettings
    choice: Choice
    is_applied: bool


def replay_options(argv: Sequence[str]) -> ReplayOptions:
    """Read the flags of ``replay``.

    Raises:
        OperatorError: a flag is wrong.
    """
    parser = Parser(
        prog="sms-receipts replay",
        description="Decode failed events once more, from their original bytes and with the decoders of "
        "this version. Without --apply nothing is written: it tells what would succeed. With it, what "
        "succeeds is joined and comes into the tables, and leaves the open failed events; what fails again "
        "counts one more attempt. Flags of different names narrow the choice, those of one name widen it.",
        epilog="Every other flag is Beam's: --runner=FlinkRunner --flink_master=host:8081, say.",
    )
    parser.add_argument(
        "--apply",
        action="store_true",
        help="replay in earnest; nobody else may write to the dataset",
    )
    failed_event = contract("failed_event")
    for flag, known in (
        ("reason", failed_event.symbols("reason")),
        ("stage", failed_event.symbols("stage")),
        ("schema", contract_names()),
    ):
        parser.add_argument(
            f"--{flag}",
            action="append",
            default=[],
            choices=known,
            metavar=flag.upper(),
            help=f"only those that failed with this {flag}, of {', '.join(known)}; may be repeated",
        )
    parser.add_argument(
        "--message_id",
        action="append",
        default=[],
        help="only this message, or FILE#POSITION of the send log; may be repeated",
    )
    parser.add_argument(
        "--from",
        dest="first",
        help="first Beijing day, YYYY-MM-DD, on which messages were enqueued and send log entries failed",
    )
    parser.add_argument("--to", dest="last", help="last such day")
    add_job_flags(parser)
    flags, beam_args = parser.parse_known_args(argv)
    return ReplayOptions(
        job=job_settings(flags, beam_args),
        choice=Choice(
            reasons=frozenset(flags.reason),
            stages=frozenset(flags.stage),
            schemas=frozenset(flags.schema),
            message_ids=frozenset(flags.message_id),
            days=parse_days(flags.first, flags.last),
        ),
        is_applied=flags.apply,
    )
