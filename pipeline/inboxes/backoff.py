"""How long to wait after a failure. Pure: randomness is an argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

# Draws a number from [0, 1), as random.random does.
Draw = Callable[[], float]
# A receive is to succeed within 5 s of the return of the services. Two such pauses can follow each
# other: that of whoever asks for tokens, and that of the fetcher who waits for one.
_FIRST_SECS: Final = 0.2
_LONGEST_SECS: Final = 2.0


def backoff_secs(failures: int, base_secs: float, longest_secs: float, draw: Draw) -> float:
    """Return the pause after the nth failure in a row (n >= 1): doubling, capped, half random.

    The random half keeps many fetchers from returning at once; the fixed half keeps any of them
    from returning at once.
    """
    ceiling: float = min(longest_secs, base_secs * 2.0 ** min(failures - 1, 30))
    return ceiling * (0.5 + 0.5 * draw())


def outage_pause_secs(failures: int, draw: Draw) -> float:
    """Return the pause after the nth fault in a row that passes by itself: 2 s at most."""
    return backoff_secs(failures, _FIRST_SECS, _LONGEST_SECS, draw)
