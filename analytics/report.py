"""``sms-receipts report``: answers from the dataset, as tables in the terminal or as one JSON document."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from typing import Final, NoReturn

import duckdb

from analytics.catalog import DatasetError, Snapshot, read_tables
from analytics.connection import open_snapshot
from analytics.questions import Question, read_questions
from analytics.rendering import Answer, Report, print_json, print_questions, print_tables

_EXIT_OPERATOR_ERROR: Final = 2


class _UsageError(Exception):
    """Raised when the arguments ask for what cannot be; the text is one sentence with the fix."""


def main(argv: Sequence[str]) -> int:
    """Answer; return the exit code: 0, or 2 after one sentence on stderr that names cause and fix."""
    arguments = _parser().parse_args(argv)
    try:
        _require_sense(arguments)
        questions = read_questions(arguments.sql_dir)
        if arguments.sql == "list":
            print_questions(list(questions.values()), as_json=arguments.json)
            return 0
        report = _report(arguments, _choose(questions, arguments.sql, arguments.by))
    except (DatasetError, _UsageError) as error:
        print(f"sms-receipts report: {error}", file=sys.stderr)  # noqa: T201 -- a command speaks
        return _EXIT_OPERATOR_ERROR
    if arguments.json:
        print_json(report)
    else:
        print_tables(report)
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Refuse a wrong flag in one sentence."""
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help explains the flags.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sms-receipts report",
        description="Answer from the dataset as of its last committed epoch. Days are Beijing days.",
        epilog="Questions are SQL files: `--sql list` names them, --sql_dir adds or replaces some.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--dataset",
        type=Path,
        # Where `sms-receipts run` writes unless it is told otherwise.
        default=Path(".sms-receipts/dataset"),
        metavar="DIR",
        help="root of the tables, or the Parquet sink of a stream (default %(default)s)",
    )
    add("--from", dest="first_day", type=_day, metavar="YYYY-MM-DD", help="first day asked about")
    add("--to", dest="last_day", type=_day, metavar="YYYY-MM-DD", help="last day asked about")
    one_question = parser.add_mutually_exclusive_group()
    one_question.add_argument(
        "--by", metavar="WHAT", help="only the answer by day, template, sign or campaign"
    )
    one_question.add_argument(
        "--sql", metavar="NAME", help="only this question; `list` names the questions"
    )
    add("--sql_dir", type=Path, metavar="DIR", help="SQL files that replace or add to ours")
    add("--json", action="store_true", help="print one JSON document")
    return parser


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("expected a day as YYYY-MM-DD") from None


def _require_sense(arguments: argparse.Namespace) -> None:
    """Refuse what the argument parser cannot see."""
    first_day, last_day = arguments.first_day, arguments.last_day
    if first_day and last_day and first_day > last_day:
        raise _UsageError(f"--from {first_day} is after --to {last_day}: swap them.")
    if arguments.sql_dir is not None and not arguments.sql_dir.is_dir():
        raise _UsageError(
            f"--sql_dir {arguments.sql_dir} is no directory: name one with SQL files."
        )


def _choose(
    questions: Mapping[str, Question], name: str | None, by: str | None
) -> Sequence[Question]:
    if name is None and by is None:
        return list(questions.values())
    wanted = name if name is not None else f"by_{by}"
    if wanted not in questions:
        raise _UsageError(f"there is no question {wanted}: choose one of {', '.join(questions)}.")
    return [questions[wanted]]


def _report(arguments: argparse.Namespace, questions: Sequence[Question]) -> Report:
    """Ask all questions of one snapshot; of a newer one if a commit moved its files meanwhile."""
    for _ in range(2):
        snapshot = read_tables(arguments.dataset)
        try:
            answers = _ask(snapshot, arguments, questions)
        except duckdb.IOException:
            continue
        return Report(
            dataset=arguments.dataset,
            epoch=snapshot.epoch,
            as_of=snapshot.as_of,
            first_day=arguments.first_day,
            last_day=arguments.last_day,
            answers=answers,
        )
    raise DatasetError(
        f"A file of the dataset at {arguments.dataset} cannot be read: check the disk and your "
        "rights, or recompute its day with `sms-receipts backfill`."
    )


def _ask(
    snapshot: Snapshot, arguments: argparse.Namespace, questions: Sequence[Question]
) -> Sequence[Answer]:
    with _naming("the views"):
        connection = open_snapshot(
            snapshot, arguments.first_day, arguments.last_day, arguments.sql_dir
        )
    answers = []
    with closing(connection):
        for question in questions:
            with _naming(f"the question {question.name}"):
                cursor = connection.execute(question.sql)
                columns = [column[0] for column in cursor.description or ()]
                answers.append(Answer(question, columns, cursor.fetchall()))
    return answers


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Turn an error in somebody's SQL into a sentence.

    What DuckDB says about the text of a statement helps its author; what it says about data may quote
    a phone number, and stays out.
    """
    try:
        yield
    except (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException) as error:
        raise _UsageError(f"{what} cannot be asked: {error}") from error
    except duckdb.IOException:
        raise
    except duckdb.Error as error:
        raise _UsageError(
            f"{what} cannot be answered ({type(error).__name__}): correct its SQL."
        ) from error
