"""Claim checks: every row of every table arrives in the bucket of its key, once."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms import keys, shuffle
from transforms.shuffle import Slice, SliceWriter, read_slices

SCHEMA = pa.schema([("biz_id", pa.string()), ("row", pa.int64())])


def rows(biz_ids: Sequence[str], first: int = 0) -> pa.Table:
    numbers = range(first, first + len(biz_ids))
    return pa.table({"biz_id": list(biz_ids), "row": list(numbers)}, schema=SCHEMA)


def by_bucket(slices: Sequence[tuple[int, Slice]], kind: str) -> dict[int, list[tuple[str, int]]]:
    grouped: defaultdict[int, list[Slice]] = defaultdict(list)
    for bucket, part in slices:
        grouped[bucket].append(part)
    return {
        bucket: [
            (row["biz_id"], row["row"]) for row in read_slices(parts, kind, SCHEMA).to_pylist()
        ]
        for bucket, parts in grouped.items()
    }


@given(
    batches=st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=30), max_size=8),
    bucket_count=st.integers(1, 5),
    rows_per_split=st.integers(1, 40),
)
@settings(max_examples=40, deadline=None)
def test_every_row_arrives_once_in_the_bucket_of_its_key(
    batches: list[list[str]],
    bucket_count: int,
    rows_per_split: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shuffle, "_ROWS_PER_SPLIT", rows_per_split)
        expected: Counter[tuple[str, int]] = Counter()
        with SliceWriter(str(tmp_path_factory.mktemp("spill")), bucket_count) as writer:
            for batch in batches:
                table = rows(batch, first=sum(expected.values()))
                expected.update((row["biz_id"], row["row"]) for row in table.to_pylist())
                writer.add("sends", table, "biz_id")
            slices = list(writer.slices())

    found = by_bucket(slices, "sends")
    assert Counter(pair for pairs in found.values() for pair in pairs) == expected
    for bucket, pairs in found.items():
        for biz_id, _ in pairs:
            assert keys.buckets(pa.array([biz_id]), bucket_count).tolist() == [bucket]


def test_kinds_do_not_mix(tmp_path: Path) -> None:
    with SliceWriter(str(tmp_path / "spill"), 2) as writer:
        writer.add("sends", rows(["a", "b"]), "biz_id")
        writer.add("reports", rows(["a", "b"], first=10), "biz_id")
        slices = list(writer.slices())

    sends = sorted(row for pairs in by_bucket(slices, "sends").values() for row in pairs)
    reports = sorted(row for pairs in by_bucket(slices, "reports").values() for row in pairs)
    assert sends == [("a", 0), ("b", 1)]
    assert reports == [("a", 10), ("b", 11)]


def test_a_second_attempt_leaves_the_files_of_the_first_alone(tmp_path: Path) -> None:
    attempts = []
    for first in (0, 100):
        with SliceWriter(str(tmp_path), 1) as writer:
            writer.add("sends", rows(["a"], first), "biz_id")
            attempts.append([part for _, part in writer.slices()])

    assert read_slices(attempts[0], "sends", SCHEMA)["row"].to_pylist() == [0]
    assert read_slices(attempts[1], "sends", SCHEMA)["row"].to_pylist() == [100]


def test_rows_come_in_the_same_order_whatever_order_slices_arrive_in(tmp_path: Path) -> None:
    slices = []
    for first in (0, 100, 200):
        with SliceWriter(str(tmp_path), 1) as writer:
            writer.add("sends", rows(["a", "b"], first), "biz_id")
            slices += [part for _, part in writer.slices()]

    forwards = read_slices(slices, "sends", SCHEMA)
    backwards = read_slices(slices[::-1], "sends", SCHEMA)

    assert forwards == backwards


def test_no_rows_are_no_files(tmp_path: Path) -> None:
    with SliceWriter(str(tmp_path), 3) as writer:
        writer.add("sends", rows([]), "biz_id")
        assert list(writer.slices()) == []

    assert list(tmp_path.iterdir()) == []
    assert read_slices([], "sends", SCHEMA) == SCHEMA.empty_table()
