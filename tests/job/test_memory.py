"""A job that runs for months: what a round has used is given back."""

import gc
import os
import subprocess
import sys
import weakref
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
    backend = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert backend == (operators_choice or "system")
