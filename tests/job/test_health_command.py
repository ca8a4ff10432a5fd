"""A job that follows its queues, scraped as Prometheus does it, while one thing after another goes wrong."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from mns.account import Account
from mns.queue import Message

from pipeline.clock import utc_now
from tests.emulator_process import EmulatorProcess, start_emulator_process
from tests.job.commands import Following, Job
from tests.job.small_job import answer
from tests.test_metrics import samples
from transforms.archive import write_archive_file

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

_SECS = 40.0
_FLAGS = ("--epoch_secs=1", "--metrics_port=0", "--failed_share_window_messages=400")
_GARBAGE, _BATCH = 64, 16


class Watched(NamedTuple):
    """The job, its queues, and where its metrics are."""

    following: Following
    emulator: EmulatorProcess
    url: str
    root: Path

    def metrics(self) -> dict[str, float]:
        return samples(requests.get(self.url, timeout=10).text)

    def by_queue(self, name: str) -> float:
        return self.metrics().get(f"{name}{{queue={self.emulator.report_queue}}}", 0.0)

    def break_it(self, fault: str, **rule: Any) -> None:
        """Let one thing go wrong from now on."""
        self.break_all({"fault": fault, **rule})

    def break_all(self, *rules: dict[str, Any]) -> None:
        """Let several things go wrong from now on."""
        plan = {"seed": "health", "rules": rules}
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
        "--traffic_per_sec=50",
        "--carrier_delay_secs=0",
        "--token_lifetime_secs=4",
        "--visibility_timeout_secs=2",
    )
    root = tmp_path_factory.mktemp("health")
    (root / "send_log").mkdir()
    try:
        with Job(emulator, root).follow(*_FLAGS) as following:
            url = following.wait_for(r"metrics: (http://127\.0\.0\.1:\d+/metrics)")[1]
            following.wait_for("status: ok")
            yield Watched(following, emulator, url, root)
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


def test_deletes_whose_answer_is_lost_are_unconfirmed(job: Watched) -> None:
    before = job.metrics()["messages_unconfirmed_total"]

    job.break_it("reset_after", operations=["delete"], times=3)

    job.until(lambda: job.metrics()["messages_unconfirmed_total"] > before)


def test_what_is_held_for_long_grows_old_and_its_leases_may_be_lost(job: Watched) -> None:
    before = job.metrics()["lost_leases_total"]

    # While a bundle waits for its deletes, what was received meanwhile is held, and has to be renewed.
    job.break_all(
        {"fault": "slow", "operations": ["delete"], "delay_secs": 3},
        {"fault": "unavailable", "operations": ["renew"]},
    )

    job.until(lambda: job.metrics()["oldest_held_message_age_seconds"] > 2.5)
    job.until(lambda: job.metrics()["lost_leases_total"] > before)


def test_what_waits_for_its_other_half_is_counted(job: Watched) -> None:
    assert job.metrics()["reports_waiting"] > 0, "nobody has logged a send"
    assert job.metrics()["sends_open"] == 0

    send = {"biz_id": "1^0", "phone_number": "13800000001", "requested_at": utc_now().isoformat()}
    (job.root / "send_log" / "sends.jsonl").write_text(f"{json.dumps(send)}\n", "utf-8")

    job.until(lambda: job.metrics()["sends_open"] == 1)


def test_garbage_is_counted_by_reason_and_its_share_is_trouble(job: Watched) -> None:
    emulator = job.emulator
    account = Account(emulator.url, emulator.key_id, emulator.key_secret)
    queue = account.get_queue(emulator.report_queue)
    for _ in range(_GARBAGE // _BATCH):
        queue.batch_send_message([Message("{")] * _BATCH)
    account.get_client().close_connection()

    job.until(lambda: job.by_queue("failed_ratio") > 0.1)
    job.until(lambda: job.metrics()["messages_failed_total{reason=malformed_json}"] == _GARBAGE)
    job.following.wait_for(
        rf"status: TROUBLE: \d+% of the last messages of {emulator.report_queue} cannot be used "
        rf".* {_GARBAGE} failed \({_GARBAGE} malformed_json\)"
    )


def test_a_damaged_file_is_a_metric_and_trouble_that_stays(job: Watched) -> None:
    """Of reconcile's, as if it worked beside this job: its answers are of no queue."""
    archive = job.root / "archive"
    path = Path(write_archive_file(str(job.root), [answer("1^0"), answer("2^0")], utc_now()))
    path.write_bytes(path.read_bytes()[:-20])
    place = archive / path.relative_to(job.root)
    place.parent.mkdir(parents=True)

    path.rename(place)

    job.until(lambda: job.metrics()["messages_failed_total{reason=damaged_archive_file}"] == 2)
    job.following.wait_for("status: TROUBLE: .*2 messages are lost in damaged archive files")
