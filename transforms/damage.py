"""What becomes of messages that an archive file does not give back: failed events, counts, and an alarm."""

import os
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from schemas.contracts import contract
from transforms.archive import ArchivedMessages
from transforms.avro_blocks import DamagedPart
from transforms.decode import DecodedMessages
from transforms.failures import UnusableError, failed_batch, failed_event
from transforms.moments import beijing_day


class Damage(NamedTuple):
    """What is missing of an archive file.

    Attributes:
        path: the file.
        messages: how many its name promises.
        day: the Beijing day of its failed events.
        lost: how many of them cannot be read.
        parts: where they were, as bytes from the beginning of the file and how many bytes from there on.
    """

    path: str
    messages: int
    day: int
    lost: int
    parts: Sequence[tuple[int, int]]

    def message_ids(self) -> list[str]:
        """The ids of its failed events; the same bytes of the same file always have the same."""
        return [_message_id(self.path, start, size) for start, size in self.parts]

    def sentence(self, first_day: str, last_day: str) -> str:
        """Tell the operator; the lost messages may belong to any of these days."""
        places = f"in {len(self.parts)} places, first " if len(self.parts) > 1 else ""
        return (
            f"The archive file {self.path} is damaged {places}at byte {self.parts[0][0]:,}: {self.lost:,} of "
            f"its {self.messages:,} messages cannot be read, the others were used. Restore it from a copy "
            f"and run sms-receipts backfill --from={first_day} --to={last_day}."
        )


def damage_of(archived: ArchivedMessages) -> Damage:
    """Sum up what is missing of a file."""
    parts = [(part.start, part.size) for part in archived.damaged]
    file = archived.file
    day = beijing_day(file.first_enqueued_at)
    return Damage(file.path, file.messages, day, archived.lost, parts)


def failed_parts(archived: ArchivedMessages, failed_at: datetime) -> DecodedMessages:
    """Make a failed event of each damaged part.

    Returns:
        No records. The counts are those of :func:`decode_messages`, where every lost message is a failed
        one; plus ``damaged_messages``, which are the same, and ``damaged_parts``, the failed events.
    """
    reason: Final = "damaged_archive_file"
    file = archived.file
    events = [
        failed_event(
            UnusableError(reason, _detail(part, archived)),
            stage="archive",
            schema_name="mns_message",
            original=part.original,
            message_id=_message_id(file.path, part.start, part.size),
            queue_name=file.queue_name,
            source_file=file.path,
            # Of the lost messages only the file's name tells something.
            enqueued_at=file.first_enqueued_at,
            failed_at=failed_at,
        )
        for part in archived.damaged
    ]
    return DecodedMessages(
        reports=contract("delivery_report").batch([]),
        inbound=contract("inbound_sms").batch([]),
        answers=contract("query_answer").batch([]),
        sends=contract("send_log_entry").batch([]),
        failed=failed_batch(events),
        counts=Counter(
            {
                "messages": archived.lost,
                "failed_messages": archived.lost,
                f"failed/{reason}": archived.lost,
                "damaged_messages": archived.lost,
                "damaged_parts": len(events),
            }
        ),
    )


def _message_id(path: str, start: int, size: int) -> str:
    return f"{os.path.basename(path)}#{start}+{size}"


def _detail(part: DamagedPart, archived: ArchivedMessages) -> str:
    # What a damaged head promises may be anything.
    promised = f" of {part.records} messages" if 0 < part.records <= archived.lost else ""
    return (
        f"expected blocks{promised} in these {part.size} bytes; of the {archived.file.messages} messages of "
        f"the file {archived.lost} cannot be read"
    )
