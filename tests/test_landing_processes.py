"""Landing with several processes: what one would land, and nobody left behind, however it ends."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.clock import utc_now
from pipeline.errors import CredentialsError, LandingProcessError, UnusableMessagesError
from pipeline.landing import Landed
from pipeline.landing_processes import LandingProcesses
from pipeline.mns.settings import MnsSettings, Until
from pipeline.stopping import forget_stop, is_stop_requested, request_stop
from tests.emulator_process import EmulatorProcess
from tests.mns.fake_mns import Answer, FakeMns, Request, messages
from transforms.archive import list_archive, read_archive
from transforms.breaker import FailureLimit

pytestmark = pytest.mark.integration

_ROOT = Path(__file__).parents[1]
_SOCKETS_OF_AN_IDLE_CHILD = 1  # its pipe
_FOR_SOME_TIME = ("--traffic=300", "--traffic_per_sec=200", "--carrier_delay_secs=0")


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_ID", "emulator-key-id")
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "emulator-key-secret")
    forget_stop()
    yield
    forget_stop()


def _settings(emulator: EmulatorProcess) -> MnsSettings:
    return MnsSettings(
        queues=(emulator.report_queue, emulator.reply_queue),
        mns_endpoint=emulator.url,
        dybaseapi_endpoint=emulator.url,
        fetchers=2,
        wait_secs=1,
        max_bundle_messages=64,
        start_tries=2,
    )


def _archived_ids(archive: Path) -> Counter[str]:
    return Counter(
        message_id
        for file in list_archive(str(archive))
        for batch in read_archive(file.path).batches
        for message_id in batch.column("message_id").to_pylist()
    )


def _children(pid: int) -> list[int]:
    """Landing processes that a process has started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [
            int(child)
            for child in children.split()
            if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()
        ]
    except OSError:  # gone while we looked
        return []


def _is_connected(pid: int) -> bool:
    """Whether a process has more sockets than its pipe: then it has begun to receive."""
    descriptors = f"/proc/{pid}/fd"
    try:
        names = [os.readlink(f"{descriptors}/{number}") for number in os.listdir(descriptors)]
    except OSError:
        return False
    return sum(name.startswith("socket:") for name in names) > _SOCKETS_OF_AN_IDLE_CHILD


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.02)


def test_several_processes_land_exactly_what_one_would(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> None:
    emulator = start_emulator(*_FOR_SOME_TIME, "--carrier_duplicate_rate=0")
    seen: list[Landed] = []

    def stop_when_both_have_landed(landed: Landed) -> None:
        seen.append(landed)
        if landed.acknowledged > 100 and any(map(_is_connected, _children(os.getpid()))):
            request_stop()

    with LandingProcesses(_settings(emulator), str(tmp_path), utc_now, 2) as landing:
        first = landing.land(Until(), stop_when_both_have_landed)
        forget_stop()
        second = landing.land(Until(max_secs=3))
        standing = landing.standing()
    assert _children(os.getpid()) == []
    assert standing.answered_at.keys() == standing.token_expires_at.keys()
    assert standing.answered_at.keys() == {emulator.report_queue, emulator.reply_queue}
    assert standing.oldest_held_at is None
    assert standing.oldest_archived_at is not None
    for landed in (first, second):
        assert landed.received == landed.archived + landed.released
        assert landed.archived == landed.acknowledged > 0
    # What one gives back at the end, the other may still receive.
    assert first.redelivered + second.redelivered == first.released
    archived = _archived_ids(tmp_path)
    assert set(archived.values()) == {1}
    assert len(archived) == first.archived + second.archived
    assert seen[-1].received <= first.received


def test_a_queue_that_is_empty_before_the_others_are_up_does_not_wait_for_them(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> None:
    emulator = start_emulator("--traffic=200", "--carrier_delay_secs=0")
    settings = replace(_settings(emulator), drain_wait_secs=0)
    with LandingProcesses(settings, str(tmp_path), utc_now, 2) as landing:
        landed = landing.land(Until(empty=True))
        again = landing.land(Until(empty=True))
    assert landed.acknowledged == landed.received == sum(_archived_ids(tmp_path).values())
    assert again.received == 0


def test_wrong_keys_are_said_in_the_same_sentence(
    start_emulator: Callable[..., EmulatorProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    emulator = start_emulator()
    monkeypatch.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "not-the-secret")
    with (
        LandingProcesses(_settings(emulator), str(tmp_path), utc_now, 2) as landing,
        pytest.raises(CredentialsError, match="refused the account keys .*ALIBABA_CLOUD"),
    ):
        landing.land(Until())
    assert "Traceback" not in capfd.readouterr().err


def test_an_operator_error_of_another_process_is_raised_here(
    start_emulator: Callable[..., EmulatorProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    emulator = start_emulator(*_FOR_SOME_TIME)
    with monkeypatch.context() as others:
        others.setenv("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "not-the-secret")
        landing = LandingProcesses(_settings(emulator), str(tmp_path), utc_now, 2)
    with landing, pytest.raises(CredentialsError, match="refused the account keys"):
        landing.land(Until())
    assert is_stop_requested()
    assert "Traceback" not in capfd.readouterr().err
    assert _children(os.getpid()) == []


class _EndlessMns(FakeMns):
    """Has sixteen messages for every receive, no two alike, and remembers what became of them.

    Once it ``is_spoiled``, nobody can read them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count()
        self.is_spoiled = False
        self.spoiled: set[str] = set()
        self.deleted: set[str] = set()
        self.given_back: set[str] = set()

    def answer(self, request: Request) -> Answer:
        if request.method == "GET":
            numbers = [*itertools.islice(self._numbers, 16)]
            if not self.is_spoiled:
                return messages(*numbers)
            self.spoiled.update(f"handle-{number}" for number in numbers)
            return messages(*numbers, body='{"version": 2}')
        if request.method == "DELETE":
            self.deleted.update(request.handles)
        if request.method == "PUT":
            self.given_back.add(request.query["receiptHandle"])
        return super().answer(request)


def _small(queue: FakeMns) -> MnsSettings:
    return MnsSettings(
        queues=("q-SmsReport",), mns_endpoint=queue.endpoint, dybaseapi_endpoint=queue.endpoint,
        max_bundle_messages=64, prefetch_messages=64,
    )  # fmt: skip


def test_a_killed_process_ends_the_read_with_a_sentence_and_loses_nothing(tmp_path: Path) -> None:
    queue = _EndlessMns()
    killed: list[int] = []

    def kill_the_first_at_work(_: Landed) -> None:
        for child in _children(os.getpid()):
            if _is_connected(child) and not killed:
                os.kill(child, signal.SIGKILL)
                killed.append(child)

    with (
        LandingProcesses(_small(queue), str(tmp_path), utc_now, 3) as landing,
        pytest.raises(LandingProcessError, match=r"killed by signal 9.* no message is lost"),
    ):
        landing.land(Until(), kill_the_first_at_work)
    assert len(killed) == 1
    assert _children(os.getpid()) == []
    queue.close()
    archived = {message_id.replace("id", "handle") for message_id in _archived_ids(tmp_path)}
    assert queue.deleted <= archived
    assert queue.deleted


def test_processes_together_let_no_more_unusable_messages_pass_than_one_would(
    tmp_path: Path,
) -> None:
    queue = _EndlessMns()
    limit = FailureLimit(share=0.5, window_messages=400)

    def spoil_once_both_are_at_work(_: Landed) -> None:
        queue.is_spoiled |= any(map(_is_connected, _children(os.getpid())))

    with (
        LandingProcesses(_small(queue), str(tmp_path), utc_now, 2, limit) as landing,
        pytest.raises(
            UnusableMessagesError, match=r"\d+ messages of q-SmsReport \d+ .*unknown_shape \d+"
        ),
    ):
        landing.land(Until(), spoil_once_both_are_at_work)
    queue.close()
    acknowledged = queue.spoiled & queue.deleted
    assert len(acknowledged) <= 200
    assert queue.spoiled - acknowledged <= queue.given_back
    archived = {message_id.replace("id", "handle") for message_id in _archived_ids(tmp_path)}
    assert acknowledged <= archived


def test_a_process_that_hangs_ends_the_read_with_a_sentence_and_loses_nothing(
    tmp_path: Path,
) -> None:
    queue = _EndlessMns()
    hung: list[int] = []

    def stop_the_first_at_work(_: Landed) -> None:
        for child in _children(os.getpid()):
            if _is_connected(child) and not hung:
                os.kill(child, signal.SIGSTOP)
                hung.append(child)

    with (
        LandingProcesses(_small(queue), str(tmp_path), utc_now, 2) as landing,
        pytest.raises(LandingProcessError, match=r"said nothing for .* no message is lost"),
    ):
        landing.land(Until(), stop_the_first_at_work, patience_secs=3)
    assert _children(os.getpid()) == []
    queue.close()


_LAND_UNTIL_STOPPED = """
import logging, signal, sys
logging.basicConfig(level=logging.ERROR)
from pipeline.clock import utc_now
from pipeline.landing_processes import LandingProcesses
from pipeline.mns.settings import MnsSettings, Until
from pipeline.stopping import request_stop
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: request_stop())
url, queue, archive = sys.argv[1:]
settings = MnsSettings(queues=(queue,), mns_endpoint=url, dybaseapi_endpoint=url, wait_secs=2,
                       max_bundle_messages=64)
with LandingProcesses(settings, archive, utc_now, 2) as landing:
    landed = landing.land(Until())
print(landed.received - landed.acknowledged - landed.released, flush=True)
"""


@pytest.fixture
def start_landing(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start a program that lands with two processes, both at work, in a process group of its own."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        emulator = start_emulator(*_FOR_SOME_TIME)
        process = subprocess.Popen(  # noqa: S603 - our own program
            [
                sys.executable, "-c", _LAND_UNTIL_STOPPED,
                emulator.url, emulator.report_queue, str(tmp_path),
            ],
            cwd=_ROOT, env=os.environ, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        _wait_for(lambda: any(map(_is_connected, _children(process.pid))))
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_sigterm_for_one_and_ctrl_c_for_all_end_every_process_cleanly(
    start_landing: Callable[[], subprocess.Popen[str]],
) -> None:
    process = start_landing()
    process.send_signal(signal.SIGTERM)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert output.splitlines() == ["0"]
    _wait_for(lambda: _is_gone(process.pid))


def test_a_killed_parent_leaves_no_process_behind(
    start_landing: Callable[[], subprocess.Popen[str]],
) -> None:
    process = start_landing()
    process.kill()
    _, errors = process.communicate(timeout=30)
    assert errors == ""
    _wait_for(lambda: _is_gone(process.pid))
