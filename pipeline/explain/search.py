"""Where one send has left its traces: rows of the tables, archived messages, lines of the send log."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from analytics.catalog import CommitRecord, DatasetError, History, read_history
from pipeline.errors import OutputError, SendLogError
from pipeline.explain.archive import ArchivedMessage, ArchiveSearch, Row, reading_threads
from pipeline.options_explain import ExplainOptions
from pipeline.send_log_slices import send_log_slices
from schemas.contracts import contract
from transforms import tables
from transforms.archive import ArchiveError
from transforms.mentions import Sought
from transforms.moments import beijing_day, day_name, day_number
from transforms.send_log import JSONL, SendLogSlice, read_send_log
from transforms.send_log_checks import SendLogFileError
from transforms.send_log_lines import check_lines
from transforms.tables import Table, TableFileError, reading

_WITH_BIZ_ID: Final = (
    tables.ENRICHED_REPORTS,
    tables.UNREPORTED_SENDS,
    tables.OPEN_SENDS,
    tables.WAITING_REPORTS,
    tables.QUERY_ANSWERS,
)
_FAILED: Final = (tables.FAILED_EVENTS, tables.FAILED_SENDS)
# Commits of these kinds write rows anew that others had brought.
REWRITING: Final = frozenset(("compact", "erase"))
# Of so many days every one is named.
_DAYS_NAMED: Final = 3


class StoredRow(NamedTuple):
    """A row of a table; ``file`` is relative to the dataset, ``commit`` brought that file."""

    table: str
    row: Row
    file: str
    commit: CommitRecord

    @property
    def is_merged(self) -> bool:
        """Whether that commit only moved the row, from a file that others had brought."""
        return self.commit.kind in REWRITING


class LoggedSend(NamedTuple):
    """An entry of the send log.

    Attributes:
        entry: its fields; None if it is refused.
        file: where it is; of JSON lines with ``#`` and its byte offset.
        is_read: whether an epoch has read it.
        failure: why it is refused: reason and detail.
        read_by: the commit that has read it, if it came as a message; None if none has, or nobody knows.
    """

    entry: Row | None
    file: str
    is_read: bool
    failure: str | None
    read_by: CommitRecord | None = None


class Searched(NamedTuple):
    """Where was looked.

    Attributes:
        history: the dataset, as of its last commit.
        table_files: how many files of the tables.
        days: the Beijing days of the archived records.
        archive_files: how many files of the archive.
        messages: how many messages their names promise.
        unread_files: how many of them no epoch has read yet.
        send_log_files: how many files of the send log; None if it was not given.
        notes: what could not be looked at, in sentences.
    """

    history: History
    table_files: int
    days: Sequence[str]
    archive_files: int
    messages: int
    unread_files: int
    send_log_files: int | None
    notes: Sequence[str]

    def sentence(self) -> str:
        """Say so."""
        days = self.days
        named = ", ".join(days) if len(days) <= _DAYS_NAMED else f"{days[0]} to {days[-1]}"
        archived = _count(self.archive_files, "archive file")
        archived += f" with records of {named}" if days else ""
        if self.unread_files:
            archived += f", {self.unread_files:,} of them not read by an epoch yet"
        places = [
            _count(self.table_files, "table file"),
            f"{archived} ({_count(self.messages, 'message')})",
        ]
        if self.send_log_files is not None:
            places.append(_count(self.send_log_files, "send log file"))
        return f"Looked in {'; '.join(places)}."


class Traces(NamedTuple):
    """All that was found."""

    rows: Sequence[StoredRow]
    archived: Sequence[ArchivedMessage]
    logged: Sequence[LoggedSend]
    searched: Searched


def search(options: ExplainOptions, now: datetime, say: Callable[[str], None]) -> Traces:
    """Look for everything that mentions the send.

    Raises:
        OutputError: there is no dataset, or it, or the archive, cannot be read.
        SendLogError: the send log cannot be read.
    """
    sought = Sought(options.biz_id)
    try:
        history, rows, table_files = _stored(options, sought)
        archived = ArchiveSearch(options, history, sought, now)
        days = _days_of(rows) | _filed_days(history, options.days)
        files = archived.files(days)
        messages = list(archived.messages(files, say))
    except (DatasetError, TableFileError, ArchiveError) as error:
        raise OutputError(str(error)) from None
    logged, send_log_files = _logged(options, history, sought, now)
    searched = Searched(
        history=history,
        table_files=table_files,
        days=sorted(days),
        archive_files=len(files),
        messages=sum(file.messages for file in files),
        unread_files=sum(archived.read_by(file) is None for file in files),
        send_log_files=send_log_files,
        notes=archived.notes,
    )
    return Traces(rows, messages, logged, searched)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# -- the tables -------------------------------------------------------------------------------------


def _stored(options: ExplainOptions, sought: Sought) -> tuple[History, Sequence[StoredRow], int]:
    """Search the tables; those of a newer state if a commit has deleted files meanwhile."""
    for _ in range(2):
        history = read_history(Path(options.dataset))
        files = list(_table_files(history, options.days))
        try:
            with reading_threads() as threads:
                found = list(
                    threads.map(lambda file: _rows_about(file[0], file[1], options, sought), files)
                )
        except FileNotFoundError:
            continue
        rows = [
            StoredRow(
                table.name,
                row,
                "/".join(path.parts[-3:]),
                history.commits[history.added_by[path.name]],
            )
            for (table, path), of_file in zip(files, found, strict=True)
            for row in of_file
        ]
        return history, rows, len(files)
    raise OutputError(
        f"The dataset {options.dataset} was changed by another process meanwhile: try once more."
    )


def _table_files(history: History, days: range | None) -> Iterator[tuple[Table, Path]]:
    for table in (*_WITH_BIZ_ID, *_FAILED):
        for file in history.snapshot.files.get(table.name, ()):
            if days is None or _may_matter(table, day_number(str(file.day)), days):
                yield table, file.path


def _may_matter(table: Table, day: int, days: range) -> bool:
    """Tell whether a day of a table may hold rows of a send of these days."""
    # Midnight, and clocks that disagree; what fails does so on the day it comes, and that may be much later.
    last = day if table in _FAILED else days.stop
    return days.start - 1 <= day <= max(last, days.stop)


def _rows_about(table: Table, path: Path, options: ExplainOptions, sought: Sought) -> Sequence[Row]:
    """Read the rows of a file that are about the send; of other row groups only one column is read."""
    key = "original" if table in _FAILED else "biz_id"
    found: list[Row] = []
    with reading(str(path)), pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            if not _may_hold(file.metadata.row_group(group), key, options.biz_id):
                continue
            keys = file.read_row_group(group, [key]).column(key)
            if table in _FAILED:
                is_about = pa.array(map(sought.is_in, keys.to_pylist()), pa.bool_())
            else:
                is_about = pc.equal(keys, options.biz_id)
            if pc.any(is_about).as_py():
                rows = file.read_row_group(group).filter(is_about)
                complete = contract(table.contract).complete(rows)
                found += complete.to_pylist(maps_as_pydicts="lossy")
    return found


def _may_hold(group: pq.RowGroupMetaData, key: str, value: str) -> bool:
    """Tell from the statistics of a row group, which compacted files have, whether it may hold a key."""
    columns = map(group.column, range(group.num_columns))
    statistics = next(part.statistics for part in columns if part.path_in_schema == key)
    if statistics is None or not statistics.has_min_max or not isinstance(statistics.min, str):
        return True
    return bool(statistics.min <= value <= statistics.max)


def _days_of(rows: Sequence[StoredRow]) -> set[str]:
    """The Beijing days on which the archived messages behind rows are filed."""
    return {
        day_name(beijing_day(moment))
        for stored in rows
        for column in ("send_time", "requested_at", "enqueued_at")
        # A record is filed by the day of its SMS; what cannot be decoded, by the day it came.
        if (moment := stored.row.get(column)) is not None
        and (column != "enqueued_at" or stored.table == tables.FAILED_EVENTS.name)
    }


def _filed_days(history: History, asked_for: range | None) -> set[str]:
    """The days that were asked for and their neighbours, as far as the archive has records of them."""
    if asked_for is None:
        return set()
    days = {day for file in history.archive_files.values() for day in file.days}
    return {day for day in days if asked_for.start - 1 <= day_number(day) <= asked_for.stop}


# -- the send log -----------------------------------------------------------------------------------


def _logged(
    options: ExplainOptions, history: History, sought: Sought, now: datetime
) -> tuple[Sequence[LoggedSend], int | None]:
    """Search the send log, if it is given; answer how many files that were, too."""
    if options.send_log is None:
        return (), None
    parts = send_log_slices(options.send_log, {})
    logged: list[LoggedSend] = []
    try:
        for part in parts:
            read_up_to = history.send_log.get(part.path, 0)
            logged += (
                _logged_lines(part, read_up_to, options.biz_id, sought)
                if part.path.endswith(JSONL)
                else _logged_records(part, bool(read_up_to), options.biz_id, sought, now)
            )
    except SendLogFileError as error:
        raise SendLogError(str(error)) from None
    except OSError as error:
        raise SendLogError(
            f"The send log file {error.filename} cannot be read ({error.strerror}): mend its permissions, or "
            "narrow --send_log."
        ) from None
    return logged, len({part.path for part in parts})


def _logged_lines(
    part: SendLogSlice, read_up_to: int, biz_id: str, sought: Sought
) -> Iterator[LoggedSend]:
    """Find the lines; only those that may be the ones are decoded."""
    with open(part.path, "rb") as file:
        file.seek(part.start)
        block = file.read(part.end - part.start)
    for start, line in sought.lines(block):
        place = part.start + start
        where = f"{part.path}#{place}"
        checked = check_lines(line, place)
        for entry in _entries_of(checked.entries, biz_id):
            yield LoggedSend(entry, where, place < read_up_to, None)
        if checked.refused and sought.is_in(line):
            error = checked.refused[0].error
            yield LoggedSend(None, where, place < read_up_to, f"{error.reason}: {error.detail}")


def _logged_records(
    part: SendLogSlice, is_read: bool, biz_id: str, sought: Sought, now: datetime
) -> Iterator[LoggedSend]:
    """Find the records of an Avro or Parquet file: all of them are decoded."""
    for decoded in read_send_log(part, now):
        for entry in _entries_of(decoded.entries, biz_id):
            yield LoggedSend(entry, part.path, is_read, None)
        for row in decoded.failed.to_pylist():
            if sought.is_in(row["original"]):
                failure = f"{row['reason']}: {row['detail']}"
                yield LoggedSend(None, row["message_id"], is_read, failure)


def _entries_of(entries: pa.RecordBatch, biz_id: str) -> Sequence[Row]:
    found = entries.filter(pc.equal(entries.column("biz_id"), biz_id))
    rows: Sequence[Row] = found.to_pylist(maps_as_pydicts="lossy")
    return rows
