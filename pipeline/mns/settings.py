"""How to read the queues: settings that are right, or refused with a sentence that says what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

# Alibaba's own account owns the SMS receipt queues, not the customer's (doc 101641).
SMS_MNS_ENDPOINT: Final = "https://1943695596114318.mns.cn-hangzhou.aliyuncs.com"
DYBASEAPI_ENDPOINT: Final = "https://dybaseapi.aliyuncs.com"
# One BatchReceiveMessage or BatchDeleteMessage carries at most 16 messages (doc 35136, 35139).
BATCH_MESSAGES: Final = 16
_LONGEST_POLL_SECS: Final = 30  # waitseconds is 0-30 (doc 35136)
_LONGEST_VISIBILITY_SECS: Final = 43_200  # doc 35142
_LONGEST_STOP_SECS: Final = 20
_ENDPOINT: Final = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?/?")
_QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,119}")


def message_type_of(queue_name: str) -> str:
    """Return what the messages of a queue are: the suffix of ``Alicom-Queue-<uid>-<type>``."""
    return queue_name.rpartition("-")[2]


@dataclass(frozen=True)
class MnsSettings:
    """Everything about reading MNS queues that an operator may choose; no secrets.

    Attributes:
        queues: queue names, as Alibaba's console shows them (``Alicom-Queue-<uid>-SmsReport``).
        mns_endpoint: ``http(s)://host[:port]`` of the queues' owner.
        dybaseapi_endpoint: ``http(s)://host[:port]`` of the service that hands out queue tokens.
        wait_secs: how long one receive waits for a message (long poll), 0-30.
        drain_wait_secs: the same while reading until empty; an empty answer must be waited for.
        fetchers: threads that receive, per queue. One does 16 messages per round trip.
        ack_threads: threads that delete, for all queues together; up to 16 while deletes are slow.
        prefetch_messages: how many messages may be received ahead of the pipeline.
        max_bundle_messages: a bundle, and with it an archive file, closes at this size...
        max_bundle_secs: ...or at this age, whichever comes first.
        visibility_timeout_secs: how long a renewed lease hides its message.
        renewal_margin_secs: a lease is renewed when less than this is left of it.
        max_hold_secs: a message held longer is left to its queue: something is stuck.
        start_tries: how often a service that has never answered is tried before giving up.
        stop_secs: how long a stop waits for the service's answers; a long poll that takes longer is hung
            up on, and what comes for it may stay hidden until its visibility timeout. From the same
            moment, what the job is processing has as long.
    """

    queues: tuple[str, ...]
    mns_endpoint: str = SMS_MNS_ENDPOINT
    dybaseapi_endpoint: str = DYBASEAPI_ENDPOINT
    wait_secs: int = 10
    drain_wait_secs: int = 1
    fetchers: int = 4
    ack_threads: int = 4
    prefetch_messages: int = 2048
    max_bundle_messages: int = 16_000
    max_bundle_secs: float = 2.0
    visibility_timeout_secs: int = 60
    renewal_margin_secs: float = 10.0
    max_hold_secs: float = 600.0
    start_tries: int = 4
    stop_secs: float = 15.0

    def __post_init__(self) -> None:
        """Refuse what cannot work, with the flag's name and the fix."""
        self._require_queues()
        _require_endpoint("--mns_endpoint", self.mns_endpoint)
        _require_endpoint("--dybaseapi_endpoint", self.dybaseapi_endpoint)
        for flag, waited in (("wait", self.wait_secs), ("drain_wait", self.drain_wait_secs)):
            if not 0 <= waited <= _LONGEST_POLL_SECS:
                raise ValueError(
                    f"--mns_{flag}_secs must be 0-{_LONGEST_POLL_SECS}, the range of an MNS long poll"
                )
        for name in (
            "fetchers", "ack_threads", "prefetch_messages", "max_bundle_messages", "start_tries",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"--mns_{name} must be at least 1")
        for name in ("max_bundle_secs", "renewal_margin_secs", "max_hold_secs"):
            if not 0 < getattr(self, name) <= _LONGEST_VISIBILITY_SECS:
                raise ValueError(
                    f"--mns_{name} must be more than 0 and at most {_LONGEST_VISIBILITY_SECS} (12 hours)"
                )
        if not 0 < self.stop_secs <= _LONGEST_STOP_SECS:
            raise ValueError(
                f"--mns_stop_secs must be more than 0 and at most {_LONGEST_STOP_SECS}: a stop is to take "
                "less than 30 s in all"
            )
        self._require_lease_times()

    def _require_queues(self) -> None:
        if not self.queues:
            raise ValueError(
                "--mns_queues is empty: name the queues to read, e.g. "
                "Alicom-Queue-<16-digit account id>-SmsReport"
            )
        for queue_name in self.queues:
            if not _QUEUE_NAME.fullmatch(queue_name):
                raise ValueError(
                    f"--mns_queues: {queue_name!r} is no queue name; use 1-120 letters, digits "
                    "and hyphens, starting with a letter or digit, as the console shows it"
                )
        if len(set(self.queues)) != len(self.queues):
            raise ValueError("--mns_queues names a queue twice: name each queue once")

    def _require_lease_times(self) -> None:
        if not 1 <= self.visibility_timeout_secs <= _LONGEST_VISIBILITY_SECS:
            raise ValueError(
                f"--mns_visibility_timeout_secs must be 1-{_LONGEST_VISIBILITY_SECS}, the range MNS allows"
            )
        if not 0 < self.renewal_margin_secs <= self.visibility_timeout_secs / 2:
            raise ValueError(
                "--mns_renewal_margin_secs must be more than 0 and at most half of "
                "--mns_visibility_timeout_secs, or every lease would be renewed all the time"
            )
        if self.visibility_timeout_secs < 3 * self.max_bundle_secs:
            raise ValueError(
                "--mns_visibility_timeout_secs must be at least 3 times --mns_max_bundle_secs: a message "
                "must stay hidden while its bundle is read, archived and acknowledged"
            )
        if self.max_hold_secs < self.visibility_timeout_secs:
            raise ValueError("--mns_max_hold_secs must be at least --mns_visibility_timeout_secs")


@dataclass(frozen=True)
class Until:
    """When a bounded read ends; the first that comes true. All unset: never.

    Attributes:
        empty: when every queue has confirmed that it has nothing visible.
        max_messages: when this many messages were received.
        max_secs: when this much time has passed since reading began.
    """

    empty: bool = False
    max_messages: int | None = None
    max_secs: float | None = None

    def __post_init__(self) -> None:
        """Refuse bounds that would read nothing."""
        if self.max_messages is not None and self.max_messages < 1:
            raise ValueError("max_messages must be at least 1")
        if self.max_secs is not None and self.max_secs <= 0:
            raise ValueError("max_secs must be more than 0")


def _require_endpoint(flag: str, endpoint: str) -> None:
    if not _ENDPOINT.fullmatch(endpoint) or not _has_port_in_range(endpoint):
        # Not repeated: whoever puts a password into it does not want to read it in a log.
        raise ValueError(
            f"{flag} must be http(s)://host[:port] without a path, e.g. {SMS_MNS_ENDPOINT}"
        )


def _has_port_in_range(endpoint: str) -> bool:
    try:
        return urlsplit(endpoint).port != 0
    except ValueError:
        return False
