"""Send log entries that came as messages: a JSON object, or Avro in single-object encoding.

Both are as strict as the files of the send log. An Avro body names the schema that it was written with by its
fingerprint: any published version of the contract is read, and brought to the present one.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import pyarrow as pa

from schemas.contracts import Contract, contract, versions
from transforms.avro_datum import DatumError, DatumReader
from transforms.decode_body import Number, parse_json
from transforms.failures import Reason, UnusableError
from transforms.send_log_checks import CONTRACT_NAME, Checked, Refused, to_maps
from transforms.send_log_columns import check_columns
from transforms.send_log_lines import check_records

SEND_MESSAGE_TYPE: Final = "SendLogEntry"

# Single-object encoding (Avro specification 1.11): these two bytes, the CRC-64-AVRO fingerprint of the
# writer's schema in eight bytes, little-endian, and the datum. JSON text never begins with them.
_MARK: Final = b"\xc3\x01"
_DATUM_START: Final = 10


class _Version(NamedTuple):
    """A published version of the contract, and what reads its datums."""

    contract: Contract
    reader: DatumReader


def single_object(fingerprint: str, datum: bytes) -> bytes:
    """Put a schema's fingerprint (as ``Contract.fingerprint`` has it) before a datum."""
    return _MARK + bytes.fromhex(fingerprint) + datum


def is_avro(body: bytes) -> bool:
    """Tell whether a body is, or begins as, Avro in single-object encoding."""
    return body.startswith(_MARK)


def texts_in(body: bytes) -> list[str] | None:
    """Every text in an Avro body; None if it cannot be decoded."""
    version = _versions().get(body[len(_MARK) : _DATUM_START])
    try:
        values = version.reader.read(body, _DATUM_START) if version else None
    except DatumError:
        return None
    if values is None:
        return None
    maps = (value.items() for value in values if isinstance(value, dict))
    in_maps = [text for pairs in maps for pair in pairs for text in pair]
    return [value for value in values if isinstance(value, str)] + in_maps


def decode_sends(bodies: Sequence[bytes]) -> Checked:
    """Decode and validate the bodies of messages; ``position`` of a refused one is its index.

    Entries come in no particular order.
    """
    lines: list[int] = []
    by_fingerprint: defaultdict[bytes, list[int]] = defaultdict(list)
    batches: list[pa.RecordBatch] = []
    refused: list[Refused] = []
    for index, body in enumerate(bodies):
        if is_avro(body):
            by_fingerprint[body[len(_MARK) : _DATUM_START]].append(index)
        elif body.strip():
            lines.append(index)
        else:
            refused.append(_refused(index, body, "empty_body", "expected a send log entry"))
    for indices, checked in (
        (lines, _check_json([bodies[index] for index in lines])),
        *(
            (indices, _check_avro(fingerprint, [bodies[index] for index in indices]))
            for fingerprint, indices in by_fingerprint.items()
        ),
    ):
        batches.append(checked.entries)
        refused += [each._replace(position=indices[each.position]) for each in checked.refused]
    refused.sort(key=lambda each: each.position)
    return Checked(pa.concat_batches(batches), refused)


def _check_json(bodies: Sequence[bytes]) -> Checked:
    checked = check_records(bodies)
    return checked._replace(refused=[_explained(each) for each in checked.refused])


def _explained(refused: Refused) -> Refused:
    """Add what helps where a topic's schema has the encoding JSON: it writes times as numbers."""
    error = refused.error
    if error.reason != "wrong_type":
        return refused
    if not isinstance(parse_json(refused.original.decode()).get("requested_at"), Number):
        return refused
    detail = f"{error.detail}; of a topic with a schema only the encoding BINARY is read"
    return refused._replace(error=UnusableError(error.reason, detail))


def _check_avro(fingerprint: bytes, bodies: Sequence[bytes]) -> Checked:
    """Decode bodies whose writers say that they have used one and the same schema."""
    version = _versions().get(fingerprint)
    if version is None:
        detail = f"expected Avro of a published version of {CONTRACT_NAME}"
        wrong = [
            _refused(index, body, "unknown_schema", detail) for index, body in enumerate(bodies)
        ]
        return Checked(_no_entries(), wrong)
    rows: list[list[Any]] = []
    kept: list[int] = []
    refused: list[Refused] = []
    for index, body in enumerate(bodies):
        try:
            rows.append(version.reader.read(body, _DATUM_START))
        except DatumError:
            detail = f"expected one record of {CONTRACT_NAME} and nothing behind it"
            refused.append(_refused(index, body, "malformed_avro", detail))
        else:
            kept.append(index)
    checked = check_columns(_to_batch(rows, version.contract), 0)
    for each in checked.refused:
        index = kept[each.position]
        refused.append(each._replace(position=index, original=bodies[index]))
    return Checked(checked.entries, refused)


def _to_batch(rows: Sequence[Sequence[Any]], written: Contract) -> pa.RecordBatch:
    """Lay values out in the columns of their version, and bring these to the present contract."""
    if not rows:
        return _no_entries()
    columns = zip(zip(*rows, strict=True), written.arrow, strict=True)
    table = pa.Table.from_arrays(
        [_column(values, field.type) for values, field in columns], schema=written.arrow
    )
    (batch,) = contract(CONTRACT_NAME).complete(table).combine_chunks().to_batches()
    return batch


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    return to_maps(values) if pa.types.is_map(kind) else pa.array(values, kind)


def _no_entries() -> pa.RecordBatch:
    return contract(CONTRACT_NAME).batch([])


def _refused(index: int, body: bytes, reason: Reason, detail: str) -> Refused:
    return Refused(index, body, "decode", UnusableError(reason, detail))


@cache
def _versions() -> Mapping[bytes, _Version]:
    return dict(_read_versions())


def _read_versions() -> Iterator[tuple[bytes, _Version]]:
    for version in versions(CONTRACT_NAME):
        yield bytes.fromhex(version.fingerprint), _Version(version, DatumReader(version.schema))
