"""Backfill: recompute a range of days from the archive and the send log, and put it in place at once."""

import os
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from pipeline.catalog import Catalog, Commit
from pipeline.epochs import JobSettings, NewInput, RunInput, run_bounded_graph
from pipeline.send_log_slices import send_log_slices
from transforms import tables
from transforms.archive import ArchiveFile, list_archive
from transforms.moments import DAY_MS, day_name, to_ms

# Failed send log entries belong to the day on which they were read, not to one that can be recomputed.
_RECOMPUTED = tuple(table for table in tables.TABLES if table != tables.FAILED_SENDS)


def backfill(
    catalog: Catalog,
    settings: JobSettings,
    days: range,
    as_of: datetime,
    say: Callable[[str], None],
) -> Counter[str]:
    """Replace the partitions of ``days`` (Beijing days, numbers) by what archive and send log say.

    Run twice with the same input and ``as_of``, it gives identical rows. Its memory depends on the number
    of rows in a bucket, never on the range.

    Returns:
        The counts of the run.

    Raises:
        OutputError: the dataset cannot be written; it is as it was.
        LedgerError: the counts do not add up; the dataset is as it was.
    """
    known_days = {
        os.path.join(settings.archive, path): of_file
        for path, of_file in catalog.archive_days().items()
    }
    files = archive_files_of(list_archive(settings.archive), known_days, days)
    send_log = send_log_slices(settings.send_log, {}) if settings.send_log else []
    say(
        f"backfill: {day_name(days[0])} to {day_name(days[-1])} from {len(files):,} archive files "
        f"and {len(send_log):,} slices of the send log"
    )
    attempt = uuid.uuid4().hex
    manifest = run_bounded_graph(
        catalog.staging(attempt),
        settings,
        RunInput(NewInput(files, send_log), as_of, days=days),
    )
    names = [day_name(day) for day in days]
    commit = Commit(
        kind="backfill",
        as_of_ms=to_ms(as_of),
        counts=manifest.counts,
        added=manifest.files,
        removed=[file.path for table in _RECOMPUTED for file in catalog.files(table.name, names)],
        archive_files={},
        send_log={},
    )
    catalog.commit(commit, attempt)
    return manifest.counts


def archive_files_of(
    files: list[ArchiveFile], known_days: dict[str, list[int]], days: range
) -> list[ArchiveFile]:
    """Choose the archive files that may hold records of ``days``.

    Of a file that an epoch has read, it is known which days its records belong to. Any other file may
    matter if one of its messages was enqueued on the first day or later: no report precedes its send.
    """
    wanted = range(days.start - 1, days.stop + 1)
    first_ms = wanted.start * DAY_MS - DAY_MS
    return [
        file
        for file in files
        if (
            any(day in wanted for day in known_days[file.path])
            if file.path in known_days
            else to_ms(file.last_enqueued_at) >= first_ms
        )
    ]
