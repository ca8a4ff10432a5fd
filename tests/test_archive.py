"""The archive on disk: complete files only, listed by name, read back as written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import fastavro
import pytest

from schemas.contracts import contract
from schemas.records import MnsMessage
from transforms.archive import (
    ArchiveError,
    ArchiveFile,
    delete_unfinished_files,
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


def _read(path: Path) -> list[dict[str, object]]:
    return [row for batch in read_archive(str(path)).batches for row in batch.to_pylist()]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    messages = _messages(300)
    path = Path(write_archive_file(str(tmp_path), messages, _NOW))
    archived = read_archive(str(path))
    assert [batch.schema for batch in archived.batches] == [contract("mns_message").arrow]
    assert archived.batches[0].to_pylist() == [message._asdict() for message in messages]
    assert (archived.lost, archived.damaged) == (0, ())


def test_every_avro_reader_reads_the_archive(tmp_path: Path) -> None:
    messages = _messages(300)
    path = Path(write_archive_file(str(tmp_path), messages, _NOW))
    with path.open("rb") as file:
        assert list(fastavro.reader(file)) == [message._asdict() for message in messages]


def test_an_archive_without_checksums_is_read_as_well(tmp_path: Path) -> None:
    messages = _messages(300)
    path = Path(write_archive_file(str(tmp_path), messages, _NOW))
    with path.open("wb") as file:
        rows = [message._asdict() for message in messages]
        fastavro.writer(file, contract("mns_message").schema, rows, codec="zstandard")
    assert _read(path) == rows


def test_a_file_tells_by_its_name_what_is_in_it(tmp_path: Path) -> None:
    path = Path(write_archive_file(str(tmp_path), _messages(11), _NOW))
    assert list_archive(str(tmp_path)) == [
        ArchiveFile(
            path=str(path),
            queue_name=_QUEUE,
            landed=date(2026, 11, 22),
            first_enqueued_at=_NOW - timedelta(milliseconds=10),
            last_enqueued_at=_NOW,
            messages=11,
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


def test_only_chosen_files_are_listed(tmp_path: Path) -> None:
    read, new = (Path(write_archive_file(str(tmp_path), _messages(1), _NOW)) for _ in range(2))
    (new.parent / "notes.txt").touch()
    offered: list[str] = []

    def choose(paths: Sequence[str]) -> list[str]:
        offered.extend(paths)
        return [path for path in paths if not path.endswith(read.name)]

    assert [file.path for file in list_archive(str(tmp_path), choose=choose)] == [str(new)]
    assert sorted(offered) == sorted(str(path.relative_to(tmp_path)) for path in (read, new))


def test_what_a_crash_left_behind_is_not_listed(tmp_path: Path) -> None:
    path = Path(write_archive_file(str(tmp_path), _messages(1), _NOW))
    (path.parent / f".{path.name}.tmp").write_bytes(b"half")
    (path.parent / "notes.txt").write_text("")
    (tmp_path / ".probe.tmp").write_text("")
    assert [file.path for file in list_archive(str(tmp_path))] == [str(path)]


def test_a_file_that_is_gone_is_no_damaged_one(tmp_path: Path) -> None:
    path = Path(write_archive_file(str(tmp_path), _messages(1), _NOW))
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read_archive(str(path))


def test_names_that_are_no_days_are_passed_over(tmp_path: Path) -> None:
    path = Path(write_archive_file(str(tmp_path), _messages(1), _NOW))
    (path.parents[1] / "landed=2026-02-30").mkdir()
    assert [file.path for file in list_archive(str(tmp_path))] == [str(path)]


def test_what_killed_writers_left_behind_is_deleted_after_a_day(tmp_path: Path) -> None:
    finished = Path(write_archive_file(str(tmp_path), _messages(1), _NOW))
    old, new = (finished.with_name(f".{name}{finished.name[1:]}.tmp") for name in "12")
    other = finished.with_name(".notes.tmp")
    for path, hours in ((finished, 99), (old, 25), (new, 23), (other, 99)):
        path.touch()
        modified = (_NOW - timedelta(hours=hours)).timestamp()
        os.utime(path, (modified, modified))

    assert delete_unfinished_files(str(tmp_path), _NOW) == 1

    assert sorted(finished.parent.iterdir()) == sorted([finished, new, other])


def test_an_archive_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    assert list_archive(str(tmp_path / "missing")) == []


def test_a_failed_write_leaves_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / _QUEUE).write_text("a file where a directory should be")
    with pytest.raises(ArchiveError, match="cannot be written .*: free space or grant write"):
        write_archive_file(str(tmp_path), _messages(1), _NOW)
    assert [entry.name for entry in tmp_path.iterdir()] == [_QUEUE]


def test_an_archive_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveError, match="The archive .* cannot be written"):
        require_writable_archive(str(tmp_path / "file" / "archive"))


def test_an_archive_that_cannot_be_looked_through_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"cannot be read \(File name too long\): correct"):
        list_archive(str(tmp_path / ("x" * 300)))


def test_a_usable_archive_is_made_and_left_clean(tmp_path: Path) -> None:
    require_writable_archive(str(tmp_path / "a" / "b"))
    assert list((tmp_path / "a" / "b").iterdir()) == []
