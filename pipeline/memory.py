"""Keep a job that runs for months at the memory that it needed in its first minutes.

Beam's pipelines are cycles of objects, and Arrow's own allocator (mimalloc) keeps what was freed by threads
that have ended: nothing is leaked, and yet a round leaves half a megabyte behind. Between rounds both are
given back. What cannot be given back is a page of which a part is still in use: so that there are few of
these, threads share two heaps, and what is large has pages of its own.
"""

import ctypes
import gc
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NamedTuple

# Arrow reads it once, as it is loaded (https://arrow.apache.org/docs/cpp/env_vars.html).
_ARROW_ALLOCATOR: Final = "ARROW_DEFAULT_MEMORY_POOL"


class _Parameter(NamedTuple):
    number: int
    """In malloc.h."""
    value: int


# Of glibc's malloc, by the environment variables that set them (mallopt(3)). By itself it has eight heaps a
# core, and takes ever larger blocks out of them.
_MALLOC: Final[Mapping[str, _Parameter]] = {
    "MALLOC_ARENA_MAX": _Parameter(-8, 2),
    "MALLOC_MMAP_THRESHOLD_": _Parameter(-3, 128 * 1024),
}


def choose_allocator() -> None:
    """Let Arrow use the system's allocator, and that one keep little, unless the environment says otherwise.

    To be called before pyarrow is imported and threads begin; processes that are started later do the same.
    ``pyarrow.set_memory_pool`` would not do: Arrow's readers do not ask it.
    """
    os.environ.setdefault(_ARROW_ALLOCATOR, "system")
    for name, parameter in _MALLOC.items():
        if name not in os.environ:
            os.environ[name] = str(parameter.value)
            with suppress(AttributeError):  # only glibc can be told
                ctypes.CDLL(None).mallopt(*parameter)


def give_memory_back() -> None:
    """Collect garbage, and give free memory back to the system; takes some 0.1 s."""
    import pyarrow as pa  # noqa: PLC0415 - see above

    gc.collect()
    # With the system's allocator that is all free memory of the process, whoever has freed it.
    pa.default_memory_pool().release_unused()
