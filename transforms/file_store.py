"""Whole files, written so that they outlive a crash: to a disk, or to an object store.

A path with a scheme (``s3://bucket/...``, ``gs://bucket/...``) belongs to the Beam filesystem of that scheme;
it takes its settings from the pipeline's options (``--s3_endpoint_url`` and others). Any other path is
local. Either way a file appears under its name only when it is complete.
"""

import io
import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, Final

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

# What installs Beam's filesystem of a scheme. Not hdfs: there a file has its name before it is complete, and
# what a crash leaves of it is never replaced (Beam 2.77).
_EXTRAS: Final[Mapping[str, str]] = {"s3": "aws", "gs": "gcp", "azfs": "azure"}


class StoreError(OSError):
    """Raised when an object store does not take a file; ``strerror`` says why."""

    def __init__(self, cause: str) -> None:
        super().__init__(0, cause)


def is_url(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path belongs to an object store."""
    return "://" in os.fspath(path)


def join(directory: str, *names: str) -> str:
    """Name what is in a directory, local or not."""
    return (
        "/".join((directory.rstrip("/"), *names))
        if is_url(directory)
        else os.path.join(directory, *names)
    )


def write_whole(path: str, write: Callable[[BinaryIO], object]) -> None:
    """Write a file that appears under its name when it is complete and synced; its directory is made.

    Two writers of the same name do not meet: the later one replaces the file.

    Args:
        path: where it goes, local or with a scheme.
        write: puts the content into a file that is open for writing.

    Raises:
        OSError: it cannot be written; then nothing is left.
    """
    if is_url(path):
        # In memory first: an object store that is closed too early takes a half for the whole.
        content = io.BytesIO()
        write(content)
        _put(path, content.getbuffer())
        return
    directory, name = os.path.split(path)
    make_directory(Path(directory))
    temporary = Path(directory, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(Path(directory))


def require_writable(directory: str) -> None:
    """Make a directory, local or not, and prove that files can be written there.

    Raises:
        OSError: they cannot.
    """
    probe = join(directory, f".{uuid.uuid4().hex}.tmp")
    if is_url(directory):
        _put(probe, memoryview(b"probe"))
        with suppress(Exception):  # who may write need not be allowed to delete
            FileSystems.delete([probe])
        return
    make_directory(Path(directory))
    with open(probe, "xb") as file:
        file.write(b"probe")
        os.fsync(file.fileno())
    os.unlink(probe)


def _put(url: str, content: memoryview) -> None:
    """Create an object.

    Raises:
        StoreError: the store did not take it.
    """
    scheme = url.partition("://")[0]
    extra = _EXTRAS.get(scheme)
    if extra is None:
        raise StoreError(f"{scheme}:// cannot be written to: it is none of s3, gs and azfs")
    try:
        FileSystems.get_filesystem(url)
    except Exception as error:
        raise StoreError(
            f"Beam has no filesystem for {scheme}:// here: install apache-beam[{extra}]"
        ) from error
    try:
        file = FileSystems.create(url, compression_type=CompressionTypes.UNCOMPRESSED)
        file.write(content)
        file.close()
    except Exception as error:  # noqa: BLE001 - each store's client raises errors of its own
        raise StoreError(_cause(error)) from error


def _cause(error: BaseException) -> str:
    """What a store's client said, which names buckets and codes."""
    text = str(getattr(error, "message", "") or error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def make_directory(directory: Path) -> None:
    """Make a local directory and its parents so that they outlive a crash."""
    if directory == directory.parent:
        return
    make_directory(directory.parent)
    if directory.is_dir():
        _sync_once(directory.parent)
    else:
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)


@cache
def _sync_once(directory: Path) -> None:
    """Sync a directory for the sake of another process, which may have made something there just now."""
    with suppress(OSError):  # nobody has just made something in what we may not even open
        sync_directory(directory)


def sync_directory(directory: Path) -> None:
    """Make what was made, renamed or removed in a local directory outlive a crash."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
