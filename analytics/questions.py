"""The questions: one SQL file each, whose opening comment says what it answers."""

from importlib import resources
from pathlib import Path
from typing import Final, NamedTuple

# Not questions, but what questions stand on; run in this order when a connection is opened.
SETUP: Final = ("err_code_meanings", "views")

# The order of the report. Questions that somebody added come after these, by name.
_ORDER: Final = (
    "overview",
    "latency",
    "failure_codes",
    "by_day",
    "by_template",
    "by_sign",
    "by_campaign",
    "replies",
    "open_sends",
    "unreported_sends",
    "query_answers",
    "failed_events",
    "unknown_fields",
)

_COMMENT: Final = "--"


class Question(NamedTuple):
    """One question: ``title`` is the first line of its file's comment, ``note`` the other lines."""

    name: str
    title: str
    note: str
    sql: str


def read_questions(sql_dir: Path | None) -> dict[str, Question]:
    """Read every question by its name, in the order of the report.

    Args:
        sql_dir: more questions; a file here takes the place of ours of the same name.
    """
    ours = resources.files("analytics") / "sql"
    names = {file.name for file in ours.iterdir()}
    if sql_dir is not None:
        names.update(file.name for file in sql_dir.iterdir())
    questions = {name.removesuffix(".sql") for name in names if name.endswith(".sql")}
    known = [name for name in _ORDER if name in questions]
    added = sorted(questions.difference(_ORDER, SETUP))
    return {name: _question(name, read_sql(name, sql_dir)) for name in (*known, *added)}


def read_sql(name: str, sql_dir: Path | None) -> str:
    """Read one SQL file: from ``sql_dir`` if it has it, else ours."""
    if sql_dir is not None and (theirs := sql_dir / f"{name}.sql").is_file():
        return theirs.read_text(encoding="utf-8")
    ours = resources.files("analytics") / "sql" / f"{name}.sql"
    return ours.read_text(encoding="utf-8")


def _question(name: str, sql: str) -> Question:
    comment = []
    for line in sql.splitlines():
        if not line.startswith(_COMMENT):
            break
        comment.append(line.removeprefix(_COMMENT).strip())
    title, *note = comment or [name]
    return Question(name, title, " ".join(note), sql)
