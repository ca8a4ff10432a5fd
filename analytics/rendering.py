"""Answers on paper: tables for people, one JSON document for machines."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from analytics.questions import Question

# A terminal shows this many rows of an answer; JSON always has all of them.
_ROWS_SHOWN: Final = 20
# A single row of more columns than these reads better downwards.
_COLUMNS_SIDE_BY_SIDE: Final = 10
# Where no terminal is, there is no width to respect.
_WIDTH_WITHOUT_TERMINAL: Final = 160
_NOTHING: Final = "–"
_STREAMED: Final = (
    "A stream keeps open sends and waiting reports in its engine's state: none are counted."
)


class Answer(NamedTuple):
    """A question's answer; every row has one value per column."""

    question: Question
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Report(NamedTuple):
    """The answers, and of what they are true; what a stream wrote has no epoch."""

    dataset: Path
    epoch: int | None
    as_of: datetime
    first_day: date | None
    last_day: date | None
    answers: Sequence[Answer]


def print_json(report: Report) -> None:
    """Print one JSON document; a value that does not exist (a rate of nothing) is null."""
    _dump(
        {
            "dataset": str(report.dataset),
            "epoch": report.epoch,
            **({"note": _STREAMED} if report.epoch is None else {}),
            "as_of": report.as_of,
            "from": report.first_day,
            "to": report.last_day,
            "answers": {
                answer.question.name: {
                    "question": answer.question.title,
                    "note": answer.question.note,
                    "rows": [
                        {
                            column: _finite(value)
                            for column, value in zip(answer.columns, row, strict=True)
                        }
                        for row in answer.rows
                    ],
                }
                for answer in report.answers
            },
        }
    )


def print_tables(report: Report) -> None:
    """Print one table per answer."""
    console = _console()
    period = f"{report.first_day or 'the first day'} to {report.last_day or 'the last'}"
    console.print(
        f"{report.dataset}, {f'epoch {report.epoch}, ' if report.epoch is not None else ''}"
        f"as of {report.as_of:%Y-%m-%d %H:%M:%S} UTC; "
        f"{period} (Beijing days)",
        markup=False,
        highlight=False,
    )
    if report.epoch is None:
        console.print(_STREAMED)
    for answer in report.answers:
        console.print(f"\n{answer.question.title}", style="bold")
        if answer.rows:
            console.print(_table(answer))
        else:
            console.print("  nothing")
        if len(answer.rows) > _ROWS_SHOWN:
            console.print(f"  {len(answer.rows) - _ROWS_SHOWN} more rows: --json has them all.")
        if answer.question.note:
            console.print(f"  {answer.question.note}", style="dim")


def print_questions(questions: Sequence[Question], *, as_json: bool) -> None:
    """Print which questions there are."""
    if as_json:
        _dump({question.name: question.title for question in questions})
        return
    table = Table("name", "question", box=box.SIMPLE_HEAD)
    for question in questions:
        table.add_row(question.name, question.title)
    _console().print(table)


def _console() -> Console:
    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    return Console(width=width, markup=False, highlight=False)


def _table(answer: Answer) -> Table:
    """Lay an answer out."""
    table = Table(box=box.SIMPLE_HEAD)
    names = [column.replace("_", " ") for column in answer.columns]
    if len(answer.rows) == 1 and len(names) > _COLUMNS_SIDE_BY_SIDE:
        table.show_header = False
        table.add_column()
        table.add_column(justify="right")
        for name, column, value in zip(names, answer.columns, answer.rows[0], strict=True):
            table.add_row(name, _text(column, value))
        return table
    for position, name in enumerate(names):
        is_number = any(isinstance(row[position], (int, float, Decimal)) for row in answer.rows)
        table.add_column(name, justify="right" if is_number else "left")
    for row in answer.rows[:_ROWS_SHOWN]:
        table.add_row(*map(_text, answer.columns, row))
    return table


def _text(column: str, value: object) -> str:
    """Write a value as people read it: shares in percent, thousands apart."""
    value = _finite(value)
    if value is None:
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and ("rate" in column or "share" in column):
        return f"{value:.2%}"
    if isinstance(value, (int, float, Decimal)):
        return f"{value:,}"
    return str(value)


def _finite(value: object) -> object:
    """Neither JSON nor people have a use for NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _dump(document: Mapping[str, object]) -> None:
    json.dump(document, sys.stdout, ensure_ascii=False, indent=2, default=_plain)
    sys.stdout.write("\n")


def _plain(value: object) -> object:
    """Spell what JSON has no type for."""
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    return str(value)
