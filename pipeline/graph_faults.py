"""What goes wrong while a graph runs, and only the operator can mend, as the operator's sentence.

Beam hands on what a worker raised as text, on every runner: the text is all there is to tell a full disk from
a bug.
"""

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pipeline.beam_log import unlogged
from pipeline.errors import (
    CredentialsError,
    EndpointError,
    EngineError,
    OperatorError,
    OutputError,
    QueueError,
    SendLogError,
    UnusableMessagesError,
)
from transforms.archive import ArchiveError, ArchiveFileError
from transforms.breaker import FailureLimitError
from transforms.join_state import JoinStateError
from transforms.send_log_checks import SendLogFileError
from transforms.tables import TableFileError

_SYSTEM_ERROR: Final = re.compile(r"\[Errno (?P<number>\d+)\](?:[^'\n]*'(?P<path>/[^'\n]+)')?")
# What a disk says. A file that is not there is the disk's fault only if it is named; what a network says is
# a runner's affair.
_OF_A_DISK: Final = frozenset(
    {
        *(
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EFBIG,
            errno.EROFS,
            errno.EACCES,
            errno.EPERM,
            errno.EIO,
        ),
        *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ESTALE),
    }
)
# What says itself, in a sentence, what is wrong with which file.
_SENTENCES: Final = {
    **{
        error.__name__: error
        for error in (
            OperatorError,
            CredentialsError,
            QueueError,
            EndpointError,
            SendLogError,
            OutputError,
        )
    },
    FailureLimitError.__name__: UnusableMessagesError,
    ArchiveError.__name__: OutputError,
    SendLogFileError.__name__: SendLogError,
    ArchiveFileError.__name__: OutputError,
    TableFileError.__name__: OutputError,
    JoinStateError.__name__: EngineError,
}
_SENTENCE: Final = re.compile(rf"({'|'.join(_SENTENCES)}): ([^\n]+?)(?: \[while running|\n|$)")


@contextmanager
def operators_sentences(dataset: str) -> Iterator[None]:
    """Raise what the operator can mend as an :class:`OperatorError`; let bugs through as they are.

    Args:
        dataset: root of the tables that the graph writes.

    Raises:
        OutputError: a file cannot be written, is damaged, or is gone.
        SendLogError: the send log cannot be read.
    """

    def is_said(record: logging.LogRecord) -> bool:
        return _operator_error(_text(record), dataset) is not None

    try:
        with unlogged(is_said):
            yield
    except Exception as failure:
        sentence = _operator_error(f"{type(failure).__name__}: {failure}", dataset)
        if sentence is None:
            raise
        raise sentence from failure


def sentence_in(text: str) -> OperatorError | None:
    """Find what the operator can mend, said in a sentence, in what Beam or an engine made of an exception."""
    sentences = _SENTENCE.findall(text)
    if not sentences:
        return None
    error, sentence = sentences[-1]
    return _SENTENCES[error](sentence)


def is_told(record: logging.LogRecord) -> bool:
    """Tell whether a record of the log is about what is said in a sentence at the end."""
    return sentence_in(_text(record)) is not None


def _text(record: logging.LogRecord) -> str:
    failure = record.exc_info[1] if record.exc_info else None
    raised = f"\n{type(failure).__name__}: {failure}" if failure else ""
    return record.getMessage() + raised


def _operator_error(text: str, dataset: str) -> OperatorError | None:
    sentence = sentence_in(text)
    if sentence is not None:
        return sentence
    fault = next(filter(_is_of_a_disk, _SYSTEM_ERROR.finditer(text)), None)
    if fault is None:
        return None
    reason = os.strerror(int(fault["number"]))
    where = f": {fault['path']}" if fault["path"] else ""
    return OutputError(
        f"The dataset {dataset} cannot be brought up to date ({reason}{where}): free the disk, or mend the "
        "permissions there; nothing was committed, and what was archived is processed at the next start."
    )


def _is_of_a_disk(fault: re.Match[str]) -> bool:
    number = int(fault["number"])
    return number in _OF_A_DISK or (number == errno.ENOENT and fault["path"] is not None)
