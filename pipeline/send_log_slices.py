"""What is new in the send log: which parts of which files no epoch has read."""

import glob
import json
import os
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import BinaryIO, Final

from pipeline.errors import SendLogError
from transforms.send_log import (
    AVRO,
    JSONL,
    PARQUET,
    Consumed,
    SendLogSlice,
    require_send_log_file,
)
from transforms.send_log_checks import SendLogFileError

# Large enough that a slice is worth a worker's while, small enough that workers share a big file.
_SLICE_BYTES: Final = 32 * 1024 * 1024
_TAIL_BYTES: Final = 64 * 1024
# A rotated file under the old name may be as long as the old one; its last lines are not the same.
_KNOWN_BYTES: Final = 4096
_NOTHING: Final = Consumed(0, "")


def send_log_slices(pattern: str, consumed: Mapping[str, Consumed]) -> list[SendLogSlice]:
    """Cut what is new in the send log into slices, in the order of the files' names.

    JSON lines are followed as they grow, up to their last newline: a line that is still being written waits
    for the next call, unless it already is a whole JSON object. An Avro or Parquet file is read once,
    whole. Names that start with a dot or an underscore are skipped, as Hadoop's conventions have it.

    Args:
        pattern: a directory, a file, or a glob (``**`` crosses directories).
        consumed: by absolute path, what was read before (see :func:`consumed_up_to`).

    Raises:
        SendLogError: nothing matches, or a file is unreadable, of an unknown kind, or not what it was. An
            existing directory may be empty: its first file appears with the first send.
    """
    slices: list[SendLogSlice] = []
    for path in send_log_files(pattern):
        known = consumed.get(path, _NOTHING)
        start = known.end
        try:
            size = os.path.getsize(path)
            if path.endswith(JSONL):
                slices.extend(_slices_of_lines(path, known, size))
            elif start == 0 and size:
                require_send_log_file(path)
                slices.append(SendLogSlice(path, 0, size))
            elif start != size:
                raise SendLogError(
                    f"The send log file {path} has changed since it was read: Avro and Parquet files are "
                    "read once, so put it back as it was and write new sends to a new file."
                )
        except OSError as error:
            raise SendLogError(
                f"The send log file {path} cannot be read ({error.strerror}): mend its permissions, or "
                "narrow --send_log."
            ) from error
        except SendLogFileError as error:
            raise SendLogError(str(error)) from error
    return slices


def send_log_files(pattern: str) -> list[str]:
    """List the files that a pattern means, absolute and sorted.

    Raises:
        SendLogError: nothing matches, or a file is of an unknown kind.
    """
    is_directory = os.path.isdir(pattern)
    matches = glob.glob(
        os.path.join(glob.escape(pattern), "*") if is_directory else pattern, recursive=True
    )
    files = sorted(
        os.path.abspath(match)
        for match in matches
        if os.path.isfile(match) and not os.path.basename(match).startswith(("_", "."))
    )
    if not files and not is_directory:
        raise SendLogError(
            f"No send log file matches {pattern}: correct --send_log (a file, a directory or a quoted "
            "glob), or create the directory if nothing was sent yet."
        )
    for file in files:
        if not file.endswith((JSONL, AVRO, PARQUET)):
            raise SendLogError(
                f"The send log file {file} is of an unknown kind: its name must end in {JSONL}, {AVRO} or "
                f"{PARQUET}; narrow --send_log if it is no send log."
            )
    return files


def consumed_up_to(path: str, end: int) -> Consumed:
    """Note that a file's first ``end`` bytes are read, so that the next call goes on from there.

    Raises:
        SendLogError: the file is gone, or cannot be read any more.
    """
    try:
        with open(path, "rb") as file:
            file.seek(max(0, end - _KNOWN_BYTES))
            tail = file.read(min(end, _KNOWN_BYTES))
    except OSError as error:
        raise SendLogError(
            f"The send log file {path} cannot be read any more ({error.strerror}): put it back; nothing was "
            "committed."
        ) from error
    return Consumed(end, sha256(tail).hexdigest())


def _slices_of_lines(path: str, known: Consumed, size: int) -> Iterator[SendLogSlice]:
    """Cut what follows the known part at line ends, about every 32 MB."""
    start = known.end
    if size < start:
        raise SendLogError(
            f"The send log file {path} is shorter than what was read of it: a send log may only grow, so "
            "put it back and let a new file begin under a new name."
        )
    if size == start:
        return
    with open(path, "rb") as file:
        if start:
            file.seek(start - 1)
            if b"\n" not in file.read(2) or consumed_up_to(path, start) != known:
                raise SendLogError(
                    f"The send log file {path} is not the one that was read before: a send log may only "
                    "grow, so put it back and let a new file begin under a new name."
                )
        end = _end_of_last_line(file, start, size)
        while start < end:
            file.seek(min(start + _SLICE_BYTES, end))
            if file.tell() < end:
                file.readline()
            # The file may grow meanwhile, and a last line that was whole may not be so any more.
            stop = min(file.tell(), end)
            yield SendLogSlice(path, start, stop)
            start = stop


def _end_of_last_line(file: BinaryIO, start: int, size: int) -> int:
    """Find the end of the last whole line; ``start`` if there is none."""
    tail = b""
    position = size
    while position > start and b"\n" not in tail:
        step = min(_TAIL_BYTES, position - start)
        position -= step
        file.seek(position)
        tail = file.read(step) + tail
    newline = tail.rfind(b"\n")
    return size if _is_whole(tail[newline + 1 :]) else position + newline + 1


def _is_whole(line: bytes) -> bool:
    """Tell whether an unterminated line is whole: no beginning of an object or array is one itself."""
    try:
        return isinstance(json.loads(line), (dict, list))
    except (ValueError, RecursionError):
        return False
