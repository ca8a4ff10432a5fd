"""How many messages come twice in a healthy run, though nobody crashed and no service failed?

    python -m benchmarks.redelivery --messages 1000000
    python -m benchmarks.redelivery --messages 100000 --visibility_timeout_secs 4

For each number of landing processes a fresh emulator is filled, and landed until it is empty. A message
counts as redelivered when a receive hands it out for a second time: because its lease ended while it was
held, or because it was not deleted by the handle that worked. What is still on the queues at the end, hidden
or not, would come again, and counts, too. The command exits with 1 when the share is above the target.

The first command has the settings of ``sms-receipts run`` on queues as Alibaba sets them up: bundles of 2 s
under leases of 30 s. It shows that receives, archive and deletes keep up at full speed; renewals are hardly
ever due, which the number of them says.

The second shows the renewals. The queues hide a message for that time only, and a bundle lasts half as long
again, behind a network of 100 ms a receive; so a third of each bundle and more would come twice, were it not
renewed, and every renewal replaces a handle that the delete must know. A run that renewed less than a third
of its messages shows nothing, and exits with 1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.emulator_process import emulator_process
from pipeline.clock import utc_now
from pipeline.landing import Landed
from pipeline.landing_processes import LandingProcesses
from pipeline.mns.settings import MnsSettings, Until
from transforms.archive import list_archive, read_archive

_QUEUES: Final = tuple(
    f"Alicom-Queue-1000000000000001-{message_type}" for message_type in ("SmsReport", "SmsUp")
)
# 0.001 %
_TARGET: Final = 1e-5
# How much longer than a lease of the queues a bundle lasts, in the run that shows renewals.
_BUNDLE_PER_LEASE: Final = 1.5
# And how little of a bundle would outlast its lease then, if messages came at an even rate.
_LEAST_RENEWED: Final = 1 / 3
# What a request takes in that run. Of the emulator's faults, which count what they meet: renewals, too.
_SLOW: Final = {"fault": "slow", "operations": ["receive"], "delay_secs": 0.1}
_COUNTED: Final = {"fault": "slow", "operations": ["renew"], "delay_secs": 0}
# Of 100 SMS so many are reported or answered: what to ask the emulator for (its carrier's rates).
_MESSAGES_PER_SMS: Final = 1.01


class _Emulator(NamedTuple):
    endpoint: str

    def left(self) -> int:
        """Count what is on the queues, visible or not."""
        return sum(self._count(queue_name) for queue_name in _QUEUES)

    def set_rules(self, *rules: Mapping[str, Any]) -> None:
        """Set a fault plan."""
        self._ask("PUT", "faults", {"seed": "redelivery", "rules": rules})

    def renewals(self) -> int:
        """Count the requests that the first rule has met."""
        met: int = self._ask("GET", "faults")["counts"][0]["injected"]
        return met

    def _count(self, queue_name: str) -> int:
        return sum(len(ids) for ids in self._ask("GET", f"queues/{queue_name}").values())

    def _ask(self, method: str, path: str, document: object = None) -> Any:
        url = f"{self.endpoint}/emulator/{path}"
        body = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(url, body, method=method)  # noqa: S310 - our own address
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            return json.load(response)


class _Lease(NamedTuple):
    """How long the queues hide a message that is received, and what the reader makes of it."""

    secs: int | None
    """None: as Alibaba sets it, and the settings of ``sms-receipts run``."""

    @property
    def emulator_flags(self) -> Sequence[str]:
        return [] if self.secs is None else [f"--visibility_timeout_secs={self.secs}"]

    @property
    def rules(self) -> Sequence[Mapping[str, Any]]:
        return [_COUNTED] if self.secs is None else [_COUNTED, _SLOW]

    @property
    def settings(self) -> Mapping[str, Any]:
        if self.secs is None:
            return {}
        bundle_secs = _BUNDLE_PER_LEASE * self.secs
        return {
            "max_bundle_secs": bundle_secs,
            # Bundles are not to be full before: at 16 messages a receive of 100 ms they never are.
            "max_bundle_messages": 1_000_000,
            "visibility_timeout_secs": max(60, math.ceil(3 * bundle_secs)),
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code, 1 when the target was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=1_000_000, help="about so many")
    parser.add_argument(
        "--processes", type=int, nargs="+", default=[1, 2], help="landing processes of each run"
    )
    parser.add_argument(
        "--visibility_timeout_secs",
        type=int,
        help="lease times of the queues that make renewals due (default: as Alibaba's, none is)",
    )
    arguments = parser.parse_args(argv)
    lease = _Lease(arguments.visibility_timeout_secs)
    sms = round(arguments.messages / _MESSAGES_PER_SMS)
    is_missed = False
    for processes in arguments.processes:
        with (
            tempfile.TemporaryDirectory() as archive,
            emulator_process(
                "--seed=redelivery", f"--traffic={sms}", "--traffic_days=3", *lease.emulator_flags
            ) as process,
        ):
            emulator = _Emulator(process.endpoint)
            emulator.set_rules(*lease.rules)
            began_secs = time.monotonic()
            landed = _land(emulator, archive, processes, lease)
            wall_secs = time.monotonic() - began_secs
            share = _report(processes, landed, archive, emulator, wall_secs)
            if lease.secs is not None and emulator.renewals() < _LEAST_RENEWED * landed.received:
                print(f"MISSED: at least {_LEAST_RENEWED:.0%} renewed")
                is_missed = True
        is_missed |= share > _TARGET
    print(f"{'MISSED' if is_missed else 'reached'}: at most {_TARGET:.3%} redelivered")
    return int(is_missed)


def _land(emulator: _Emulator, archive: str, processes: int, lease: _Lease) -> Landed:
    settings = MnsSettings(
        queues=_QUEUES,
        mns_endpoint=emulator.endpoint,
        dybaseapi_endpoint=emulator.endpoint,
        **lease.settings,
    )
    with LandingProcesses(settings, archive, utc_now, processes) as landing:
        return landing.land(Until(empty=True))


def _report(
    processes: int, landed: Landed, archive: str, emulator: _Emulator, wall_secs: float
) -> float:
    left, renewals = emulator.left(), emulator.renewals()
    ids = [
        batch.column("message_id")
        for file in list_archive(archive)
        for batch in read_archive(file.path).batches
    ]
    distinct = pc.count_distinct(pa.chunked_array(ids)).as_py()
    redelivered = max(landed.redelivered, landed.received - distinct) + left
    share: float = redelivered / landed.received
    print(
        f"{processes} landing process{'es' if processes > 1 else ''}: {landed.received:,} received, "
        f"{distinct:,} distinct, {landed.acknowledged:,} acknowledged, {landed.lost_leases:,} leases "
        f"lost, {renewals:,} handles renewed, {left:,} left; redelivered {redelivered:,} = {share:.5%} "
        f"({landed.received / wall_secs:,.0f} a second)",
        flush=True,
    )
    return share


if __name__ == "__main__":
    os.environ["ALIBABA_CLOUD_ACCESS_KEY_ID"] = "emulator-key-id"
    os.environ["ALIBABA_CLOUD_ACCESS_KEY_SECRET"] = "emulator-key-secret"  # noqa: S105
    sys.exit(main())
