"""A damaged archive file: what can be read is read, what cannot is told, and the two make up the whole."""

import io
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final, NamedTuple

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.contracts import contract
from schemas.records import MnsMessage
from transforms.archive import ArchivedMessages, ArchiveFileError, read_archive, write_archive_file
from transforms.damage import damage_of, failed_parts

_NOW: Final = datetime(2026, 11, 22, 23, 30, tzinfo=timezone.utc)
_QUEUE: Final = "Alicom-Queue-1000000000000001-SmsReport"
_MESSAGES: Final = [
    MnsMessage(
        f"id-{number}",
        _QUEUE,
        "SmsReport",
        _NOW + timedelta(milliseconds=number),
        1,
        bytes([number % 256]) * 9000,
    )
    for number in range(120)
]
_ROWS: Final = [message._asdict() for message in _MESSAGES]


class _Block(NamedTuple):
    """Where a block of the file is, and how many messages it has."""

    start: int
    payload: int
    end: int
    messages: int


class _File(NamedTuple):
    """An archive file and its layout."""

    path: Path
    whole: bytes
    blocks: Sequence[_Block]

    def read(self, data: bytes) -> ArchivedMessages:
        """Read the file with other bytes in it, and check that nothing of it is unaccounted for."""
        self.path.write_bytes(data)
        archived = read_archive(str(self.path))
        rows = [row for batch in archived.batches for row in batch.to_pylist()]
        remaining = iter(_ROWS)
        assert all(row in remaining for row in rows), "what is read was written, in this order"
        assert len(rows) + archived.lost == len(_ROWS)
        assert bool(archived.damaged) == bool(archived.lost)
        for part in archived.damaged:
            assert part.original == data[part.start : part.start + part.size]
        return archived


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> _File:
    path = Path(write_archive_file(str(tmp_path_factory.mktemp("archive")), _MESSAGES, _NOW))
    whole = path.read_bytes()
    blocks = []
    for block in fastavro.block_reader(io.BytesIO(whole)):
        end = block.offset + block.size
        payload = whole.index(b"\x28\xb5\x2f\xfd", block.offset)  # a zstandard frame begins so
        blocks.append(_Block(block.offset, payload, end, block.num_records))
    assert len(blocks) == 5
    return _File(path, whole, blocks)


def flip(data: bytes, position: int, bits: int = 0x10) -> bytes:
    return data[:position] + bytes([data[position] ^ bits]) + data[position + 1 :]


def number(value: int) -> bytes:
    encoded = io.BytesIO()
    fastavro.schemaless_writer(encoded, "long", value)
    return encoded.getvalue()


def with_head(file: _File, records: int, size: int) -> bytes:
    """The file with another head of its second block."""
    block = file.blocks[1]
    return file.whole[: block.start] + number(records) + number(size) + file.whole[block.payload :]


# What is done to the file, and which blocks that costs.
DAMAGE: dict[str, tuple[Callable[[_File], bytes], list[int]]] = {
    "magic": (lambda f: flip(f.whole, 0), []),
    "schema": (lambda f: f.whole.replace(b'"body"', b'"bodx"', 1), []),
    "no JSON for a schema": (lambda f: f.whole.replace(b'"fields"', b'"fields ', 1), []),
    "codec": (lambda f: f.whole.replace(b"zstandard", b"zstandarx", 1), []),
    "header's marker": (lambda f: flip(f.whole, f.blocks[0].start - 1), []),
    "header and its marker": (
        lambda f: flip(f.whole, f.blocks[0].start - 1).replace(b'"fields"', b'"fields ', 1),
        [0],
    ),
    "header's length": (lambda f: f.whole[:5] + number(2**60) + f.whole[6:], []),
    "no header": (lambda f: f.whole[f.blocks[0].start :], [0]),
    "count of a block": (lambda f: flip(f.whole, f.blocks[1].start, 2), [1]),
    "huge count": (lambda f: with_head(f, 2**60, f.blocks[1].end - f.blocks[1].payload - 16), [1]),
    "size of a block": (lambda f: flip(f.whole, f.blocks[1].payload - 1, 1), [1]),
    "huge size": (lambda f: with_head(f, f.blocks[1].messages, 2**60), [1]),
    "negative size": (lambda f: with_head(f, f.blocks[1].messages, -9), [1]),
    "negative count": (lambda f: with_head(f, -1, f.blocks[1].end - f.blocks[1].payload - 16), [1]),
    "endless number": (
        lambda f: f.whole[: f.blocks[1].start] + b"\xff" * 30 + f.whole[f.blocks[1].payload + 26 :],
        [1],
    ),
    "payload's frame": (lambda f: flip(f.whole, f.blocks[1].payload), [1]),
    "payload": (lambda f: flip(f.whole, f.blocks[1].end - 60), [1]),
    "payload's checksum": (lambda f: flip(f.whole, f.blocks[1].end - 17), [1]),
    "marker": (lambda f: flip(f.whole, f.blocks[1].end - 1), []),
    "last marker": (lambda f: flip(f.whole, len(f.whole) - 1), []),
    "last marker cut": (lambda f: f.whole[:-7], []),
    "across two blocks": (
        lambda f: f.whole[: f.blocks[1].end - 40] + bytes(80) + f.whole[f.blocks[1].end + 40 :],
        [1, 2],
    ),
    "two places": (lambda f: flip(flip(f.whole, f.blocks[1].end - 60), f.blocks[3].end - 60), [1, 3]),
    "cut in a payload": (lambda f: f.whole[: f.blocks[3].end - 50], [3, 4]),
    "cut in a head": (lambda f: f.whole[: f.blocks[3].start + 1], [3, 4]),
    "cut between blocks": (lambda f: f.whole[: f.blocks[3].start], [3, 4]),
    "cut behind the header": (lambda f: f.whole[: f.blocks[0].start], [0, 1, 2, 3, 4]),
    "zeros at the end": (
        lambda f: f.whole[: f.blocks[3].end - 50] + bytes(len(f.whole) - f.blocks[3].end + 50),
        [3, 4],
    ),
    "something behind the end": (lambda f: f.whole + b"something else", []),
    "empty": (lambda _: b"", [0, 1, 2, 3, 4]),
    "one byte": (lambda _: b"O", [0, 1, 2, 3, 4]),
    "no Avro at all": (lambda f: b"x" * len(f.whole), [0, 1, 2, 3, 4]),
    "zeros only": (lambda f: bytes(len(f.whole)), [0, 1, 2, 3, 4]),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_costs_the_blocks_that_it_hits_and_no_others(file: _File, name: str) -> None:
    damage, lost = DAMAGE[name]
    archived = file.read(damage(file))
    assert archived.lost == sum(file.blocks[block].messages for block in lost)


@given(
    cuts=st.lists(
        st.tuples(
            st.floats(0, 1),
            st.integers(0, 5000),
            st.one_of(st.binary(max_size=40), st.integers(0, 3000).map(bytes)),
        ),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_happens_to_the_bytes_every_message_is_read_or_missed(
    file: _File, cuts: list[tuple[float, int, bytes]]
) -> None:
    """Bytes are taken out and others put in their place, at up to three places."""
    data = file.whole
    for place, taken, given_instead in cuts:
        start = int(place * len(data))
        data = data[:start] + given_instead + data[start + taken :]
    file.read(data)


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_no_single_bit_changes_a_message(file: _File, place: float, bit: int) -> None:
    file.read(flip(file.whole, int(place * len(file.whole)), 1 << bit))


def failed(archived: ArchivedMessages) -> list[dict[str, Any]]:
    failed = failed_parts(archived, _NOW).failed
    contract("failed_event").require_batch(failed)
    rows: list[dict[str, Any]] = failed.to_pylist()
    return rows


def test_a_damaged_part_becomes_a_failed_event(file: _File) -> None:
    block = file.blocks[1]
    data = flip(file.whole, block.end - 60)
    archived = file.read(data)

    (event,) = failed(archived)

    size = block.end - block.start
    assert event["message_id"] == f"{file.path.name}#{block.start}+{size}"
    assert (event["stage"], event["reason"]) == ("archive", "damaged_archive_file")
    assert event["original"] == data[block.start : block.end]
    assert (event["queue_name"], event["source_file"]) == (_QUEUE, str(file.path))
    assert event["enqueued_at"] == _MESSAGES[0].enqueued_at
    assert event["detail"] == (
        f"expected blocks of {block.messages} messages in these {size} bytes; "
        f"of the 120 messages of the file {block.messages} cannot be read"
    )
    assert failed_parts(archived, _NOW).counts == {
        "messages": block.messages,
        "failed_messages": block.messages,
        "failed/damaged_archive_file": block.messages,
        "damaged_messages": block.messages,
        "damaged_parts": 1,
    }


def test_every_damaged_part_is_told_and_the_same_damage_is_told_the_same(file: _File) -> None:
    data = flip(flip(file.whole, file.blocks[1].end - 60), file.blocks[3].end - 60)
    events = failed(file.read(data))
    assert len({event["message_id"] for event in events}) == 2
    assert failed(file.read(data)) == events
    assert [event["message_id"] for event in events] == damage_of(file.read(data)).message_ids()


def test_a_file_that_ends_early_has_a_failed_event_without_bytes(file: _File) -> None:
    (event,) = failed(file.read(file.whole[: file.blocks[3].start]))
    assert event["message_id"] == f"{file.path.name}#{file.blocks[3].start}+0"
    assert event["original"] == b""


def test_of_a_large_damaged_part_a_megabyte_is_kept(tmp_path: Path) -> None:
    path = Path(write_archive_file(str(tmp_path), _MESSAGES, _NOW))
    path.write_bytes(bytes(3_000_000))
    (part,) = read_archive(str(path)).damaged
    assert (part.start, part.size, part.original) == (0, 3_000_000, bytes(1024 * 1024))


def test_the_operator_is_told_what_is_missing_and_what_to_do(file: _File) -> None:
    block = file.blocks[1]
    damage = damage_of(file.read(flip(file.whole, block.end - 60)))
    assert damage.sentence("2026-11-18", "2026-11-23") == (
        f"The archive file {file.path} is damaged at byte {block.start:,}: {block.messages} of its 120 "
        "messages cannot be read, the others were used. Restore it from a copy and run sms-receipts "
        "backfill --from=2026-11-18 --to=2026-11-23."
    )
    both = flip(flip(file.whole, block.end - 60), file.blocks[3].end - 60)
    assert "in 2 places, first at byte" in damage_of(file.read(both)).sentence("", "")


def test_a_moment_without_memory_is_no_damage(file: _File, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("fastavro.schemaless_reader", no_memory)
    with pytest.raises(MemoryError):
        file.read(flip(file.whole, file.blocks[1].end - 60))


def test_a_file_that_holds_more_than_its_name_says_is_none_of_ours(tmp_path: Path) -> None:
    path = Path(write_archive_file(str(tmp_path), _MESSAGES[:3], _NOW))
    other = path.rename(path.with_name(path.name.replace("-3-", "-2-")))
    with pytest.raises(ArchiveFileError, match=r"holds 3 messages, 1 more than its name promises"):
        read_archive(str(other))


def test_a_file_that_holds_less_than_its_name_says_lacks_the_rest(tmp_path: Path) -> None:
    path = Path(write_archive_file(str(tmp_path), _MESSAGES[:3], _NOW))
    other = path.rename(path.with_name(path.name.replace("-3-", "-4-")))
    archived = read_archive(str(other))
    assert (archived.lost, sum(len(batch) for batch in archived.batches)) == (1, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="the unreadable file is one of Linux's /proc")
def test_a_file_that_the_disk_does_not_give_back_is_named(tmp_path: Path) -> None:
    path = Path(write_archive_file(str(tmp_path), _MESSAGES[:3], _NOW))
    path.unlink()
    path.symlink_to("/proc/self/mem")  # at its beginning there is no memory
    with pytest.raises(ArchiveFileError, match=rf"{path} cannot be read \(Input/output error\): "):
        read_archive(str(path))


def test_a_file_with_another_name_is_none_of_ours(tmp_path: Path) -> None:
    path = Path(write_archive_file(str(tmp_path), _MESSAGES[:3], _NOW))
    other = path.rename(path.with_suffix(".copy"))
    with pytest.raises(ArchiveFileError, match="not named as the files of an archive"):
        read_archive(str(other))
