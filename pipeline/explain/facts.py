"""The traces of one send, recipient by recipient, and what follows from them at once."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from pipeline.explain.archive import ArchivedMessage, Row
from pipeline.explain.search import LoggedSend, StoredRow, Traces
from transforms import tables
from transforms.tables import Table

_OF_REPORTS: Final = (tables.ENRICHED_REPORTS.name, tables.WAITING_REPORTS.name)


@dataclass
class Facts:
    """The traces of one recipient; of None nobody knows which.

    ``messages`` come with one of their records, which is about this recipient; with None if they have none.
    """

    phone_number: str | None = field(repr=False)
    rows: defaultdict[str, list[StoredRow]] = field(
        default_factory=lambda: defaultdict(list), repr=False
    )
    messages: list[tuple[ArchivedMessage, Row | None]] = field(default_factory=list, repr=False)
    logged: list[LoggedSend] = field(default_factory=list, repr=False)

    def of(self, table: Table) -> Sequence[StoredRow]:
        """The rows of a table."""
        return self.rows.get(table.name, ())

    @property
    def failed(self) -> Sequence[StoredRow]:
        """The failed events: an attempt each."""
        return [*self.of(tables.FAILED_EVENTS), *self.of(tables.FAILED_SENDS)]

    @cached_property
    def enriched(self) -> Sequence[StoredRow]:
        """The rows of its reports, in the order in which they were written."""
        return sorted(self.of(tables.ENRICHED_REPORTS), key=self._written)

    @cached_property
    def current(self) -> StoredRow | None:
        """The row that counts."""
        return min(self.enriched, key=_currency, default=None)

    @cached_property
    def unread(self) -> frozenset[str]:
        """The ids of archived messages that no commit has read."""
        return frozenset(
            message_id
            for archived, _ in self.messages
            if (message_id := archived.message["message_id"]) not in self._read_at
            and not self.is_stored(message_id)
        )

    def is_stored(self, message_id: str) -> bool:
        """Tell whether a row of a table came with a message, or is a failed event of that id."""
        rows = (row for of_table in self.rows.values() for row in of_table)
        return any(is_of(stored, message_id) for stored in rows)

    def decided_at(self, stored: StoredRow) -> datetime:
        """When a row was written.

        A file that merges others keeps no memory of who wrote them. The message of the row was read by one
        of those commits; so that is when it was written, or, if a send log entry came later, the earliest.
        """
        written_at = stored.commit.committed_at
        if not stored.is_merged:
            return written_at
        return min(written_at, self._read_at.get(stored.row.get("message_id"), written_at))

    @cached_property
    def _read_at(self) -> dict[str | None, datetime]:
        """When a commit has first read which message."""
        read_at: dict[str | None, datetime] = {}
        for archived, _ in self.messages:
            if archived.read_by is not None:
                at = archived.read_by.committed_at
                message_id = archived.message["message_id"]
                read_at[message_id] = min(at, read_at.get(message_id, at))
        return read_at

    def _written(self, stored: StoredRow) -> tuple[Any, ...]:
        row = stored.row
        is_matched = not is_orphan(row)
        return (self.decided_at(stored), row["revision"], is_matched, row["enqueued_at"])


def by_recipient(traces: Traces) -> list[Facts]:
    """Give every trace to its recipient.

    A report without a number belongs to the recipient that the tables found for it; if they found none, it is
    an SMS of its own. What names nobody at all is about the only recipient, if there is only one.
    """
    facts: dict[tuple[str | None, str | None], Facts] = {}

    def of(phone_number: str | None, message_id: str | None = None) -> Facts:
        key = (phone_number, message_id if phone_number is None else None)
        return facts.setdefault(key, Facts(phone_number))

    found: dict[str, str | None] = {}
    for stored in traces.rows:
        row = stored.row
        if stored.table in _OF_REPORTS:
            found[row["message_id"]] = row["phone_number"]
            of(row["phone_number"], row["message_id"]).rows[stored.table].append(stored)
        else:
            of(row.get("phone_number")).rows[stored.table].append(stored)
    for logged in (*traces.logged, *_logged(traces.archived)):
        of(logged.entry["phone_number"] if logged.entry else None).logged.append(logged)
    only = _only_number(facts)
    for archived in traces.archived:
        message_id = archived.message["message_id"]
        records = archived.answers or archived.reports
        # Of two records about one recipient in one message, the first one says what it says.
        of_number = {record["phone_number"]: record for record in reversed(records)}
        for phone_number, record in of_number.items():
            owner = phone_number or found.get(message_id, only)
            of(owner, message_id).messages.append((archived, record))
        if not records and not archived.sends:
            of(None).messages.append((archived, None))
    only = _only_number(facts)
    if only is not None and (None, None) in facts:
        nameless = facts.pop((None, None))
        for table, rows in nameless.rows.items():
            of(only).rows[table] += rows
        of(only).messages += nameless.messages
        of(only).logged += nameless.logged
    return sorted(
        facts.values(), key=lambda each: (each.phone_number is None, each.phone_number or "")
    )


def _logged(archived: Sequence[ArchivedMessage]) -> Iterator[LoggedSend]:
    """The entries of the send log that came as messages."""
    for each in archived:
        for send in each.sends:
            yield LoggedSend(send, each.file, each.read_by is not None, None, each.read_by)


def _only_number(facts: dict[tuple[str | None, str | None], Facts]) -> str | None:
    """The number of the only recipient; None if there are several, or none."""
    numbers = {phone_number for phone_number, _ in facts if phone_number is not None}
    return min(numbers) if len(numbers) == 1 else None


def is_of(stored: StoredRow, message_id: str) -> bool:
    """Tell whether a row came with a message."""
    return bool(stored.row.get("message_id") == message_id)


def is_orphan(row: Row) -> bool:
    """Tell whether a row of a report has no send."""
    return bool(row["match"] == "orphan")


def outcome_of(row: Row) -> tuple[bool, str | None, bool]:
    """What ``transforms.match`` calls an outcome."""
    return row["success"], row["err_code"], row["origin"] == "query"


def spelled_outcome(row: Row) -> str:
    """Say what a report says: delivered or failed, with its code where that says more."""
    word, code = ("delivered" if row["success"] else "failed"), row["err_code"]
    return word if code is None or (row["success"] and code == "DELIVERED") else f"{word} ({code})"


def _currency(stored: StoredRow) -> tuple[Any, ...]:
    """The least is the row that counts, as ``analytics/sql/views.sql`` has it."""
    row = stored.row
    requested_at = row["requested_at"]
    return (
        -row["revision"],
        row["origin"] != "query",
        row["enqueued_at"],
        row["message_id"],
        requested_at is None,
        requested_at,
    )
