"""Which files make up the dataset right now: a read-only look into its catalog, or at what a stream wrote.

The catalog, ``<dataset>/catalog.sqlite``, is written by the job that owns the dataset; a file counts from
the commit that added it to the commit that removed it. Nothing here ever writes, waits for a writer or
keeps one waiting: the catalog is in WAL mode and is read in one transaction.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

CATALOG_FILE: Final = "catalog.sqlite"
# A file that was just committed may still stand below here, in the directory of the attempt that wrote it.
STAGING_DIRECTORY: Final = "_staging"
# What a job that owns a dataset leaves there, and a stream never does.
_NEVER_STREAMED: Final = (STAGING_DIRECTORY, "open_sends", "waiting_reports")
# The latest layout of the catalog that this version knows; the job counts it as SQLite's user_version.
_LATEST_LAYOUT: Final = 2

_T = TypeVar("_T")


class DatasetError(Exception):
    """Raised when there is nothing to answer from; the text is one sentence with cause and fix."""


class DataFile(NamedTuple):
    """One current Parquet file; ``path`` is where it stands now, ``day`` its Beijing ``YYYY-MM-DD``.

    ``rows`` is what the catalog says, and 0 for the files of a stream, which nobody counts.
    """

    path: Path
    day: str | None
    rows: int


class Snapshot(NamedTuple):
    """The dataset as of its last committed epoch.

    ``as_of`` is the moment up to which that epoch judged patience; ``files`` maps a table's name to its
    current files, and leaves out tables that have none. What a stream writes has no epochs, ``None``: it is
    as of its newest file, and a row may stand in it more than once.
    """

    epoch: int | None
    as_of: datetime
    files: Mapping[str, Sequence[DataFile]]


class CommitRecord(NamedTuple):
    """One commit: ``kind`` is run, backfill, replay, compact or erase; ``as_of`` what it took for now."""

    number: int
    kind: str
    as_of: datetime
    committed_at: datetime


class ReadFile(NamedTuple):
    """An archive file that a commit has read, with the Beijing days (``YYYY-MM-DD``) of its records."""

    commit: int
    days: Sequence[str]


class History(NamedTuple):
    """The dataset as it is, and how it came to be.

    Attributes:
        snapshot: what it consists of.
        commits: all that were ever made, by number.
        added_by: the number of the commit that brought each current file, by the name of the file. A file
            that merges others was brought by the commit that merged them.
        archive_files: those that were read, by their path relative to the archive.
        send_log: how many bytes of each file of the send log were read, by its absolute path.
    """

    snapshot: Snapshot
    commits: Mapping[int, CommitRecord]
    added_by: Mapping[str, int]
    archive_files: Mapping[str, ReadFile]
    send_log: Mapping[str, int]


def read_snapshot(dataset: Path) -> Snapshot:
    """Read the current state of the dataset.

    Raises:
        DatasetError: there is no dataset at that place, no epoch was ever committed, the catalog is no
            catalog or one of a later version, or a file that it names is gone.
    """
    snapshot, _ = _read(dataset, lambda _: None)
    return snapshot


def read_tables(dataset: Path) -> Snapshot:
    """Read the current state of the dataset, or of the directory that a stream writes.

    Raises:
        DatasetError: it is neither of them, or as :func:`read_snapshot` says.
    """
    if not (dataset / CATALOG_FILE).is_file() and (streamed := _streamed(dataset)) is not None:
        return streamed
    return read_snapshot(dataset)


def _streamed(directory: Path) -> Snapshot | None:
    """Look at what a stream wrote: a file has its name when it is complete, so every file counts.

    A dataset that has lost its catalog is none: which of its files count, only the catalog knew.
    """
    if any((directory / name).exists() for name in _NEVER_STREAMED):
        return None
    files: dict[str, list[DataFile]] = {}
    newest = 0.0
    for path in sorted(directory.glob("*/dt=*/*.parquet")):
        try:
            newest = max(newest, path.stat().st_mtime)
        except FileNotFoundError:
            continue  # somebody tidies up
        day = path.parent.name.removeprefix("dt=")
        files.setdefault(path.parents[1].name, []).append(DataFile(path, day, 0))
    as_of = datetime.fromtimestamp(newest, timezone.utc)
    return Snapshot(None, as_of, files) if files else None


def read_history(dataset: Path) -> History:
    """Read the current state of the dataset, and all that the catalog knows of its past.

    Raises:
        DatasetError: as :func:`read_snapshot` does.
    """
    snapshot, (commits, added_by, archive_files, send_log) = _read(dataset, _past)
    return History(
        snapshot,
        {
            number: CommitRecord(number, kind, _moment(as_of_ms), _moment(committed_at_ms))
            for number, kind, as_of_ms, committed_at_ms in commits
        },
        {Path(path).name: commit for path, commit in added_by},
        {
            path: ReadFile(commit, [_day_name(day) for day in json.loads(days)])
            for path, commit, days in archive_files
        },
        dict(send_log),
    )


def _read(dataset: Path, read_more: Callable[[sqlite3.Connection], _T]) -> tuple[Snapshot, _T]:
    """Read the current state, and more in the same transaction."""
    if not (dataset / CATALOG_FILE).is_file():
        if _streamed(dataset) is not None:
            raise DatasetError(
                f"The directory {dataset} is what a stream writes, and has no catalog: only `sms-receipts "
                "report` reads it."
            )
        raise DatasetError(
            f"There is no dataset at {dataset}: run `sms-receipts run` with its --dataset first, "
            "or point --dataset at one."
        )
    files, epoch, more = _read_and_resolve(dataset, read_more)
    if epoch is None:
        raise DatasetError(
            f"The dataset at {dataset} has no committed epoch yet: let `sms-receipts run` finish one."
        )
    number, as_of_ms = epoch
    return Snapshot(number, _moment(as_of_ms), files), more


def _past(connection: sqlite3.Connection) -> Sequence[Sequence[tuple[Any, ...]]]:
    """Read commits, current files, archive files and send log files."""
    return [
        connection.execute(question).fetchall()
        for question in (
            "SELECT epoch, kind, as_of_ms, committed_at_ms FROM epochs",
            "SELECT path, added_by FROM data_files WHERE removed_by IS NULL",
            "SELECT path, epoch, days FROM archive_files",
            "SELECT path, consumed FROM send_log_files",
        )
    ]


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, timezone.utc)


def _day_name(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def _read_and_resolve(
    dataset: Path, read_more: Callable[[sqlite3.Connection], _T]
) -> tuple[dict[str, list[DataFile]], tuple[int, int] | None, _T]:
    """List the current files and find each; once more if one was removed between the two."""
    for _ in range(2):
        epoch, rows, more = _read_catalog(dataset / CATALOG_FILE, read_more)
        files: dict[str, list[DataFile]] = {}
        missing: list[str] = []
        for path, table_name, day, row_count in rows:
            found = _resolve(dataset, path)
            if found is None:
                missing.append(path)
            else:
                files.setdefault(table_name, []).append(DataFile(found, day, row_count))
        if not missing:
            return files, epoch, more
    raise DatasetError(
        f"The dataset at {dataset} lacks {len(missing)} file(s) that its catalog names, "
        f"{missing[0]} first: restore them, or recompute those days with `sms-receipts backfill`."
    )


def _resolve(dataset: Path, path: str) -> Path | None:
    """Find a file at its final place, or else in the attempt that staged it.

    Looks twice: the file may be moved between the first look at its final place and the other.
    """
    for _ in range(2):
        if (dataset / path).is_file():
            return dataset / path
        for attempt in (dataset / STAGING_DIRECTORY).glob("*"):
            if (attempt / path).is_file():
                return attempt / path
    return None


def _read_catalog(
    file: Path, read_more: Callable[[sqlite3.Connection], _T]
) -> tuple[tuple[int, int] | None, list[tuple[str, str, str | None, int]], _T]:
    """Read (epoch, as_of_ms) of the last epoch, (path, table, day, rows) of every current file, and more."""
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("BEGIN")
            (layout,) = connection.execute("PRAGMA user_version").fetchone()
            if layout > _LATEST_LAYOUT:
                raise DatasetError(
                    f"The dataset at {file.parent} was written by a later version of sms-receipts: "
                    "ask that version."
                )
            epoch = connection.execute(
                "SELECT epoch, as_of_ms FROM epochs ORDER BY epoch DESC LIMIT 1"
            ).fetchone()
            rows = connection.execute(
                "SELECT path, table_name, dt, rows FROM data_files"
                " WHERE removed_by IS NULL ORDER BY path"
            ).fetchall()
            more = read_more(connection)
    except sqlite3.Error as error:
        raise DatasetError(
            f"The catalog {file} cannot be read ({type(error).__name__}): "
            "is it one that `sms-receipts run` wrote, and may you read its directory?"
        ) from error
    return epoch, rows, more
