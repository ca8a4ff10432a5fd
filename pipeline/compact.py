"""Compact: write the days of the tables anew, as few sorted files, beside whoever writes to the dataset.

It reads as a reader does, without the lock, and hands over what it has written (:mod:`pipeline.offers`).
What was changed meanwhile is tried again from what is there then.
"""

import math
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from analytics.catalog import DataFile, DatasetError, read_snapshot
from pipeline.catalog import Catalog
from pipeline.compaction import GROWING, require_all_rows
from pipeline.errors import AlreadyRunningError, OutputError
from pipeline.offers import Offer, is_pending, make_offer, rewriting, staging_of, take_offers
from pipeline.options_compact import CompactOptions
from transforms.sort import ROWS_PER_FILE, SortError, sort_files
from transforms.tables import (
    LARGE_FILE_ROWS,
    ROWS_PER_GROUP,
    Table,
    TableFileError,
    WrittenFile,
    is_sorted,
)

# A day that a job is adding to is changed now and then, but hardly so often in a row.
_TRIES: Final = 5
_TICK_SECS: Final = 0.2
_NOTHING: Final = "There is nothing to do: every day is compact."


class LooseDay(NamedTuple):
    """Files of a table's Beijing day that are not compact, with their rows and bytes."""

    table: Table
    dt: str
    files: Sequence[Path]
    rows: int
    size: int

    @property
    def files_after(self) -> int:
        """How many files will take their place."""
        return math.ceil(self.rows / ROWS_PER_FILE)


class Rewritten(NamedTuple):
    """A day and the files that have taken the place of its loose ones."""

    day: LooseDay
    files: Sequence[WrittenFile]


class Compacted(NamedTuple):
    """What was rewritten; ``left`` are days that others changed each time, and that are as they were."""

    rewritten: Sequence[Rewritten]
    left: Sequence[LooseDay]


def loose_days(options: CompactOptions) -> list[LooseDay]:
    """Find the days that can do with fewer files, or with sorted ones.

    Compact are a large sorted file, and what is alone in its day besides those: sorted, or so small
    that order would not matter.

    Raises:
        OutputError: there is no dataset, or a file of it is damaged.
    """
    with _sentences(options.dataset):
        for _ in range(_TRIES):
            try:
                return [day for day in _days(options) if day.files]
            except FileNotFoundError:
                continue  # a commit has just moved or removed it: the next look knows
    raise OutputError(
        f"The dataset {options.dataset} was changed by another process each time: try once more."
    )


def _days(options: CompactOptions) -> Iterator[LooseDay]:
    files = read_snapshot(Path(options.dataset)).files
    for table in GROWING:
        of_days: defaultdict[str, list[DataFile]] = defaultdict(list)
        for file in files.get(table.name, ()):
            dt = str(file.day)
            if (options.first or dt) <= dt <= (options.last or dt):
                of_days[dt].append(file)
        for dt, of_day in sorted(of_days.items()):
            yield _loose(table, dt, of_day)


def _loose(table: Table, dt: str, files: Sequence[DataFile]) -> LooseDay:
    loose = [file for file in files if file.rows < LARGE_FILE_ROWS or not is_sorted(str(file.path))]
    if len(loose) == 1 and (loose[0].rows <= ROWS_PER_GROUP or is_sorted(str(loose[0].path))):
        loose = []
    return LooseDay(
        table=table,
        dt=dt,
        files=[file.path for file in loose],
        rows=sum(file.rows for file in loose),
        size=sum(file.path.stat().st_size for file in loose),
    )


def compact(
    options: CompactOptions, clock: Callable[[], datetime], say: Callable[[str], None]
) -> Compacted:
    """Rewrite what is not compact; each day of a table changes as a whole, and its rows stay what they are.

    Raises:
        OutputError: there is no dataset, it cannot be written, or a file of it is damaged; what was not
            committed by then is as it was.
        AlreadyRunningError: another compaction is under way.
        LedgerError: files hold other numbers of rows than the catalog says; they are as they were.
    """
    dataset = options.dataset
    days = loose_days(options)
    rewritten: dict[tuple[str, str], Rewritten] = {}
    with _sentences(dataset), rewriting(dataset) as directory:
        _commit_if_free(dataset, clock)
        for _ in range(_TRIES):
            offered = []
            for day in days:
                if offer := _offer(day, directory):
                    offered.append(offer)
                    _commit_if_free(dataset, clock)
                    say(f"compact: {day.table.name} of {day.dt}, {len(day.files):,} files")
            _await([name for name, _ in offered], dataset, clock, say)
            current = {
                file.path.name
                for files in read_snapshot(Path(dataset)).files.values()
                for file in files
            }
            for _, done in offered:
                if current.issuperset(os.path.basename(file.path) for file in done.files):
                    rewritten[done.day.table.name, done.day.dt] = done
            days = [day for day in loose_days(options) if (day.table.name, day.dt) not in rewritten]
            if not days:
                break
    return Compacted(list(rewritten.values()), days)


def plan(days: Sequence[LooseDay], dataset: str) -> str:
    """Lay out what would be rewritten: a line for each table, and what to do next."""
    if not days:
        return _NOTHING
    return (
        f"{_laid_out([(day, day.files_after, None) for day in days])}\n\n"
        f"Nothing was written: this was a dry run.\nNext: sms-receipts compact --dataset {dataset}"
    )


def summary(done: Compacted) -> str:
    """Lay out what was rewritten: a line for each table, and which days were not."""
    if not done.rewritten and not done.left:
        return _NOTHING
    changes = [(day, len(files), sum(file.size for file in files)) for day, files in done.rewritten]
    text = f"{_laid_out(changes)}\n\nEvery row is what it was."
    if done.left:
        names = ", ".join(f"{day.table.name} of {day.dt}" for day in done.left)
        text += (
            "\nAnother process changed these days each time, and they were left as they are: "
            f"{names}.\nNext: the same command again."
        )
    return text


def _laid_out(changes: Sequence[tuple[LooseDay, int, int | None]]) -> str:
    """A line for each table, of days with their number of files and of bytes, if known, afterwards."""
    lines = [_line("", ("days", "rows", "files", "after", "MB", "after"))]
    for name in dict.fromkeys(day.table.name for day, _, _ in changes):
        of_table = [change for change in changes if change[0].table.name == name]
        days = [day for day, _, _ in of_table]
        sizes = [size for _, _, size in of_table if size is not None]
        cells = (
            len(days),
            sum(day.rows for day in days),
            sum(len(day.files) for day in days),
            sum(files for _, files, _ in of_table),
            math.ceil(sum(day.size for day in days) / 1e6),
            math.ceil(sum(sizes) / 1e6) if sizes else "?",
        )
        lines.append(_line(name, cells))
    return "\n".join(lines)


def _line(name: str, cells: Sequence[int | str]) -> str:
    shown = (f"{cell:,}" if isinstance(cell, int) else cell for cell in cells)
    return f"{name:<20}" + "".join(f"{cell:>13}" for cell in shown)


def _offer(day: LooseDay, directory: str) -> tuple[str, Rewritten] | None:
    """Rewrite a day and offer it; None if somebody else has replaced its files meanwhile."""
    staging = staging_of(directory)
    paths = [str(path) for path in day.files]
    try:
        files = list(
            sort_files(day.table, day.dt, paths, staging, os.path.join(directory, "spill"))
        )
    except FileNotFoundError:
        shutil.rmtree(staging, ignore_errors=True)
        return None
    require_all_rows(day.table, day.rows, files)
    # A file that was just committed may still stand in a staging directory.
    removed = ["/".join(path.parts[-3:]) for path in day.files]
    return make_offer(directory, Offer(files, removed)), Rewritten(day, files)


def _commit_if_free(dataset: str, clock: Callable[[], datetime]) -> bool:
    """Commit what is offered, unless another process writes to the dataset: then it does so."""
    try:
        with Catalog(dataset, clock) as catalog:
            take_offers(catalog)
    except AlreadyRunningError:
        return False
    return True


def _await(
    offers: Sequence[str],
    dataset: str,
    clock: Callable[[], datetime],
    say: Callable[[str], None],
) -> None:
    """Wait until every offer was committed or dropped."""
    has_said = False
    while any(is_pending(dataset, name) for name in offers):
        if _commit_if_free(dataset, clock):
            continue
        if not has_said:
            say(
                "compact: what is ready waits for the process that writes to the dataset, which commits it "
                "between two epochs"
            )
            has_said = True
        time.sleep(_TICK_SECS)


@contextmanager
def _sentences(dataset: str) -> Iterator[None]:
    """Raise what the operator can mend as a sentence of his.

    Raises:
        OutputError: a file cannot be written, or is damaged.
    """
    try:
        yield
    except (DatasetError, TableFileError) as failure:
        raise OutputError(str(failure)) from None
    except (SortError, OSError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else str(failure)
        raise OutputError(
            f"The dataset {dataset} cannot be compacted ({reason}): free the disk, or mend the permissions "
            "there; no row was changed."
        ) from failure
