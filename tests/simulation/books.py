"""The books that the simulator keeps: what was enqueued and logged, whatever became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import fastavro

from tests.job.oracle import Meant, Row, Tables, tables_of_facts
from tests.simulation.bodies import Draft

# Characters of a row that differs.
_SHOWN: Final = 600


class LedgerOpenError(AssertionError):
    """Raised when the ledger does not close: what was found, and where to look."""


class Enqueued(NamedTuple):
    """A message that was put on a queue; its enqueue time lies between the two moments."""

    queue_name: str
    draft: Draft
    not_before: datetime
    not_after: datetime


@dataclass
class Books:
    """Everything that was enqueued and logged; ``forgotten`` messages expired before they were archived."""

    enqueued: dict[str, Enqueued] = field(default_factory=dict)
    entries: list[Row] = field(default_factory=list)
    forgotten: set[str] = field(default_factory=set)

    def note_expiry(
        self, held: Iterable[str], archived: Iterable[str], retention_secs: int, now: datetime
    ) -> None:
        """Write off what its queue has forgotten by ``now``; to be told what it held just before that."""
        oldest = now - timedelta(seconds=retention_secs)
        self.forgotten |= {
            message_id for message_id in held if self.enqueued[message_id].not_after < oldest
        } - set(archived)

    def require_no_loss(self, held: Iterable[str], archived: Iterable[str]) -> None:
        """Every message is on its queue, or in the archive, or was forgotten by its queue.

        Raises:
            LedgerOpenError: one is not, or one is there that nobody enqueued.
        """
        kept = {*held, *archived}
        lost = self.enqueued.keys() - kept - self.forgotten
        strange = kept - self.enqueued.keys()
        if lost or strange:
            raise LedgerOpenError(
                f"{len(lost)} messages are neither queued nor archived {_some(lost)}, and {len(strange)} "
                f"are there that nobody has enqueued {_some(strange)}"
            )

    def expected(self, archived: Archived, as_of: datetime, patience: timedelta) -> Tables:
        """What the tables must hold of all that was enqueued and logged.

        The queue stamps the enqueue time, so that it is taken from the archive, if it can be true.
        """
        messages = []
        for message_id in self.enqueued.keys() - self.forgotten:
            said = self.enqueued[message_id].draft
            stamped = {
                "message_id": message_id,
                "enqueued_at": archived.messages[message_id]["enqueued_at"],
            }
            reports = [row | stamped | {"origin": "mns"} for row in said.reports]
            messages.append(
                Meant(
                    archived.messages[message_id],
                    reports,
                    said.inbound | stamped if said.inbound else None,
                )
            )
        return tables_of_facts(messages, self.entries, as_of, patience)


class Archived:
    """The archive as it grows, read with fastavro alone."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen: set[Path] = set()
        self.messages: dict[str, Row] = {}
        self.copies = 0
        self.redelivered = 0

    def read(self, books: Books) -> None:
        """Read the new files, and hold what is in them against what was enqueued.

        Raises:
            LedgerOpenError: a message is not what was enqueued.
        """
        for path in sorted(set(self._root.glob("*/landed=*/*.avro")) - self._seen):
            self._seen.add(path)
            with path.open("rb") as file:
                for message in fastavro.reader(file):
                    assert isinstance(message, dict)
                    self._add(message, books)

    def _add(self, message: Row, books: Books) -> None:
        message_id = message["message_id"]
        self.copies += 1
        self.redelivered += message["dequeue_count"] > 1
        known = books.enqueued.get(message_id)
        if known is None:
            raise LedgerOpenError(f"the archive holds {message_id}, which nobody has enqueued")
        earlier = self.messages.setdefault(message_id, message)
        is_right = (
            message["body"] == known.draft.body.encode()
            and message["queue_name"] == known.queue_name
            and message["message_type"] == known.draft.message_type
            and known.not_before <= message["enqueued_at"] <= known.not_after
            and message["enqueued_at"] == earlier["enqueued_at"]
        )
        if not is_right:
            raise LedgerOpenError(f"the archive holds {message}, but enqueued was {known}")


def require_equal(found: Tables, expected: Tables, when: str) -> None:
    """Compare the tables with what they must hold.

    Raises:
        LedgerOpenError: they differ; the text shows the first differences of each table.
    """
    differences: list[str] = []
    counts: Counter[str] = Counter()
    for name, rows in vars(expected).items():
        there = vars(found)[name]
        for kind, keys in (
            ("missing", rows.keys() - there.keys()),
            ("too many", there.keys() - rows.keys()),
            ("different", {key for key in rows.keys() & there.keys() if rows[key] != there[key]}),
        ):
            counts[f"{kind} in {name}"] = len(keys)
            for key in sorted(keys, key=str)[:3]:
                difference = _row_difference(rows.get(key), there.get(key))
                differences.append(f"{kind} in {name}: {difference[:_SHOWN]}")
    if differences:
        summary = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        raise LedgerOpenError("\n  ".join([f"{when}: {summary}", *differences]))


def _row_difference(expected: Row | None, found: Row | None) -> str:
    if expected is None or found is None:
        return str(found or expected)
    return str(
        {
            name: (expected.get(name), found.get(name))
            for name in sorted(expected.keys() | found.keys())
            if expected.get(name) != found.get(name)
        }
        | {"message_id": found.get("message_id"), "biz_id": found.get("biz_id")}
    )


def _some(ids: Iterable[str]) -> Sequence[str]:
    return sorted(ids)[:3]
