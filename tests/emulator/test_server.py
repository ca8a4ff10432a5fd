"""The emulator as a process."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from emulator.server import main
from tests.emulator.mns_caller import MnsCaller, finish
from tests.emulator_process import EmulatorProcess

pytestmark = pytest.mark.integration

StartEmulator = Callable[..., EmulatorProcess]


def test_it_stops_at_once_with_0_and_answers_who_waits(start_emulator: StartEmulator) -> None:
    emulator = start_emulator()
    caller = MnsCaller(emulator)
    caller.create("Test-Waits")
    with closing(caller.begin("GET", "/queues/Test-Waits/messages?waitseconds=30")) as poll:
        # An answer to a later request says that the poll is waiting by now.
        caller.receive("Test-Waits")
        assert emulator.stop() == 0
        assert finish(poll).code == "MessageNotExist"


def test_a_path_that_is_nobodys_is_refused_in_the_words_of_mns(emulator: EmulatorProcess) -> None:
    caller = MnsCaller(emulator)
    for target in ("/topics/some", "/queuesome"):
        with closing(caller.begin("GET", target)) as answer:
            assert finish(answer).refusal == (400, "InvalidRequestURL")


def test_it_does_not_import_what_it_does_not_need() -> None:
    code = "import sys, emulator.server; print(*sys.modules)"
    run = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    heavy = {"apache_beam", "pyarrow", "numpy", "fastavro", "requests", "pipeline", "schemas"}
    assert heavy.isdisjoint(run.stdout.split())


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (["--host=0.0.0.0", "--port=0"], "--allow_remote"),
        (["--host=example.com", "--port=0"], "--allow_remote"),
        (["--port=0", "--traffic=1", "--traffic_send_log=/proc/no/sends.jsonl"], "send log"),
    ],
)
def test_it_says_in_one_sentence_why_it_cannot_start(
    flags: list[str], cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert cause in told.err


def test_a_port_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([f"--port={port}"]) == 2
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_live_traffic_reaches_the_queue_and_the_send_log(
    start_emulator: StartEmulator, tmp_path: Path
) -> None:
    log = tmp_path / "sends.jsonl"
    emulator = start_emulator(
        "--traffic_per_sec=200", f"--traffic_send_log={log}", "--carrier_delay_secs=0.05"
    )
    reply = MnsCaller(emulator).receive(emulator.report_queue, "waitseconds=20")
    assert reply.status == 200
    assert emulator.stop() == 0
    assert {"biz_id", "phone_number"} <= set(json.loads(log.read_text().splitlines()[0]))


def test_it_tells_what_it_has_done_and_prints_its_one_line_only(
    start_emulator: StartEmulator,
) -> None:
    emulator = start_emulator("--traffic=50", "--traffic_garbage=2")
    told = json.loads(MnsCaller(emulator).call("GET", "/emulator").body)
    assert told["accepted_sms"] == 50
    assert told["traffic"]["garbage"] == 2
    depths = told["queues"][emulator.report_queue]
    assert depths["active"] == told["delivered"][emulator.report_queue]
    emulator.process.terminate()
    assert emulator.process.stdout is not None
    assert emulator.process.stdout.read() == ""
    assert emulator.stop() == 0
