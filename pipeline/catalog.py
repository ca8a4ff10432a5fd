"""The commit log of a dataset: which files it consists of, and which input is in them.

One SQLite file, ``catalog.sqlite``. A commit is one SQLite transaction, so it happens as a whole or not at
all, whatever is killed when. Files are written below ``_staging/`` first; after the commit they are moved to
their place. A reader who comes between the two finds them in the staging directory, and a crash between the
two is mended at the next start.
"""

import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from typing_extensions import Self

from pipeline.errors import AlreadyRunningError, OutputError
from transforms.moments import to_ms
from transforms.send_log import Consumed
from transforms.tables import Written, WrittenFile

STAGING: Final = "_staging"
_FILE_NAME: Final = "catalog.sqlite"
_LOCK_NAME: Final = "_lock"

_LAYOUT: Final = """
CREATE TABLE IF NOT EXISTS epochs (
    epoch INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,               -- run | backfill | compact
    as_of_ms INTEGER NOT NULL,        -- the moment against which patience was measured
    committed_at_ms INTEGER NOT NULL,
    counts TEXT NOT NULL              -- JSON object: name -> number
);
CREATE TABLE IF NOT EXISTS data_files (
    path TEXT PRIMARY KEY,            -- relative to the dataset
    table_name TEXT NOT NULL,
    dt TEXT NOT NULL,                 -- Beijing day, YYYY-MM-DD
    rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    added_by INTEGER NOT NULL REFERENCES epochs,
    removed_by INTEGER REFERENCES epochs  -- NULL: part of the dataset
);
CREATE INDEX IF NOT EXISTS current_files ON data_files (table_name, dt) WHERE removed_by IS NULL;
CREATE TABLE IF NOT EXISTS archive_files (
    path TEXT PRIMARY KEY,            -- as listed, relative to the archive
    epoch INTEGER NOT NULL REFERENCES epochs,
    days TEXT NOT NULL                -- JSON array: the Beijing days of the records in the file
);
CREATE TABLE IF NOT EXISTS send_log_files (
    path TEXT PRIMARY KEY,
    consumed INTEGER NOT NULL,        -- bytes that are in the dataset
    tail TEXT NOT NULL                -- digest of the last of them
);
"""


class DataFile(NamedTuple):
    """A current file of a table; ``path`` is relative to the dataset."""

    path: str
    dt: str
    rows: int


class Commit(NamedTuple):
    """What one epoch changes, all at once; ``removed`` files leave the dataset."""

    kind: str
    as_of_ms: int
    counts: Mapping[str, int]
    added: Sequence[WrittenFile]
    removed: Collection[str]
    archive_files: Mapping[str, Sequence[int]]
    send_log: Mapping[str, Consumed]


class Catalog:
    """The dataset's only writer.

    A context manager that holds the dataset's lock: a second writer is refused, and a lock never outlives
    its process.

    Args:
        dataset: root of the tables.
        clock: tells when a commit is made; for the operator's eyes only.

    Raises:
        AlreadyRunningError: another process writes to the dataset.
        OutputError: the directory cannot be written.
    """

    def __init__(self, dataset: str, clock: Callable[[], datetime]) -> None:
        self.dataset = os.path.abspath(dataset)
        self._clock = clock

    def __enter__(self) -> Self:
        with ExitStack() as opened, _writing(self.dataset):
            os.makedirs(os.path.join(self.dataset, STAGING), exist_ok=True)
            lock = opened.enter_context(
                open(os.path.join(self.dataset, _LOCK_NAME), "w", encoding="ascii")
            )
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunningError(
                    f"Another sms-receipts process is writing to {self.dataset}: wait for it, stop it, "
                    "or give this one another --dataset."
                ) from None
            self._database = opened.enter_context(
                closing(sqlite3.connect(os.path.join(self.dataset, _FILE_NAME)))
            )
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_LAYOUT)
            self.mend()
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def staging(self, attempt: str) -> str:
        """The directory in which the files of one attempt wait for their commit."""
        return os.path.join(self.dataset, STAGING, attempt)

    def mend(self) -> None:
        """Finish what a failure has left half done: commits that were not moved, attempts without a commit.

        Raises:
            OutputError: the directory cannot be written.
        """
        self._is_whole = False
        if self._database.in_transaction:
            self._database.rollback()
        self._finish_commits()
        self._is_whole = True

    def has_commits(self) -> bool:
        """Whether anything was ever committed."""
        found = self._database.execute("SELECT 1 FROM epochs LIMIT 1").fetchone()
        return found is not None

    def files(self, table: str, days: Collection[str] | None = None) -> list[DataFile]:
        """The current files of a table, in the order of their paths; of some days, or of all.

        Raises:
            OutputError: they are not in their place yet, and the disk still refuses to move them.
        """
        self._require_whole()
        rows = self._database.execute(
            "SELECT path, dt, rows FROM data_files"
            " WHERE table_name = ? AND removed_by IS NULL"
            " AND (? IS NULL OR dt IN (SELECT value FROM json_each(?))) ORDER BY path",
            (table, *(2 * [days if days is None else json.dumps(sorted(days))])),
        )
        return [DataFile(*row) for row in rows]

    def days_of_last_commit(self) -> list[str]:
        """The days that the last commit added files to."""
        days = self._database.execute(
            "SELECT DISTINCT dt FROM data_files WHERE added_by = (SELECT max(epoch) FROM epochs)"
        )
        return sorted(dt for (dt,) in days)

    def absolute(self, path: str) -> str:
        """Where a file of the dataset is."""
        return os.path.join(self.dataset, path)

    def written(self) -> Written:
        """What a run may look up of the past, wherever its workers are.

        Raises:
            OutputError: as :meth:`files`.
        """
        self._require_whole()
        leaving = self._database.execute("SELECT path FROM data_files WHERE removed_by IS NOT NULL")
        return Written(self.dataset, frozenset(path for (path,) in leaving))

    def unconsumed(self, archive_files: Sequence[str]) -> list[str]:
        """Those of the archive files that no epoch has read, in the given order."""
        rows = self._database.execute(
            "SELECT value FROM json_each(?)"
            " WHERE NOT EXISTS (SELECT 1 FROM archive_files WHERE path = value)",
            (json.dumps(archive_files),),
        )
        return [path for (path,) in rows]

    def archive_days(self) -> dict[str, list[int]]:
        """Every archive file that an epoch has read, with the Beijing days of its records."""
        rows = self._database.execute("SELECT path, days FROM archive_files")
        return {path: json.loads(days) for path, days in rows}

    def send_log_consumed(self) -> dict[str, Consumed]:
        """How much of each send log file is in the dataset."""
        rows = self._database.execute("SELECT path, consumed, tail FROM send_log_files")
        return {path: Consumed(end, tail) for path, end, tail in rows}

    def commit(self, commit: Commit, attempt: str) -> int:
        """Make an attempt's files part of the dataset, and remember what is in them.

        A disk that refuses afterwards, when they are moved to their place, undoes nothing: it is asked again
        before anybody is told of files.

        Returns:
            The number of the epoch.

        Raises:
            OutputError: the disk refused; nothing was committed.
        """
        committed_at_ms = to_ms(self._clock())
        with _writing(self.dataset), self._database as transaction:
            _sync_directories(Path(self.staging(attempt)), commit.added)
            (epoch,) = transaction.execute(
                "SELECT coalesce(max(epoch), 0) + 1 FROM epochs"
            ).fetchone()
            transaction.execute(
                "INSERT INTO epochs VALUES (?, ?, ?, ?, ?)",
                (epoch, commit.kind, commit.as_of_ms, committed_at_ms, json.dumps(commit.counts)),
            )
            transaction.executemany(
                "UPDATE data_files SET removed_by = ? WHERE path = ?",
                [(epoch, path) for path in sorted(commit.removed)],
            )
            transaction.executemany(
                "INSERT INTO data_files VALUES (?, ?, ?, ?, ?, ?, NULL)",
                [
                    (file.path, file.table, file.dt, file.rows, file.size, epoch)
                    for file in commit.added
                ],
            )
            transaction.executemany(
                "INSERT OR REPLACE INTO archive_files VALUES (?, ?, ?)",
                [(path, epoch, json.dumps(days)) for path, days in commit.archive_files.items()],
            )
            transaction.executemany(
                "INSERT OR REPLACE INTO send_log_files VALUES (?, ?, ?)",
                [(path, *consumed) for path, consumed in commit.send_log.items()],
            )
        self._is_whole = False
        with suppress(OutputError):
            self._finish_commits(attempt)
            self._is_whole = True
        return int(epoch)

    def _require_whole(self) -> None:
        if not self._is_whole:
            self.mend()

    def _finish_commits(self, attempt: str | None = None) -> None:
        """Move committed files to their place; forget attempts that were never committed."""
        staging = Path(self.dataset, STAGING)
        attempts = (
            [staging / attempt]
            if attempt
            else sorted(path for path in staging.iterdir() if path.is_dir())
        )
        with _writing(self.dataset):
            for directory in attempts:
                for staged in directory.rglob("*.parquet"):
                    path = str(staged.relative_to(directory))
                    if self._is_current(path):
                        target = Path(self.dataset, path)
                        target.parent.mkdir(parents=True, exist_ok=True)
                        os.replace(staged, target)
                shutil.rmtree(directory)
            self._delete_removed_files()

    def _is_current(self, path: str) -> bool:
        found = self._database.execute(
            "SELECT 1 FROM data_files WHERE path = ? AND removed_by IS NULL", (path,)
        ).fetchone()
        return found is not None

    def _delete_removed_files(self) -> None:
        """Delete what left the dataset, one epoch late: a reader may still be at it.

        A compaction follows its epoch at once, so it does not count as one.
        """
        removed = self._database.execute(
            "SELECT path FROM data_files WHERE removed_by <"
            " (SELECT max(epoch) FROM epochs WHERE kind <> 'compact')"
        ).fetchall()
        for (path,) in removed:
            Path(self.dataset, path).unlink(missing_ok=True)
        # A file that came back after a power failure would be taken for a written one (Written.files).
        directories = {Path(self.dataset, path).parent for (path,) in removed}
        _sync(directory for directory in directories if directory.is_dir())
        with self._database as transaction:
            transaction.executemany("DELETE FROM data_files WHERE path = ?", removed)


def _sync_directories(staging: Path, files: Iterable[WrittenFile]) -> None:
    """Make the names of the files as durable as their bytes, before the commit relies on them."""
    parents = {staging.parent, staging}
    for file in files:
        table_and_day = (staging / file.path).parent
        parents |= {table_and_day, table_and_day.parent}
    _sync(parents)


def _sync(directories: Iterable[Path]) -> None:
    for directory in sorted(set(directories)):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _writing(dataset: str) -> Iterator[None]:
    """Tell the operator which directory refuses, and why."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(
            f"The dataset {dataset} cannot be written ({reason}): free the disk, mend its permissions, "
            "or give another --dataset."
        ) from error
