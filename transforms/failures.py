"""Failed events: what could not be used, why, and its original bytes.

This is the only place that makes one, so that every failed event can be replayed and none repeats
personal data: a detail names fields of ours and the types expected there, nothing that came in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from typing import Final, Literal, NamedTuple

import pyarrow as pa

from schemas.contracts import contract

FAILED: Final = "failed"  # tag of the failed output of every transform

Stage = Literal["archive", "decode", "validate", "enrich", "write"]

# The symbols of failed_event.avsc, which says what each means; a test holds the two together.
Reason = Literal[
    "empty_body",
    "malformed_base64",
    "malformed_utf8",
    "malformed_json",
    "malformed_avro",
    "duplicate_key",
    "nested_too_deep",
    "lone_surrogate",
    "nul_character",
    "unknown_message_type",
    "unknown_shape",
    "unknown_schema",
    "missing_field",
    "empty_identifier",
    "wrong_type",
    "malformed_time",
    "malformed_number",
    "unknown_status",
    "contract_violation",
    "damaged_archive_file",
]


def _pipeline_version() -> str:
    try:
        return metadata.version("sms-receipts")
    except metadata.PackageNotFoundError:
        return "not installed"  # run from a source tree


PIPELINE_VERSION: Final = _pipeline_version()


class UnusableError(ValueError):
    """Raised when a message or a record cannot be used.

    Attributes:
        reason: Why, one of a closed set.
        detail: Names of fields and what is expected there; never a value.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Final[Reason] = reason
        self.detail: Final = detail


class FailedEvent(NamedTuple):
    """One row of ``failed_event.avsc``, which documents the fields."""

    event_id: str
    stage: Stage
    reason: Reason
    detail: str
    schema_name: str
    schema_fingerprint: str
    original: bytes
    message_id: str
    queue_name: str | None
    message_type: str | None
    source_file: str | None
    enqueued_at: datetime | None
    failed_at: datetime
    attempt: int
    pipeline_version: str
    replayed_at: datetime | None = None


def failed_event(  # noqa: PLR0913 (a failed event has many columns; all are named)
    error: UnusableError,
    *,
    stage: Stage,
    schema_name: str,
    original: bytes,
    message_id: str,
    failed_at: datetime,
    queue_name: str | None = None,
    message_type: str | None = None,
    source_file: str | None = None,
    enqueued_at: datetime | None = None,
    attempt: int = 1,
) -> FailedEvent:
    """Describe a failure of the record that was meant for contract ``schema_name``."""
    return FailedEvent(
        event_id=hashlib.md5(f"failed|{message_id}".encode()).hexdigest(),
        stage=stage,
        reason=error.reason,
        detail=error.detail,
        schema_name=schema_name,
        schema_fingerprint=contract(schema_name).fingerprint,
        original=original,
        message_id=message_id,
        queue_name=queue_name,
        message_type=message_type,
        source_file=source_file,
        enqueued_at=enqueued_at,
        failed_at=failed_at,
        attempt=attempt,
        pipeline_version=PIPELINE_VERSION,
    )


def failed_batch(events: Sequence[FailedEvent]) -> pa.RecordBatch:
    """Lay failed events out as Arrow, in the order given."""
    return contract("failed_event").batch([event._asdict() for event in events])
