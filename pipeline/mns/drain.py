"""When a queue counts as empty. Pure: what polls found goes in, a verdict comes out.

A short or empty batch proves little: storage is striped, one receive reads one stripe, and a server
that caps long polls answers "nothing" at once. So a queue counts as empty when as many polls in a
row as it has fetchers found nothing *and waited for it*, all begun after the last message came, or
so shortly before that nearly all of the wait was after it (a fetcher that lost the race for it).
"""

from __future__ import annotations

from typing import Final

# An answer sooner than this share of the asked wait did not wait (the server's cap on long polls).
_WAITED_SHARE: Final = 0.5
# A poll begun before the last message came counts if this share of the asked wait was after it.
_WAITED_AFTER_SHARE: Final = 0.9
# So many in a row, each after a growing pause, count as one that waited: the server will not wait.
_FAST_ANSWERS: Final = 8
_FEWEST_CONFIRMATIONS: Final = 2


class Drain:
    """What polls of one queue have found so far."""

    def __init__(self, fetchers: int) -> None:
        """Ask for as many confirmations as there are fetchers, and two at least."""
        self._needed = max(_FEWEST_CONFIRMATIONS, fetchers)
        self._confirmations = 0
        self._fast_answers = 0
        self._last_message_secs = float("-inf")

    def found_messages(self, at_secs: float) -> None:
        """Note a poll that brought messages, answered at ``at_secs`` of a monotonic clock."""
        self._confirmations = self._fast_answers = 0
        self._last_message_secs = max(self._last_message_secs, at_secs)

    def found_nothing(self, began_secs: float, answered_secs: float, wait_secs: int) -> bool:
        """Note an empty poll; return whether it waited as it was asked to."""
        waited = answered_secs - began_secs >= wait_secs * _WAITED_SHARE
        if began_secs < self._last_message_secs:
            waited_after_secs = answered_secs - self._last_message_secs
            if wait_secs == 0 or waited_after_secs < wait_secs * _WAITED_AFTER_SHARE:
                return waited
        if waited:
            self._confirmations += 1
            self._fast_answers = 0
        else:
            self._fast_answers += 1
            if self._fast_answers >= _FAST_ANSWERS:
                self._confirmations += 1
                self._fast_answers = 0
        return waited

    def needs_another(self, under_way: int) -> bool:
        """Whether a further poll could prove something that those under way cannot."""
        return self._confirmations + under_way < self._needed

    @property
    def is_empty(self) -> bool:
        """Whether the queue counts as empty."""
        return self._confirmations >= self._needed
