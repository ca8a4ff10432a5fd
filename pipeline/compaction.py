"""Keep the number of files small: epochs write many little ones, readers want few large ones.

Files of a day are merged by size: as soon as sixteen of about one size have come together they become one
of the next size. So a row is written again once per factor of sixteen, however long a day's table grows.
"""

import uuid
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pipeline.catalog import Catalog, Commit, DataFile
from pipeline.graph_faults import operators_sentences
from pipeline.ledger import LedgerError
from transforms import tables
from transforms.moments import to_ms
from transforms.tables import Table, WrittenFile, merge_files

_FILES_PER_SIZE: Final = 16
# Open sends and waiting reports are not among them: every epoch writes those anew.
_GROWING: Final = (
    tables.ENRICHED_REPORTS,
    tables.INBOUND_SMS,
    tables.UNREPORTED_SENDS,
    tables.FAILED_EVENTS,
    tables.FAILED_SENDS,
    tables.QUERY_ANSWERS,
)


def compact(catalog: Catalog, as_of: datetime) -> int:
    """Merge what has come together, in one commit; the rows stay what they are.

    Returns:
        How many files were merged.

    Raises:
        OutputError: the dataset cannot be written, or a file of it is damaged; it is as it was.
        LedgerError: files hold other numbers of rows than the catalog says; they are as they were.
    """
    attempt = uuid.uuid4().hex
    merged = []
    removed: list[str] = []
    with operators_sentences(catalog.dataset):
        for table in _GROWING:
            for files in _of_one_size(catalog, table):
                paths = [file.path for file in files]
                absolute = [catalog.absolute(path) for path in paths]
                large = merge_files(table, files[0].dt, absolute, catalog.staging(attempt))
                _require_all_rows(table, files, large)
                merged.append(large)
                removed += paths
    if merged:
        commit = Commit(
            kind="compact",
            as_of_ms=to_ms(as_of),
            counts={},
            added=merged,
            removed=removed,
            archive_files={},
            send_log={},
        )
        catalog.commit(commit, attempt)
    return len(removed)


def _require_all_rows(table: Table, files: Sequence[DataFile], large: WrittenFile) -> None:
    """Refuse to let files go of which not every row is in the one that takes their place."""
    rows = sum(file.rows for file in files)
    if large.rows != rows:
        raise LedgerError(
            f"{len(files)} files of {table.name}/dt={large.dt} hold {large.rows} rows, but the catalog "
            f"counts {rows}. They were not merged; recompute the day with sms-receipts backfill."
        )


def _of_one_size(catalog: Catalog, table: Table) -> list[list[DataFile]]:
    """Groups of sixteen and more files of one day and about one size."""
    groups: defaultdict[tuple[str, int], list[DataFile]] = defaultdict(list)
    for file in catalog.files(table.name, catalog.days_of_last_commit()):
        size = 0
        while file.rows >= _FILES_PER_SIZE ** (size + 1):
            size += 1
        groups[file.dt, size].append(file)
    return [files for files in groups.values() if len(files) >= _FILES_PER_SIZE]
