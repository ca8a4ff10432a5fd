"""Backfill: recompute a range of days from the archive and the send log, and put it in place at once."""

import os
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from datetime import datetime

from pipeline.catalog import Catalog, Commit
from pipeline.epochs import (
    JobSettings,
    NewInput,
    RunInput,
    archive_files,
    epochs_of,
    find_new_input,
    run_bounded_graph,
    run_epoch,
)
from pipeline.errors import OutputError, SendLogError
from pipeline.graph_faults import operators_sentences
from pipeline.send_log_slices import send_log_slices
from transforms import tables
from transforms.archive import ArchiveFile
from transforms.damage import Damage
from transforms.moments import DAY_MS, day_name, to_ms
from transforms.send_log import SendLogSlice

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

    What no epoch has read is processed first, for all days: a report that a backfill saw before the epochs
    would end the wait of a send of these days, and then find none. Only of a dataset in which nothing was
    read yet are the days made alone; its first epoch reads everything.

    Returns:
        The counts of the run, without those epochs.

    Raises:
        OutputError: the dataset cannot be written, or archive files that it was made from are gone or
            damaged since; it is as it was.
        SendLogError: the send log cannot be read, or is not the one that the dataset was made with.
        LedgerError: the counts do not add up; the dataset is as it was.
    """
    known_days = _known_days(catalog, settings)
    listed = archive_files(settings)
    if not os.path.isdir(settings.archive):
        raise OutputError(f"There is no archive at {settings.archive}: correct --archive.")
    send_log = _whole_send_log(settings)
    # Reports of these days' sends may be later, and clocks that disagree move a report a day back.
    reported = range(days.start - 1, days.stop + settings.days_apart)
    _require_archive(settings, {file.path for file in listed}, known_days, reported)
    consumed = catalog.send_log_consumed()
    _require_send_log({part.path for part in send_log}, consumed, say)
    if known_days or consumed:
        _process_pending(catalog, settings, as_of, say)
        # Looked at again: neither may a file be missed that an epoch has just read, nor one be read first.
        known_days = _known_days(catalog, settings)
        listed = [file for file in archive_files(settings) if file.path in known_days]
        send_log = _whole_send_log(settings)
    files = archive_files_of(listed, known_days, reported)
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
    with operators_sentences(settings.dataset):
        _require_no_new_damage(catalog, manifest.damage, known_days)
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
    """Choose the archive files that may hold records of these days.

    Of a file that an epoch has read, it is known which days its records belong to. Before the first epoch, a
    file may matter if a message of it was enqueued on the first day or later: no report precedes its send.
    """
    first_ms = (days.start - 1) * DAY_MS
    return [
        file
        for file in files
        if (
            any(day in days for day in known_days[file.path])
            if file.path in known_days
            else to_ms(file.last_enqueued_at) >= first_ms
        )
    ]


def _known_days(catalog: Catalog, settings: JobSettings) -> dict[str, list[int]]:
    """The archive files that epochs have read, with the Beijing days of their records."""
    return {
        os.path.join(settings.archive, path): of_file
        for path, of_file in catalog.archive_days().items()
    }


def _whole_send_log(settings: JobSettings) -> list[SendLogSlice]:
    return send_log_slices(settings.send_log, {}) if settings.send_log else []


def _process_pending(
    catalog: Catalog, settings: JobSettings, as_of: datetime, say: Callable[[str], None]
) -> None:
    """Run epochs over what none has read."""
    pending = find_new_input(catalog, settings)
    if not pending:
        return
    say(f"backfill: first {pending.messages:,} messages and sends that no epoch has read")
    for batch in epochs_of(pending):
        run_epoch(catalog, settings, batch, as_of)


def _require_archive(
    settings: JobSettings, listed: Set[str], known_days: Mapping[str, Sequence[int]], days: range
) -> None:
    """Refuse to replace rows whose messages are not there to make them from."""
    gone = sorted(
        path
        for path, of_file in known_days.items()
        if path not in listed and any(day in days for day in of_file)
    )
    if gone:
        raise OutputError(
            f"The archive {settings.archive} lacks {len(gone)} files that these days were made from, "
            f"{gone[0]} first: correct --archive, restore them, or leave these days as they are; nothing was "
            "changed."
        )


def _require_no_new_damage(
    catalog: Catalog, found: Sequence[Damage], known_days: Collection[str]
) -> None:
    """Refuse to replace rows by less because a file that was whole when they were made is damaged now."""
    for damage in found:
        if damage.path not in known_days:
            continue  # nothing was made from it yet
        files = catalog.files(tables.FAILED_EVENTS.name, [day_name(damage.day)])
        known = {
            message_id
            for file in files
            for message_id in tables.read_rows(
                tables.FAILED_EVENTS, catalog.absolute(file.path), ["message_id"]
            )
            .column("message_id")
            .to_pylist()
        }
        if not known.issuperset(damage.message_ids()):
            raise OutputError(
                f"The archive file {damage.path} has been damaged since these days were made from it, first "
                f"at byte {damage.parts[0][0]:,}: restore it from a copy, or leave these days as they are; "
                "nothing was changed."
            )


def _require_send_log(given: Set[str], known: Collection[str], say: Callable[[str], None]) -> None:
    """Refuse to replace rows without the send log that they were joined with."""
    gone = sorted(path for path in known if path not in given)
    if known and len(gone) == len(known):
        raise SendLogError(
            f"The dataset was made with another send log, {gone[0]} for one, and would lose what it says of "
            "these days: correct --send_log, or let sms-receipts run read the new one first."
        )
    if gone:
        say(
            f"backfill: {len(gone)} send log files that the dataset was made with are gone, {gone[0]} first; "
            "reports of these days whose sends were only there become orphans"
        )
