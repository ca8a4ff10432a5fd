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

from pipeline.errors import AlreadyRunningError, OutputError, SmsReceiptsError
from transforms.archive_replacement import replace
from transforms.moments import to_ms
from transforms.send_log import Consumed
from transforms.tables import Written, WrittenFile

STAGING: Final = "_staging"
_FILE_NAME: Final = "catalog.sqlite"
# How long a reader may take to open the files of a compacted day: a report on a month of millions of rows.
_READERS_GRACE_MS: Final = 600_000
_LOCK_NAME: Final = "_lock"

# How the layout came to be, a script for each step: a catalog takes those that it lacks when it is opened,
# and its user_version counts those that it has. Released scripts stay as they are; a change is a new script.
# A catalog of 0.1.0 has the tables of the first, but did not count.
_LAYOUTS: Final = (
    """
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
""",
    """
CREATE TABLE archive_replacements (   -- what an erasure has yet to do after its commit
    archive TEXT NOT NULL,            -- its root, absolute
    old TEXT NOT NULL,                -- relative to it; leaves the archive
    new TEXT                          -- takes its place; NULL: nothing is left
);
""",
)


class ReplacedFilesError(SmsReceiptsError):
    """Raised when files that a commit removes have left the dataset before it; nothing was committed."""


class DataFile(NamedTuple):
    """A current file of a table; ``path`` is relative to the dataset."""

    path: str
    dt: str
    rows: int


class Replacement(NamedTuple):
    """A file of an archive that a staged one takes the place of (see ``transforms.archive_replacement``).

    ``archive`` is the root, the others are relative to it; nothing is left where ``new`` is None.
    """

    archive: str
    old: str
    new: str | None


class Commit(NamedTuple):
    """What one epoch changes, all at once; ``removed`` files leave the dataset.

    ``kind`` is run, backfill, replay, compact or erase; the last is the only one with ``replacements``.
    """

    kind: str
    as_of_ms: int
    counts: Mapping[str, int]
    added: Sequence[WrittenFile]
    removed: Collection[str]
    archive_files: Mapping[str, Sequence[int]]
    send_log: Mapping[str, Consumed]
    replacements: Sequence[Replacement] = ()


class Catalog:
    """The dataset's only writer.

    A context manager that holds the dataset's lock: a second writer is refused, and a lock never outlives
    its process.

    Args:
        dataset: root of the tables.
        clock: tells when a commit is made, and so how long a file has been gone for readers.

    Raises:
        AlreadyRunningError: another process writes to the dataset.
        OutputError: the directory cannot be written, or a later version of the program wrote the dataset.
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
            self._bring_up_to_date()
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

    def as_of_ms(self) -> int:
        """The moment of the last commit; 0 if there is none."""
        last = self._database.execute(
            "SELECT as_of_ms FROM epochs ORDER BY epoch DESC LIMIT 1"
        ).fetchone()
        return int(last[0]) if last else 0

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
            ReplacedFilesError: not every file that it removes is part of the dataset; nothing was committed.
        """
        committed_at_ms = to_ms(self._clock())
        with _writing(self.dataset), self._database as transaction:
            sync_staged(self.staging(attempt), commit.added)
            (epoch,) = transaction.execute(
                "SELECT coalesce(max(epoch), 0) + 1 FROM epochs"
            ).fetchone()
            transaction.execute(
                "INSERT INTO epochs VALUES (?, ?, ?, ?, ?)",
                (epoch, commit.kind, commit.as_of_ms, committed_at_ms, json.dumps(commit.counts)),
            )
            # Rows that went twice would have come twice, too: what replaced them has taken their place.
            removed = transaction.executemany(
                "UPDATE data_files SET removed_by = ? WHERE path = ? AND removed_by IS NULL",
                [(epoch, path) for path in sorted(commit.removed)],
            ).rowcount
            if commit.removed and removed != len(commit.removed):
                raise ReplacedFilesError(
                    f"{len(commit.removed) - removed} files have left the dataset {self.dataset} before the "
                    "commit that was to replace them. Nothing was committed."
                )
            transaction.executemany(
                "INSERT INTO data_files VALUES (?, ?, ?, ?, ?, ?, NULL)",
                [
                    (file.path, file.table, file.dt, file.rows, file.size, epoch)
                    for file in commit.added
                ],
            )
            transaction.executemany(
                # Of a file that was read before, a replay may learn that its records have more days.
                "INSERT INTO archive_files VALUES (?, ?, ?)"
                " ON CONFLICT (path) DO UPDATE SET days = excluded.days",
                [(path, epoch, json.dumps(days)) for path, days in commit.archive_files.items()],
            )
            transaction.executemany(
                "INSERT OR REPLACE INTO send_log_files VALUES (?, ?, ?)",
                [(path, *consumed) for path, consumed in commit.send_log.items()],
            )
            _replace_archive_files(transaction, commit.replacements)
        self._is_whole = False
        with suppress(OutputError):
            self._finish_commits(attempt)
            self._is_whole = True
        return int(epoch)

    def _require_whole(self) -> None:
        if not self._is_whole:
            self.mend()

    def _bring_up_to_date(self) -> None:
        """Take the steps of the layout that this catalog lacks, each one whole or not at all."""
        (taken,) = self._database.execute("PRAGMA user_version").fetchone()
        if taken > len(_LAYOUTS):
            raise OutputError(
                f"The dataset {self.dataset} was written by a later version of sms-receipts (its catalog has "
                f"layout {taken}, this version knows up to {len(_LAYOUTS)}): use that version; nothing was "
                "changed."
            )
        for number, script in enumerate(_LAYOUTS[taken:], start=taken + 1):
            self._database.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")

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
        self._finish_replacements()

    def _finish_replacements(self) -> None:
        """Let the files that an erasure has written take their places in the archive."""
        rows = self._database.execute("SELECT archive, old, new FROM archive_replacements")
        replacements = [Replacement(*row) for row in rows]
        if not replacements:
            return
        try:
            for archive, old, new in replacements:
                replace(os.path.join(archive, old), new and os.path.join(archive, new))
        except OSError as error:
            raise OutputError(
                f"An erasure is committed, but the archive {replacements[0].archive} cannot be brought up to "
                f"date ({error.strerror or error}): mend that, or put the archive back; whoever opens the "
                f"dataset {self.dataset} next goes on with it."
            ) from error
        with _writing(self.dataset), self._database as transaction:
            transaction.execute("DELETE FROM archive_replacements")

    def _is_current(self, path: str) -> bool:
        found = self._database.execute(
            "SELECT 1 FROM data_files WHERE path = ? AND removed_by IS NULL", (path,)
        ).fetchone()
        return found is not None

    def _delete_removed_files(self) -> None:
        """Delete what left the dataset, one epoch late: a reader may still be at it.

        A compaction follows its epoch at once, so it does not count as one; and what it replaced, perhaps a
        month of files that a report is just going through, stays for ten minutes. No epoch is under way here:
        the one writer is between two of its own.
        """
        removed = self._database.execute(
            "SELECT path FROM data_files JOIN epochs ON epoch = removed_by"
            " WHERE CASE kind WHEN 'compact' THEN committed_at_ms < ?"
            " ELSE removed_by < (SELECT max(epoch) FROM epochs WHERE kind <> 'compact') END"
            # What is erased is not left to readers.
            " OR removed_by <= (SELECT max(epoch) FROM epochs WHERE kind = 'erase')",
            (to_ms(self._clock()) - _READERS_GRACE_MS,),
        ).fetchall()
        for (path,) in removed:
            Path(self.dataset, path).unlink(missing_ok=True)
        # A file that came back after a power failure would be taken for a written one (Written.files).
        directories = {Path(self.dataset, path).parent for (path,) in removed}
        _sync(directory for directory in directories if directory.is_dir())
        with self._database as transaction:
            transaction.executemany("DELETE FROM data_files WHERE path = ?", removed)


def _replace_archive_files(
    transaction: sqlite3.Connection, replacements: Sequence[Replacement]
) -> None:
    """Note what is left to do, and that what was read under the old name has the new one."""
    transaction.executemany("INSERT INTO archive_replacements VALUES (?, ?, ?)", replacements)
    transaction.executemany(
        "UPDATE archive_files SET path = ? WHERE path = ?",
        [(new, old) for _, old, new in replacements if new is not None],
    )
    transaction.executemany(
        "DELETE FROM archive_files WHERE path = ?",
        [(old,) for _, old, new in replacements if new is None],
    )


def sync_staged(staging: str, files: Iterable[WrittenFile]) -> None:
    """Make the names of staged files as durable as their bytes, before somebody relies on them."""
    parents = {Path(staging).parent, Path(staging)}
    for file in files:
        table_and_day = Path(staging, file.path).parent
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
