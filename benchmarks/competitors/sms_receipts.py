"""The pipeline itself: ``sms-receipts backfill`` over the same archive and send log, as Avro."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Final

# The command imports Beam when it needs it; here that is part of the imports, not of the job.
import pipeline.backfill  # noqa: F401
from benchmarks import traffic
from benchmarks.generate import Inputs
from pipeline.__main__ import main

_LAST_DAY: Final = traffic.FIRST_DAY + timedelta(days=traffic.DAYS - 1)
# Long after the patience: no send is still open.
_AS_OF: Final = "2026-12-01T00:00:00+00:00"


def run(inputs: Inputs, output: Path) -> None:
    """Do the job in one process."""
    _run(inputs, output)


def run_with_two_workers(inputs: Inputs, output: Path) -> None:
    """Do the job in two worker processes."""
    _run(inputs, output, "--direct_num_workers=2", "--direct_running_mode=multi_processing")


def _run(inputs: Inputs, output: Path, *flags: str) -> None:
    exit_code = main(
        [
            "backfill",
            f"--archive={inputs.archive}",
            f"--send_log={inputs.send_log_avro}",
            f"--dataset={output}",
            f"--from={traffic.FIRST_DAY.date()}",
            f"--to={_LAST_DAY.date()}",
            f"--as_of={_AS_OF}",
            "--runner=FnApiRunner",
            *flags,
        ]
    )
    if exit_code:
        raise SystemExit(exit_code)
