"""The bounded graph gives the same rows wherever it runs."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tests.engines.fetch import FETCH_SECS
from tests.engines.flink_cluster import START_SECS, FlinkCluster
from tests.engines.streams import ROOT
from tests.job.small_job import NOON, SmallJob, report

_SECS = 120.0
pytestmark = [pytest.mark.integration, pytest.mark.timeout(FETCH_SECS + START_SECS + _SECS)]

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


def test_a_backfill_on_flink_gives_the_rows_of_the_local_runner(
    flink: FlinkCluster, tmp_path: Path
) -> None:
    _require_same_rows(
        tmp_path,
        "--runner=FlinkRunner",
        f"--flink_master={flink.address}",
        f"--job_endpoint={flink.job_endpoint}",
        "--parallelism=2",
    )


def test_a_backfill_on_prism_gives_the_rows_of_the_local_runner(
    prism: Path, tmp_path: Path
) -> None:
    _require_same_rows(tmp_path, "--runner=PrismRunner", f"--prism_location={prism}")


def _require_same_rows(root: Path, *flags: str) -> None:
    there, here = SmallJob(root / "there"), SmallJob(root / "here")
    for job in (there, here):
        for number in range(300):
            biz_id, sent_at = f"{number}^0", NOON + number * 5 * MINUTE
            if number % 7:
                job.send(biz_id, requested_at=sent_at)
            if number % 11:
                job.land(report(biz_id, sent_at=sent_at))
    _backfill(there, *flags)
    here.backfill("2026-11-01", "2026-11-02", NOON + 5 * DAY)

    rows = there.tables()
    assert rows == here.tables()
    assert len(rows.current()) > 250  # noqa: PLR2004
    assert rows.unreported


def _backfill(job: SmallJob, *flags: str) -> None:
    done = subprocess.run(  # noqa: S603 (our own command)
        [
            *(sys.executable, "-m", "pipeline", "backfill"),
            *("--from=2026-11-01", "--to=2026-11-02", f"--as_of={(NOON + 5 * DAY).isoformat()}"),
            *(f"--archive={job.archive}", f"--dataset={job.dataset}", f"--send_log={job.send_log}"),
            *flags,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=_SECS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
