"""Erase: take people out of the tables and the archive at once, and show that nothing of them is left.

Files in which they occur are written anew without them, beside the old ones. One commit of the catalog lets
the new ones take their places; killed before it, nothing happened, and after it, whoever opens the dataset
next does the rest. Then everything on disk is looked through once more, by other means.

A plain program and no graph: a runner keeps and shows what it is given, and that would be the numbers.
"""

import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from analytics.catalog import DatasetError, History, read_history
from pipeline.catalog import Catalog, Commit, Replacement
from pipeline.compaction import require_all_rows
from pipeline.errors import AlreadyRunningError, OutputError
from pipeline.graph_faults import operators_sentences
from pipeline.offers import rewriting
from pipeline.options_erase import EraseOptions
from pipeline.reconcile import alone
from pipeline.send_log_slices import send_log_files
from transforms import tables
from transforms.archive import (
    ArchiveError,
    ArchiveFile,
    ArchiveFileError,
    list_archive,
    read_archive,
    unfinished_files,
)
from transforms.archive_replacement import stage, staged_files
from transforms.erase import (
    Persons,
    Remaining,
    biz_ids_of,
    messages_without,
    rows_without,
    unreadable_originals,
)
from transforms.tables import Table, TableFileError, WrittenFile, is_sorted, row_groups, write_file

_PROGRESS_SECS: Final = 5.0
_WITH_RECIPIENTS: Final = (
    tables.ENRICHED_REPORTS,
    tables.UNREPORTED_SENDS,
    tables.OPEN_SENDS,
    tables.WAITING_REPORTS,
    tables.QUERY_ANSWERS,
)

_T = TypeVar("_T")
_R = TypeVar("_R")


class Changes(NamedTuple):
    """What an erasure changes, or would.

    Attributes:
        counts: ``rows/T``, ``shortened/T`` (failed events that lost a part of their body) and ``files/T`` by
            table; ``messages``, ``shortened``, ``archive_files`` of the archive; ``unreadable`` messages that
            cannot be read, ``unreadable_events`` the like of failed events; ``unfinished`` files that no
            writer has finished; ``bytes`` of the files that go.
        added: files of tables that wait in the staging directory.
        removed: files of tables, relative to the dataset.
        replacements: files of the archive.
    """

    counts: Counter[str]
    added: list[WrittenFile]
    removed: list[str]
    replacements: list[Replacement]


def dry_run(options: EraseOptions, say: Callable[[str], None]) -> Changes:
    """Find what :func:`erase` would change.

    Raises:
        OutputError: there is no dataset, the archive is another one's, or they changed meanwhile.
    """
    current = _history(options).snapshot.files
    files = {
        table: [_File(str(path), rows, str(day)) for path, day, rows in current.get(table.name, ())]
        for table in tables.TABLES
    }
    search = _Search(options, None, say)
    with operators_sentences(options.dataset):
        try:
            search.go_through(files)
            with _archive_sentences():
                search.changes.counts["unfinished"] = len(unfinished_files(options.archive))
        except FileNotFoundError:
            raise OutputError(
                f"The dataset {options.dataset} or its archive was changed by another process meanwhile: try "
                "once more."
            ) from None
    return search.changes


def erase(
    options: EraseOptions, clock: Callable[[], datetime], say: Callable[[str], None]
) -> Changes:
    """Erase in earnest: all of it, or nothing.

    Raises:
        AlreadyRunningError: another process writes to the dataset.
        OutputError: there is no dataset, the archive is another one's, or they cannot be written; nothing
            was changed.
        LedgerError: files hold other numbers of rows than the catalog says; nothing was changed.
    """
    _history(options)
    with _the_only_one(options, clock) as catalog, operators_sentences(options.dataset):
        unfinished = _delete_unfinished_files(options.archive)
        files = {
            table: [
                _File(catalog.absolute(path), rows, dt)
                for path, dt, rows in catalog.files(table.name)
            ]
            for table in tables.TABLES
        }
        attempt = uuid.uuid4().hex
        staging = catalog.staging(attempt)
        os.makedirs(staging)
        search = _Search(options, staging, say)
        try:
            search.go_through(files)
        except BaseException:
            _delete_unfinished_files(options.archive)
            raise
        changes = search.changes
        changes.counts["unfinished"] = unfinished
        if not (changes.removed or changes.replacements or catalog.written().leaving):
            shutil.rmtree(staging)
            return changes
        commit = Commit(
            kind="erase",
            as_of_ms=catalog.as_of_ms(),
            counts=changes.counts,
            added=changes.added,
            removed=changes.removed,
            archive_files={},
            send_log={},
            replacements=changes.replacements,
        )
        catalog.commit(commit, attempt)
    return changes


def summary(changes: Changes, options: EraseOptions) -> str:
    """Lay out what went, or would go."""
    counts = changes.counts
    lines = [_line("", ("records", "files"))]
    lines += [
        _line(table.name, (counts[f"rows/{table.name}"], counts[f"files/{table.name}"]))
        for table in tables.TABLES
    ]
    lines += [_line("archived messages", (counts["messages"], counts["archive_files"])), ""]
    shortened = sum(counts[f"shortened/{table.name}"] for table in tables.TABLES)
    if counts["shortened"] + shortened:
        lines.append(
            f"{counts['shortened']:,} more messages and {shortened:,} failed events hold others' records, "
            "too: those stay."
        )
    if counts["unreadable"] + counts["unreadable_events"]:
        fate = (
            "go, too" if options.removes_unreadable else "stay, unless --remove_unreadable is given"
        )
        lines.append(
            f"{counts['unreadable']:,} messages of damaged archive files cannot be read, nor can "
            f"{counts['unreadable_events']:,} failed events that tell of such: they {fate}."
        )
    if counts["unfinished"]:
        lines.append(f"{counts['unfinished']:,} archive files that were never finished go, too.")
    of_whom = ", ".join(options.numbers.masked)
    if options.is_applied:
        lines.append(
            f"Erased {of_whom}: {counts['bytes']:,} bytes of files are gone, and written anew without it."
        )
    else:
        lines.append(
            f"So much would go of {of_whom}. Nothing was written: this was a dry run.\n"
            "Next: sms-receipts erase --apply, with the same flags, while no other process writes to the "
            "dataset"
        )
    return "\n".join(lines)


def _line(name: str, cells: Iterable[str | int]) -> str:
    shown = (cell if isinstance(cell, str) else f"{cell:,}" for cell in cells)
    return f"{name:<20}" + "".join(f"{cell:>14}" for cell in shown)


class _File(NamedTuple):
    """A file of a table: where it is, and what the catalog says of it."""

    path: str
    rows: int
    dt: str


class _Search:
    """Finds what is to change, and stages it where there is a place for that."""

    def __init__(
        self, options: EraseOptions, staging: str | None, say: Callable[[str], None]
    ) -> None:
        self._options = options
        self._staging = staging
        self._say = say
        self.changes = Changes(Counter(), [], [], [])

    def go_through(self, files: Mapping[Table, Sequence[_File]]) -> None:
        """Go through the tables and the archive."""
        persons = self._persons(files)
        for table, of_table in files.items():
            for file in _telling(of_table, len(of_table), f"files of {table.name} read", self._say):
                self._table_file(persons, table, file)
        with _archive_sentences():
            archived = list_archive(self._options.archive)
        look = partial(self._archive_file, persons)
        for counts, replacement in at_once(look, archived, "archive files read", self._say):
            self.changes.counts.update(counts)
            self.changes.replacements.extend(replacement)

    def _persons(self, files: Mapping[Table, Sequence[_File]]) -> Persons:
        """Learn which sends were theirs, for reports that tell no number."""
        persons = Persons(self._options.numbers)
        biz_ids: set[str] = set()
        for table in _WITH_RECIPIENTS:
            for file in files[table]:
                try:
                    rows = tables.read_rows(table, file.path, ["biz_id", "phone_number"])
                except TableFileError:
                    continue  # told by the proof
                biz_ids |= biz_ids_of(persons, rows)
        return Persons(self._options.numbers, frozenset(biz_ids))

    def _table_file(self, persons: Persons, table: Table, file: _File) -> None:
        counts: Counter[str] = Counter()
        seen = 0
        try:
            for rows in row_groups(table, [file.path]):
                left = self._rows_left(persons, table, rows, counts)
                seen += rows.num_rows
                counts[f"rows/{table.name}"] += left.removed
                counts[f"shortened/{table.name}"] += left.shortened
        except TableFileError:
            return  # told by the proof
        is_changed = bool(counts[f"rows/{table.name}"] or counts[f"shortened/{table.name}"])
        self.changes.counts.update(counts)
        if not is_changed:
            return
        self.changes.counts[f"files/{table.name}"] += 1
        self.changes.counts["bytes"] += os.path.getsize(file.path)
        if self._staging is None:
            return
        self.changes.removed.append(os.path.join(*Path(file.path).parts[-3:]))
        rows_left = file.rows - counts[f"rows/{table.name}"]
        if seen == file.rows and not rows_left:
            return
        parts = (
            self._rows_left(persons, table, rows, Counter()).rows
            for rows in row_groups(table, [file.path])
        )
        some = (rows for rows in parts if rows.num_rows)
        written = write_file(table, file.dt, some, self._staging, is_sorted=is_sorted(file.path))
        require_all_rows(table, rows_left, [written])
        self.changes.added.append(written)

    def _rows_left(
        self, persons: Persons, table: Table, rows: pa.Table, counts: Counter[str]
    ) -> Remaining:
        unreadable = unreadable_originals(table, rows)
        found = int(pc.sum(unreadable).as_py() or 0)
        counts["unreadable_events"] += found
        if not (found and self._options.removes_unreadable):
            return rows_without(persons, table, rows)
        left = rows_without(persons, table, rows.filter(pc.invert(unreadable)))
        return left._replace(removed=left.removed + found)

    def _archive_file(
        self, persons: Persons, file: ArchiveFile
    ) -> tuple[Counter[str], list[Replacement]]:
        counts: Counter[str] = Counter()
        try:
            archived = read_archive(file.path)
        except ArchiveFileError:
            return counts, []  # told by the proof
        counts["unreadable"] = archived.lost
        if archived.lost and not self._options.removes_unreadable:
            return counts, []  # as it is, it can still be restored
        left = [messages_without(persons, batch) for batch in archived.batches]
        if not (archived.lost or any(part.is_changed for part in left)):
            return counts, []
        counts["messages"] = sum(part.removed for part in left)
        counts["shortened"] = sum(part.shortened for part in left)
        counts["archive_files"] = 1
        counts["bytes"] = os.path.getsize(file.path)
        if self._staging is None:
            return counts, []
        messages = [part.rows for part in left if len(part.rows)]
        new = stage(file.path, messages) if messages else None
        archive = self._options.archive
        new_name = None if new is None else os.path.relpath(new, archive)
        return counts, [Replacement(archive, os.path.relpath(file.path, archive), new_name)]


def _history(options: EraseOptions) -> History:
    """Read the dataset as others do, and check that the archive is its own, and the send log there.

    Raises:
        OutputError: there is no dataset, or another archive.
        SendLogError: there is no send log.
    """
    if options.send_log:
        send_log_files(options.send_log)
    try:
        history = read_history(Path(options.dataset))
    except DatasetError as error:
        raise OutputError(str(error)) from None
    if not os.path.isdir(options.archive):
        raise OutputError(f"There is no archive at {options.archive}: correct --archive.")
    known = history.archive_files
    if known and not any(os.path.exists(os.path.join(options.archive, path)) for path in known):
        raise OutputError(
            f"The archive {options.archive} has none of the {len(known):,} files that the dataset "
            f"{options.dataset} was made from: correct --archive or --dataset; nothing was changed."
        )
    return history


@contextmanager
def _the_only_one(options: EraseOptions, clock: Callable[[], datetime]) -> Iterator[Catalog]:
    """Keep everybody away who writes to the dataset or the archive; what they have left behind goes."""
    with ExitStack() as opened:
        try:
            opened.enter_context(alone(options.archive, options.dataset))
            opened.enter_context(rewriting(options.dataset))
            catalog = opened.enter_context(Catalog(options.dataset, clock))
        except AlreadyRunningError:
            raise AlreadyRunningError(
                f"Another sms-receipts process is at work on {options.dataset}: stop it, erase, and start it "
                "again; it would bring back what it has in memory."
            ) from None
        yield catalog


def _delete_unfinished_files(archive: str) -> int:
    """Delete what is in the archive under no name yet: no message in it was acknowledged, no erasure done."""
    with _archive_sentences():
        unfinished = [*unfinished_files(archive), *staged_files(archive)]
    for path in unfinished:
        os.unlink(path)
    return len(unfinished)


@contextmanager
def _archive_sentences() -> Iterator[None]:
    try:
        yield
    except ArchiveError as failure:
        raise OutputError(str(failure)) from None


def at_once(
    work: Callable[[_T], _R], items: Sequence[_T], what: str, say: Callable[[str], None]
) -> Iterator[_R]:
    """Do the work on as many items at once as there are processors; the results come in order."""
    threads = ThreadPoolExecutor(os.cpu_count())
    try:
        yield from _telling(threads.map(work, items), len(items), what, say)
    finally:
        threads.shutdown(cancel_futures=True)


def _telling(
    items: Iterable[_T], count: int, what: str, say: Callable[[str], None]
) -> Iterator[_T]:
    """Hand out items one by one, and say now and then how far it is."""
    told_at = time.monotonic()
    for number, item in enumerate(items):
        if time.monotonic() >= told_at + _PROGRESS_SECS:
            told_at = time.monotonic()
            say(f"erase: {number:,} of {count:,} {what}")
        yield item
