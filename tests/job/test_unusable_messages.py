"""A format that this version does not know: the job stops, and a fixed version finds everything there."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.emulator_process import EmulatorProcess
from tests.job.commands import Job
from tests.job.oracle import tables_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def held(emulator: EmulatorProcess) -> int:
    """How many messages the queues have, visible or not."""
    queues = requests.get(f"{emulator.url}/emulator", timeout=10).json()["queues"].values()
    return sum(sum(depths.values()) for depths in queues)


def test_a_format_that_nobody_knows_stops_the_job_before_anything_is_deleted(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> None:
    job = Job(start_emulator("--traffic_garbage=1200"), tmp_path)
    job.send_log.mkdir()

    stopped = job.run()

    assert stopped.exit_code == 2, stopped.err
    assert "Traceback" not in stopped.err
    assert re.fullmatch(
        r"sms-receipts run: Of the last 251 messages of Alicom-Queue-\d+-Sms\w+ 251 cannot be used "
        r"\((\w+ \d+, ){2}\w+ \d+\), more than --max_failed_share=0\.5 allows: run a version that .*",
        stopped.sentence,
    )
    assert held(job.emulator) == 1200

    # A supervisor starts it again: it takes nothing, however often.
    again = job.run()
    assert (again.exit_code, again.sentence) == (2, stopped.sentence)
    assert held(job.emulator) == 1200

    # As a version would that knows what to do with them.
    fixed = job.run("--max_failed_share=1")

    assert fixed.exit_code == 0, fixed.err
    assert (fixed.counts["received"], fixed.counts["failed"]) == (1200, 1200)
    assert "The ledger is closed: 1,200 messages = 0 decoded + 1,200 failed" in fixed.out
    assert len(tables_of(job.dataset).failed) == 1200
    assert held(job.emulator) == 0
