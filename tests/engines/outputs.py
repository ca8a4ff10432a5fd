"""What a stream has left behind: rows of its sinks, told apart by their ids, and messages of its archive."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq

from tests.engines.load import Books
from transforms.row_ids import row_ids

Row: TypeAlias = dict[str, Any]
_UNCLEAR: Final = "two outcomes have the newest revision"


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


def found(directory: Path, read: Callable[[Path, str], list[Row]] = parquet_rows) -> Books:
    """The books as the rows have them."""
    books = Books()
    reports = read(directory, "enriched_reports")
    newest: dict[str, int] = {}
    for row in sorted(reports, key=lambda row: int(row["revision"])):
        key, code, revision = row["event_id"], row["err_code"], row["revision"]
        # The newest revision is the outcome that counts, and no two outcomes may claim to be it.
        is_unclear = newest.get(key) == revision and books.last_outcome[key] != code
        books.outcomes.add((key, code))
        books.last_outcome[key] = _UNCLEAR if is_unclear else code
        books.matches[key] = row["match"]
        newest[key] = revision
    books.unreported = {row["event_id"] for row in read(directory, "unreported_sends")}
    books.replies = len(read(directory, "inbound_sms"))
    books.unusable = {row["message_id"] for row in read(directory, "failed_events")}
    return books


def differences(books: Books, rows: Books) -> list[str]:
    """Tell in words what is missing, doubled or wrong."""
    return list(_differences(books, rows))


def _differences(books: Books, rows: Books) -> Iterator[str]:
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
