"""A small job whose dataset an earlier version has written: what this version reads, that one refused."""

import os
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime

import pyarrow as pa

from pipeline.catalog import Catalog, Commit
from pipeline.epochs import find_new_input
from pipeline.replay import dry_run, replay
from pipeline.send_log_slices import consumed_up_to
from schemas.records import MnsMessage
from tests.job.oracle import Row, current_rows, open_events
from tests.job.small_job import NOON, SmallJob
from transforms import tables
from transforms.failures import FailedEvent, Reason, UnusableError, failed_batch, failed_event
from transforms.moments import beijing_days, milliseconds, to_ms
from transforms.replay import Choice
from transforms.send_log import Consumed
from transforms.tables import Table, write_table

EVERYTHING = Choice()


class FailedJob(SmallJob):
    """Fails what a test names, as an earlier version would have, and replays it."""

    def fail(self, *messages: MnsMessage, reason: Reason = "unknown_shape") -> None:
        """Land messages, and commit failed events of them."""
        self.land(*messages)
        refusal = UnusableError(reason, "an earlier version could not read this")
        events = [
            failed_event(
                refusal,
                stage="decode",
                schema_name="inbound_sms" if message.message_type == "SmsUp" else "delivery_report",
                original=message.body,
                message_id=message.message_id,
                queue_name=message.queue_name,
                message_type=message.message_type,
                enqueued_at=message.enqueued_at,
                failed_at=NOON,
            )
            for message in messages
        ]
        self.commit_failed(tables.FAILED_EVENTS, events)

    def fail_sends(self, *lines: bytes, reason: Reason = "malformed_time") -> None:
        """Log lines, and commit failed events of them."""
        events = []
        for line in lines:
            offset = self.send_log.stat().st_size
            with self.send_log.open("ab") as log:
                log.write(line + b"\n")
            events.append(
                failed_event(
                    UnusableError(reason, "an earlier version could not read this"),
                    stage="validate",
                    schema_name="send_log_entry",
                    original=line,
                    message_id=f"{self.send_log}#{offset}",
                    source_file=str(self.send_log),
                    failed_at=NOON,
                )
            )
        end = self.send_log.stat().st_size
        consumed = {str(self.send_log): consumed_up_to(str(self.send_log), end)}
        self.commit_failed(tables.FAILED_SENDS, events, consumed)

    def commit_failed(
        self,
        table: Table,
        events: Sequence[FailedEvent],
        send_log: dict[str, Consumed] | None = None,
    ) -> None:
        """Commit failed events and what they came from."""
        rows = pa.Table.from_batches([failed_batch(events)])
        days = beijing_days(milliseconds(rows.column(table.day_column)))
        with Catalog(str(self.dataset), lambda: NOON) as catalog:
            archived = find_new_input(catalog, self.settings).archive_files
            added = list(write_table(table, rows, catalog.staging("earlier")))
            of_files = {
                os.path.relpath(file.path, self.archive): sorted({int(day) for day in days})
                for file in archived
            }
            commit = Commit("run", to_ms(NOON), {}, added, [], of_files, send_log or {})
            catalog.commit(commit, "earlier")

    def replay(self, as_of: datetime, choice: Choice = EVERYTHING) -> Counter[str]:
        """Replay in earnest."""
        with Catalog(str(self.dataset), lambda: as_of) as catalog:
            return replay(catalog, self.settings, choice, as_of, self.said.append)

    def dry_run(self, as_of: datetime, choice: Choice = EVERYTHING) -> Counter[str]:
        """Only say what a replay would do."""
        return dry_run(str(self.dataset), choice, as_of, self.said.append)

    def attempts(self, table: str = "failed_events") -> list[Row]:
        """Every attempt, in the order of messages and attempts."""
        rows = current_rows(self.dataset, table)
        return sorted(rows, key=lambda row: (row["message_id"], row["attempt"]))

    def open_events(self, table: str = "failed_events") -> dict[str, int]:
        """The attempts made at what is open, by message id."""
        return {row["message_id"]: row["attempt"] for row in open_events(self.attempts(table))}

    @property
    def commits(self) -> list[str]:
        """The kinds of all commits."""
        with closing(sqlite3.connect(self.dataset / "catalog.sqlite")) as database:
            return [kind for (kind,) in database.execute("SELECT kind FROM epochs ORDER BY epoch")]
