"""A format that this version does not know: the job stops, and a fixed version finds everything there."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
import requests

from benchmarks.kills import Load
from pipeline.breaker_mark import FILE_NAME
from tests.emulator.mns_caller import MnsCaller, message_elements
from tests.emulator_process import EmulatorProcess
from tests.job.commands import Job
from tests.job.oracle import archived_messages, expected_tables, tables_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

_UNUSABLE: Final = 800
_MOST_THAT_PASS: Final = 500  # half of a window
_BODIES: Final = ('{"version": 2, "receipts": []}', '{"version": 2, "inbound": []}', '{"version":')


def held(emulator: EmulatorProcess) -> int:
    """How many messages the queues have, visible or not."""
    queues = requests.get(f"{emulator.url}/emulator", timeout=10).json()["queues"].values()
    return sum(sum(depths.values()) for depths in queues)


def send_unusable(emulator: EmulatorProcess) -> None:
    mns = MnsCaller(emulator)
    messages = [message_elements(_BODIES[number % 3]) for number in range(_UNUSABLE)]
    for first in range(0, _UNUSABLE, 16):
        assert mns.batch_send(emulator.report_queue, messages[first : first + 16]).status == 201


def test_a_format_that_nobody_knows_stops_the_job_and_a_fixed_version_finds_everything(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> None:
    job = Job(start_emulator(), tmp_path)
    job.send_log.mkdir()
    load = Load(job.emulator.url, job.send_log / "sends.jsonl", per_sec=100, seed=7)
    with job.follow("--landing_processes=2", "--epoch_secs=1") as following:
        load.send(200)
        following.wait_for(r"epoch: .* [1-9]\d* matched")
        send_unusable(job.emulator)
        sentence = following.wait_for(
            rf"(sms-receipts run: Of the last \d+ messages of {job.emulator.report_queue} \d+ cannot be "
            r"used \(unknown_shape \d+, malformed_json \d+\), more than --max_failed_share=0\.5 allows: .*)\n"
        )[1]
        assert following.process.wait(30) == 2

    passed = _UNUSABLE - held(job.emulator)
    assert passed <= _MOST_THAT_PASS
    assert len(archived_messages(job.archive)) == load.reports + passed
    assert json.loads((job.archive / FILE_NAME).read_text())["sentence"] in sentence

    # A supervisor starts it again: it takes nothing, however often.
    again = job.run()
    assert (again.exit_code, again.sentence) == (2, sentence)
    assert held(job.emulator) == _UNUSABLE - passed

    # As a version would that knows what to do with them; and the messages are good again.
    load.send(100)
    load.stop()
    fixed = job.run("--max_failed_share=1")

    assert fixed.exit_code == 0, fixed.err
    assert re.search("The ledger is closed", fixed.out)
    assert held(job.emulator) == 0
    assert not (job.archive / FILE_NAME).exists()
    tables = tables_of(job.dataset)
    assert tables == expected_tables(
        job.archive, job.send_log_files, job.as_of(), timedelta(days=3)
    )
    assert len(tables.failed) == _UNUSABLE
    assert {(row["event_id"], row["err_code"]) for row in tables.enriched.values()} == load.outcomes

    day = job.as_of().date()
    backfilled = job.backfill(
        f"--from={day - timedelta(days=1)}", f"--to={day + timedelta(days=1)}"
    )

    assert backfilled.exit_code == 0, backfilled.err
    assert tables_of(job.dataset) == tables
