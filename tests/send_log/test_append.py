"""SendLog, the helper that applications call."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from pipeline.send_log import SendLog

REQUESTED_AT = datetime(2026, 11, 1, 23, 59, 59, 123456, tzinfo=timezone(timedelta(hours=8)))


def lines_of(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_send_becomes_one_line(tmp_path: Path) -> None:
    file = tmp_path / "log" / "sends.jsonl"
    SendLog(file).append(
        biz_id="900619746936498440^0",
        phone_number="13800000000",
        requested_at=REQUESTED_AT,
        sign_name="例\n",
        tags={"team": "growth"},
    )
    assert lines_of(file) == [
        {
            "biz_id": "900619746936498440^0",
            "phone_number": "13800000000",
            "requested_at": "2026-11-01T15:59:59.123Z",
            "sign_name": "例\n",
            "tags": {"team": "growth"},
        }
    ]


def test_each_recipient_of_a_call_gets_a_line(tmp_path: Path) -> None:
    file = tmp_path / "sends.jsonl"
    log = SendLog(file)
    log.append(biz_id="1^0", phone_number=["a", "b"], requested_at=REQUESTED_AT, campaign="spring")
    log.append(biz_id="2^0", phone_number="c", requested_at=REQUESTED_AT, fsync=False)
    assert [(line["biz_id"], line["phone_number"]) for line in lines_of(file)] == [
        ("1^0", "a"),
        ("1^0", "b"),
        ("2^0", "c"),
    ]


def test_a_directory_gets_one_file_per_utc_day(tmp_path: Path) -> None:
    entry = {"biz_id": "1", "phone_number": "a", "requested_at": REQUESTED_AT}
    next_day = {**entry, "requested_at": REQUESTED_AT + timedelta(hours=9)}
    SendLog(tmp_path / "log").append_all([entry, next_day, entry])
    files = {path.name: len(lines_of(path)) for path in (tmp_path / "log").iterdir()}
    assert files == {"2026-11-01.jsonl": 2, "2026-11-02.jsonl": 1}


def test_the_log_is_not_for_everybody_to_read(tmp_path: Path) -> None:
    SendLog(tmp_path / "a.jsonl").append(biz_id="1", phone_number="a", requested_at=REQUESTED_AT)
    assert not (tmp_path / "a.jsonl").stat().st_mode & 0o007


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"biz_id": ""}, "biz_id"),
        ({"biz_id": 7}, "biz_id"),
        ({"phone_number": "13800000000,13900000000"}, "phone_number"),
        ({"phone_number": "138\x00"}, "phone_number"),
        ({"requested_at": datetime(2026, 11, 1)}, "requested_at"),  # noqa: DTZ001
        ({"requested_at": 1793548800}, "requested_at"),
        ({"requested_at": datetime.max.replace(tzinfo=timezone.utc)}, "requested_at"),
        ({"out_id": 5}, "out_id"),
        ({"tags": {"a": 1}}, "tags"),
        ({"tags": ["a"]}, "tags"),
        ({"campaign": "\ud800"}, "surrogate"),
        ({"signname": "x"}, "signname"),
    ],
)
def test_what_the_pipeline_would_refuse_is_refused_at_once(
    tmp_path: Path, wrong: dict[str, object], named: str
) -> None:
    good = {"biz_id": "1", "phone_number": "13711112222", "requested_at": REQUESTED_AT}
    with pytest.raises(ValueError, match=named) as refusal:
        SendLog(tmp_path).append_all([good, {**good, **wrong}])
    assert not list(tmp_path.iterdir())
    assert "13" not in str(refusal.value)


def test_a_call_without_recipients_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="phone_number is empty"):
        SendLog(tmp_path).append(biz_id="1", phone_number=[], requested_at=REQUESTED_AT)


def test_a_path_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    for path in ("log", "sends.csv"):
        with pytest.raises(ValueError, match=r"directory or a file ending in \.jsonl"):
            SendLog(tmp_path / path)


def test_a_torn_line_does_not_swallow_the_next_one(tmp_path: Path) -> None:
    file = tmp_path / "sends.jsonl"
    file.write_bytes(b'{"biz_id":"1","pho')
    SendLog(file).append(biz_id="2", phone_number="a", requested_at=REQUESTED_AT)
    torn, whole = file.read_bytes().splitlines()
    assert torn == b'{"biz_id":"1","pho'
    assert json.loads(whole)["biz_id"] == "2"


def test_a_full_disk_leaves_whole_lines_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "sends.jsonl"
    real_write = os.write
    # What write(2) does on a disk that fills up: it takes a part. No disk can be filled in a test.
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[: len(data) - 5]))
    with pytest.raises(OSError, match="is the disk full"):
        SendLog(file).append(biz_id="1", phone_number=["a", "b"], requested_at=REQUESTED_AT)
    assert [line["phone_number"] for line in lines_of(file)] == ["a"]


APPEND_MANY = """
import sys
from datetime import datetime, timezone
from pipeline.send_log import SendLog
file, name = sys.argv[1:]
for index in range(50):
    SendLog(file).append(
        biz_id=name,
        phone_number=[f"{name}-{index}-{n}" for n in range(100)],
        requested_at=datetime(2026, 11, 1, tzinfo=timezone.utc),
        fsync=False,
    )
"""


def test_processes_append_at_once_without_tearing_lines(tmp_path: Path) -> None:
    file = tmp_path / "sends.jsonl"
    writers = [
        subprocess.Popen([sys.executable, "-c", APPEND_MANY, str(file), name])  # noqa: S603
        for name in "xyz"
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    numbers = [line["phone_number"] for line in lines_of(file)]
    expected = {f"{name}-{index}-{n}" for name in "xyz" for index in range(50) for n in range(100)}
    assert len(numbers) == len(expected)
    assert set(numbers) == expected


def test_the_helper_imports_the_standard_library_only() -> None:
    program = (
        "import sys; import pipeline.send_log;"
        "print([m for m in sys.modules if m.split('.')[0] in"
        " {'apache_beam','pyarrow','msgspec','requests','fastavro'}])"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
