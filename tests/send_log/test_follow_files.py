"""The send log's files, followed: whole lines come once, and again only if nobody acknowledged them."""

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.errors import SendLogError
from pipeline.send_log_files import SendLogFilesInbox, SendLogFilesSpec
from schemas.contracts import contract
from schemas.records import MnsMessage
from transforms.tally import close_tally, tally_of

RUN = "follow-files"
Open = Callable[[], SendLogFilesInbox]


@pytest.fixture
def open_inbox(tmp_path: Path) -> Iterator[Open]:
    """Open and start inboxes of ``log/``; all close at the end."""
    (tmp_path / "log").mkdir()
    opened: list[SendLogFilesInbox] = []

    def start() -> SendLogFilesInbox:
        spec = SendLogFilesSpec(str(tmp_path / "log"), str(tmp_path / "state" / "positions.json"))
        opened.append(spec.open(RUN, lambda: None))
        opened[-1].start()
        return opened[-1]

    yield start
    for inbox in opened:
        inbox.close()
    close_tally(RUN)


def log(tmp_path: Path, *lines: bytes, name: str = "a.jsonl") -> str:
    path = tmp_path / "log" / name
    with path.open("ab") as file:
        file.write(b"".join(lines))
    return str(path)


def take(inbox: SendLogFilesInbox, messages: int) -> tuple[list[MnsMessage], list[int]]:
    taken: list[MnsMessage] = []
    leases: list[int] = []
    while len(taken) < messages:
        batch = inbox.take(10.0)
        assert batch is not None, f"only {len(taken)} came: {inbox.failure}"
        taken += batch.messages
        leases.append(batch.lease)
    return taken, leases


def bodies(messages: list[MnsMessage]) -> list[bytes]:
    return [message.body for message in messages]


def wait_for_failure(inbox: SendLogFilesInbox) -> str:
    deadline_secs = time.monotonic() + 10
    while inbox.failure is None and time.monotonic() < deadline_secs:
        inbox.take(0.05)
    assert isinstance(inbox.failure, SendLogError)
    assert inbox.is_finished
    assert tally_of(RUN).failure is inbox.failure
    return str(inbox.failure)


def test_lines_are_messages_named_by_their_place(tmp_path: Path, open_inbox: Open) -> None:
    before = datetime.now(timezone.utc)
    path = log(tmp_path, b'{"a":1}\n', b"\n", b'{"b":\r2}\n', b'{"c":')

    messages, _ = take(open_inbox(), 2)

    assert [(each.message_id, each.body) for each in messages] == [
        (f"{path}#0", b'{"a":1}'),
        (f"{path}#9", b'{"b":\r2}'),
    ]
    assert {(each.queue_name, each.message_type, each.dequeue_count) for each in messages} == {
        ("send-log-files", "SendLogEntry", 1)
    }
    assert all(
        int(before.timestamp()) <= each.enqueued_at.timestamp() <= time.time() for each in messages
    )


def test_a_line_comes_when_it_is_whole(tmp_path: Path, open_inbox: Open) -> None:
    path = log(tmp_path, b'{"a":1}\n{"b"')
    inbox = open_inbox()
    assert bodies(take(inbox, 1)[0]) == [b'{"a":1}']
    log(tmp_path, b":2}\n")
    (message,), _ = take(inbox, 1)
    assert (message.message_id, message.body) == (f"{path}#8", b'{"b":2}')


def test_a_last_line_without_a_newline_comes_once(tmp_path: Path, open_inbox: Open) -> None:
    log(tmp_path, b'{"a":1}')
    inbox = open_inbox()
    messages, leases = take(inbox, 1)
    assert bodies(messages) == [b'{"a":1}']
    inbox.acknowledge(leases)
    path = log(tmp_path, b'\n{"b":2}\n')
    (message,), _ = take(inbox, 1)
    assert (message.message_id, message.body) == (f"{path}#8", b'{"b":2}')


def test_what_was_acknowledged_does_not_come_again_and_the_rest_does(
    tmp_path: Path, open_inbox: Open
) -> None:
    log(tmp_path, *(b'{"a":%d}\n' % number for number in range(2500)))
    first = open_inbox()
    _, leases = take(first, 2500)
    assert len(leases) == 3
    first.acknowledge(leases[:1] + leases[2:])  # a gap in the middle
    first.close()

    again, leases = take(open_inbox(), 1500)

    assert bodies(again) == [b'{"a":%d}' % number for number in range(1000, 2500)]


def test_a_closed_gap_settles_what_is_behind_it(tmp_path: Path, open_inbox: Open) -> None:
    log(tmp_path, *(b'{"a":%d}\n' % number for number in range(2000)))
    first = open_inbox()
    _, leases = take(first, 2000)
    first.acknowledge(leases[1:])
    first.acknowledge(leases[:1])
    first.acknowledge(leases)
    first.close()
    log(tmp_path, b'{"b":1}\n')
    assert bodies(take(open_inbox(), 1)[0]) == [b'{"b":1}']
    counts = tally_of(RUN).counts()
    assert (counts["received"], counts["acknowledged"]) == (2001, 2000)


def test_what_is_released_is_handed_out_again(tmp_path: Path, open_inbox: Open) -> None:
    log(tmp_path, b'{"a":1}\n')
    inbox = open_inbox()
    messages, leases = take(inbox, 1)
    inbox.release(leases)
    again, new_leases = take(inbox, 1)
    assert again == messages
    assert new_leases != leases
    inbox.acknowledge(leases)  # not held any more
    assert inbox.oldest_enqueued_at() == messages[0].enqueued_at
    inbox.acknowledge(new_leases)
    assert inbox.oldest_enqueued_at() is None


def test_the_note_of_an_inbox_that_was_left_never_goes_back(
    tmp_path: Path, open_inbox: Open
) -> None:
    log(tmp_path, b'{"a":1}\n')
    old = open_inbox()
    _, old_leases = take(old, 1)
    old.stop()
    log(tmp_path, b'{"b":2}\n')
    new = open_inbox()
    _, new_leases = take(new, 2)
    new.acknowledge(new_leases)
    old.acknowledge(old_leases)
    new.close()
    log(tmp_path, b'{"c":3}\n')
    assert bodies(take(open_inbox(), 1)[0]) == [b'{"c":3}']


def test_the_watermark_waits_for_what_is_held(tmp_path: Path, open_inbox: Open) -> None:
    log(tmp_path, b'{"a":1}\n')
    inbox = open_inbox()
    messages, leases = take(inbox, 1)
    assert inbox.watermark() == messages[0].enqueued_at
    log(tmp_path, b'{"b":2}\n')
    take(inbox, 1)
    assert inbox.watermark() == messages[0].enqueued_at
    inbox.acknowledge(leases)
    moment = inbox.watermark()
    assert moment is not None
    assert moment > messages[0].enqueued_at


def test_an_inbox_that_was_stopped_says_when_its_last_lines_are_settled(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    log(tmp_path, b'{"a":1}\n')
    done: list[bool] = []
    spec = SendLogFilesSpec(str(tmp_path / "log"), str(tmp_path / "positions.json"))
    inbox = spec.open(RUN, lambda: done.append(True))
    inbox.start()
    _, leases = take(inbox, 1)
    inbox.stop()
    assert inbox.take(0.0) is None
    assert not done
    inbox.acknowledge(leases)
    inbox._reader.join(10)  # noqa: SLF001 (nothing else tells)
    assert done == [True]
    close_tally(RUN)


def test_a_shortened_file_ends_the_read(tmp_path: Path, open_inbox: Open) -> None:
    path = log(tmp_path, b'{"a":1}\n', b'{"b":2}\n')
    inbox = open_inbox()
    take(inbox, 2)
    os.truncate(path, 8)
    assert wait_for_failure(inbox).startswith(
        f"The send log file {path} is shorter than what was read"
    )


def test_a_replaced_file_ends_the_read_after_a_restart_too(
    tmp_path: Path, open_inbox: Open
) -> None:
    path = log(tmp_path, b'{"a":1}\n')
    inbox = open_inbox()
    _, leases = take(inbox, 1)
    inbox.acknowledge(leases)
    inbox.close()
    Path(path).write_bytes(b'{"z":9}\n{"b":2}\n')
    assert "is not the one that was read before" in wait_for_failure(open_inbox())


def test_files_that_cannot_be_followed_are_refused(tmp_path: Path, open_inbox: Open) -> None:
    file = tmp_path / "log" / "a.parquet"
    pq.write_table(contract("send_log_entry").arrow.empty_table(), file)
    assert f"{file} cannot be followed" in wait_for_failure(open_inbox())


def test_damaged_positions_are_told(tmp_path: Path, open_inbox: Open) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "positions.json").write_text(json.dumps({"a": 5}))
    assert "is damaged: restore it from a copy, or delete it" in wait_for_failure(open_inbox())
