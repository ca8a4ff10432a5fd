"""What a worker raised comes back as text: a fault of the operator's is told, a bug is shown."""

import errno
import logging

import pytest

from pipeline.errors import OutputError, SendLogError
from pipeline.graph_faults import operators_sentences
from transforms.archive import ArchiveFileError
from transforms.send_log_checks import SendLogFileError
from transforms.tables import TableFileError

# As Beam hands it on from another process.
_REMOTE = """Traceback (most recent call last):
  File "transforms/send_log.py", line 9, in read
{error}

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1512, in process
{error} [while running 'DecodeSendLog/Decode/ParDo(_DecodeSendLogFn)']
"""


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("OSError: [Errno 28] Error writing bytes to file. Detail: [errno 28] x"),
        RuntimeError(_REMOTE.format(error="OSError: [Errno 28] Error writing bytes to file.")),
    ],
)
def test_a_full_disk_is_told_in_a_sentence(failure: Exception) -> None:
    with (
        pytest.raises(OutputError, match=r"^The dataset /d .*\(No space left on device\): free"),
        operators_sentences("/d"),
    ):
        raise failure


def test_a_missing_file_is_named() -> None:
    with (
        pytest.raises(OutputError, match=r"\(No such file or directory: /a/b\.avro\)"),
        operators_sentences("/d"),
        open("/a/b.avro", "rb"),
    ):
        pass


def test_a_damaged_send_log_is_told_in_its_own_words() -> None:
    error = f"transforms.send_log_checks.{SendLogFileError.__name__}: The file x ends early: put it back."
    with (
        pytest.raises(SendLogError, match=r"^The file x ends early: put it back\.$"),
        operators_sentences("/d"),
    ):
        raise RuntimeError(_REMOTE.format(error=error))


@pytest.mark.parametrize("error", [ArchiveFileError, TableFileError])
def test_a_damaged_file_is_told_in_its_own_words(error: type[Exception]) -> None:
    sentence = "The file x is damaged: restore it."
    remote = _REMOTE.format(error=f"{error.__module__}.{error.__name__}: {sentence}")
    for failure in (error(sentence), RuntimeError(remote)):
        with (
            pytest.raises(OutputError, match=r"^The file x is damaged: restore it\.$"),
            operators_sentences("/d"),
        ):
            raise failure


@pytest.mark.parametrize(
    "failure",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
        RuntimeError("TimeoutError: [Errno 110] Connection timed out [while running 'X']"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "java"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_what_is_no_fault_of_a_disk_is_not_told_as_one(failure: Exception) -> None:
    with pytest.raises(type(failure)) as raised, operators_sentences("/d"):
        raise failure

    assert raised.value is failure


def test_a_bug_stays_what_it_is() -> None:
    bug = ValueError("off by one")
    with pytest.raises(ValueError, match="off by one") as raised, operators_sentences("/d"):
        raise bug

    assert raised.value is bug


def test_only_bugs_are_logged_with_their_traceback(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("apache_beam.runners.common")
    with operators_sentences("/d"):
        logger.error("OSError: [Errno 28] No space left on device [while running 'X']")
        logger.error("KeyError: 'x' [while running 'X']")
        damaged = ArchiveFileError("The file x is damaged")
        logger.error("%s [while running 'X']", damaged, exc_info=damaged)
    logger.error("OSError: [Errno 28] afterwards")

    assert [record.message[:8] for record in caplog.records] == ["KeyError", "OSError:"]
