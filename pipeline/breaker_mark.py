"""What a tripped breaker leaves behind: without it, every restart would empty the queues a little more."""

import json
import os
from contextlib import suppress
from datetime import datetime
from typing import Final

from pipeline.errors import OutputError, UnusableMessagesError
from transforms.failures import PIPELINE_VERSION

# In the root of the archive, which every landing needs; says nothing of what was in the messages.
FILE_NAME: Final = "breaker-tripped.json"


def leave_mark(
    archive: str, failure: UnusableMessagesError, share: float, at: datetime
) -> UnusableMessagesError:
    """Keep later runs from reading the queues.

    Args:
        archive: its directory.
        failure: what tripped.
        share: the ``--max_failed_share`` that did not allow it.
        at: when.

    Returns:
        What to tell the operator.
    """
    path = os.path.join(archive, FILE_NAME)
    mark = {
        "version": PIPELINE_VERSION,
        "tripped_at": at.isoformat(),
        "max_failed_share": share,
        "sentence": str(failure),
    }
    unfinished = f"{path}.unfinished"
    # A disk that refuses is no reason to hide what tripped.
    with suppress(OSError):
        with open(unfinished, "w", encoding="utf-8") as file:
            json.dump(mark, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        return _held_back(str(failure), path)
    return failure


def heed_mark(archive: str, share: float) -> None:
    """Refuse to read the queues like the run that tripped; forget it if this one is another.

    Args:
        archive: its directory.
        share: the ``--max_failed_share`` of this run.

    Raises:
        UnusableMessagesError: version and share would let the same happen again.
        OutputError: the mark cannot be read, or not be removed.
    """
    path = os.path.join(archive, FILE_NAME)
    try:
        with open(path, encoding="utf-8") as file:
            mark = json.load(file)
        if mark["version"] == PIPELINE_VERSION and share <= mark["max_failed_share"]:
            raise _held_back(mark["sentence"], path)
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):  # what is wrong with an archive, landing tells
        return
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise OutputError(
            f"The mark of a run that stopped for unusable messages, {path}, cannot be read or removed "
            f"({type(error).__name__}): remove it by hand."
        ) from None


def _held_back(sentence: str, path: str) -> UnusableMessagesError:
    return UnusableMessagesError(
        f"{sentence}; no run of this version reads the queues before that, or before {path} is removed"
    )
