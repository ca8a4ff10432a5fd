"""How to read inboxes with an engine: what depends on the engine, and on nothing else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """How bundles are cut, and when what they contain is acknowledged.

    Attributes:
        max_bundle_messages: a bundle closes before it would have more messages than this...
        max_bundle_secs: ...or at this age, whichever comes first.
        advance_wait_secs: how long a reader waits for a first message. FnApiRunner needs it, since it asks
            again at once; keep it at 0 where several inboxes are read: they may take turns in one bundle.
        poll_secs: how long the engine waits before it asks again for what was not there. 0 means that it does
            not wait; then a reader also waits for more messages to fill a bundle that has begun.
        acknowledges_late: acknowledge a round late, for engines (Flink) that finalize more than their
            checkpoint contains; see ``marks``.
    """

    max_bundle_messages: int = 16_000
    max_bundle_secs: float = 2.0
    advance_wait_secs: float = 0.5
    poll_secs: float = 0.0
    acknowledges_late: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.max_bundle_messages < 1:
            raise ValueError("max_bundle_messages must be at least 1")
        if self.max_bundle_secs <= 0:
            raise ValueError("max_bundle_secs must be more than 0")
        if self.advance_wait_secs < 0 or self.poll_secs < 0:
            raise ValueError("advance_wait_secs and poll_secs must be at least 0")
        if not self.advance_wait_secs and not self.poll_secs:
            raise ValueError(
                "a reader that waits neither itself nor between its bundles would spin"
            )
