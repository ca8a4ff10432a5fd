"""Tables as bytes: what comes out is what went in, and small enough to keep in state."""

import pyarrow as pa

from tests.enrich.small_dataset import send
from transforms.enrich_rows import SEND_SCHEMA
from transforms.packed import pack, pack_rows, unpack, unpack_rows

SENDS = pa.Table.from_pylist(
    [send(phone_number=f"138{i:08}") for i in range(50)], schema=SEND_SCHEMA
)


def test_rows_come_back_with_their_schema() -> None:
    assert unpack_rows(pack_rows(SENDS)).equals(SENDS)
    assert unpack_rows(pack_rows(SENDS.slice(0, 0))).schema == SEND_SCHEMA


def test_of_a_slice_only_its_rows_are_packed() -> None:
    assert unpack_rows(pack_rows(SENDS.slice(7, 2))).equals(SENDS.slice(7, 2))
    assert len(pack_rows(SENDS.slice(7, 2))) < len(pack_rows(SENDS)) < 50 * 50


def test_named_tables_come_back_without_the_empty_ones() -> None:
    packed = pack({"sends": SENDS, "none": SENDS.slice(0, 0)})
    assert unpack(packed) == {"sends": SENDS}
