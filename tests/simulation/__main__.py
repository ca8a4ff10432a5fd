"""The command line of the simulator."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence

from tests.simulation.many import simulate_many
from tests.simulation.simulate import Figures

_SEEDS_PER_LINE = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Run seeds; returns 1 when the ledger of one did not close."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int, help="this seed only")
    parser.add_argument("--seeds", type=int, default=200, help="how many (default %(default)s)")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first of them")
    parser.add_argument("--lanes", type=int, default=2, help="how many at a time")
    given = parser.parse_args(argv)
    seeds = range(given.first, given.first + given.seeds)
    if given.seed is not None:
        seeds = range(given.seed, given.seed + 1)
    began = time.monotonic()
    sums: Figures = Counter()
    failed = 0
    for number, outcome in enumerate(simulate_many(seeds, min(given.lanes, len(seeds))), start=1):
        if isinstance(outcome, Counter):
            sums += outcome
        else:
            failed += 1
            print(f"FAILED {outcome}", flush=True)  # noqa: T201
        if number % _SEEDS_PER_LINE == 0 or number == len(seeds):
            secs = time.monotonic() - began
            print(f"{secs:,.0f} s: {number:,} seeds, {failed} failed", flush=True)  # noqa: T201
    for name, count in sorted(sums.items()):
        print(f"{count:>12,} {name}")  # noqa: T201
    print(f"MISSED: {failed} seeds" if failed else "reached: 0 missing, 0 doubled")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
