"""Keep the number of files small: epochs write many little ones, readers want few large ones.

Files of a day are merged by size: as soon as sixteen of about one size have come together they become one
of the next size. So a row is written again once per factor of sixteen, until its file is large. The merged
files are not sorted, which would cost the job time and memory: ``sms-receipts compact`` sorts.
"""

import uuid
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pipeline.catalog import Catalog, Commit, DataFile
from pipeline.graph_faults import operators_sentences
from pipeline.ledger import LedgerError
from pipeline.stopping import given_up_to_stop
from transforms import tables
from transforms.moments import to_ms
from transforms.tables import LARGE_FILE_ROWS, Table, WrittenFile, merge_files

_FILES_PER_SIZE: Final = 16
# Open sends and waiting reports are not among them: every epoch writes those anew.
GROWING: Final = (
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
        GivenUpError: a stop did not wait for it; they are as they were.
    """
    attempt = uuid.uuid4().hex
    merged = []
    removed: list[str] = []
    with given_up_to_stop(), operators_sentences(catalog.dataset):
        for table in GROWING:
            for files in _of_one_size(catalog, table):
                paths = [file.path for file in files]
                absolute = [catalog.absolute(path) for path in paths]
                large = merge_files(table, files[0].dt, absolute, catalog.staging(attempt))
                require_all_rows(table, sum(file.rows for file in files), [large])
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


def require_all_rows(table: Table, rows: int, written: Sequence[WrittenFile]) -> None:
    """Refuse to let files of so many rows go of which not every row is in those that take their place.

    Raises:
        LedgerError: there are fewer, or more.
    """
    found = sum(file.rows for file in written)
    if found != rows:
        day = f"/dt={written[0].dt}" if written else ""
        raise LedgerError(
            f"Files of {table.name}{day} hold {found} rows, but the catalog counts {rows}. They were not "
            "merged; recompute the day with sms-receipts backfill."
        )


def _of_one_size(catalog: Catalog, table: Table) -> list[list[DataFile]]:
    """Groups of sixteen and more files of one day and about one size, of those that are not large yet."""
    groups: defaultdict[tuple[str, int], list[DataFile]] = defaultdict(list)
    for file in catalog.files(table.name, catalog.days_of_last_commit()):
        if file.rows >= LARGE_FILE_ROWS:
            continue
        size = 0
        while file.rows >= _FILES_PER_SIZE ** (size + 1):
            size += 1
        groups[file.dt, size].append(file)
    return [files for files in groups.values() if len(files) >= _FILES_PER_SIZE]
