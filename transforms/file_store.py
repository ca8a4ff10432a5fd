"""Whole files, written so that they outlive a crash: to a disk, or to an object store.

A path with a scheme (``s3://bucket/...``, ``gs://bucket/...``) belongs to the Beam filesystem of that scheme;
it takes its settings from the pipeline's options (``--s3_endpoint_url`` and others). Any other path is
local. Either way a file appears under its name only when it is complete.
"""

import io
import logging
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Final

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

# What installs Beam's filesystem of a scheme. Not hdfs: there a file has its name before it is complete, and
# what a crash leaves of it is never replaced (Beam 2.77).
_EXTRAS: Final[Mapping[str, str]] = {"s3": "aws", "gs": "gcp", "azfs": "azure"}

# What is written below a directory lies in <name>/<key>=<day>/, and has such a name until it is complete; the
# archive's had no second id before 0.2. A probe lies in the directory itself.
_DAY_NAME: Final = re.compile(r"\w+=\d{4}-\d\d-\d\d")
_PROBE: Final = re.compile(r"\.[0-9a-f]{32}\.tmp")
_UNFINISHED: Final = re.compile(r"\..+\.[0-9a-f]{32}\.tmp|\..+-[0-9a-f]{32}\.avro\.tmp")
# A writer that is still at work has taken less.
_WRITERS_PATIENCE_SECS: Final = 24 * 3600.0
_TIDY_EVERY_SECS: Final = 24 * 3600.0
# By directory, of this process: when it was tidied.
_tidied: Final[dict[str, float]] = {}
_tidying: Final = Lock()

_LOGGER: Final = logging.getLogger(__name__)


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
    temporary = Path(directory, _unfinished_name(f"{name}."))
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
    probe = join(directory, _unfinished_name())
    if is_url(directory):
        _put(probe, memoryview(b"probe"))
        with suppress(Exception):  # who may write need not be allowed to delete
            FileSystems.delete([probe])
        return
    make_directory(Path(directory))
    try:
        with open(probe, "xb") as file:
            file.write(b"probe")
            os.fsync(file.fileno())
    finally:
        Path(probe).unlink(missing_ok=True)


def _unfinished_name(prefix: str = "") -> str:
    return f".{prefix}{uuid.uuid4().hex}.tmp"


def tidy(directory: str, written: str) -> None:
    """Delete what killed writers have left in a directory, if this process has not done so within a day.

    It takes a microsecond for each file that is there. Nothing is raised. An object store has no unfinished
    files.

    Args:
        directory: local or not; see :func:`unfinished_files` for what lies in it.
        written: a file that was written there just now; its time is the time that counts, whatever clock the
            directory's server has.
    """
    if is_url(directory):
        return
    try:
        now_secs = os.stat(written).st_mtime
    except OSError:  # somebody has taken it away: the next file will do
        return
    with _tidying:
        if now_secs - _tidied.get(directory, -_TIDY_EVERY_SECS) < _TIDY_EVERY_SECS:
            return
        _tidied[directory] = now_secs
    delete_unfinished_files(directory, now_secs)


def delete_unfinished_files(directory: str, now_secs: float) -> int:
    """Delete the unfinished files of a local directory that are older than a day; return how many.

    Nothing is raised: what cannot be deleted stays, and is told in the log.
    """
    before = now_secs - _WRITERS_PATIENCE_SECS
    deleted, kept = 0, []
    try:
        for path in unfinished_files(directory):
            try:
                if os.stat(path).st_mtime < before:
                    os.unlink(path)
                    deleted += 1
            except FileNotFoundError:  # another process has deleted it, or its writer has named it
                continue
            except OSError as error:
                kept.append(error)
    except OSError as error:
        kept.append(error)
    if kept:
        _LOGGER.warning(
            "What killed writers have left in %s cannot be deleted, e.g. %s", directory, kept[0]
        )
    return deleted


def unfinished_files(directory: str) -> list[str]:
    """List the files of a local directory that their writers, killed or still at work, have not given a name.

    They are where :func:`write_whole` writes ``<directory>/<name>/<key>=<day>/<file>``, and where
    :func:`require_writable` has tried ``directory``.

    Raises:
        OSError: a directory cannot be read.
    """
    return sorted(_unfinished_files(directory))


def _unfinished_files(directory: str) -> Iterator[str]:
    for above in _entries(directory):
        if _PROBE.fullmatch(above.name):
            yield above.path
            continue
        for day in _entries(above.path):
            if _DAY_NAME.fullmatch(day.name):
                names = (file for file in _entries(day.path) if _UNFINISHED.fullmatch(file.name))
                yield from (file.path for file in names)


def _entries(directory: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return


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
