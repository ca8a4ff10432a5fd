"""The outage drill: the consumer is down for longer than the queue keeps its messages. What is lost?

    ./run_local.sh outage
    python -m benchmarks.outage --sms 5000

An application sends SMS for six hours of the emulator's time, through Alibaba's own client, and logs them;
nobody reads the queues, which keep an hour. Then the job is started again, and Alibaba is asked about the
sends that no report has come for. Alibaba's own totals tell what is missing before and after.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from benchmarks.emulator_process import emulator_process

_ROOT: Final = Path(__file__).parents[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Go through the drill; returns the exit code, 1 when something is missing at the end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sms", type=int, default=1200, help="sent during the outage")
    parser.add_argument("--qps", type=int, default=500, help="questions a second")
    flags = parser.parse_args(argv)
    # What Beam tells its developers, at import and later.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.")
    logging.basicConfig(level=logging.ERROR)
    from benchmarks.drill import KEY_ID, KEY_SECRET, RETENTION, Drill, rehearse  # noqa: PLC0415

    os.environ["ALIBABA_CLOUD_ACCESS_KEY_ID"] = KEY_ID
    os.environ["ALIBABA_CLOUD_ACCESS_KEY_SECRET"] = KEY_SECRET
    with (
        emulator_process(
            "--seed=outage",
            f"--retention_secs={RETENTION // timedelta(seconds=1)}",
            # Whatever is missing is missing for the outage's sake.
            *("--carrier_lost_rate=0", "--carrier_missing_phone_rate=0"),
        ) as (_, endpoint),
        tempfile.TemporaryDirectory(prefix="sms-receipts-") as root,
    ):
        figures = rehearse(Drill(endpoint, Path(root), print), flags.sms, print, qps=flags.qps)
    print()
    for name, number in figures._asdict().items():
        print(f"  {name.replace('_', ' '):<26}{number:>10,.4g}")
    print(f"  {'calls a recovered report':<26}{figures.calls / max(1, figures.recovered):>10.4g}")
    is_complete = figures.missing_after == figures.wrong_after == 0
    print("\nreached: nothing is missing" if is_complete else "\nMISSED")
    return 0 if is_complete else 1


if __name__ == "__main__":
    sys.exit(main())
