"""How to read a subscription: settings that are right, or refused with a sentence that says what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# So many messages to a pull or an acknowledgement: a request may have 512 KiB, an ack id has some 200 bytes.
MOST_MESSAGES: Final = 1000
# The deadline that a subscription has at least, and the longest that a lease may be given.
LEAST_DEADLINE_SECS: Final = 10
_LONGEST_DEADLINE_SECS: Final = 600
_LONGEST_WAIT_SECS: Final = 30
_LONGEST_STOP_SECS: Final = 20
# Pub/Sub's own rules for names; a project may have its organisation's domain before a colon.
_SUBSCRIPTION: Final = re.compile(
    r"projects/[a-z][a-z0-9.:-]{3,}/subscriptions/(?P<id>[A-Za-z][A-Za-z0-9._~+%-]{2,254})"
)


@dataclass(frozen=True)
class PubSubSettings:
    """Everything about reading a subscription that an operator may choose; no secrets.

    Attributes:
        subscription: its full name, ``projects/<project>/subscriptions/<id>``.
        readers: how many readers share it.
        fetchers: threads that pull, per reader.
        pull_messages: how many messages one pull may bring.
        prefetch_messages: how many messages may be received ahead of the pipeline.
        wait_secs: how long one pull waits for a message; a stop waits for it.
        ack_deadline_secs: how long a renewed lease holds its messages. The first one has the deadline of the
            subscription, and is renewed within 5 s whatever that is.
        max_hold_secs: a message held longer is left to the subscription: something is stuck, or the engine
            reads this share elsewhere now, and nobody will acknowledge here what was handed out before.
        start_tries: how often a service that has never answered is tried before giving up.
        stop_secs: how long a stop waits for the service's answers.
    """

    subscription: str
    readers: int = 1
    fetchers: int = 2
    pull_messages: int = MOST_MESSAGES
    prefetch_messages: int = 4000
    wait_secs: int = 5
    ack_deadline_secs: int = 60
    max_hold_secs: float = 600.0
    start_tries: int = 10
    stop_secs: float = 15.0

    def __post_init__(self) -> None:
        """Refuse what cannot work, with the flag's name and the fix."""
        if not _SUBSCRIPTION.fullmatch(self.subscription):
            raise ValueError(
                f"--send_log_subscription: {self.subscription!r} is no subscription; write it in full, "
                "projects/<project>/subscriptions/<id>, as the console shows it"
            )
        for name in ("readers", "fetchers", "prefetch_messages", "start_tries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if not 1 <= self.pull_messages <= MOST_MESSAGES:
            raise ValueError(
                f"pull_messages must be 1-{MOST_MESSAGES}, what Pub/Sub answers at most"
            )
        if not 1 <= self.wait_secs <= _LONGEST_WAIT_SECS:
            raise ValueError(f"wait_secs must be 1-{_LONGEST_WAIT_SECS}")
        if not LEAST_DEADLINE_SECS <= self.ack_deadline_secs <= _LONGEST_DEADLINE_SECS:
            raise ValueError(
                f"ack_deadline_secs must be {LEAST_DEADLINE_SECS}-{_LONGEST_DEADLINE_SECS}, the "
                "range that Pub/Sub allows"
            )
        if self.max_hold_secs < self.ack_deadline_secs:
            raise ValueError("max_hold_secs must be at least ack_deadline_secs")
        if not 0 < self.stop_secs <= _LONGEST_STOP_SECS:
            raise ValueError(
                f"stop_secs must be more than 0 and at most {_LONGEST_STOP_SECS}: a stop is to take "
                "less than 30 s in all"
            )

    @property
    def subscription_id(self) -> str:
        """The last part of its name: what the archive knows its messages by."""
        return self.subscription.rpartition("/")[2]
