"""Which files make up the dataset right now: a read-only look into its catalog.

The catalog, ``<dataset>/catalog.sqlite``, is written by the job that owns the dataset; a file counts from
the commit that added it to the commit that removed it. Nothing here ever writes, waits for a writer or
keeps one waiting: the catalog is in WAL mode and is read in one transaction.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, NamedTuple

CATALOG_FILE: Final = "catalog.sqlite"
# A file that was just committed may still stand below here, in the directory of the attempt that wrote it.
STAGING_DIRECTORY: Final = "_staging"
# The latest layout of the catalog that this version knows; the job counts it as SQLite's user_version.
_LATEST_LAYOUT: Final = 1


class DatasetError(Exception):
    """Raised when there is nothing to answer from; the text is one sentence with cause and fix."""


class DataFile(NamedTuple):
    """One current Parquet file; ``path`` is where it stands now, ``day`` its Beijing ``YYYY-MM-DD``."""

    path: Path
    day: str | None
    rows: int


class Snapshot(NamedTuple):
    """The dataset as of its last committed epoch.

    ``as_of`` is the moment up to which that epoch judged patience; ``files`` maps a table's name to its
    current files, and leaves out tables that have none.
    """

    epoch: int
    as_of: datetime
    files: Mapping[str, Sequence[DataFile]]


def read_snapshot(dataset: Path) -> Snapshot:
    """Read the current state of the dataset.

    Raises:
        DatasetError: there is no dataset at that place, no epoch was ever committed, the catalog is no
            catalog or one of a later version, or a file that it names is gone.
    """
    if not (dataset / CATALOG_FILE).is_file():
        raise DatasetError(
            f"There is no dataset at {dataset}: run `sms-receipts run` with its --dataset first, "
            "or point --dataset at one."
        )
    files, epoch = _read_and_resolve(dataset)
    if epoch is None:
        raise DatasetError(
            f"The dataset at {dataset} has no committed epoch yet: let `sms-receipts run` finish one."
        )
    number, as_of_ms = epoch
    return Snapshot(number, datetime.fromtimestamp(as_of_ms / 1000, timezone.utc), files)


def _read_and_resolve(
    dataset: Path,
) -> tuple[dict[str, list[DataFile]], tuple[int, int] | None]:
    """List the current files and find each; once more if one was removed between the two."""
    for _ in range(2):
        epoch, rows = _read_catalog(dataset / CATALOG_FILE)
        files: dict[str, list[DataFile]] = {}
        missing: list[str] = []
        for path, table_name, day, row_count in rows:
            found = _resolve(dataset, path)
            if found is None:
                missing.append(path)
            else:
                files.setdefault(table_name, []).append(DataFile(found, day, row_count))
        if not missing:
            return files, epoch
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
    file: Path,
) -> tuple[tuple[int, int] | None, list[tuple[str, str, str | None, int]]]:
    """Read (epoch, as_of_ms) of the last epoch and (path, table, day, rows) of every current file."""
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
    except sqlite3.Error as error:
        raise DatasetError(
            f"The catalog {file} cannot be read ({type(error).__name__}): "
            "is it one that `sms-receipts run` wrote, and may you read its directory?"
        ) from error
    return epoch, rows
