"""An outage, rehearsed: an application, its carrier and the job, at the emulator's time."""

from __future__ import annotations

import json
import random
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from alibabacloud_credentials.client import Client as CredentialsChain
from alibabacloud_credentials.models import Config as CredentialsConfig
from alibabacloud_dysmsapi20170525.client import Client as DysmsapiClient
from alibabacloud_dysmsapi20170525.models import SendSmsRequest
from alibabacloud_tea_openapi.utils_models import Config

from pipeline.audit import Audit, audit, text
from pipeline.clock import utc_now
from pipeline.options import run_options
from pipeline.options_reconcile import audit_options, reconcile_options
from pipeline.reconcile import Reconciled, reconcile, summary
from pipeline.run import run
from pipeline.send_log import SendLog
from transforms.moments import BEIJING

_QUEUES: Final = ",".join(
    f"Alicom-Queue-1000000000000001-{each}" for each in ("SmsReport", "SmsUp")
)
KEY_ID: Final = "emulator-key-id"
KEY_SECRET: Final = "emulator-key-secret"  # noqa: S105 - the emulator's well-known one
RETENTION: Final = timedelta(hours=1)
OUTAGE: Final = timedelta(hours=6)
_STEP: Final = timedelta(minutes=10)
# An application's kinds of SMS: sign, template, recipients of one call.
_KINDS: Final = (("星河商城", "SMS_154950901", 1), ("星河支付", "SMS_154950904", 5))

Say = Callable[[str], None]


class OutageFigures(NamedTuple):
    """What the drill has shown, in SMS."""

    sent: int
    missing_before: int
    """Verdicts that Alibaba had and the tables had not, when the job had caught up with the queues."""
    missing_after: int
    wrong_after: int
    questions: int
    calls: int
    recovered: int
    """Sends that got their verdict from Alibaba's answers."""
    reconcile_secs: float


@dataclass(frozen=True)
class Advanced:
    """The emulator's clock, for the job: the machine's, and all the time by which it was advanced."""

    by: timedelta

    def __call__(self) -> datetime:
        """Tell the time."""
        return utc_now() + self.by


class Drill:
    """An application, its carrier and the job, at the emulator's time.

    Args:
        endpoint: of an emulator whose queues keep their messages for ``RETENTION``.
        root: where archive, dataset and send log go.
        say: prints a line.
    """

    def __init__(self, endpoint: str, root: Path, say: Say) -> None:
        self.clock = Advanced(timedelta())
        self.dataset = root / "dataset"
        self.sent = 0
        self._endpoint = endpoint
        self._say = say
        self._began = self.clock()
        self._random = random.Random(0)  # noqa: S311 - a simulation
        self._send_log = SendLog(root / "send_log")
        self._job_flags = [
            f"--archive={root / 'archive'}",
            f"--dataset={self.dataset}",
            f"--send_log={root / 'send_log'}/*.jsonl",
        ]
        keys = CredentialsConfig(
            type="access_key", access_key_id=KEY_ID, access_key_secret=KEY_SECRET
        )
        self._client = DysmsapiClient(
            Config(
                credential=CredentialsChain(keys),
                endpoint=endpoint.partition("://")[2],
                protocol="http",
            )
        )

    def pass_time(self, by: timedelta) -> None:
        """Let time pass: reports come, messages expire."""
        body = json.dumps({"advance_secs": by.total_seconds()}).encode()
        with urllib.request.urlopen(f"{self._endpoint}/emulator/clock", body) as answer:  # noqa: S310
            answer.read()
        self.clock = Advanced(self.clock.by + by)

    def send(self, sms: int, during: timedelta) -> None:
        """Send SMS, log them, and let the time pass meanwhile."""
        end = self.sent + sms
        steps = during // _STEP
        for step in range(1, steps + 1):
            while self.sent < end - sms * (steps - step) // steps:
                self._send()
            self.pass_time(_STEP)

    def run(self) -> None:
        """Start the job, and let it catch up with the queues and the send log."""
        endpoints = [f"--mns_endpoint={self._endpoint}", f"--dybaseapi_endpoint={self._endpoint}"]
        quick = ["--mns_wait_secs=1", "--mns_drain_wait_secs=0"]
        flags = ["--until-empty", f"--mns_queues={_QUEUES}", *endpoints, *quick, *self._job_flags]
        run(run_options(flags), self.clock, self._say)

    def audit(self) -> Audit:
        """Compare the tables with Alibaba's totals."""
        days = [
            f"--{name}={moment.astimezone(BEIJING).date()}"
            for name, moment in (("from", self._began), ("to", self.clock()))
        ]
        flags = [*days, f"--dataset={self.dataset}", f"--dysmsapi_endpoint={self._endpoint}"]
        return audit(audit_options(flags), self.clock)

    def reconcile(self, qps: int) -> Reconciled:
        """Ask Alibaba about the sends that no report has come for."""
        flags = [f"--qps={qps}", f"--dysmsapi_endpoint={self._endpoint}", *self._job_flags]
        return reconcile(reconcile_options(flags), self.clock, self._say)

    def _send(self) -> None:
        sign_name, template_code, recipients = self._random.choice(_KINDS)
        numbers = [f"138{self.sent + place:08d}" for place in range(recipients)]
        requested_at = self.clock()
        request = SendSmsRequest(
            phone_numbers=",".join(numbers), sign_name=sign_name, template_code=template_code
        )
        answer = self._client.send_sms(request).body
        self._send_log.append(
            biz_id=answer.biz_id,
            phone_number=numbers,
            requested_at=requested_at,
            sign_name=sign_name,
            template_code=template_code,
            fsync=False,
        )
        self.sent += recipients


def rehearse(drill: Drill, sms: int, say: Say, *, qps: int = 500) -> OutageFigures:
    """Go through the outage, from a good day to complete tables."""
    say(f"\n1. A good half hour: {sms // 12:,} SMS are sent, and the job reads their reports.")
    drill.send(sms // 12, timedelta(minutes=30))
    drill.run()
    say(f"\n{text(drill.audit())}")

    say(
        f"\n2. The job is down for {OUTAGE // timedelta(hours=1)} hours. The application sends {sms:,} more; "
        f"the queues keep their reports for {RETENTION // timedelta(hours=1)} hour, then they are gone."
    )
    drill.send(sms, OUTAGE)

    say("\n3. The job is back, and reads what the queues still have.")
    drill.run()
    # By default reconcile leaves a send an hour to be reported by itself.
    drill.pass_time(timedelta(hours=1))
    before = drill.audit()
    say(f"\n{text(before)}")

    say("\n4. sms-receipts reconcile asks Alibaba about the sends that no report has come for.")
    began = time.monotonic()
    done = drill.reconcile(qps)
    reconcile_secs = time.monotonic() - began
    say(f"\n{summary(done)}")

    say("\n5. The audit again.")
    after = drill.audit()
    say(f"\n{text(after)}")
    return OutageFigures(
        sent=drill.sent,
        missing_before=sum(day.missing_reports for day in before.days),
        missing_after=sum(abs(day.missing_reports) for day in after.days),
        wrong_after=sum(day.wrong_verdicts for day in after.days),
        questions=done.counts["questions"],
        calls=done.counts["calls"],
        recovered=done.counts["delivered"] + done.counts["failed"],
        reconcile_secs=reconcile_secs,
    )
