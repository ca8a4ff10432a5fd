"""The command line of ``erase``: who, from where, and whether in earnest."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.errors import OperatorError
from pipeline.options import DEFAULT_ARCHIVE, DEFAULT_DATASET, Parser, directory
from transforms.phone_numbers import NotANumberError, Numbers, PhoneNumber

_STANDARD_INPUT: Final = "-"


@dataclass(frozen=True)
class EraseOptions:
    """What ``sms-receipts erase`` was asked to do; unless ``is_applied``, nothing is written.

    Attributes:
        numbers: the phone numbers of whom it is about.
        archive: root of the archive.
        dataset: root of the tables.
        send_log: glob of the send log's files, which are only looked through.
        is_applied: whether to erase.
        removes_unreadable: whether to remove what cannot be read, too.
    """

    numbers: Numbers
    archive: str
    dataset: str
    send_log: str | None
    is_applied: bool
    removes_unreadable: bool


def erase_options(argv: Sequence[str], standard_input: Iterable[str]) -> EraseOptions:
    """Read the flags of ``erase``, and the numbers.

    Raises:
        OperatorError: a flag is wrong, or a number is none; no number is repeated.
    """
    parser = Parser(
        prog="sms-receipts erase",
        description="Remove every record in which a phone number occurs, however it is written, from the "
        "tables, the failed events and the archive, and show that none is left. Without --apply nothing is "
        "written: it tells what would go. Nobody else may write to the dataset: stop sms-receipts run "
        "first, and start it again afterwards. The send log is yours: it is looked through, not changed.",
    )
    parser.add_argument(
        "--phone_number",
        "--phone",
        action="append",
        required=True,
        metavar="NUMBER|-",
        help="whom to erase: 11 digits on the mainland, country code and number elsewhere; may be repeated. "
        "- reads numbers from standard input, one a line: others on this machine see a command's flags, and "
        "the shell remembers them",
    )
    parser.add_argument(
        "--apply", action="store_true", help="erase in earnest; this cannot be undone"
    )
    parser.add_argument(
        "--remove_unreadable",
        action="store_true",
        help="also remove what cannot be read of damaged archive files, since the number may be in there",
    )
    parser.add_argument(
        "--archive", default=DEFAULT_ARCHIVE, help="raw messages (default %(default)s)"
    )
    parser.add_argument("--dataset", default=DEFAULT_DATASET, help="tables (default %(default)s)")
    parser.add_argument(
        "--send_log", help="glob of the send log, to tell which of its files hold the number"
    )
    flags, others = parser.parse_known_args(argv)
    if others:
        # It may be a number.
        raise OperatorError(
            f"{len(others)} arguments belong to no flag; {parser.prog} --help explains them."
        )
    return EraseOptions(
        numbers=Numbers(_numbers(flags.phone_number, standard_input)),
        archive=directory("--archive", flags.archive),
        dataset=directory("--dataset", flags.dataset),
        send_log=flags.send_log,
        is_applied=flags.apply,
        removes_unreadable=flags.remove_unreadable,
    )


def _numbers(given: Iterable[str], standard_input: Iterable[str]) -> list[PhoneNumber]:
    numbers = []
    for place, text in _texts(given, standard_input):
        try:
            numbers.append(PhoneNumber(text))
        except NotANumberError:
            raise OperatorError(
                f"{place} is no phone number: write 11 digits on the mainland, country code and number "
                "elsewhere."
            ) from None
    if not numbers:
        raise OperatorError("There is no phone number on standard input.")
    return numbers


def _texts(given: Iterable[str], standard_input: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Every number as it was given, and where."""
    for text in given:
        if text != _STANDARD_INPUT:
            yield "--phone_number", text
            continue
        for line, read in enumerate(standard_input, start=1):
            if read.strip():
                yield f"Line {line} of standard input", read.strip()
