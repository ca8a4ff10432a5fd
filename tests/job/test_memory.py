"""A job that runs for months: what a round has used is given back."""

import gc
import os
import platform
import subprocess
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.memory import give_memory_back

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


class Node:
    """Refers to itself, as Beam's pipelines do."""

    def __init__(self) -> None:
        self.itself = self


def test_garbage_does_not_wait_for_the_collectors_threshold() -> None:
    gc.disable()
    try:
        node = weakref.ref(Node())
        assert node() is not None
        give_memory_back()
    finally:
        gc.enable()
    assert node() is None


@pytest.mark.parametrize("operators_choice", [None, "mimalloc"])
def test_arrow_uses_the_allocator_that_gives_memory_back_or_the_operators(
    operators_choice: str | None,
) -> None:
    # Arrow chooses as it is loaded, so this is seen only in a process of its own.
    script = (
        "from pipeline.memory import choose_allocator; choose_allocator();"
        "import pyarrow; print(pyarrow.default_memory_pool().backend_name)"
    )
    environment = {
        name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"
    }
    if operators_choice is not None:
        environment["ARROW_DEFAULT_MEMORY_POOL"] = operators_choice
    assert _run(script, environment) == (operators_choice or "system")


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc",
    reason="only glibc's malloc can be told: run it on such a Linux",
)
@pytest.mark.parametrize(("operators_choice", "heaps"), [(None, 2), ("3", 3)])
def test_threads_share_two_heaps_or_as_many_as_the_operator_wants(
    operators_choice: str | None, heaps: int
) -> None:
    script = """
import ctypes, threading
from pipeline.memory import choose_allocator

choose_allocator()
together = threading.Barrier(8)

def allocate():
    together.wait()
    kept = bytes(100_000)
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MALLOC")
    }
    if operators_choice is not None:
        environment["MALLOC_ARENA_MAX"] = operators_choice
    assert _run(script, environment).count("<heap nr=") == heaps


def _run(script: str, environment: Mapping[str, str]) -> str:
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
