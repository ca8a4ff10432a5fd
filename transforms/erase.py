"""Messages and rows without a person: what is theirs goes, what is others' stays as it was, byte for byte.

A record that holds one of the numbers anywhere goes as a whole, whoever it is about. Of a body that holds
several records, only such records go. What has no number but the ``biz_id`` of one of their sends may be
theirs, since only recipients share it: it goes, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pybase64

from transforms.decode_body import open_body
from transforms.decode_sends import is_avro, texts_in
from transforms.decode_shapes import SHAPES, ReportShape
from transforms.failures import UnusableError
from transforms.phone_numbers import Numbers
from transforms.tables import ENRICHED_REPORTS, FAILED_EVENTS, FAILED_SENDS, WAITING_REPORTS, Table

# Base64 in what need not be base64 as a whole; shorter ones hold no number.
_BASE64: Final = re.compile(rb"[0-9A-Za-z+/]{10,}")
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_QUANTUM: Final = 4
_MOST_LAYERS: Final = 3
_OBJECT: Final = b"{"
# The names of a recipient, wherever a report has one.
_REPORTS: Final = [
    shape for of in SHAPES.values() for shape in of if isinstance(shape, ReportShape)
]
_KEYS: Final = sorted({(each.columns["biz_id"], each.columns["phone_number"]) for each in _REPORTS})
_HAS_RECIPIENT: Final = rf'"(?:{"|".join(sorted({phone for _, phone in _KEYS}))})"\s*:\s*"[^"]'
_ELEMENTS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_MEMBERS: Final = msgspec.json.Decoder(dict[str, Any])
# Their reports may have no number.
_NAMELESS: Final = frozenset({ENRICHED_REPORTS.name, WAITING_REPORTS.name})
# The reason of failed events whose originals are bytes of a damaged archive file: nobody can read those.
UNREADABLE: Final = "damaged_archive_file"
_ORIGINALS: Final = frozenset({FAILED_EVENTS.name, FAILED_SENDS.name})

_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Persons:
    """Who is to be erased.

    Attributes:
        numbers: their phone numbers.
        biz_ids: of the sends that they were recipients of, as far as the tables tell.
    """

    numbers: Numbers
    biz_ids: frozenset[str] = field(default=frozenset(), repr=False)


class Remaining(NamedTuple):
    """What is left of some messages or rows.

    Attributes:
        rows: those that stay; the same object if all do, as they were.
        removed: how many went.
        shortened: how many stay with fewer records in their body.
    """

    rows: Any
    removed: int
    shortened: int

    @property
    def is_changed(self) -> bool:
        """Whether anything is different."""
        return bool(self.removed or self.shortened)


def messages_without(persons: Persons, messages: pa.RecordBatch) -> Remaining:
    """Take what is theirs out of a batch of ``mns_message`` rows."""
    named = np.zeros(len(messages), np.bool_)
    for column in messages.columns:
        if column.type == pa.string():
            named |= persons.numbers.are_in(column)
    return _without(persons, messages, "body", named)


def rows_without(persons: Persons, table: Table, rows: pa.Table) -> Remaining:
    """Take what is theirs out of rows of a table of the dataset."""
    named = np.zeros(rows.num_rows, np.bool_)
    for name in rows.schema.names:
        if name != "original":
            named |= persons.numbers.are_in(rows.column(name))
    if table.name in _NAMELESS and persons.biz_ids:
        is_theirs = pc.and_(
            pc.is_null(rows.column("phone_number")),
            pc.is_in(rows.column("biz_id"), value_set=pa.array(sorted(persons.biz_ids))),
        )
        named |= is_theirs.to_numpy()
    if table.name not in _ORIGINALS:
        if not named.any():
            return Remaining(rows, 0, 0)
        return Remaining(rows.filter(pa.array(~named)), int(named.sum()), 0)
    parts, start = [rows.slice(0, 0)], 0
    removed = shortened = 0
    for (
        batch
    ) in rows.to_batches():  # as they were read: all originals together may be too long for Arrow
        of_batch = named[start : start + len(batch)]
        left = _without(persons, batch, "original", of_batch)
        parts.append(pa.Table.from_batches([left.rows]))
        removed, shortened = removed + left.removed, shortened + left.shortened
        start += len(batch)
    return Remaining(pa.concat_tables(parts), removed, shortened)


def unreadable_originals(table: Table, rows: pa.Table) -> pa.ChunkedArray | pa.Array:
    """Tell of each row whether it is a failed event that nobody can read."""
    if table.name not in _ORIGINALS:
        return pa.repeat(pa.scalar(False), rows.num_rows)
    return pc.equal(rows.column("reason"), UNREADABLE)


def biz_ids_of(persons: Persons, rows: pa.Table) -> set[str]:
    """Tell the ``biz_id`` of rows whose ``phone_number`` is one of theirs."""
    is_theirs = persons.numbers.are_in(rows.column("phone_number"))
    return set(rows.column("biz_id").filter(pa.array(is_theirs)).to_pylist())


def body_without(persons: Persons, body: bytes) -> bytes | None:
    """Take what is theirs out of a message body, or whatever bytes came as one.

    Returns:
        The body itself if nothing of it is theirs; the body without their records if it is an array that
        has others', which stay byte for byte; None if nothing can stay.
    """
    elements = _elements(body)
    if elements is None:
        return None if _is_theirs(persons, body) else body
    kept = [element for element in elements if not _is_theirs(persons, element)]
    if len(kept) == len(elements):
        return None if persons.numbers.is_in(_opened(body)) else body
    text = b"[" + b",".join(kept) + b"]"
    if not kept or persons.numbers.is_in(text):
        return None
    return text if body.startswith(b"[") else pybase64.b64encode(text)


def any_of_theirs(persons: Persons, bodies: pa.Array) -> bool:
    """Tell of message bodies, or whatever bytes came as such, whether anything of them is theirs."""
    suspects = np.flatnonzero(_suspects(persons, bodies)).tolist()
    texts = (bodies[row].as_py() for row in suspects)
    return any(body_without(persons, text) is not text for text in texts)


def _without(persons: Persons, rows: pa.RecordBatch, column: str, named: _Flags) -> Remaining:
    """Leave out the rows that are named, and what is theirs in the bodies of the others."""
    shortened: dict[int, bytes] = {}
    gone = named.copy()
    bodies = rows.column(column)
    for row in np.flatnonzero(_suspects(persons, bodies) & ~named).tolist():
        body = bodies[row].as_py()
        left = body_without(persons, body)
        if left is None:
            gone[row] = True
        elif left is not body:
            shortened[row] = left
    if shortened:
        index = rows.schema.get_field_index(column)
        values = bodies.to_pylist()
        for row, left in shortened.items():
            values[row] = left
        rows = rows.set_column(index, rows.schema.field(index), pa.array(values, pa.binary()))
    if gone.any():
        rows = rows.filter(pa.array(~gone))
    return Remaining(rows, int(gone.sum()), len(shortened))


def _suspects(persons: Persons, bodies: pa.Array) -> _Flags:
    """Tell of n bodies which have to be looked into; the others are objects without anything of theirs."""
    texts = pa.array(map(_opened_or_nothing, bodies.to_pylist()), pa.binary())
    is_object = pc.starts_with(texts, _OBJECT).fill_null(False).to_numpy(zero_copy_only=False)
    suspects = ~is_object | persons.numbers.may_be_in(texts)
    if persons.biz_ids:
        has_recipient = pc.match_substring_regex(texts, _HAS_RECIPIENT).fill_null(False)
        suspects |= ~has_recipient.to_numpy(zero_copy_only=False)
    return np.asarray(suspects, np.bool_)


def _opened_or_nothing(body: bytes) -> bytes | None:
    if body.startswith((b"{", b"[")):
        return body
    try:
        return pybase64.b64decode(body, None, True)
    except ValueError:
        return None


def _opened(body: bytes) -> bytes:
    opened = _opened_or_nothing(body)
    return body if opened is None else opened


def _elements(body: bytes) -> list[bytes] | None:
    """The records of a body that is an array, as their exact bytes; None if it is none."""
    try:
        return [bytes(element) for element in _ELEMENTS.decode(open_body(body))]
    except (UnusableError, msgspec.MsgspecError, RecursionError):
        return None


def _is_theirs(persons: Persons, body: bytes) -> bool:
    """Tell of one record, or of what cannot be told to be one."""
    if is_avro(body):
        texts = texts_in(body)
        if (
            texts is None
        ):  # a length may be a digit before or behind a number: whatever looks like it, goes
            return bool(persons.numbers.may_be_in(pa.array([body], pa.binary()))[0])
        return any(map(persons.numbers.is_in, texts))
    return any(map(persons.numbers.is_in, _readings(body))) or _is_nameless(persons, _opened(body))


def _is_nameless(persons: Persons, text: bytes) -> bool:
    """Tell whether a record has no recipient, but the ``biz_id`` of one of their sends."""
    if not persons.biz_ids:
        return False
    try:
        fields: Mapping[str, Any] = _MEMBERS.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        is_of_theirs = any(biz_id.encode() in text for biz_id in persons.biz_ids)
        return is_of_theirs and not re.search(_HAS_RECIPIENT.encode(), text)
    return any(
        str(fields.get(biz_id)) in persons.biz_ids and not fields.get(phone)
        for biz_id, phone in _KEYS
    )


def _readings(body: bytes, layers: int = _MOST_LAYERS) -> Iterator[bytes]:
    """What bytes may mean: themselves, and what is below base64 that is whole, cut short or part of them."""
    yield body
    if not layers or body.startswith((b"{", b"[")):
        return
    letters = body.translate(_URL_SAFE)
    # In one piece if it only was cut into lines, and every piece by itself if something is missing between.
    pieces = dict.fromkeys((b"".join(_BASE64.findall(letters)), *_BASE64.findall(letters)))
    for letters in pieces:
        for start in range(_QUANTUM):
            part = letters[start:]
            part = part[:-1] if len(part) % _QUANTUM == 1 else part  # six bits are no byte
            padding = b"=" * (-len(part) % _QUANTUM)
            yield from _readings(pybase64.b64decode(part + padding), layers - 1)
