"""What must hold whatever message comes in: one function for all who bring inputs.

No message crashes the decoder or goes missing, what comes out fits its contract, none depends on its
neighbours, and nothing that came in is repeated in a detail or a log line.
"""

import io
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import process_time
from typing import Any, Final, NamedTuple
from zlib import crc32

import fastavro
import numpy as np
import pyarrow as pa

from schemas.contracts import contract
from tests.decode.samples import ENQUEUED_AT, FAILED_AT, typed_messages
from tests.fuzz.inputs import SECRETS, Message
from transforms.decode import DecodedMessages, decode_messages
from transforms.decode_query import QUERY_MESSAGE_TYPE, decode_answer
from transforms.decode_shapes import decode_body, schema_of
from transforms.failures import Stage, UnusableError
from transforms.validate import require_contract

# fastavro's writer costs ten times what it judges: it is asked about one record in so many.
_JUDGED: Final = 16
# A batch takes a fiftieth of this; what takes the square of its length takes more.
_MOST_CPU_SECS: Final = 5.0
# What the query API does not know of a report.
_VERDICT: Final[dict[str, Any]] = {
    "err_msg": None, "sms_size": None, "unknown_fields": {}, "origin": "query",
}  # fmt: skip
_REARRANGED: Final = 4  # and this is done with one batch in so many


def _traces(secret: str) -> Iterator[str]:
    """Yield the parts of a secret that give it away: six characters, or most of a short one."""
    size = min(6, len(secret) // 2 + 1)
    return (secret[start : start + size] for start in range(len(secret) - size + 1))


_TRACES: Final = re.compile("|".join(re.escape(part) for each in SECRETS for part in _traces(each)))


class Outcome(NamedTuple):
    """What became of one message: its records, or why it failed."""

    reports: list[dict[str, Any]]
    inbound: list[dict[str, Any]]
    answers: list[dict[str, Any]]
    failures: list[tuple[Stage, str, str]]


def require_discretion(texts: Iterable[str]) -> None:
    """Require that no text repeats a part of what was planted."""
    leaks = [leak.group() for text in texts for leak in _TRACES.finditer(text)]
    assert not leaks, f"personal data in a text: {leaks}"


@contextmanager
def discreet_logs() -> Iterator[None]:
    """Require that nothing planted is logged meanwhile, at any level, tracebacks included."""
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(self.format(record))

    root = logging.getLogger()
    level, handlers = root.level, root.handlers
    root.setLevel(logging.DEBUG)
    root.handlers = [Ear()]
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)
    require_discretion(heard)


def glance_at_message(message: Message) -> None:
    """Decode and validate one message by the careful way, which alone has branches to speak of."""
    _decode_alone(message, "M0")


def check_messages(messages: Sequence[Message]) -> Counter[str]:
    """Decode messages in one batch, hold what comes out to everything, and return the decoder's counts."""
    batch = typed_messages(messages)
    started_secs = process_time()
    with discreet_logs():
        decoded = decode_messages(batch, FAILED_AT)
    assert process_time() - started_secs < _MOST_CPU_SECS, "a message that takes very long"
    outcomes = _outcomes(decoded, messages)
    _check_contracts(decoded)
    _check_counts(decoded, outcomes)
    require_discretion({detail for each in outcomes for _, _, detail in each.failures})
    for number, message in enumerate(messages):
        alone = _decode_alone(message, f"M{number}")
        assert outcomes[number] == alone, f"message {number} depends on its way or its neighbours"
    if crc32(messages[0].body) % _REARRANGED == 0:
        _check_arrangements(messages, batch, outcomes)
    return decoded.counts


def _check_arrangements(
    messages: Sequence[Message], batch: pa.RecordBatch, expected: Sequence[Outcome]
) -> None:
    """Require the same of each message in two batches, backwards, and in one of its own."""
    middle = len(messages) // 2
    backwards = batch.take(pa.array(np.arange(len(messages))[::-1]))
    for part in (backwards[:middle], backwards[middle:], batch[middle : middle + 1]):
        outcomes = _outcomes(decode_messages(part, FAILED_AT), messages)
        for message_id in part.column("message_id").to_pylist():
            number = int(message_id[1:])
            assert outcomes[number] == expected[number], f"message {number} depends on others"


def _outcomes(decoded: DecodedMessages, messages: Sequence[Message]) -> list[Outcome]:
    """Give each message what came of it; what it brought is compared on the way."""
    outcomes = [Outcome([], [], [], []) for _ in messages]
    for row in decoded.reports.to_pylist(maps_as_pydicts="strict"):
        outcomes[int(row["message_id"][1:])].reports.append(row)
    for row in decoded.inbound.to_pylist(maps_as_pydicts="strict"):
        outcomes[int(row["message_id"][1:])].inbound.append(row)
    for row in decoded.answers.to_pylist():
        outcomes[int(row["message_id"][1:])].answers.append(row)
    for row in decoded.failed.to_pylist():
        number = int(row["message_id"][1:])
        outcomes[number].failures.append((row["stage"], row["reason"], row["detail"]))
        brought = Message(row["message_type"], row["original"])
        assert brought == messages[number], f"message {number} is not kept as it was"
        assert row["schema_name"] == _schema_of(row["message_type"])
    return outcomes


def _check_contracts(decoded: DecodedMessages) -> None:
    for name, rows in (
        ("delivery_report", decoded.reports),
        ("inbound_sms", decoded.inbound),
        ("query_answer", decoded.answers),
        ("failed_event", decoded.failed),
    ):
        contract(name).require_batch(rows)
        rows.validate(full=True)
        judged = rows.take(pa.array(range(len(rows) % _JUDGED, len(rows), _JUDGED), pa.int64()))
        for row in judged.to_pylist(maps_as_pydicts="strict"):
            fastavro.schemaless_writer(io.BytesIO(), contract(name).schema, row, strict=True)


def _check_counts(decoded: DecodedMessages, outcomes: Sequence[Outcome]) -> None:
    """Require one end for each message, and a ledger that says so."""
    for number, (reports, inbound, answers, failures) in enumerate(outcomes):
        # The verdicts of an answer are reports as well.
        ends = bool(reports or inbound or answers) + len(failures)
        assert ends == 1, f"message {number} has {ends} ends"
    counts = decoded.counts
    reasons = Counter(f"failed/{each.failures[0][1]}" for each in outcomes if each.failures)
    expected = {
        "messages": len(outcomes),
        "failed_messages": reasons.total(),
        "decoded_messages": len(outcomes) - reasons.total(),
        "reports": len(decoded.reports),
        "inbound_sms": len(decoded.inbound),
        **reasons,
    }
    assert {name: counts[name] for name in expected} == expected
    assert sum(number for name, number in counts.items() if "/" in name) == reasons.total()


def _decode_alone(message: Message, message_id: str) -> Outcome:
    """Decode one message by the careful way only."""
    stage: Stage = "decode"
    records: dict[str, list[dict[str, Any]]] = {}
    try:
        if message.message_type == QUERY_MESSAGE_TYPE:
            answered = decode_answer(message.body)
            records["delivery_report"] = [_VERDICT | row._asdict() for row in answered.reports]
            asked = {"event_id": answered.event_id, **answered.question._asdict()}
            records["query_answer"] = [{**asked, "answer": answered.answer}]
        else:
            decoded = decode_body(message.message_type, message.body)
            records["delivery_report"] = [
                {**row._asdict(), "origin": "mns"} for row in decoded.reports
            ]
            records["inbound_sms"] = [row._asdict() for row in decoded.inbound]
        stage = "validate"
        rows = {
            name: [_complete(name, record, message_id) for record in of_name]
            for name, of_name in records.items()
        }
    except UnusableError as error:
        return Outcome([], [], [], [(stage, error.reason, error.detail)])
    return Outcome(
        rows["delivery_report"], rows.get("inbound_sms", []), rows.get("query_answer", []), []
    )


def _schema_of(message_type: str) -> str:
    return "query_answer" if message_type == QUERY_MESSAGE_TYPE else schema_of(message_type)


def _complete(schema_name: str, record: Mapping[str, Any], message_id: str) -> dict[str, Any]:
    row = {**record, "message_id": message_id, "enqueued_at": ENQUEUED_AT}
    require_contract(schema_name, row)
    return row
