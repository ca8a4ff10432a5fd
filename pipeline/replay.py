"""Replay: failed events go back in through the same graph, and leave with one commit.

A dry run only decodes: it writes nothing, needs no lock, and works beside ``sms-receipts run --follow``. It
counts exactly what a replay of the same dataset would.
"""

import os
import shutil
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from analytics.catalog import DatasetError, read_snapshot
from pipeline.catalog import Catalog, Commit
from pipeline.epochs import JobSettings, NewInput, epoch_input, require_send_log, run_bounded_graph
from pipeline.errors import OutputError
from pipeline.graph_faults import operators_sentences
from transforms import tables
from transforms.moments import day_number, to_ms
from transforms.replay import OUTCOMES, TABLES, Choice, FailedUnit, RowGroups, try_again
from transforms.tally import close_tally, tally_of

# A unit is tried by one worker at a time.
_ROWS_PER_UNIT: Final = 100_000
_PROGRESS_SECS: Final = 5.0


class FailedFile(NamedTuple):
    """A file of a table of failed events: where it is now, its Beijing day, and how many rows it has."""

    path: str
    dt: str
    rows: int


def dry_run(
    dataset: str, choice: Choice, as_of: datetime, say: Callable[[str], None]
) -> Counter[str]:
    """Count what :func:`replay` would do.

    Raises:
        OutputError: there is no dataset, a file of it is damaged, or it changed while it was read.
    """
    files = snapshot(dataset)
    counts: Counter[str] = Counter()
    with operators_sentences(dataset):
        try:
            units = failed_units(files, choice)
            _say_size(units, say)
            for number, unit in enumerate(units, start=1):
                for tried in try_again(unit, as_of):
                    counts.update(tried.counts)
                say(f"replay: {number:,} of {len(units):,} parts looked at")
        except FileNotFoundError:
            raise OutputError(
                f"The dataset {dataset} was changed by another process meanwhile: try once more."
            ) from None
    return counts


def replay(
    catalog: Catalog,
    settings: JobSettings,
    choice: Choice,
    as_of: datetime,
    say: Callable[[str], None],
) -> Counter[str]:
    """Try the chosen failed events again, and commit what came of it: all of it, or nothing.

    Nothing is committed if nothing is new: a replay after a replay changes nothing.

    Returns:
        The counts of the run, as :class:`transforms.replay.Tried` has them, and those of an epoch.

    Raises:
        OutputError: the dataset cannot be written, or a file of it is damaged; it is as it was.
        SendLogError: the dataset was made with a send log, and none is given.
        LedgerError: the counts do not add up; the dataset is as it was.
    """
    require_send_log(catalog, settings)
    with operators_sentences(catalog.dataset):
        units = failed_units(_files(catalog), choice)
    _say_size(units, say)
    if not units:
        return Counter()
    given = epoch_input(catalog, NewInput((), (), units), as_of)
    attempt = uuid.uuid4().hex
    staging = catalog.staging(attempt)
    with _progress(staging, say):
        manifest = run_bounded_graph(staging, settings, given)
    if not any(file.table in TABLES for file in manifest.files):
        shutil.rmtree(staging)
        return manifest.counts
    commit = Commit(
        kind="replay",
        as_of_ms=to_ms(as_of),
        counts=manifest.counts,
        added=manifest.files,
        removed=[os.path.relpath(path, catalog.dataset) for _, path in given.carried],
        archive_files=(
            days_learnt(catalog.archive_days(), manifest.record_days)
            if manifest.record_days
            else {}
        ),
        send_log={},
    )
    catalog.commit(commit, attempt)
    return manifest.counts


def failed_units(files: Mapping[str, Sequence[FailedFile]], choice: Choice) -> list[FailedUnit]:
    """Cut the failed events of the days chosen into units of work.

    Raises:
        TableFileError: a file is damaged.
    """
    units = []
    for table, of_table in files.items():
        chosen = [
            file for file in of_table if choice.days is None or day_number(file.dt) in choice.days
        ]
        for parts in _units(_row_groups(chosen)):
            days = {dt for dt, _, _ in parts}
            units.append(
                FailedUnit(
                    table=table,
                    parts=[groups for _, groups, _ in parts],
                    rows=sum(rows for _, _, rows in parts),
                    # A message stays on the day it was enqueued; a send log entry fails again on another.
                    attempts=[
                        file.path
                        for file in of_table
                        if table == tables.FAILED_SENDS.name or file.dt in days
                    ],
                    choice=choice,
                )
            )
    return units


def replay_summary(counts: Mapping[str, int], dataset: str, *, is_applied: bool) -> str:
    """Lay out what a replay did, or would do: a line for each reason, and what to do next."""
    reasons = sorted({name.split("/")[1] for name in counts if name.startswith("replay/")})
    will = "" if is_applied else "would "
    heads = (f"{will}succeed", f"{will}fail again", "as last time")
    lines = [_line("failed with", heads)]
    for reason in reasons:
        of_reason = (counts.get(f"replay/{reason}/{outcome}", 0) for outcome in OUTCOMES)
        lines.append(_line(reason, of_reason))
    succeeded, again, as_before = totals = [
        sum(counts.get(f"{outcome}/{table}", 0) for table in TABLES) for outcome in OUTCOMES
    ]
    lines += [_line("all", totals), ""]
    if counts.get("no_message"):
        lines.append(
            f"{counts['no_message']:,} more are parts of damaged archive files, which no replay can read: "
            "restore the files from a copy, and recompute their days with sms-receipts backfill."
        )
    if as_before:
        lines.append(
            f"{as_before:,} failed just as the last replay of them did: no attempt was counted."
        )
    if is_applied and succeeded + again:
        lines.append(
            f"{succeeded:,} left the open failed events and are in the tables; {again + as_before:,} stay."
        )
    elif is_applied or not succeeded + again:
        lines.append(
            "Nothing was changed: there is nothing to replay that would come out differently."
        )
    else:
        lines.append("Nothing was written: this was a dry run.")
    todo = (
        "sms-receipts replay --apply, with the same flags, while no other process writes to the dataset"
        if succeeded and not is_applied
        else f"sms-receipts report --sql=failed_events --dataset {dataset}"
    )
    return "\n".join([*lines, f"Next: {todo}"])


def _line(name: str, cells: Iterable[str | int]) -> str:
    shown = (cell if isinstance(cell, str) else f"{cell:,}" for cell in cells)
    return f"{name:<24}" + "".join(f"{cell:>18}" for cell in shown)


def require_dataset(dataset: str) -> None:
    """Check that there is something to replay from, before a writer would make a new dataset.

    Raises:
        OutputError: there is no dataset.
    """
    snapshot(dataset)


def snapshot(dataset: str) -> dict[str, list[FailedFile]]:
    """The current files of failed events, without the lock."""
    try:
        files = read_snapshot(Path(dataset)).files
    except DatasetError as error:
        raise OutputError(str(error)) from None
    return {
        table: [FailedFile(str(path), str(dt), rows) for path, dt, rows in files.get(table, ())]
        for table in TABLES
    }


def _files(catalog: Catalog) -> dict[str, list[FailedFile]]:
    return {
        table: [
            FailedFile(catalog.absolute(path), dt, rows) for path, dt, rows in catalog.files(table)
        ]
        for table in TABLES
    }


def _say_size(units: Sequence[FailedUnit], say: Callable[[str], None]) -> None:
    rows = sum(unit.rows for unit in units)
    say(f"replay: {rows:,} rows of failed events to look at, in {len(units):,} parts")


_Part = tuple[str, RowGroups, int]


def _row_groups(files: Iterable[FailedFile]) -> Iterator[_Part]:
    """Every row group by itself, with its day and its number of rows."""
    for file in files:
        metadata = tables.read_metadata(file.path)
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            yield file.dt, RowGroups(file.path, group, group + 1), rows


def _units(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    unit: list[_Part] = []
    rows = 0
    for part in parts:
        unit.append(part)
        rows += part[2]
        if rows >= _ROWS_PER_UNIT:
            yield unit
            unit, rows = [], 0
    if unit:
        yield unit


def days_learnt(
    known: Mapping[str, Sequence[int]], learnt: Mapping[int, Iterable[int]]
) -> dict[str, list[int]]:
    """The archive files that turned out to hold records of more days: a backfill of these reads them, too.

    Where a message is in the archive is not known, but every file's days have the one on which each of its
    failed messages was enqueued.
    """
    more = {
        path: {day for own in days for day in learnt.get(own, ())} for path, days in known.items()
    }
    return {
        path: sorted(more[path].union(days)) for path, days in known.items() if more[path] - {*days}
    }


@contextmanager
def _progress(staging: str, say: Callable[[str], None]) -> Iterator[None]:
    """Say how far the workers of this process are; those elsewhere are not heard."""
    run = os.path.join(staging, "spill")
    is_done = threading.Event()

    def tell() -> None:
        while not is_done.wait(_PROGRESS_SECS):
            if tried := tally_of(run).counts().get("tried"):
                say(f"replay: {tried:,} tried")

    telling = threading.Thread(target=tell, daemon=True)
    telling.start()
    try:
        yield
    finally:
        is_done.set()
        telling.join()
        close_tally(run)
