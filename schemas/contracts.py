"""Everything that code needs to know of a record, compiled from its Avro schema.

``schemas/avro/<name>.avsc`` is the single source of truth; this module is the only place that
derives anything from it: the Arrow schema, the strict record type, the check and the encoder.

fastavro is the judge of what fits a schema, and msgspec the fast copy of its verdict (0.3 us a
record against 33): a property test holds them together. Four holes of fastavro's writer are
closed here on purpose: it takes naive datetimes as local time, bare integers for timestamps,
tuples as (branch of a union, value), and integers past 32 bits where the schema says ``int``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Annotated, Any, Final, Literal, cast

import fastavro
import fastavro.schema
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

_INT: Final = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_LONG: Final = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_TIMESTAMP: Final = Annotated[datetime, msgspec.Meta(tz=True)]

# Avro type -> (Python type, Arrow type). A type that is not here has no place in a contract yet.
_TYPES: Final[Mapping[str, tuple[Any, pa.DataType]]] = {
    "boolean": (bool, pa.bool_()),
    "int": (_INT, pa.int32()),
    "long": (_LONG, pa.int64()),
    "string": (str, pa.string()),
    "bytes": (bytes, pa.binary()),
    "timestamp-millis": (_TIMESTAMP, pa.timestamp("ms", tz="UTC")),
    "map of string": (dict[str, str], pa.map_(pa.string(), pa.string())),
}

# Values of these types are taken as they are: no base64 text for bytes, no text for times.
_NATIVE: Final = (bytes, bytearray, datetime)


class ContractError(ValueError):
    """Raised when a record does not fit its schema; names fields and types, never values."""


@dataclass(frozen=True)
class _Field:
    """One field of a schema: its name, its type in words, in Python and in Arrow."""

    name: str
    words: str
    python: Any
    arrow: pa.Field
    nullable: bool
    has_default: bool
    default: Any
    symbols: tuple[str, ...]


@dataclass(frozen=True)
class Contract:
    """One record's schema and all that is derived from it.

    Attributes:
        name: Name of the ``.avsc`` file, e.g. ``delivery_report``.
        schema: The schema as fastavro parsed it.
        fingerprint: CRC-64-AVRO of the canonical form, 16 hex digits.
        arrow: Columns in the schema's order; times are ``timestamp('ms', tz='UTC')``, enums are
            strings, maps are ``map<string, string>``; nullable only where the schema says so.
        record_type: A strict ``msgspec.Struct``: exact types, bounds, no unknown fields.
    """

    name: str
    schema: dict[str, Any]
    fingerprint: str
    arrow: pa.Schema
    record_type: type[msgspec.Struct]
    _fields: tuple[_Field, ...]
    _defaults: Mapping[str, Any]

    def symbols(self, field: str) -> tuple[str, ...]:
        """Return the symbols of an enum field, in the schema's order; empty for other fields."""
        return next(known.symbols for known in self._fields if known.name == field)

    def default(self, field: str) -> Any:  # noqa: ANN401 (of any field)
        """Return what a field is in rows from before it was added, as ``pyarrow.scalar`` takes it."""
        return next(known.default for known in self._fields if known.name == field)

    def require(self, datum: Mapping[str, Any]) -> None:
        """Check one record; a field with a default may be absent.

        Raises:
            ContractError: The record does not fit.
        """
        try:
            record = msgspec.convert(datum, self.record_type, builtin_types=_NATIVE)
            _ENCODER.encode(record)  # convert() lets lone surrogates pass; UTF-8 does not
        except (msgspec.ValidationError, UnicodeEncodeError):
            raise ContractError(self._explain(datum)) from None

    def batch(self, records: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
        """Lay records out as Arrow, in the order given.

        Each must have passed :meth:`require`: what does fits Arrow too, so that no record can
        spoil a batch for the others.
        """
        if not records:
            return _empty(self.arrow)
        complete = [{**self._defaults, **record} for record in records]
        return pa.RecordBatch.from_pylist(complete, schema=self.arrow)

    def complete(self, rows: pa.Table, columns: Sequence[str] | None = None) -> pa.Table:
        """Bring rows that were written with an earlier version of the schema to this one.

        Args:
            rows: columns of the schema; those that were not there yet may be absent.
            columns: the columns to return; None for all.

        Returns:
            The columns in the order asked for, the absent ones filled with their defaults.

        Raises:
            ContractError: A column without a default is absent: no version was without it.
        """
        fields = {field.name: field for field in self._fields}
        chosen = [fields[name] for name in (self.arrow.names if columns is None else columns)]
        present = set(rows.schema.names)
        if missing := [f.name for f in chosen if f.name not in present and not f.has_default]:
            raise ContractError(f"columns are missing: {', '.join(missing)}")
        return pa.Table.from_arrays(
            [
                rows.column(field.name)
                if field.name in present
                else pa.repeat(pa.scalar(field.default, field.arrow.type), rows.num_rows)
                for field in chosen
            ],
            schema=pa.schema([field.arrow for field in chosen]),
        )

    def require_batch(self, batch: pa.RecordBatch) -> None:
        """Check a whole record batch: columns, types, nulls and enum symbols.

        Raises:
            ContractError: The batch does not fit.
        """
        if not batch.schema.equals(self.arrow):
            raise ContractError(f"columns are not those of {self.name}")
        wrong = [
            f"{field.name}: expected {field.words}"
            for field, column in zip(self._fields, batch.columns, strict=True)
            if (column.null_count and not field.nullable) or _has_foreign_symbol(field, column)
        ]
        if wrong:
            raise ContractError("; ".join(wrong))

    def encode(self, datum: Mapping[str, Any]) -> bytes:
        """Encode one record as schemaless Avro.

        Raises:
            ContractError: The record does not fit.
        """
        self.require(datum)
        encoded = io.BytesIO()
        fastavro.schemaless_writer(encoded, self.schema, datum, strict_allow_default=True)
        return encoded.getvalue()

    def _explain(self, datum: object) -> str:
        """Say what is wrong with a record that was refused: the slow, careful second look."""
        if not isinstance(datum, Mapping):
            return f"expected a record of {self.name}"
        known = {field.name for field in self._fields}
        wrong = [
            f"{field.name}: expected {field.words}"
            for field in self._fields
            if not _fits(field, datum)
        ]
        # The name of an unknown field is not ours: it may hold anything, so it is not repeated.
        unknown = sum(name not in known for name in datum)
        return "; ".join(wrong + ([f"{unknown} unknown field(s)"] if unknown else []))


_ENCODER: Final = msgspec.msgpack.Encoder()


@cache
def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=schema)


def contract_names() -> tuple[str, ...]:
    """Name every contract there is, sorted."""
    files = (resources.files("schemas") / "avro").iterdir()
    return tuple(sorted(f.name.removesuffix(".avsc") for f in files if f.name.endswith(".avsc")))


@cache
def contract(name: str) -> Contract:
    """Compile ``schemas/avro/<name>.avsc``; compiled once per process."""
    text = (resources.files("schemas") / "avro" / f"{name}.avsc").read_text(encoding="utf-8")
    return compile_contract(name, json.loads(text))


@cache
def versions(name: str) -> tuple[Contract, ...]:
    """Compile the present version of a contract and all published ones, one of each fingerprint."""
    present = contract(name)
    by_fingerprint = {present.fingerprint: present}
    for release in (resources.files("schemas") / "published").iterdir():
        file = release / f"{name}.avsc"
        if file.is_file():
            version = compile_contract(name, json.loads(file.read_text(encoding="utf-8")))
            by_fingerprint.setdefault(version.fingerprint, version)
    return tuple(by_fingerprint.values())


def compile_contract(name: str, source: dict[str, Any]) -> Contract:
    """Compile any version of a contract from its schema.

    Raises:
        TypeError, KeyError: It holds a type that has no place in a contract.
    """
    fields = tuple(_compile(field) for field in source["fields"])
    canonical = fastavro.schema.to_parsing_canonical_form(source)
    return Contract(
        name=name,
        schema=cast("dict[str, Any]", fastavro.parse_schema(source)),
        fingerprint=fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"),
        arrow=pa.schema([field.arrow for field in fields]),
        record_type=msgspec.defstruct(
            source["name"],
            list(map(_member, fields, source["fields"])),
            module=__name__,
            kw_only=True,
            frozen=True,
            forbid_unknown_fields=True,
        ),
        _fields=fields,
        _defaults={each["name"]: each["default"] for each in source["fields"] if "default" in each},
    )


def _compile(definition: Mapping[str, Any]) -> _Field:
    """Derive one field from its definition in the schema."""
    avro = definition["type"]
    optional = isinstance(avro, list)
    if optional:
        null, avro = avro
        if null != "null":
            raise TypeError(f"{definition['name']}: an optional field is written [null, type]")
    symbols: tuple[str, ...] = ()
    words = _in_words(avro)
    if isinstance(avro, dict) and avro["type"] == "enum":
        symbols = tuple(avro["symbols"])
        python, arrow = Literal[symbols], pa.string()
    else:
        python, arrow = _TYPES[words]
    return _Field(
        name=definition["name"],
        words=f"null or {words}" if optional else words,
        python=python | None if optional else python,
        arrow=pa.field(definition["name"], arrow, nullable=optional),
        nullable=optional,
        has_default="default" in definition,
        default=[] if definition.get("default") == {} else definition.get("default"),
        symbols=symbols,
    )


def _in_words(avro: str | Mapping[str, Any]) -> str:
    """Name an Avro type as people say it; the key of ``_TYPES``."""
    if isinstance(avro, str):
        return avro
    if avro["type"] == "map":
        return f"map of {avro['values']}"
    if avro["type"] == "enum":
        return f"one of {', '.join(avro['symbols'])}"
    return str(avro["logicalType"])


def _member(field: _Field, definition: Mapping[str, Any]) -> tuple[Any, ...]:
    """Describe one field to ``msgspec.defstruct``."""
    if "default" not in definition:
        return (field.name, field.python)
    if definition["default"] == {}:
        return (field.name, field.python, msgspec.field(default_factory=dict))
    return (field.name, field.python, definition["default"])


def _fits(field: _Field, datum: Mapping[str, Any]) -> bool:
    if field.name not in datum:
        return field.has_default
    try:
        _ENCODER.encode(msgspec.convert(datum[field.name], field.python, builtin_types=_NATIVE))
    except (msgspec.ValidationError, UnicodeEncodeError):
        return False
    return True


def _has_foreign_symbol(field: _Field, column: pa.Array) -> bool:
    if not field.symbols:
        return False
    known = pc.is_in(column, value_set=pa.array(field.symbols))
    return bool(pc.any(pc.invert(known)).as_py())
