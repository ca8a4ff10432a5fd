"""A file of the archive that another one takes the place of, so that a crash leaves the one or the other.

The new one waits beside the old one under a name that no reader of the archive sees. The commit that makes
it count is the catalog's; :func:`replace` does what is left to do, as often as it is asked.
"""

import glob
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from schemas.contracts import contract
from transforms.avro_blocks import write_container
from transforms.file_store import sync_directory
from transforms.moments import to_ms

# Messages that are Python objects at once.
_ROWS: Final = 10_000


def staged(path: str) -> str:
    """Where a file waits, under a name that is not one of the unfinished files which a run deletes."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.new")


def staged_files(archive: str) -> list[str]:
    """List the files that wait; those of an erasure that was not committed wait for nothing."""
    pattern = os.path.join(glob.escape(archive), "*", "landed=*", ".*.avro.new")
    return sorted(glob.glob(pattern))


def stage(old: str, messages: Sequence[pa.RecordBatch]) -> str:
    """Write the messages that take the place of a file, synced, and return where they will be.

    Args:
        old: the file.
        messages: ``mns_message`` rows, one at least.
    """
    moments = [pc.min_max(batch.column("enqueued_at")) for batch in messages if len(batch)]
    first = min(to_ms(moment["min"].as_py()) for moment in moments)
    last = max(to_ms(moment["max"].as_py()) for moment in moments)
    count = sum(map(len, messages))
    new = os.path.join(os.path.dirname(old), f"{first}-{last}-{count}-{uuid.uuid4().hex}.avro")
    with open(staged(new), "xb") as file:
        write_container(file, contract("mns_message"), _records(messages))
        file.flush()
        os.fsync(file.fileno())
    sync_directory(Path(new).parent)
    return new


def replace(old: str, new: str | None) -> None:
    """Let the staged file take its place, or nothing; done again, it changes nothing.

    Raises:
        OSError: the directory cannot be written, or the staged file is gone; then the old one stays.
    """
    if new is not None:
        if os.path.exists(staged(new)):
            os.rename(staged(new), new)
        elif not os.path.exists(new):
            raise FileNotFoundError(f"{staged(new)} is gone")
        sync_directory(Path(new).parent)
    Path(old).unlink(missing_ok=True)
    sync_directory(Path(old).parent)


def _records(messages: Sequence[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    for batch in messages:
        for start in range(0, len(batch), _ROWS):
            yield from batch.slice(start, _ROWS).to_pylist()
