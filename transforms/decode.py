"""Decode messages: bytes in, records out; what cannot be decoded becomes a failed event.

Works on whole Arrow batches: canonical reports take the fast way of
:mod:`transforms.decode_canonical`, send log entries that of :mod:`transforms.decode_sends`, everything
else the careful one of :mod:`transforms.decode_shapes`. Every message ends in exactly one of the two outputs:
its records are all good, or it is one failed event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.contracts import contract
from transforms.decode_canonical import CANONICAL_TYPES, decode_canonical
from transforms.decode_query import QUERY_MESSAGE_TYPE, decode_answer
from transforms.decode_sends import SEND_MESSAGE_TYPE, decode_sends
from transforms.decode_shapes import decode_body, schema_of
from transforms.failures import FailedEvent, Stage, UnusableError, failed_batch, failed_event
from transforms.send_log_checks import CONTRACT_NAME
from transforms.validate import require_contract

_CANONICAL: Final = pa.array(CANONICAL_TYPES)

Origin = Literal["mns", "query", "replay"]


class DecodedMessages(NamedTuple):
    """What became of a batch of messages.

    Attributes:
        reports: ``delivery_report`` rows.
        inbound: ``inbound_sms`` rows.
        answers: ``query_answer`` rows; the verdicts among them are reports as well.
        sends: ``send_log_entry`` rows.
        failed: ``failed_event`` rows, one per failed message.
        counts: ``messages`` = ``decoded_messages`` + ``failed_messages``; ``failed/<reason>``;
            ``reports``, ``inbound_sms``, ``query_answers`` and ``sends`` (records: an array body holds
            many); ``success_as_string`` (reports with success in quotes); ``plain_bodies`` (messages
            of JSON without base64); ``unknown_fields`` (fields kept there).
    """

    reports: pa.RecordBatch
    inbound: pa.RecordBatch
    answers: pa.RecordBatch
    sends: pa.RecordBatch
    failed: pa.RecordBatch
    counts: Counter[str]


def decode_messages(
    messages: pa.RecordBatch, failed_at: datetime, origin: Origin = "mns"
) -> DecodedMessages:
    """Decode a batch of ``mns_message`` rows.

    Args:
        messages: The messages, of any types, in any order.
        failed_at: The time to note on failed events.
        origin: How they came to us, to note on reports; the answer of a query says so itself.

    Returns:
        Canonical reports in the order of their messages, then all others in theirs.
    """
    bodies, types = messages.column("body"), messages.column("message_type")
    rows = np.flatnonzero(np.asarray(pc.is_in(types, _CANONICAL)))
    canonical = decode_canonical(bodies if len(rows) == len(bodies) else bodies.take(rows))
    accepted = rows[canonical.recognised]
    logged = np.flatnonzero(np.asarray(pc.equal(types, SEND_MESSAGE_TYPE)))
    sends = decode_sends(bodies.take(logged).to_pylist())
    rest = np.delete(np.arange(len(messages)), np.concatenate([accepted, logged]))
    others = _decode_others(messages.take(rest).to_pylist(), failed_at, origin)
    refused = messages.take(logged[[each.position for each in sends.refused]]).to_pylist()
    for message, (_, _, stage, error) in zip(refused, sends.refused, strict=True):
        others.fail(message, stage, error, failed_at)

    reports = _canonical_reports(messages, accepted, canonical.columns, origin)
    if others.reports:
        reports = pa.concat_batches([reports, contract("delivery_report").batch(others.reports)])
    contract("delivery_report").require_batch(reports)
    plain = pc.or_(pc.starts_with(bodies, b"{"), pc.starts_with(bodies, b"["))
    counts = others.counts + Counter(
        messages=len(messages),
        decoded_messages=len(messages) - len(others.failed),
        failed_messages=len(others.failed),
        reports=len(reports),
        inbound_sms=len(others.inbound),
        query_answers=len(others.answers),
        sends=len(sends.entries),
        plain_bodies=pc.sum(plain).as_py() or 0,
    )
    inbound = contract("inbound_sms").batch(others.inbound)
    answers = contract("query_answer").batch(others.answers)
    return DecodedMessages(
        reports, inbound, answers, sends.entries, failed_batch(others.failed), counts
    )


def _canonical_reports(
    messages: pa.RecordBatch,
    rows: npt.NDArray[np.intp],
    columns: pa.RecordBatch,
    origin: Origin,
) -> pa.RecordBatch:
    """Put the decoded columns beside the columns that come from their messages."""
    schema = contract("delivery_report").arrow
    no_unknown_fields = pa.MapArray.from_arrays(
        np.zeros(len(rows) + 1, np.int32), pa.array([], pa.string()), pa.array([], pa.string())
    )
    every = {
        **dict(zip(columns.schema.names, columns.columns, strict=True)),
        "unknown_fields": no_unknown_fields,
        "message_id": messages.column("message_id").take(rows),
        "enqueued_at": messages.column("enqueued_at").take(rows),
        "origin": pa.repeat(pa.scalar(origin), len(rows)),
    }
    return pa.RecordBatch.from_arrays([every[name] for name in schema.names], schema=schema)


class _Others(NamedTuple):
    """What became of the messages that were decoded one by one."""

    reports: list[dict[str, Any]]
    inbound: list[dict[str, Any]]
    answers: list[dict[str, Any]]
    failed: list[FailedEvent]
    counts: Counter[str]

    def fail(
        self, message: Mapping[str, Any], stage: Stage, error: UnusableError, failed_at: datetime
    ) -> None:
        """Note that a message cannot be used."""
        self.failed.append(_failed(message, stage, error, failed_at))
        self.counts[f"failed/{error.reason}"] += 1


def _decode_others(
    messages: Sequence[Mapping[str, Any]], failed_at: datetime, origin: Origin
) -> _Others:
    others = _Others([], [], [], [], Counter())
    for message in messages:
        if message["message_type"] == QUERY_MESSAGE_TYPE:
            _decode_query(message, failed_at, others)
            continue
        stage: Stage = "decode"
        try:
            decoded = decode_body(message["message_type"], message["body"])
            stage = "validate"
            reports = _rows(
                "delivery_report",
                message,
                ({**report._asdict(), "origin": origin} for report in decoded.reports),
            )
            inbound = _rows("inbound_sms", message, (each._asdict() for each in decoded.inbound))
        except UnusableError as error:
            others.fail(message, stage, error, failed_at)
            continue
        others.reports.extend(reports)
        others.inbound.extend(inbound)
        others.counts["success_as_string"] += decoded.success_as_string
        others.counts["unknown_fields"] += sum(len(r["unknown_fields"]) for r in reports + inbound)
    return others


def _decode_query(message: Mapping[str, Any], failed_at: datetime, others: _Others) -> None:
    """Decode an answer of QuerySendDetails; it was written by ourselves, and is trusted no more for it."""
    stage: Stage = "decode"
    try:
        decoded = decode_answer(message["body"])
        stage = "validate"
        verdicts = (report._asdict() for report in decoded.reports)
        nothing: dict[str, Any] = {"err_msg": None, "sms_size": None, "unknown_fields": {}}
        reports = _rows(
            "delivery_report",
            message,
            ({**verdict, **nothing, "origin": "query"} for verdict in verdicts),
        )
        answer = {
            "event_id": decoded.event_id,
            **decoded.question._asdict(),
            "answer": decoded.answer,
        }
        answers = _rows("query_answer", message, [answer])
    except UnusableError as error:
        others.fail(message, stage, error, failed_at)
        return
    others.reports.extend(reports)
    others.answers.extend(answers)


def _rows(
    schema_name: str, message: Mapping[str, Any], records: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Complete records with their message's columns and hold them to their contract."""
    message_columns = {"message_id": message["message_id"], "enqueued_at": message["enqueued_at"]}
    rows = [{**record, **message_columns} for record in records]
    for row in rows:
        require_contract(schema_name, row)
    return rows


def _failed(
    message: Mapping[str, Any], stage: Stage, error: UnusableError, failed_at: datetime
) -> FailedEvent:
    return failed_event(
        error,
        stage=stage,
        schema_name=_schema_of(message["message_type"]),
        original=message["body"],
        message_id=message["message_id"],
        queue_name=message["queue_name"],
        message_type=message["message_type"],
        enqueued_at=message["enqueued_at"],
        failed_at=failed_at,
    )


def _schema_of(message_type: str) -> str:
    if message_type == SEND_MESSAGE_TYPE:
        return CONTRACT_NAME
    return "query_answer" if message_type == QUERY_MESSAGE_TYPE else schema_of(message_type)
