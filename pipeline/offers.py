"""Offers: files that were rewritten beside the writer of a dataset, for it to commit between two epochs.

A compaction must not wait for a job that runs for months, and nobody but the holder of the dataset's lock
commits. So who compacts writes below ``_compact/`` and offers: *these files instead of those*. The writer
commits an offer when it is between two of its own commits, if every file that would go is still part of the
dataset; otherwise the offer is dropped. Nothing that an epoch reads is replaced while it runs, and no row is
lost or doubled whatever was committed meanwhile. If there is no writer, who compacts takes the lock itself.
"""

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Final, NamedTuple

from pipeline.catalog import STAGING, Catalog, Commit, ReplacedFilesError, sync_staged
from pipeline.errors import AlreadyRunningError
from pipeline.graph_faults import operators_sentences
from transforms.tables import WrittenFile

_DIRECTORY: Final = "_compact"
_OFFERED: Final = "offered"
_NEXT: Final = "next"
_OFFER_NAME: Final = "offer.json"
_LOCK_NAME: Final = "_compact_lock"


class Offer(NamedTuple):
    """The rows of the files ``removed`` are those of the files ``added``; paths relative to the dataset."""

    added: Sequence[WrittenFile]
    removed: Sequence[str]


@contextmanager
def rewriting(dataset: str) -> Iterator[str]:
    """Be the only one who rewrites files of a dataset beside its writer; provide an empty directory for it.

    At the end what was not committed is taken back: also what somebody left behind who was killed.

    Raises:
        AlreadyRunningError: somebody else does.
        OSError: the dataset cannot be written.
    """
    directory = os.path.join(dataset, _DIRECTORY)
    with ExitStack() as opened:
        lock = opened.enter_context(open(os.path.join(dataset, _LOCK_NAME), "w", encoding="ascii"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(
                f"Another sms-receipts compact works on {dataset}: wait for it, or stop it."
            ) from None
        _forget(directory)
        opened.callback(_forget, directory)
        os.makedirs(os.path.join(directory, _OFFERED))
        yield directory


def make_offer(directory: str, offer: Offer) -> str:
    """Offer files that were written below :func:`staging_of`; the name of the offer is returned.

    Everything is on the disk before the offer can be seen: whoever sees it may rely on it.
    """
    staging = staging_of(directory)
    with open(os.path.join(staging, _OFFER_NAME), "w", encoding="utf-8") as file:
        json.dump(offer, file)
        file.flush()
        os.fsync(file.fileno())
    sync_staged(staging, offer.added)
    name = uuid.uuid4().hex
    os.rename(staging, os.path.join(directory, _OFFERED, name))
    return name


def staging_of(directory: str) -> str:
    """Where the files of the next offer are written, below the directory of :func:`rewriting`."""
    return os.path.join(directory, _NEXT)


def is_pending(dataset: str, name: str) -> bool:
    """Tell whether an offer still waits, or is just being committed."""
    return os.path.exists(os.path.join(dataset, _DIRECTORY, _OFFERED, name)) or os.path.exists(
        os.path.join(dataset, STAGING, name)
    )


def take_offers(catalog: Catalog) -> None:
    """Commit what was offered and still fits; for who holds the lock, between two of its commits.

    The moment of the dataset stays that of its last epoch: no answer changes.

    Raises:
        OutputError: the disk refused; what was being committed was not.
    """
    offered = os.path.join(catalog.dataset, _DIRECTORY, _OFFERED)
    try:
        names = sorted(os.listdir(offered))
    except FileNotFoundError:
        return
    with operators_sentences(catalog.dataset):
        for name in names:
            staging = catalog.staging(name)
            try:
                os.rename(os.path.join(offered, name), staging)
            except FileNotFoundError:
                return  # it was taken back, and all others with it
            with open(os.path.join(staging, _OFFER_NAME), encoding="utf-8") as file:
                added, removed = json.load(file)
            commit = Commit(
                kind="compact",
                as_of_ms=catalog.as_of_ms(),
                counts={},
                added=[WrittenFile(*written) for written in added],
                removed=removed,
                archive_files={},
                send_log={},
            )
            try:
                catalog.commit(commit, name)
            except ReplacedFilesError:
                shutil.rmtree(staging)


def _forget(directory: str) -> None:
    """Take back all offers at once, then delete them: nobody sees half of one."""
    with suppress(FileNotFoundError):
        os.rename(os.path.join(directory, _OFFERED), os.path.join(directory, uuid.uuid4().hex))
    shutil.rmtree(directory, ignore_errors=True)
