"""What a tripped breaker leaves behind: the next start is refused unless something is different."""

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest

from pipeline.breaker_mark import FILE_NAME, heed_mark, leave_mark
from pipeline.errors import OutputError, UnusableMessagesError

AT = datetime(2026, 11, 1, 4, tzinfo=timezone.utc)
TRIPPED = UnusableMessagesError("Of the last 251 messages of q 251 cannot be used: do something")


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The mark of a run that allowed half of the messages to fail."""
    leave_mark(str(tmp_path), TRIPPED, 0.5, AT)
    return tmp_path / FILE_NAME


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_a_start_under_the_same_conditions_is_refused_with_the_same_sentence(
    tmp_path: Path, share: float
) -> None:
    told = leave_mark(str(tmp_path), TRIPPED, 0.5, AT)

    for _ in range(2):
        with pytest.raises(UnusableMessagesError) as refused:
            heed_mark(str(tmp_path), share)
        assert str(refused.value) == str(told)
    assert str(told) == (
        f"{TRIPPED}; no run of this version reads the queues before that, or before "
        f"{tmp_path / FILE_NAME} is removed"
    )


def test_a_start_that_allows_more_failures_goes_on_and_removes_the_mark(
    tmp_path: Path, mark: Path
) -> None:
    heed_mark(str(tmp_path), 0.6)

    assert not mark.exists()
    heed_mark(str(tmp_path), 0.5)


def test_another_version_goes_on_and_removes_the_mark(tmp_path: Path, mark: Path) -> None:
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"version": "0.0.1"}))

    heed_mark(str(tmp_path), 0.5)

    assert not mark.exists()


def test_a_mark_that_is_removed_by_hand_is_forgotten(tmp_path: Path, mark: Path) -> None:
    mark.unlink()

    heed_mark(str(tmp_path), 0.5)


def test_the_mark_says_when_and_why(mark: Path) -> None:
    said = json.loads(mark.read_text())

    assert said.keys() == {"version", "tripped_at", "max_failed_share", "sentence"}
    assert (said["tripped_at"], said["sentence"]) == ("2026-11-01T04:00:00+00:00", str(TRIPPED))


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_mark_that_nobody_can_read_is_told_in_a_sentence(
    tmp_path: Path, mark: Path, text: str
) -> None:
    mark.write_text(text)

    with pytest.raises(
        OutputError, match=r"breaker-tripped\.json, cannot be read .*: remove it by hand"
    ):
        heed_mark(str(tmp_path), 1.0)


def test_a_disk_that_refuses_the_mark_does_not_hide_what_tripped(tmp_path: Path) -> None:
    assert leave_mark(str(tmp_path / "gone"), TRIPPED, 0.5, AT) is TRIPPED
