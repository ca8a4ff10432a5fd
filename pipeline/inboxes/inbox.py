"""What an inbox is, to the source that reads it: the one seam between Beam and the services.

An inbox receives ahead of whoever takes from it, in threads of its own, keeps the leases of what it
holds, and settles them when it is told to. It knows nothing of bundles, marks or checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from schemas.records import MnsMessage


class Batch(NamedTuple):
    """The messages of one receive, of one queue; the lease that holds them all."""

    messages: list[MnsMessage]
    lease: int
    """Names the lease within its inbox; never used twice."""
    oldest_enqueued_at: datetime
    """The earliest ``enqueued_at`` of the messages (UTC): the event time of the batch."""


class Inbox(Protocol):
    """Messages that were received and are neither acknowledged nor given back; safe to share between threads.

    A lease ends in one of four ways: it is acknowledged, released, lost to the service, or forgotten
    with the process; in the last three its messages come back.
    """

    def start(self) -> None:
        """Begin to receive; called once, before anything else."""

    def take(self, timeout_secs: float) -> Batch | None:
        """Hand out the next batch, waiting for one up to ``timeout_secs`` (0: not at all).

        Returns None at once when nothing more will come. Never raises: see ``failure``.
        """

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be handed out: stopped, failed, or at the end of a bounded read."""

    @property
    def failure(self) -> Exception | None:
        """What ended the read, if something did; what passes is waited out and is no failure.

        The reader raises it, after the bundles before it were committed. What only the operator can mend is
        an ``OperatorError``. It is also noted in the run's tally (``Tally.fail``).
        """

    def watermark(self) -> datetime | None:
        """Return a time (UTC) that no message still to come is expected to precede; None if unknown.

        Never passes the oldest message held, and moves on while the service is idle.
        """

    def oldest_enqueued_at(self) -> datetime | None:
        """Return the event time (UTC) of the oldest message held, handed out or not; None if none is."""

    def token_expires_at(self) -> datetime | None:
        """Return when the first of the service's tokens at hand ends (UTC); None if it has none."""

    def acknowledge(self, leases: Sequence[int]) -> None:
        """Have the messages of leases never come back; waits for the service. Never raises.

        Leases that are not held (any more) are passed over, so a second call does nothing. Still works
        after ``stop``.
        """

    def release(self, leases: Sequence[int]) -> None:
        """Begin to give the messages of leases back, so that they come again at once. Never raises."""

    def stop(self) -> None:
        """Receive nothing more, hand out nothing more, and give back what was not handed out.

        What was handed out stays held until it is acknowledged or released. A second call does nothing.
        """

    def close(self) -> None:
        """Stop, give back everything that was not acknowledged, and wait for the threads."""


class InboxSpec(Protocol):
    """How to open an inbox. Travels with the pipeline: a frozen dataclass of primitives, small, no secrets.

    It is stored in the engine's state with every position, and read back by later versions: fields may be
    added, with defaults.
    """

    @property
    def readers(self) -> int:
        """How many readers share the service's messages, each with an inbox of its own; at least 1."""

    @property
    def batch_messages(self) -> int:
        """How many messages a ``Batch`` has at most."""

    def open(self, run_id: str, on_done: Callable[[], None]) -> Inbox:
        """Make an inbox; it is not started, and neither connects nor reads keys before it is.

        Args:
            run_id: the read it belongs to: it counts into ``transforms.tally.tally_of(run_id)`` (received,
                redelivered, acknowledged, unacknowledged, released, ...).
            on_done: called once, when nothing is left to do for the inbox: it was closed, or it was
                stopped and everything that it held is settled.
        """
