"""The proof of an erasure: every file of archive and dataset is looked into, and what is found is told."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn

from pipeline.erase import at_once
from pipeline.errors import OperatorError
from pipeline.options_erase import EraseOptions
from pipeline.send_log_slices import send_log_files
from transforms.erase import Persons
from transforms.traces import Looked, look_into


class IncompleteErasureError(OperatorError):
    """Raised when something is left that holds a number, or may hold it; all else is erased."""


class Proof(NamedTuple):
    """What a look into every file says.

    Attributes:
        files: how many there are in archive and dataset.
        size: their bytes.
        with_trace: those in which a number is.
        obstacles: those in which one may be, and why that cannot be told.
        send_log: files of the send log, which is the user's, of either kind.
    """

    files: int
    size: int
    with_trace: Sequence[str]
    obstacles: Mapping[str, str]
    send_log: Sequence[str]


def prove(options: EraseOptions, say: Callable[[str], None]) -> Proof:
    """Look into every file of archive and dataset, and of the send log if it is known.

    Raises:
        IncompleteErasureError: a directory cannot be read.
        SendLogError: the send log is not there.
    """
    own = {path: root for root in (options.archive, options.dataset) for path in _files_below(root)}
    names = {path: os.path.relpath(path, root) for path, root in own.items()}
    logged = send_log_files(options.send_log) if options.send_log else []
    of_own = _looked(options, sorted(names.items()), "files looked into", say)
    of_log = _looked(options, [(path, "") for path in logged], "files of the send log", say)
    return Proof(
        files=len(of_own),
        size=sum(looked.size for looked in of_own.values()),
        with_trace=[path for path, looked in of_own.items() if looked.has_trace],
        obstacles={
            path: looked.obstacle
            for path, looked in of_own.items()
            if looked.obstacle is not None and not looked.has_trace
        },
        send_log=[path for path, looked in of_log.items() if looked.has_trace or looked.obstacle],
    )


def _looked(
    options: EraseOptions,
    files: Sequence[tuple[str, str]],
    what: str,
    say: Callable[[str], None],
) -> dict[str, Looked]:
    """Look into files, given as ``(path, the part of it that counts as its name)``."""
    persons = Persons(options.numbers)

    def look(file: tuple[str, str]) -> Looked | None:
        try:
            return look_into(persons, *file)
        except FileNotFoundError:
            return None  # somebody works on

    found = zip(files, at_once(look, files, what, say), strict=True)
    return {path: looked for (path, _), looked in found if looked is not None}


def findings(proof: Proof, options: EraseOptions) -> str:
    """Name every file that holds a number or may hold one, a line each."""
    lines = [f"still holds it: {path}\n" for path in proof.with_trace]
    lines += [
        f"cannot be shown to be free of it: {path} ({obstacle})\n"
        for path, obstacle in proof.obstacles.items()
    ]
    return options.numbers.mask("".join(lines))


def require_no_trace(proof: Proof, options: EraseOptions) -> str:
    """Say that nothing is left.

    Raises:
        IncompleteErasureError: something is, or may be.
    """
    if proof.with_trace:
        path = options.numbers.mask(proof.with_trace[0])
        raise IncompleteErasureError(
            f"{len(proof.with_trace):,} of {proof.files:,} files still hold it, {path} first: delete what is "
            "none of sms-receipts's, restore what is damaged from a copy or add --remove_unreadable, and "
            "erase again."
        )
    if proof.obstacles:
        path, obstacle = next(iter(proof.obstacles.items()))
        path = options.numbers.mask(path)
        raise IncompleteErasureError(
            f"{len(proof.obstacles):,} of {proof.files:,} files cannot be shown to be free of it, {path} "
            f"first ({obstacle}): restore what is damaged from a copy or add --remove_unreadable, delete "
            "what is none of sms-receipts's, and erase again."
        )
    where = f"{options.archive} and {options.dataset}"
    return f"No trace was found in {proof.files:,} files ({proof.size:,} bytes) below {where}."


def next_step(proof: Proof, options: EraseOptions) -> str:
    """Say what would bring it back."""
    if options.send_log is None:
        return (
            "look through the send log, which this command was not told of (--send_log): the next backfill "
            "would bring back what is in there"
        )
    if not proof.send_log:
        return f"sms-receipts report --dataset {options.dataset}"
    files = options.numbers.mask(", ".join(proof.send_log))
    return (
        "a backfill would bring it back from the send log. Write these files of it anew, without it and "
        f"under new names, since a file of a send log may only grow: {files}"
    )


def _files_below(root: str) -> Iterator[str]:
    """Every file, also behind links to other directories.

    Raises:
        IncompleteErasureError: a directory cannot be read.
    """
    seen: set[str] = set()
    for directory, names, files in os.walk(root, onerror=_refuse, followlinks=True):
        real = os.path.realpath(directory)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        paths = (os.path.join(directory, name) for name in files)
        yield from filter(os.path.isfile, paths)


def _refuse(error: OSError) -> NoReturn:
    raise IncompleteErasureError(
        f"The directory {error.filename} cannot be read ({error.strerror}), so it cannot be shown to be free "
        "of it: grant read permission there, and erase again."
    )
