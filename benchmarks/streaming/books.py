"""What a job has left behind: archive files and rows, when they came, and whether they are all there once."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.row_ids import row_ids

SEND_LOG: Final = "send-log-files"
_TABLES: Final = ("enriched_reports", "inbound_sms", "failed_events")
_MATCHED: Final = "matched"


class Books(NamedTuple):
    """Where the messages went; all but the first two and the last must be 0."""

    delivered: int
    """Different ones that were put on the queues."""
    rows: int
    """Different ones that are in a row, and should be."""
    unarchived: int
    missing: int
    """Without a row."""
    doubled: int
    """With more than one row, repeats of a row left out by its id."""
    strange: int
    """Rows of messages that nobody has sent."""
    repeats: int
    """Rows that came again with the same id: what at-least-once means."""

    @property
    def is_closed(self) -> bool:
        """Whether nothing is missing or doubled."""
        return not any(self[2:6])


class Point(NamedTuple):
    """So many were there at a moment (Unix seconds)."""

    at_secs: float
    number: int


def closed(
    delivered: frozenset[str],
    expected: frozenset[str],
    archived: frozenset[str],
    rows: Sequence[str],
) -> Books:
    """Compare ids of messages.

    Args:
        delivered: what was put on the queues.
        expected: what must have a row; another one may have one.
        archived: what is in the archive.
        rows: ``row id/message id`` of each row.
    """
    once = set(rows)
    messages = Counter(row.partition("/")[2] for row in once)
    return Books(
        delivered=len(delivered),
        rows=len(expected & messages.keys()),
        unarchived=len(delivered - archived),
        missing=len(expected - messages.keys()),
        doubled=sum(count - 1 for count in messages.values()),
        strange=len(messages.keys() - delivered),
        repeats=len(rows) - len(once),
    )


def parquet_rows(directory: Path) -> list[str]:
    """``row id/message id`` of each row, repeats included."""
    found: list[str] = []
    for table in _TABLES:
        files = list(directory.glob(f"{table}/dt=*/[!.]*.parquet"))
        if not files:
            continue
        rows = pa.concat_tables([pq.ParquetFile(file).read() for file in files])
        ids = row_ids(table, rows).to_pylist()
        messages = rows.column("message_id").to_pylist()
        found += [f"{name}/{message}" for name, message in zip(ids, messages, strict=True)]
    return found


def archived_messages(archive: Path, queues: str = "Alicom-Queue-*") -> dict[str, bytes]:
    """Bodies by message id."""
    return {
        str(record["message_id"]): record["body"]
        for path in archive.glob(f"{queues}/landed=*/[!.]*.avro")
        for record in _records(path)
    }


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for record in fastavro.reader(file):
            assert isinstance(record, dict)
            yield record


def logged_sms(send_log: Path) -> frozenset[tuple[str, str]]:
    """``(biz_id, phone_number)`` of each line."""
    lines = (line for path in send_log.glob("*.jsonl") for line in path.open("rb"))
    entries = map(json.loads, lines)
    return frozenset((entry["biz_id"], entry["phone_number"]) for entry in entries)


def is_of(body: bytes, sms: frozenset[tuple[str, str]]) -> bool:
    """Whether a message is a reply, or the report of one of these SMS."""
    fields = json.loads(body if body.startswith(b"{") else base64.b64decode(body))
    return "biz_id" not in fields or (fields["biz_id"], fields["phone_number"]) in sms


def archive_points(archive: Path, queues: str = "Alicom-Queue-*") -> list[Point]:
    """How many messages were archived when; a file's name says how many it has."""
    files = archive.glob(f"{queues}/landed=*/[!.]*.avro")
    return _points((path.stat().st_mtime, int(path.name.split("-")[-2])) for path in files)


class SinkWatch:
    """How many rows were in the files of a directory when; files are read once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: dict[Path, tuple[float, int]] = {}

    def points(self) -> list[Point]:
        """Look again."""
        for table in _TABLES:
            for path in self._directory.glob(f"{table}/dt=*/[!.]*.parquet"):
                if path not in self._seen:
                    rows = pq.ParquetFile(path).metadata.num_rows
                    self._seen[path] = (path.stat().st_mtime, rows)
        return _points(iter(self._seen.values()))


def _points(files: Iterator[tuple[float, int]]) -> list[Point]:
    points: list[Point] = []
    for at_secs, count in sorted(files):
        points.append(Point(at_secs, count + (points[-1].number if points else 0)))
    return points


def steady_rate(points: Sequence[Point]) -> float:
    """Number a second in the middle: from the first fifth of all on until nine tenths are there."""
    if not points:
        return 0.0
    total = points[-1].number
    middle = [point for point in points if 0.2 * total <= point.number <= 0.9 * total]
    if len(middle) < 2 or middle[-1].at_secs == middle[0].at_secs:  # noqa: PLR2004 - two ends
        return float("nan")
    first, last = middle[0], middle[-1]
    return (last.number - first.number) / (last.at_secs - first.at_secs)
