"""Send log entries from JSON lines.

The loop is msgspec's strict decoder on the contract's own record type. Why a line was refused is found out
afterwards, by a second and careful look.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
import pyarrow as pa

from schemas.contracts import contract
from transforms.decode_body import parse_json
from transforms.failures import Reason, Stage, UnusableError
from transforms.moments import EARLIEST, LATEST
from transforms.send_log_checks import (
    CONTRACT_NAME,
    IDENTIFIERS,
    SCHEMA,
    TIME_RANGE,
    Checked,
    Refused,
    has_plausible_times,
    to_maps,
)

_NOT_EMPTY: Final = Annotated[str, msgspec.Meta(min_length=1)]
_RECORD_TYPE: Final = msgspec.defstruct(
    "SendLogLine",
    [(name, _NOT_EMPTY) for name in IDENTIFIERS],
    bases=(contract(CONTRACT_NAME).record_type,),
    module=__name__,
    kw_only=True,
    frozen=True,
    forbid_unknown_fields=True,
)
_DECODER: Final = msgspec.json.Decoder(_RECORD_TYPE)
# What the decoder raises for a line that is no entry; anything else is a bug.
_REFUSALS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, UnusableError)
# Longer runs of live Python values cost more: the processor's cache and the garbage collector.
_RUN: Final = 2_000
_NUL_ESCAPE: Final = b"\\u0000"

_TIME_FORMAT: Final = (
    "expected ISO 8601 text with an offset or Z, e.g. 2026-11-01T08:00:00.000+08:00"
)


def check_lines(block: bytes, offset: int) -> Checked:
    """Decode and validate lines of JSON; blank lines are skipped, and sub-millisecond digits dropped.

    Of a field that a line names twice the last one counts.

    Args:
        block: whole lines; the last one need not end in a newline.
        offset: where the block starts in its file, in bytes.
    """
    lines = block.split(b"\n")
    checked = check_records(lines)
    refused = []
    done = 0
    for each in checked.refused:
        offset += sum(map(len, lines[done : each.position])) + each.position - done
        done = each.position
        refused.append(each._replace(position=offset))
    return checked._replace(refused=refused)


def check_records(records: Sequence[bytes]) -> Checked:
    """Decode and validate records, each the JSON text of one; blank ones are skipped.

    ``position`` of a refused one is its index.
    """
    batches = [contract(CONTRACT_NAME).batch([])]
    refused: list[Refused] = []
    for first in range(0, len(records), _RUN):
        run = records[first : first + _RUN]
        is_suspect = any(_NUL_ESCAPE in record for record in run)
        entries, failed = _decode(run, _decode_suspect if is_suspect else _DECODER.decode)
        if not has_plausible_times(entries):
            entries, failed = _decode(run, _decode_suspect)
        batches.append(entries)
        refused.extend(_refuse(run[index], first + index) for index in failed)
    return Checked(pa.concat_batches(batches), refused)


def _decode(
    lines: Sequence[bytes], decode: Callable[[bytes], Any]
) -> tuple[pa.RecordBatch, Sequence[int]]:
    """Decode some lines; also answer the indices of those that were refused."""
    records: list[Any] = []
    failed: list[int] = []
    decoded = map(decode, lines)
    while True:
        try:
            # Stops at a refusal with the records before it kept; the next turn goes on behind it.
            records.extend(decoded)
        except _REFUSALS:
            failed.append(len(records) + len(failed))
        else:
            break
    return _to_batch(records), [index for index in failed if lines[index].strip()]


def _decode_suspect(line: bytes) -> Any:
    """Decode a line that the strict decoder alone would take too easily."""
    if _NUL_ESCAPE in line:
        parse_json(line.decode())
    record: Any = _DECODER.decode(line)
    if not EARLIEST <= record.requested_at < LATEST:
        raise UnusableError("malformed_time", TIME_RANGE)
    return record


def _to_batch(records: Sequence[Any]) -> pa.RecordBatch:
    """Turn records into columns."""
    if not records:
        return pa.RecordBatch.from_pylist([], schema=SCHEMA)
    values = dict(
        zip(
            _RECORD_TYPE.__struct_fields__,
            zip(*map(msgspec.structs.astuple, records), strict=True),
            strict=True,
        )
    )
    columns = [
        to_maps(values[field.name])
        if field.name == "tags"
        else pa.array(values[field.name], field.type)
        for field in SCHEMA
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _refuse(line: bytes, position: int) -> Refused:
    stage: Stage = "decode"
    try:
        members = _parse(line)
        stage = "validate"
        _require_entry(members)
    except UnusableError as error:
        return Refused(position, line, stage, error)
    unexplained = UnusableError("contract_violation", f"expected a record of {CONTRACT_NAME}")
    return Refused(position, line, stage, unexplained)


def _parse(line: bytes) -> dict[str, Any]:
    """Parse a line, strictly.

    Raises:
        UnusableError: it is no JSON object.
    """
    try:
        value = parse_json(line.decode())
    except UnicodeDecodeError:
        raise UnusableError("malformed_utf8", "expected UTF-8 text") from None
    if not isinstance(value, dict):
        raise UnusableError("unknown_shape", "expected one JSON object per line")
    return value


def _require_entry(members: dict[str, Any]) -> None:
    """Say everything that is wrong with a JSON object; the first thing gives the reason.

    Raises:
        UnusableError: something is.
    """
    wrong = [*_wrong_members(members)]
    unknown = sum(name not in SCHEMA.names for name in members)
    if unknown:
        # What an unknown field is called is not ours to repeat: it may be anything.
        wrong.append(("contract_violation", f"{unknown} unknown field(s): put them into tags"))
    if wrong:
        raise UnusableError(wrong[0][0], "; ".join(detail for _, detail in wrong))


def _wrong_members(members: dict[str, Any]) -> Iterator[tuple[Reason, str]]:
    for field in SCHEMA:
        name, value = field.name, members.get(field.name)
        if value is None:
            if not field.nullable and (name != "tags" or name in members):
                yield "missing_field", f"{name}: expected {_words(field)}"
        elif name == "requested_at":
            yield from _wrong_time(value)
        elif name == "tags":
            if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
                yield "wrong_type", f"tags: expected {_words(field)}"
        elif not isinstance(value, str):
            yield "wrong_type", f"{name}: expected {_words(field)}"
        elif not value and name in IDENTIFIERS:
            yield "empty_identifier", f"{name}: expected text that is not empty"


def _wrong_time(value: object) -> Iterator[tuple[Reason, str]]:
    if not isinstance(value, str):
        yield "wrong_type", f"requested_at: {_TIME_FORMAT}; the unit of a number would be a guess"
        return
    try:
        moment = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        yield "malformed_time", f"requested_at: {_TIME_FORMAT}"
        return
    if moment.utcoffset() is None:
        yield "malformed_time", f"requested_at has no time zone: {_TIME_FORMAT}"
    elif not EARLIEST <= moment < LATEST:
        yield "malformed_time", TIME_RANGE


def _words(field: pa.Field) -> str:
    """Name the type of a field."""
    if field.name == "tags":
        return "a map of text to text"
    if field.name == "requested_at":
        return _TIME_FORMAT.removeprefix("expected ")
    return "text or null" if field.nullable else "text"
