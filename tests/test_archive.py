"""The archive on disk: complete files only, listed by name, read back as written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pytest

from schemas.contracts import contract
from schemas.records import MnsMessage
from transforms.archive import (
    ArchiveError,
    ArchiveFile,
    ArchiveFileError,
    list_archive,
    read_archive,
    require_writable_archive,
    write_archive_file,
)

_NOW = datetime(2026, 11, 22, 23, 30, tzinfo=timezone.utc)
_QUEUE = "Alicom-Queue-1000000000000001-SmsReport"


def _messages(count: int, queue_name: str = _QUEUE) -> list[MnsMessage]:
    return [
        MnsMessage(
            f"id-{number}",
            queue_name,
            "SmsReport",
            _NOW - timedelta(milliseconds=number),
            1,
            bytes([number % 256]) * 3,
        )
        for number in range(count)
    ]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    messages = _messages(300)
    path = write_archive_file(str(tmp_path), messages, _NOW)
    batches = list(read_archive(str(path)))
    assert [batch.schema for batch in batches] == [contract("mns_message").arrow]
    assert batches[0].to_pylist() == [message._asdict() for message in messages]


def test_a_file_that_datafusion_cannot_find_its_way_in_is_read_by_fastavro(tmp_path: Path) -> None:
    messages = _messages(3)
    path = write_archive_file(str(tmp_path), messages, _NOW)
    odd = path.rename(path.with_suffix(".container"))
    (batch,) = read_archive(str(odd))
    assert batch.to_pylist() == [message._asdict() for message in messages]


def test_a_file_tells_by_its_name_what_is_in_it(tmp_path: Path) -> None:
    path = write_archive_file(str(tmp_path), _messages(11), _NOW)
    assert list_archive(str(tmp_path)) == [
        ArchiveFile(
            path=str(path),
            queue_name=_QUEUE,
            landed=date(2026, 11, 22),
            first_enqueued_at=_NOW - timedelta(milliseconds=10),
            last_enqueued_at=_NOW,
            messages=11,
            size=path.stat().st_size,
        )
    ]


def test_files_are_listed_by_landing_day_and_enqueue_time(tmp_path: Path) -> None:
    messages = _messages(3)
    for message, day in ((messages[0], 1), (messages[2], 1), (messages[1], 0)):
        write_archive_file(str(tmp_path), [message], _NOW + timedelta(days=day))
    listed = [file.first_enqueued_at for file in list_archive(str(tmp_path))]
    assert listed == [messages[number].enqueued_at for number in (1, 2, 0)]
    later = list_archive(str(tmp_path), landed_from=date(2026, 11, 23))
    assert len(later) == 2


def test_what_a_crash_left_behind_is_not_listed(tmp_path: Path) -> None:
    path = write_archive_file(str(tmp_path), _messages(1), _NOW)
    (path.parent / f".{path.name}.tmp").write_bytes(b"half")
    (path.parent / "notes.txt").write_text("")
    (tmp_path / ".probe.tmp").write_text("")
    assert [file.path for file in list_archive(str(tmp_path))] == [str(path)]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda whole: whole[:-50], id="cut short"),
        pytest.param(lambda whole: whole[:-999] + bytes(9) + whole[-990:], id="overwritten"),
        pytest.param(lambda whole: whole[:0], id="empty"),
        pytest.param(lambda whole: b"x" * len(whole), id="no Avro at all"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = write_archive_file(str(tmp_path), _messages(3000), _NOW)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ArchiveFileError, match=f"^The archive file {path} is damaged "):
        list(read_archive(str(path)))


def test_a_file_that_does_not_hold_what_its_name_says_is_named(tmp_path: Path) -> None:
    path = write_archive_file(str(tmp_path), _messages(2), _NOW)
    other = path.rename(path.with_name(path.name.replace("-2-", "-3-")))
    with pytest.raises(ArchiveFileError, match=r"its name promises 3 messages, it holds 2\)"):
        list(read_archive(str(other)))


def test_a_file_that_is_gone_is_no_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_archive(str(tmp_path / "gone.avro")))


def test_an_archive_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    assert list_archive(str(tmp_path / "missing")) == []


def test_a_failed_write_leaves_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / _QUEUE).write_text("a file where a directory should be")
    with pytest.raises(ArchiveError, match="cannot be written .*: free space or grant write"):
        write_archive_file(str(tmp_path), _messages(1), _NOW)
    assert [entry.name for entry in tmp_path.iterdir()] == [_QUEUE]


@pytest.mark.parametrize("archive", ["gs://bucket/archive", "{file}/archive"])
def test_an_archive_that_cannot_be_used_is_refused(tmp_path: Path, archive: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveError, match="The archive "):
        require_writable_archive(archive.format(file=tmp_path / "file"))


def test_a_usable_archive_is_made_and_left_clean(tmp_path: Path) -> None:
    require_writable_archive(str(tmp_path / "a" / "b"))
    assert list((tmp_path / "a" / "b").iterdir()) == []
