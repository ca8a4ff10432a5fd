"""Many seeds, on several lanes at a time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final, TypeAlias

from tests.simulation.books import LedgerOpenError
from tests.simulation.lane import Lane
from tests.simulation.simulate import Figures, simulate

# An emulator that never ended would grow, and its clock would be centuries ahead.
_SEEDS_PER_LANE: Final = 100

Outcome: TypeAlias = "Figures | LedgerOpenError"


def simulate_many(seeds: Sequence[int], lanes: int) -> Iterator[Outcome]:
    """Run seeds, so many at a time; what a failing one leaves on the disk stays there.

    Yields:
        What each has gone through, or why its ledger did not close, as soon as it is done.
    """
    size = min(_SEEDS_PER_LANE, -(-len(seeds) // lanes))
    done: SimpleQueue[Outcome] = SimpleQueue()
    with ThreadPoolExecutor(lanes) as pool:
        for first in range(0, len(seeds), size):
            pool.submit(_one_after_the_other, seeds[first : first + size], done.put)
        for _ in seeds:
            yield done.get()


def _one_after_the_other(seeds: Sequence[int], tell: Callable[[Outcome], None]) -> None:
    root = Path(tempfile.mkdtemp(prefix="sms-receipts-simulation-"))
    left = list(seeds)
    try:
        with Lane(root) as lane:
            while left:
                tell(_outcome(lane, left[0]))
                del left[0]
    except Exception as error:  # noqa: BLE001 - whoever waits for these seeds has to know
        for seed in left:
            tell(LedgerOpenError(f"seed {seed} was not run: {error!r}"))
    if not any(root.glob("seed-*")):
        shutil.rmtree(root)


def _outcome(lane: Lane, seed: int) -> Outcome:
    try:
        return simulate(lane, seed)
    except LedgerOpenError as error:
        return error
