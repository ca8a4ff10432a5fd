"""Records that travel between rooms as Python values; their schemas are in ``avro/``."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple


class MnsMessage(NamedTuple):
    """One message as an MNS queue delivered it, body unopened (``avro/mns_message.avsc``)."""

    message_id: str
    queue_name: str
    message_type: str
    enqueued_at: datetime
    dequeue_count: int
    body: bytes
