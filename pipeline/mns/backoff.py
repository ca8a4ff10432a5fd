"""How long to wait after a failure. Pure: randomness is an argument."""

from __future__ import annotations

from collections.abc import Callable

# Draws a number from [0, 1), as random.random does.
Draw = Callable[[], float]


def backoff_secs(failures: int, base_secs: float, longest_secs: float, draw: Draw) -> float:
    """Return the pause after the nth failure in a row (n >= 1): doubling, capped, half random.

    The random half keeps many fetchers from returning at once; the fixed half keeps any of them
    from returning at once.
    """
    ceiling: float = min(longest_secs, base_secs * 2.0 ** min(failures - 1, 30))
    return ceiling * (0.5 + 0.5 * draw())
