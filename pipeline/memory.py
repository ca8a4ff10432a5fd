"""Keep a job that runs for months at the memory that it needed in its first minutes.

Beam's pipelines are cycles of objects, and Arrow's own allocator (mimalloc) keeps what was freed by threads
that have ended: nothing is leaked, and yet a round leaves half a megabyte behind. Between rounds both are
given back.
"""

import gc
import os

# Arrow reads it once, as it is loaded (https://arrow.apache.org/docs/cpp/env_vars.html).
_ALLOCATOR = "ARROW_DEFAULT_MEMORY_POOL"


def choose_allocator() -> None:
    """Let Arrow use the system's allocator, unless the environment names another one.

    To be called before pyarrow is imported. ``pyarrow.set_memory_pool`` would not do: Arrow's readers do not
    ask it.
    """
    os.environ.setdefault(_ALLOCATOR, "system")


def give_memory_back() -> None:
    """Collect garbage, and give free memory back to the system; takes some 0.1 s."""
    import pyarrow as pa  # noqa: PLC0415 - see above

    gc.collect()
    # With the system's allocator that is all free memory of the process, whoever has freed it.
    pa.default_memory_pool().release_unused()
