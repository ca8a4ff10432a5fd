"""Rows found by hash: as a plain list of rows would answer, however they came and went."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.keyed_rows import NEVER, Keyed, KeyedRows, are_among
from transforms.keys import Hashes

SCHEMA = pa.schema([pa.field("number", pa.int64())])


def hashes(values: list[int]) -> Hashes:
    return np.unique(np.array(values, dtype=np.uint64))


def keyed(rows: list[tuple[int, int, int, int]]) -> Keyed:
    numbers, of_keys, groups, due = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Keyed(
        pa.table({"number": pa.array(numbers, pa.int64())}, schema=SCHEMA),
        np.array(of_keys, dtype=np.uint64),
        np.array(groups, dtype=np.uint64),
        np.array(due, dtype=np.int64),
    )


ROWS = st.lists(
    st.tuples(st.integers(0, 99), st.integers(0, 9), st.integers(0, 3), st.integers(0, 50)),
    max_size=5,
)
CHANGES = st.lists(st.tuples(ROWS, st.lists(st.integers(0, 9), max_size=2)), max_size=25)


@settings(max_examples=40, deadline=None)
@given(changes=CHANGES, sought=st.lists(st.integers(0, 9), max_size=4), as_of=st.integers(0, 50))
def test_it_answers_like_a_list(
    changes: list[tuple[list[tuple[int, int, int, int]], list[int]]], sought: list[int], as_of: int
) -> None:
    plain: list[tuple[int, int, int, int]] = []
    rows = KeyedRows(SCHEMA)
    for news, gone in changes:
        rows.add(keyed(news))
        rows.drop(hashes(gone))
        plain = [row for row in [*plain, *news] if row[1] not in gone]
    assert len(rows) == len(plain)
    assert rows.next_due_ms == min((row[3] for row in plain), default=NEVER)
    found = rows.of_hashes(hashes(sought)).rows.column("number").to_pylist()
    assert sorted(found) == sorted(row[0] for row in plain if row[1] in sought)
    assert rows.hashes_due(as_of).tolist() == sorted({row[1] for row in plain if row[3] <= as_of})
    assert rows.hashes_of_groups(hashes([1, 2])).tolist() == sorted(
        {row[1] for row in plain if row[2] in (1, 2)}
    )
    assert rows.groups_among(hashes([0, 7])).tolist() == (
        [0] if any(r[2] == 0 for r in plain) else []
    )
    rows.drop_due(as_of)
    left = rows.everything().rows.column("number").to_pylist()
    assert sorted(left) == sorted(row[0] for row in plain if row[3] > as_of)


def test_many_small_additions_end_in_few_runs_and_what_is_gone_takes_no_memory() -> None:
    rows = KeyedRows(SCHEMA)
    for number in range(300):
        rows.add(keyed([(number, number, 0, number)]))
        if number % 2:
            rows.drop(hashes([number]))
    assert len(rows) == 150
    assert len(rows._runs) <= 4  # noqa: SLF001 (that is what is promised)


def test_hashes_are_among_others_or_not() -> None:
    some = np.array([5, 1, 9], dtype=np.uint64)
    assert are_among(some, hashes([9, 5])).tolist() == [True, False, True]
    assert are_among(some, hashes([])).tolist() == [False, False, False]
