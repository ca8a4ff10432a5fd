"""A job that follows its queues, scraped as Prometheus does it, while one thing after another goes wrong."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import requests

from tests.emulator_process import EmulatorProcess, start_emulator_process
from tests.job.commands import Following, Job
from tests.test_metrics import samples

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

_SECS = 40.0


class Watched(NamedTuple):
    """The job, its queues, and where its metrics are."""

    following: Following
    emulator: EmulatorProcess
    url: str

    def metrics(self) -> dict[str, float]:
        return samples(requests.get(self.url, timeout=10).text)

    def by_queue(self, name: str) -> float:
        return self.metrics().get(f"{name}{{queue={self.emulator.report_queue}}}", 0.0)

    def break_it(self, fault: str, **rule: Any) -> None:
        """Let one thing go wrong from now on."""
        plan = {"seed": "health", "rules": [{"fault": fault, **rule}]}
        requests.put(
            f"{self.emulator.url}/emulator/faults", json=plan, timeout=10
        ).raise_for_status()

    def mend_it(self) -> None:
        requests.delete(f"{self.emulator.url}/emulator/faults", timeout=10).raise_for_status()

    def until(self, condition: Callable[[], bool]) -> None:
        """Look again and again until something is so."""
        deadline, pause = time.monotonic() + _SECS, threading.Event()
        while not condition():
            assert time.monotonic() < deadline, self.metrics()
            pause.wait(0.1)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    emulator = start_emulator_process(
        "--traffic_per_sec=50", "--carrier_delay_secs=0", "--token_lifetime_secs=4"
    )
    root = tmp_path_factory.mktemp("health")
    (root / "send_log").mkdir()
    try:
        with Job(emulator, root).follow("--epoch_secs=1", "--metrics_port=0") as following:
            url = following.wait_for(r"metrics: (http://127\.0\.0\.1:\d+/metrics)")[1]
            following.wait_for("status: ok")
            yield Watched(following, emulator, url)
            stopped = following.stop()
        assert stopped.exit_code == 0, stopped.err
        assert "The ledger is closed" in stopped.out
    finally:
        emulator.stop()


@pytest.fixture(autouse=True)
def _mended(job: Watched) -> Iterator[None]:
    yield
    job.mend_it()


def test_what_comes_is_counted_while_it_comes(job: Watched) -> None:
    before = job.metrics()

    def has_risen() -> bool:
        now = job.metrics()
        names = ("messages_received_total", "messages_archived_total", "messages_acknowledged_total",
                 "messages_decoded_total", "epochs_total")  # fmt: skip
        return all(now[name] > before[name] for name in names)

    job.until(has_risen)
    job.until(lambda: job.metrics()["oldest_held_message_age_seconds"] > 0)


def test_an_archive_that_waits_for_its_epoch_is_a_lag(job: Watched) -> None:
    def lags() -> bool:
        now = job.metrics()
        return now["messages_unprocessed"] > 0 and now["oldest_unprocessed_message_age_seconds"] > 0

    job.until(lags)
    job.until(lambda: job.metrics()["messages_unprocessed"] == 0)


def test_redeliveries_are_counted(job: Watched) -> None:
    before = job.metrics()["messages_redelivered_total"]

    job.break_it("redeliver", times=3)

    job.until(lambda: job.metrics()["messages_redelivered_total"] > before)


def test_deletes_that_are_refused_are_a_gap(job: Watched) -> None:
    before = job.metrics()["messages_unacknowledged_total"]

    job.break_it("partial_delete", share_of_entries=1)

    job.until(lambda: job.metrics()["messages_unacknowledged_total"] > before)
    job.following.wait_for(r"status: TROUBLE: .*archived messages could not be deleted")
    job.mend_it()
    job.following.wait_for("status: ok")


def test_a_queue_that_does_not_answer_is_silent_and_its_faults_are_counted(job: Watched) -> None:
    before = job.metrics()["receive_faults_total"]

    job.break_it("unavailable", operations=["receive"])

    job.until(lambda: job.by_queue("queue_silent_seconds") > 3)
    assert job.metrics()["receive_faults_total"] > before
    job.mend_it()
    job.until(lambda: job.by_queue("queue_silent_seconds") < 3)


def test_a_token_that_is_not_replaced_runs_down(job: Watched) -> None:
    job.until(lambda: job.by_queue("token_remaining_seconds") > 0)

    job.break_it("internal_error", operations=["token"])

    # At once mended: messages at hand wait for their delete.
    job.until(lambda: job.by_queue("token_remaining_seconds") < 0)
    job.mend_it()
    job.until(lambda: job.by_queue("token_remaining_seconds") > 0)
