"""Records that fit a contract or nearly do, and what must hold of the check.

It takes exactly what fastavro's strict writer takes, Arrow holds whatever it takes, and a refusal names
fields and types only.
"""

import io
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from random import Random
from typing import Any, Final, NamedTuple

import fastavro
from fastavro.validation import validate

from schemas.contracts import Contract, ContractError, contract, contract_names
from tests.fuzz.inputs import PHONE, SECRETS, BytesRandom
from tests.fuzz.properties import require_discretion

_UTC: Final = timezone.utc
_FITTING: Final[dict[str, list[Any]]] = {
    "string": ["", "a", "\x00", "中文😀", "\ufeff", "\U0010ffff", *SECRETS],
    "boolean": [True, False],
    "bytes": [b"", b"\xff\x00", bytearray(b"a"), PHONE.encode()],
    "int": [0, -1, 2**31 - 1, -(2**31)],
    "long": [0, -1, 2**63 - 1, -(2**63), int(PHONE)],
    "timestamp-millis": [
        datetime(2026, 11, 1, 12, 0, 0, 123_999, _UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_500, _UTC),
        datetime(1, 1, 2, tzinfo=_UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, _UTC),
        datetime(2026, 11, 1, tzinfo=timezone(timedelta(hours=-23, minutes=-59))),
        datetime(2026, 11, 1, fold=1, tzinfo=timezone(timedelta(hours=8))),
    ],
    "map": [{}, {"a": ""}, {"": "b", "c": "d"}, {PHONE: SECRETS[1]}],
}
# Values that some reader somewhere takes for something that they are not. No memoryview: it is bytes to
# msgspec, Arrow and fastavro's writer, and to its validator alone it is not.
_ODD: Final[list[Any]] = [
    None, True, 0, 1, 2**31, -(2**31) - 1, 2**63, -(2**63) - 1, int(PHONE), 0.0, 1.5, float("nan"),
    Decimal(1), date(2026, 11, 1), datetime(2026, 11, 1), "1", "true", "decode", "2026-11-01T00:00:00Z",  # noqa: DTZ001
    "bm90IGJ5dGVz", "\ud800", "a\udfff", b"a", bytearray(b"a"), (), ("string", "x"), [],
    ["x"], {}, {"a": 1}, {1: "a"}, {"\ud800": "a"}, {"a": None}, {"a": "\udc00"}, *SECRETS, [PHONE],
]  # fmt: skip


class Record(NamedTuple):
    """A record, and the name of the contract that it is held to."""

    contract_name: str
    fields: dict[str, Any]


def draw_record(random: Random) -> Record:
    """Draw a record of some contract, with none to two things wrong with it."""
    name = random.choice(contract_names())
    definitions = {field["name"]: field for field in contract(name).schema["fields"]}
    fields = {field: _fitting(random, each["type"]) for field, each in definitions.items()}
    for _ in range(random.choice((0, 0, 1, 1, 2))):
        field = random.choice([*definitions])
        if random.randrange(3):
            fields[field] = random.choice(_ODD)
        else:
            fields.pop(field, None)
    if not random.randrange(10):
        fields[random.choice(("unheard_of", "", *SECRETS))] = random.choice(_ODD)
    return Record(name, fields)


def record_from_bytes(data: bytes) -> Record:
    """Draw a record as a fuzzer's bytes decide."""
    return draw_record(BytesRandom(data))


def check_records(records: Sequence[Record]) -> Counter[str]:
    """Hold records to their contracts, the verdicts to the judge's, and count them."""
    counts: Counter[str] = Counter(records=len(records))
    taken: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        compiled = contract(record.contract_name)
        try:
            compiled.require(record.fields)
        except ContractError as error:
            require_discretion([str(error)])
            assert not fastavro_takes(compiled, record.fields), "refused, but it fits"
            counts["refused"] += 1
        else:
            assert fastavro_takes(compiled, record.fields), "taken, but it does not fit"
            taken.setdefault(record.contract_name, []).append(record.fields)
    for name, fitting in taken.items():
        _check_batch(contract(name), fitting)
        counts["taken"] += len(fitting)
    return counts


def _check_batch(compiled: Contract, records: Sequence[dict[str, Any]]) -> None:
    """Require that Arrow holds records, each by the value that it has in Avro."""
    batch = compiled.batch(records)
    batch.validate(full=True)
    compiled.require_batch(batch)
    for row, record in zip(batch.to_pylist(maps_as_pydicts="strict"), records, strict=True):
        assert row == fastavro.schemaless_reader(
            io.BytesIO(compiled.encode(record)), compiled.schema, None
        )


def fastavro_takes(compiled: Contract, record: dict[str, Any]) -> bool:
    """Ask the judge, with its known holes closed: see the docstring of schemas.contracts."""
    for field in compiled.schema["fields"]:
        value = record.get(field["name"])
        if avro_kind(field["type"]) == "timestamp-millis" and (
            isinstance(value, int) or (isinstance(value, datetime) and value.tzinfo is None)
        ):
            return False
        if isinstance(value, tuple):  # fastavro reads one as (branch of the union, value)
            return False
    if not validate(record, compiled.schema, raise_errors=False, strict=True):
        return False
    try:
        fastavro.schemaless_writer(io.BytesIO(), compiled.schema, record, strict_allow_default=True)
    except (ValueError, TypeError):  # UnicodeEncodeError is a ValueError
        return False
    return True


def avro_kind(avro: Any) -> str:
    """Name the type of a field, optional or not: its logical type if it has one."""
    if isinstance(avro, list):
        return avro_kind(avro[1])
    if isinstance(avro, dict):
        return str(avro.get("logicalType") or avro["type"])
    return str(avro)


def _fitting(random: Random, avro: Any) -> Any:
    if isinstance(avro, list) and not random.randrange(3):
        return None
    kind = avro_kind(avro)
    if kind == "enum":
        definition = avro[1] if isinstance(avro, list) else avro
        return random.choice(definition["symbols"])
    return random.choice(_FITTING[kind])
