"""What is new in the send log."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import send_log_slices as module
from pipeline.errors import SendLogError
from pipeline.send_log_slices import consumed_up_to, send_log_slices
from transforms.send_log import Consumed, SendLogSlice

TIME = pa.array([1_793_548_800_000], pa.timestamp("ms", tz="UTC"))
PARQUET_ROWS = pa.table({"biz_id": ["1"], "phone_number": ["a"], "requested_at": TIME})


def _read(file: Path, end: int) -> dict[str, Consumed]:
    return {str(file): consumed_up_to(str(file), end)}


def test_only_whole_lines_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"{}\n{}\n{")
    assert send_log_slices(str(file), {}) == [SendLogSlice(str(file), 0, 6)]
    assert send_log_slices(str(file), _read(file, 6)) == []


def test_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"{}\n{}\n")
    assert send_log_slices(str(file), _read(file, 3)) == [SendLogSlice(str(file), 3, 6)]
    assert send_log_slices(str(file), _read(file, 6)) == []


def test_a_last_line_without_newline_is_taken_once_it_is_a_whole_object(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": {"b": 2}}')
    assert send_log_slices(str(file), {}) == [SendLogSlice(str(file), 0, 24)]
    file.write_bytes(file.read_bytes() + b'\n{"a": 3}\n')
    assert send_log_slices(str(file), _read(file, 24)) == [SendLogSlice(str(file), 24, 34)]


def test_a_line_longer_than_the_search_step_is_found_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"{}\n" + b"x" * 200_000)
    assert send_log_slices(str(file), {}) == [SendLogSlice(str(file), 0, 3)]
    assert send_log_slices(str(file), _read(file, 3)) == []


@pytest.mark.parametrize("step", [1, 7, 12, 64])
def test_big_files_are_cut_at_line_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(module, "_SLICE_BYTES", step)
    content = b"".join(b"x" * (n % 9) + b"\n" for n in range(40))
    file = tmp_path / "a.jsonl"
    file.write_bytes(content)
    slices = send_log_slices(str(file), {})
    assert b"".join(content[part.start : part.end] for part in slices) == content
    assert all(content[part.end - 1 : part.end] == b"\n" for part in slices)
    assert all(part.end > part.start for part in slices)
    assert (len(slices) > 3) == (step < 64)


def test_a_directory_stands_for_its_files_and_may_be_empty(tmp_path: Path) -> None:
    assert send_log_slices(str(tmp_path), {}) == []
    (tmp_path / "b.jsonl").write_bytes(b"{}\n")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".c.jsonl.tmp").touch()
    pq.write_table(PARQUET_ROWS, tmp_path / "a.parquet")
    names = [Path(part.path).name for part in send_log_slices(str(tmp_path), {})]
    assert names == ["a.parquet", "b.jsonl"]


def test_paths_are_absolute_however_they_were_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"{}\n")
    monkeypatch.chdir(tmp_path)
    assert [part.path for part in send_log_slices("*.jsonl", {})] == [str(tmp_path / "a.jsonl")]


def test_a_parquet_file_is_read_once_and_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(PARQUET_ROWS, file)
    size = file.stat().st_size
    assert send_log_slices(str(file), {}) == [SendLogSlice(str(file), 0, size)]
    assert send_log_slices(str(file), _read(file, size)) == []
    with pytest.raises(SendLogError, match="has changed since it was read"):
        send_log_slices(str(file), _read(file, size - 1))


def test_nothing_matched_is_said_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(SendLogError, match=r"No send log file matches .*correct --send_log"):
        send_log_slices(str(tmp_path / "*.jsonl"), {})


def test_a_file_of_an_unknown_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    with pytest.raises(SendLogError, match=r"a\.csv is of an unknown kind"):
        send_log_slices(str(tmp_path), {})


def test_a_log_that_shrank_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"{}\n")
    with pytest.raises(SendLogError, match="is shorter than what was read of it"):
        send_log_slices(str(file), _read(file, 6))


def test_a_log_that_was_replaced_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"biz_id": "1"}\n')
    with pytest.raises(SendLogError, match="is not the one that was read before"):
        send_log_slices(str(file), _read(file, 6))


def test_a_log_that_vanishes_while_it_is_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(SendLogError, match=r"a\.jsonl cannot be read any more .*put it back"):
        consumed_up_to(str(tmp_path / "a.jsonl"), 6)


def test_a_rotated_log_of_the_same_shape_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"biz_id": "1"}\n{"biz_id": "2"}\n')
    known = _read(file, 32)
    file.write_bytes(b'{"biz_id": "3"}\n{"biz_id": "4"}\n{"biz_id": "5"}\n')
    with pytest.raises(SendLogError, match="is not the one that was read before"):
        send_log_slices(str(file), known)


@pytest.mark.parametrize("name", ["a.parquet", "a.avro"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PAR1 not complete")
    with pytest.raises(SendLogError, match="cannot be read .* is it complete"):
        send_log_slices(str(tmp_path), {})


def test_wrong_columns_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    local_time = pa.array([1_793_548_800_000], pa.timestamp("ms"))
    rows = pa.table(
        {"biz_id": ["1"], "phone": ["a"], "phone_number": [5], "requested_at": local_time}
    )
    pq.write_table(rows, tmp_path / "a.parquet")
    with pytest.raises(SendLogError) as refusal:
        send_log_slices(str(tmp_path), {})
    sentence = str(refusal.value)
    assert "its column 2 is none of a send log entry" in sentence
    assert "phone_number is int64, expected text" in sentence
    assert "requested_at has no time zone" in sentence
