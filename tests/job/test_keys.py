"""Identity: hashes that do not depend on how a column lies in memory, ids that SQL can compute too."""

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms import keys

# Every length around the eight-byte words that are hashed at once, and characters of several bytes.
TEXTS = ["", "a", "1234567", "12345678", "123456789", "x" * 1000, "星河商城", "👍", "\x00", "a\x00"]
MAYBE_TEXTS = st.lists(st.none() | st.text(max_size=40) | st.sampled_from(TEXTS), max_size=40)


def column(texts: Sequence[str | None]) -> pa.StringArray:
    return pa.array(texts, type=pa.string())


@given(texts=MAYBE_TEXTS, before=MAYBE_TEXTS, after=MAYBE_TEXTS)
@settings(max_examples=60)
def test_a_hash_depends_on_the_string_alone(
    texts: list[str | None], before: list[str | None], after: list[str | None]
) -> None:
    whole = column([*before, *texts, *after])
    sliced = whole.slice(len(before), len(texts))

    one_by_one = [int(keys.hash_strings(column([text]))[0]) for text in texts]

    assert keys.hash_strings(sliced).tolist() == one_by_one


def test_a_null_hashes_like_the_empty_string() -> None:
    hashes = keys.hash_strings(column([None, ""]))

    assert hashes[0] == hashes[1]


def test_bytes_under_a_null_do_not_count() -> None:
    # A null may keep its bytes: pyarrow leaves them there when a mask is laid over an array.
    offsets = pa.array([0, 3, 6], pa.int32()).buffers()[1]
    hidden = pa.StringArray.from_buffers(
        2, offsets, pa.py_buffer(b"abcdef"), pa.py_buffer(b"\x02"), 1
    )
    assert hidden.to_pylist() == [None, "def"]

    assert keys.hash_strings(hidden).tolist() == keys.hash_strings(column([None, "def"])).tolist()


def test_different_strings_hash_differently() -> None:
    texts = [*TEXTS, *(f"90061974693649844{number}^0" for number in range(10_000))]

    assert len(np.unique(keys.hash_strings(column(texts)))) == len(texts)


@given(texts=st.lists(st.text(max_size=9)), others=st.lists(st.lists(st.text(max_size=9))))
@settings(max_examples=60)
def test_a_string_is_found_among_the_others_wherever_it_stands(
    texts: list[str], others: list[list[str]]
) -> None:
    hashes = keys.distinct_hashes(column(part) for part in others)
    chunks = pa.chunked_array([column(texts[:2]), column(texts[2:])])

    found = keys.are_among(chunks, hashes).tolist()

    assert found == [any(text in part for part in others) for text in texts]


def test_the_hash_is_the_same_in_every_process_and_version() -> None:
    # Buckets of one run are formed by several processes; a changed number is a changed function.
    assert keys.hash_strings(column(["900619746936498440^0"])).tolist() == [10093497349062356551]


def test_the_order_of_a_pair_matters() -> None:
    left, right = keys.hash_strings(column(["1"])), keys.hash_strings(column(["2"]))

    assert keys.combine(left, right)[0] != keys.combine(right, left)[0]


@pytest.mark.parametrize("count", [1, 3, 64])
def test_keys_spread_evenly_over_the_buckets(count: int) -> None:
    biz_ids = column([f"{900619746936498440 + number}^0" for number in range(20_000)])

    sizes = np.bincount(keys.buckets(biz_ids, count), minlength=count)

    assert len(sizes) == count
    assert sizes.min() > 0.7 * sizes.mean()
    assert sizes.max() < 1.3 * sizes.mean()


def test_nothing_hashes_to_nothing() -> None:
    assert keys.hash_strings(column([])).tolist() == []
    assert keys.buckets(column([]), 7).tolist() == []
    assert keys.event_ids(column([]), column([])).to_pylist() == []


@given(
    pairs=st.lists(
        st.tuples(st.text(min_size=1, max_size=30), st.none() | st.text(max_size=20)), max_size=20
    )
)
@settings(max_examples=30)
def test_many_event_ids_equal_single_ones(pairs: list[tuple[str, str | None]]) -> None:
    biz_ids, phones = column([biz for biz, _ in pairs]), column([phone for _, phone in pairs])

    assert keys.event_ids(biz_ids, phones).to_pylist() == [keys.event_id(*pair) for pair in pairs]


def test_event_ids_keep_the_order_of_many_rows() -> None:
    biz_ids = column([f"{number}^0" for number in range(100_000)])

    ids = keys.event_ids(biz_ids, biz_ids)

    for position in (0, 8191, 8192, 65_536, 99_999):
        text = f"{position}^0"
        assert ids[position].as_py() == keys.event_id(text, text)


def test_an_event_id_is_what_duckdb_computes() -> None:
    with duckdb.connect() as connection:
        query = "SELECT md5(? || '|' || coalesce(?, ''))"
        for biz_id, phone in [("900^0", "13800000001"), ("900^0", None), ("星河", "")]:
            (expected,) = connection.execute(query, [biz_id, phone]).fetchone() or ("",)
            assert keys.event_id(biz_id, phone) == expected


def test_a_report_without_recipient_is_named_by_its_message() -> None:
    ids = {
        keys.event_id("900^0", None),
        keys.message_event_id("900^0", "M1"),
        keys.message_event_id("900^0", "M2"),
        keys.message_event_id("901^0", "M1"),
    }

    assert len(ids) == 4
