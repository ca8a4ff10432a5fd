"""What a stream has left behind: rows of its sinks, told apart by their ids, and messages of its archive."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq

from tests.engines.load import Books
from transforms.row_ids import row_ids

Row: TypeAlias = dict[str, Any]


@dataclass
class Found(Books):
    """The books as the rows have them, and what no books should have."""

    # (message that speaks for an outcome, another one of the same outcome that has a row, too)
    second_rows: set[tuple[str, str]] = field(default_factory=set)
    misranked: set[str] = field(default_factory=set)  # event ids
    doubled_failures: set[str] = field(default_factory=set)  # message ids


def parquet_rows(directory: Path, table: str) -> list[Row]:
    """Rows of a table in Parquet files, repeats left out as readers leave them out."""
    files = _files(directory, table, "parquet")
    return _once(table, [pq.ParquetFile(file).read() for file in files])


def avro_rows(directory: Path, table: str) -> list[Row]:
    """The same of Avro files."""
    rows: list[Any] = []
    for file in _files(directory, table, "avro"):
        with file.open("rb") as opened:
            rows += fastavro.reader(opened)
    return _once(table, [pa.Table.from_pylist(rows)] if rows else [])


def archived_ids(archive: Path) -> Counter[str]:
    """Ids of the messages of queues in the archive, and how often each is there."""
    return _archived(archive, "Alicom-Queue-*")


def archived_sends(archive: Path) -> int:
    """How many lines of the send log are in the archive."""
    return len(_archived(archive, "send-log-files"))


def _archived(archive: Path, queues: str) -> Counter[str]:
    ids: Counter[str] = Counter()
    for file in archive.glob(f"{queues}/landed=*/*.avro"):
        with file.open("rb") as opened:
            ids.update(str(row["message_id"]) for row in _messages(opened))
    return ids


def found(directory: Path, read: Callable[[Path, str], list[Row]] = parquet_rows) -> Found:
    """The books as the rows have them; ``read`` gives each row once."""
    rows = Found()
    outcomes: dict[tuple[str, str], list[Row]] = {}
    for row in read(directory, "enriched_reports"):
        outcomes.setdefault((row["event_id"], row["err_code"]), []).append(row)
    current = {outcome: min(written, key=_precedence) for outcome, written in outcomes.items()}
    revisions: dict[str, list[int]] = {}
    for (key, code), row in sorted(current.items(), key=lambda item: int(item[1]["revision"])):
        rows.last_outcome[key] = code
        rows.matches[key] = row["match"]
        revisions.setdefault(key, []).append(row["revision"])
    rows.outcomes = set(current)
    rows.misranked = {
        key for key, ranks in revisions.items() if ranks != list(range(1, len(ranks) + 1))
    }
    rows.second_rows = {
        (current[outcome]["message_id"], row["message_id"])
        for outcome, written in outcomes.items()
        for row in written
        if row["message_id"] != current[outcome]["message_id"]
    }
    rows.unreported = {row["event_id"] for row in read(directory, "unreported_sends")}
    rows.replies = len(read(directory, "inbound_sms"))
    failures = Counter(row["message_id"] for row in read(directory, "failed_events"))
    rows.unusable = set(failures)
    rows.doubled_failures = {key for key, count in failures.items() if count > 1}
    return rows


def _precedence(row: Row) -> tuple[Any, ...]:
    """The earliest report of an outcome speaks for it, in its newest rank, with its send."""
    return row["enqueued_at"], row["message_id"], -row["revision"], row["match"] == "orphan"


def differences(books: Books, rows: Found, archive: Path, *, at_once_secs: float = 0) -> list[str]:
    """Tell in words what is missing, doubled or wrong.

    A second report of an outcome may have a row of its own only if it came to the join before the one that
    speaks for it: the archive tells the order.

    Args:
        books: what there should be.
        rows: what there is.
        archive: of the same stream.
        at_once_secs: what was archived within such a time may have come to the join in any order.
    """
    return [*_differences(books, rows), *_doubled(rows, archive, at_once_secs)]


def _differences(books: Books, rows: Found) -> Iterator[str]:
    for name in ("outcomes", "unreported", "unusable"):
        expected, seen = getattr(books, name), getattr(rows, name)
        if missing := expected - seen:
            yield f"{len(missing)} {name} missing, e.g. {sorted(missing)[0]}"
        if strange := seen - expected:
            yield f"{len(strange)} {name} that nobody knows, e.g. {sorted(strange)[0]}"
    for name in ("last_outcome", "matches"):
        expected, seen = getattr(books, name), getattr(rows, name)
        wrong = [key for key, value in seen.items() if expected.get(key, value) != value]
        if wrong:
            yield f"{len(wrong)} wrong {name}, e.g. {wrong[0]}: {seen[wrong[0]]}"
    if rows.replies != books.replies:
        yield f"{rows.replies} replies, and not {books.replies}"
    if rows.misranked:
        yield (
            f"{len(rows.misranked)} events whose revisions do not count their outcomes, "
            f"e.g. {sorted(rows.misranked)[0]}"
        )
    if rows.doubled_failures:
        yield (
            f"{len(rows.doubled_failures)} messages failed twice, e.g. "
            f"{sorted(rows.doubled_failures)[0]}"
        )


def _doubled(rows: Found, archive: Path, at_once_secs: float) -> Iterator[str]:
    if not rows.second_rows:
        return
    archived = _archived_at(archive)
    doubled = [
        (speaker, other)
        for speaker, other in sorted(rows.second_rows)
        if max(archived[speaker]) + at_once_secs <= min(archived[other])
    ]
    if doubled:
        yield f"{len(doubled)} outcomes with two rows, e.g. of the messages {doubled[0]}"


def _archived_at(archive: Path) -> dict[str, list[float]]:
    """When each message was archived, by message id: again whenever it came again."""
    times: dict[str, list[float]] = {}
    for file in archive.glob("Alicom-Queue-*/landed=*/*.avro"):
        with file.open("rb") as opened:
            for row in _messages(opened):
                times.setdefault(row["message_id"], []).append(file.stat().st_mtime)
    return times


def _messages(opened: Any) -> Iterator[Row]:
    for row in fastavro.reader(opened):
        assert isinstance(row, dict)
        yield row


def _files(directory: Path, table: str, suffix: str) -> list[Path]:
    return sorted(directory.glob(f"{table}/dt=*/[!.]*.{suffix}"))


def _once(table: str, parts: list[pa.Table]) -> list[Row]:
    if not parts:
        return []
    rows = pa.concat_tables(parts, promote_options="permissive")
    by_id = dict(zip(row_ids(table, rows).to_pylist(), rows.to_pylist(), strict=True))
    return list(by_id.values())
