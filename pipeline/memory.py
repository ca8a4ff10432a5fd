"""Keep a job that runs for months at the memory that it needed in its first minutes.

Beam's pipelines are cycles of objects, and Arrow's own allocator (mimalloc) keeps what was freed by threads
that have ended: nothing is leaked, and yet a round leaves half a megabyte behind. Between rounds both are
given back. What cannot be given back is a page of which a part is still in use: so that there are few of
these, threads share two heaps, and in a job that follows its queues what is large has pages of its own.
"""

import ctypes
import gc
import os
from contextlib import suppress
from typing import Final, NamedTuple

# Arrow reads it once, as it is loaded (https://arrow.apache.org/docs/cpp/env_vars.html).
_ARROW_ALLOCATOR: Final = "ARROW_DEFAULT_MEMORY_POOL"


class _Parameter(NamedTuple):
    """Of glibc's malloc (mallopt(3))."""

    name: str
    """Of the environment variable that sets it, too."""
    number: int
    """In malloc.h."""
    value: int


# By itself malloc has eight heaps a core, and takes ever larger blocks out of them.
_HEAPS: Final = _Parameter("MALLOC_ARENA_MAX", -8, 2)
_LARGE_BYTES: Final = _Parameter("MALLOC_MMAP_THRESHOLD_", -3, 128 * 1024)


def choose_allocator() -> None:
    """Let Arrow use the system's allocator, and that one few heaps, unless the environment says otherwise.

    To be called before pyarrow is imported and threads begin; processes that are started later do the same.
    ``pyarrow.set_memory_pool`` would not do: Arrow's readers do not ask it.
    """
    os.environ.setdefault(_ARROW_ALLOCATOR, "system")
    _tell_malloc(_HEAPS)


def keep_large_blocks_apart() -> None:
    """Let blocks of 128 KB and more have pages of their own, unless the environment says otherwise.

    For a job without an end: it costs a few per cent of CPU where many messages are moved.
    """
    _tell_malloc(_LARGE_BYTES)


def _tell_malloc(parameter: _Parameter) -> None:
    if parameter.name not in os.environ:
        os.environ[parameter.name] = str(parameter.value)
        with suppress(AttributeError):  # only glibc can be told
            ctypes.CDLL(None).mallopt(parameter.number, parameter.value)


def give_memory_back() -> None:
    """Collect garbage, and give free memory back to the system; takes some 0.1 s."""
    import pyarrow as pa  # noqa: PLC0415 - see above

    gc.collect()
    # With the system's allocator that is all free memory of the process, whoever has freed it.
    pa.default_memory_pool().release_unused()
