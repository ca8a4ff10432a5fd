"""Metrics as Prometheus reads them: parsed by its own parser, served by a real server."""

import socket
import threading
from typing import get_args

import pytest
import requests
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.errors import MetricsPortError
from pipeline.health import Snapshot
from pipeline.landing import Landed
from pipeline.metrics import HealthCollector, served
from pipeline.options import Address
from tests.test_health import NOTHING, REPLIES, REPORTS
from transforms.failures import Reason

LANDED = Landed(*range(101, 101 + len(Landed._fields)))
SNAPSHOT = Snapshot(
    landed=LANDED,
    last_read=NOTHING,
    processed={
        "decoded_messages": 90,
        "failed_messages": 8,
        "failed/unknown_shape": 5,
        "failed/malformed_json": 3,
        "matched_reports": 60,
        "orphan_reports": 4,
        "duplicate_reports": 2,
        "corrections": 1,
        "inbound_sms": 20,
        "matched_sends": 59,
        "unreported_new": 6,
        "duplicate_sends": 7,
        "failed_sends": 9,
        "waiting_after": 11,
        "open_after": 12,
    },
    epochs=3,
    since_epoch_secs=13.5,
    unprocessed_messages=14,
    oldest_unprocessed_secs=15.5,
    oldest_held_secs=16.5,
    silent_secs={REPORTS: 17.5, REPLIES: 0.5},
    token_secs={REPORTS: -18.5},
    failed_share={REPORTS: 0.25},
    processing_failure=None,
)
LOOPBACK = Address("127.0.0.1", 0)


def samples(text: str) -> dict[str, float]:
    """Every sample, as ``name{label=value}`` without the project's prefix."""
    return {
        sample.name.removeprefix("sms_receipts_")
        + "".join(f"{{{label}={value}}}" for label, value in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def shown(snapshot: Snapshot) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(HealthCollector(lambda: snapshot))
    return samples(generate_latest(registry).decode())


def test_every_number_of_the_ledger_is_a_metric() -> None:
    metrics = shown(SNAPSHOT)

    for name in ("received", "archived", "acknowledged", "unacknowledged", "unconfirmed",
                 "released", "redelivered"):  # fmt: skip
        assert metrics[f"messages_{name}_total"] == getattr(LANDED, name)
    assert metrics["receive_faults_total"] == LANDED.receive_faults
    assert metrics["lost_leases_total"] == LANDED.lost_leases
    assert metrics["messages_held"] == SNAPSHOT.held
    assert (metrics["messages_decoded_total"], metrics["epochs_total"]) == (90, 3)
    assert [metrics[f"reports_total{{outcome={o}}}"] for o in ("matched", "orphan", "duplicate")] == [
        60, 4, 2,
    ]  # fmt: skip
    assert [
        metrics[f"sends_total{{outcome={o}}}"]
        for o in ("matched", "unreported", "duplicate", "failed")
    ] == [59, 6, 7, 9]
    assert (metrics["corrections_total"], metrics["inbound_sms_total"]) == (1, 20)
    assert (metrics["reports_waiting"], metrics["sends_open"]) == (11, 12)


def test_lags_and_ages_are_metrics() -> None:
    metrics = shown(SNAPSHOT)

    assert metrics["last_epoch_age_seconds"] == 13.5
    assert metrics["messages_unprocessed"] == 14
    assert metrics["oldest_unprocessed_message_age_seconds"] == 15.5
    assert metrics["oldest_held_message_age_seconds"] == 16.5
    assert metrics[f"queue_silent_seconds{{queue={REPORTS}}}"] == 17.5
    assert metrics[f"queue_silent_seconds{{queue={REPLIES}}}"] == 0.5
    assert metrics[f"token_remaining_seconds{{queue={REPORTS}}}"] == -18.5
    assert metrics[f"failed_ratio{{queue={REPORTS}}}"] == 0.25


def test_a_processing_that_fails_is_a_metric() -> None:
    assert shown(SNAPSHOT)["processing_failed"] == 0
    assert (
        shown(SNAPSHOT._replace(processing_failure="The disk is full."))["processing_failed"] == 1
    )


def test_every_reason_to_fail_is_there_from_the_start() -> None:
    metrics = shown(SNAPSHOT)
    by_reason = {
        reason: metrics[f"messages_failed_total{{reason={reason}}}"] for reason in get_args(Reason)
    }

    assert by_reason.pop("unknown_shape") == 5
    assert by_reason.pop("malformed_json") == 3
    assert set(by_reason.values()) == {0}


def test_what_only_the_tables_know_is_not_told_before_an_epoch_has_read_them() -> None:
    metrics = shown(SNAPSHOT._replace(processed={}, epochs=0))

    assert metrics["epochs_total"] == 0
    assert {"reports_waiting", "sends_open"}.isdisjoint(metrics)


@pytest.mark.integration
def test_a_run_is_scraped_and_the_server_leaves_nothing_behind() -> None:
    threads = threading.active_count()
    with served(LOOPBACK, lambda: SNAPSHOT) as url:
        answer = requests.get(url, timeout=10)
        metrics = samples(answer.text)

    assert answer.headers["Content-Type"].startswith("text/plain")
    assert metrics["messages_received_total"] == 101
    assert metrics["process_resident_memory_bytes"] > 0
    assert [name for name in metrics if name.startswith("build_info{version=")]
    assert threading.active_count() == threads
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=10)


@pytest.mark.integration
def test_a_port_that_is_taken_is_told_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(
                MetricsPortError,
                match=rf"^--metrics_port: cannot listen at 127\.0\.0\.1:{port} \(Address already in use\): ",
            ),
            served(Address("127.0.0.1", port), lambda: SNAPSHOT),
        ):
            pass


@pytest.mark.integration
def test_a_host_that_is_not_here_is_told_in_a_sentence() -> None:
    with (
        pytest.raises(MetricsPortError, match="cannot listen at 192.0.2.1:0"),
        served(Address("192.0.2.1", 0), lambda: SNAPSHOT),
    ):
        pass
