"""The archived messages that mention one send."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple

import pyarrow as pa

from analytics.catalog import CommitRecord, History
from pipeline.options_explain import ExplainOptions
from transforms.archive import ArchiveFile, ArchiveFileError, list_archive, read_archive
from transforms.decode import decode_messages
from transforms.decode_sends import SEND_MESSAGE_TYPE
from transforms.mentions import Sought
from transforms.moments import beijing_day, day_number

Row = Mapping[str, Any]

# Reading a file leaves Python alone for most of the time.
_THREADS: Final = 4
_FILES_TOLD: Final = 100


class ArchivedMessage(NamedTuple):
    """A message of the archive that mentions the send; one that was archived twice is two of these.

    Attributes:
        message: its columns, body included.
        file: where it is, relative to the archive.
        read_by: the commit that has read this file; None if none has yet.
        reports: those of its ``delivery_report`` rows that are about the send.
        answers: the same of its ``query_answer`` rows.
        sends: the same of its ``send_log_entry`` rows.
        failure: why it cannot be decoded: reason and detail; None if it can.
    """

    message: Row
    file: str
    read_by: CommitRecord | None
    reports: Sequence[Row]
    answers: Sequence[Row]
    sends: Sequence[Row]
    failure: str | None


@contextmanager
def reading_threads() -> Iterator[ThreadPoolExecutor]:
    """Threads to read files with; who is stopped by hand waits for those under way only."""
    threads = ThreadPoolExecutor(_THREADS)
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)


class ArchiveSearch:
    """The archive, and what the catalog knows of it; ``notes`` tell what could not be looked at."""

    def __init__(
        self, options: ExplainOptions, history: History, sought: Sought, now: datetime
    ) -> None:
        self._root = options.archive
        self._biz_id = options.biz_id
        self._history = history
        self._sought = sought
        self._now = now
        self.notes: list[str] = []

    def files(self, days: Set[str]) -> list[ArchiveFile]:
        """Choose the files that may mention the send: with records of these days, or not read yet.

        Every record of a file that was read is in a table or a failed event, so that the days of these are
        enough; and no report precedes its send by more than clocks disagree.
        """
        known = self._history.archive_files

        def is_wanted(path: str) -> bool:
            return path not in known or not days.isdisjoint(known[path].days)

        listed = list_archive(self._root, choose=lambda paths: list(filter(is_wanted, paths)))
        there = {self._relative(file) for file in listed}
        gone = sorted(path for path in known if path not in there and is_wanted(path))
        if not os.path.isdir(self._root):
            self.notes.append(f"There is no archive at {self._root}: correct --archive.")
        elif gone:
            self.notes.append(
                f"The archive {self._root} lacks {len(gone):,} files with records of these days, {gone[0]} "
                "first: is it the right --archive?"
            )
        first = min(map(day_number, days), default=0) - 1
        return [file for file in listed if beijing_day(file.last_enqueued_at) >= first]

    def read_by(self, file: ArchiveFile) -> CommitRecord | None:
        """The commit that has read a file."""
        known = self._history.archive_files.get(self._relative(file))
        return None if known is None else self._history.commits[known.commit]

    def messages(
        self, files: Sequence[ArchiveFile], say: Callable[[str], None]
    ) -> Iterator[ArchivedMessage]:
        """Search files for messages that mention the send."""
        with reading_threads() as threads:
            for number, (found, note) in enumerate(threads.map(self._found, files), start=1):
                yield from found
                if note:
                    self.notes.append(note)
                if number % _FILES_TOLD == 0:
                    say(f"explain: {number:,} of {len(files):,} archive files searched")

    def _found(self, file: ArchiveFile) -> tuple[Sequence[ArchivedMessage], str | None]:
        try:
            archived = read_archive(file.path)
        except (ArchiveFileError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            return (), f"The archive file {self._relative(file)} was not searched: {reason}"
        found = [
            message
            for batch in archived.batches
            for message in self._mentioning(file, self._candidates(batch))
        ]
        if not archived.lost:
            return found, None
        return found, (
            f"The archive file {self._relative(file)} is damaged: {archived.lost:,} of its {file.messages:,} "
            "messages cannot be read, and may have been about this send."
        )

    def _candidates(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return batch.filter(pa.array(self._sought.may_be_in_bodies(batch.column("body"))))

    def _mentioning(
        self, file: ArchiveFile, candidates: pa.RecordBatch
    ) -> Iterator[ArchivedMessage]:
        """Decode messages, and keep those that are about the send or cannot be decoded and mention it."""
        if not candidates.num_rows:
            return
        decoded = decode_messages(candidates, self._now)
        about = {
            row["message_id"]
            for records in (decoded.reports, decoded.answers)
            for row in records.select(["biz_id", "message_id"]).to_pylist()
            if row["biz_id"] == self._biz_id
        }
        failed = set(decoded.failed.column("message_id").to_pylist())
        for position, message in enumerate(candidates.to_pylist()):
            message_id = message["message_id"]
            # A send log entry does not say which message it came with.
            may_be_send = message["message_type"] == SEND_MESSAGE_TYPE
            if (
                message_id in about
                or (may_be_send and message_id not in failed)
                or (message_id in failed and self._sought.is_in(message["body"]))
            ):
                # By itself: one that was archived twice in this file has the records of one.
                archived = self._archived(file, message, candidates.slice(position, 1))
                if archived.failure or archived.sends or not may_be_send:
                    yield archived

    def _archived(self, file: ArchiveFile, message: Row, alone: pa.RecordBatch) -> ArchivedMessage:
        decoded = decode_messages(alone, self._now)
        reports, answers, sends = (
            [
                row
                for row in records.to_pylist(maps_as_pydicts="lossy")
                if row["biz_id"] == self._biz_id
            ]
            for records in (decoded.reports, decoded.answers, decoded.sends)
        )
        failures = [f"{row['reason']}: {row['detail']}" for row in decoded.failed.to_pylist()]
        return ArchivedMessage(
            message,
            self._relative(file),
            self.read_by(file),
            reports,
            answers,
            sends,
            failures[0] if failures else None,
        )

    def _relative(self, file: ArchiveFile) -> str:
        return os.path.relpath(file.path, self._root)
