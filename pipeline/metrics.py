"""Metrics for Prometheus: a run's health as text, over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, get_args

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from typing_extensions import override

from pipeline.errors import MetricsPortError
from pipeline.health import Snapshot
from pipeline.options import Address
from transforms.failures import PIPELINE_VERSION, Reason

_PREFIX: Final = "sms_receipts_"
# The ledger of the queues: fields of Landed.
_LANDED: Final = {
    "received": "Messages received from the queues, redeliveries included.",
    "archived": "Messages in synced archive files.",
    "acknowledged": "Messages deleted from their queue, as the queue confirmed.",
    "unacknowledged": "Archived messages whose lease was lost or whose delete failed: they come again.",
    "unconfirmed": "Archived messages that are gone from the queue; the answer that said so was lost.",
    "released": "Messages given back to their queue unread.",
    "redelivered": "Received messages that had been delivered before, to whomever.",
}
_FAULTS: Final = {
    "receive_faults": "Receives that failed and were tried again.",
    "lost_leases": "Leases on messages that ended before the message was settled.",
}
# Records that left an epoch, by what became of them: names of the epochs' counts.
_REPORTS: Final = {
    "matched": "matched_reports",
    "orphan": "orphan_reports",
    "duplicate": "duplicate_reports",
}
_SENDS: Final = {
    "matched": "matched_sends",
    "unreported": "unreported_new",
    "duplicate": "duplicate_sends",
    "failed": "failed_sends",
}
_BY_QUEUE: Final = {
    "queue_silent_seconds": (
        "silent_secs",
        "For how long a queue has been read without an answer; an empty answer is one.",
    ),
    "token_remaining_seconds": (
        "token_secs",
        "How long the token of a queue is still good, when the queue was last read.",
    ),
    "failed_ratio": ("failed_share", "Of the last messages, the share that cannot be decoded."),
}


@contextmanager
def served(address: Address, take: Callable[[], Snapshot]) -> Iterator[str]:
    """Serve a run's health as Prometheus text while the context lasts; give the URL.

    Args:
        address: where to listen.
        take: tells how the run is doing; called from other threads.

    Raises:
        MetricsPortError: nobody can listen there.
    """
    registry = CollectorRegistry()
    registry.register(HealthCollector(take))
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(address.port, address.host, registry)
    except OSError as error:
        raise MetricsPortError(
            f"--metrics_port: cannot listen at {address.host}:{address.port} "
            f"({error.strerror or error}): give another port, or end what listens there."
        ) from None
    host = f"[{address.host}]" if ":" in address.host else address.host
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class HealthCollector(Collector):
    """A run's health, to be registered with Prometheus."""

    def __init__(self, take: Callable[[], Snapshot]) -> None:
        """Take how to ask for it."""
        self._take = take

    @override
    def collect(self) -> Iterable[Metric]:
        snapshot = self._take()
        yield from _metrics_of_queues(snapshot)
        yield from _metrics_of_epochs(snapshot)


def _metrics_of_queues(snapshot: Snapshot) -> Iterator[Metric]:
    yield InfoMetricFamily(
        f"{_PREFIX}build", "What is running.", value={"version": PIPELINE_VERSION}
    )
    landed = snapshot.landed._asdict()
    for name, meaning in _LANDED.items():
        yield _counter(f"messages_{name}", meaning, landed[name])
    for name, meaning in _FAULTS.items():
        yield _counter(name, meaning, landed[name])
    yield _gauge(
        "messages_held",
        "Messages received and at hand: neither deleted nor given back, and no delete was refused.",
        snapshot.held,
    )
    yield _gauge(
        "oldest_held_message_age_seconds",
        "Age of the oldest message that was received and is neither deleted nor given back.",
        snapshot.oldest_held_secs,
    )
    for name, (attribute, meaning) in _BY_QUEUE.items():
        gauge = GaugeMetricFamily(_PREFIX + name, meaning, labels=["queue"])
        for queue_name, value in getattr(snapshot, attribute).items():
            gauge.add_metric([queue_name], value)
        yield gauge


def _metrics_of_epochs(snapshot: Snapshot) -> Iterator[Metric]:
    processed = snapshot.processed
    yield _counter("epochs", "Committed epochs.", snapshot.epochs)
    yield _gauge(
        "last_epoch_age_seconds",
        "Since the last committed epoch, or the start; an idle run commits none.",
        snapshot.since_epoch_secs,
    )
    yield _gauge(
        "processing_failed",
        "1 while the tables cannot be brought up to date, which is tried again; else 0.",
        snapshot.processing_failure is not None,
    )
    yield _gauge(
        "messages_unprocessed",
        "Archived messages that are not in the tables yet.",
        snapshot.unprocessed_messages,
    )
    yield _gauge(
        "oldest_unprocessed_message_age_seconds",
        "Age of the oldest archived message that is not in the tables yet.",
        snapshot.oldest_unprocessed_secs,
    )
    yield _counter(
        "messages_decoded", "Messages made into records.", processed.get("decoded_messages", 0)
    )
    yield _split(
        "messages_failed",
        "Messages made into failed events.",
        "reason",
        {reason: processed.get(f"failed/{reason}", 0) for reason in get_args(Reason)},
    )
    yield _split("reports", "Delivery reports, as joined.", "outcome", _chosen(processed, _REPORTS))
    yield _split("sends", "Send log entries, as joined.", "outcome", _chosen(processed, _SENDS))
    yield _counter("corrections", "Later, different outcomes.", processed.get("corrections", 0))
    yield _counter("inbound_sms", "Replies.", processed.get("inbound_sms", 0))
    if snapshot.epochs:  # the tables tell, and they are read by epochs
        yield _gauge("reports_waiting", "Wait for their send.", processed.get("waiting_after", 0))
        yield _gauge("sends_open", "Wait for their report.", processed.get("open_after", 0))


def _chosen(counts: Mapping[str, int], names: Mapping[str, str]) -> dict[str, int]:
    return {label: counts.get(name, 0) for label, name in names.items()}


def _counter(name: str, meaning: str, value: int) -> Metric:
    return CounterMetricFamily(_PREFIX + name, meaning, value=value)


def _split(name: str, meaning: str, label: str, values: Mapping[str, int]) -> Metric:
    counter = CounterMetricFamily(_PREFIX + name, meaning, labels=[label])
    for value, count in values.items():
        counter.add_metric([value], count)
    return counter


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, meaning, value=value)
