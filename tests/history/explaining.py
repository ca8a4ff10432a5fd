"""A job with one send of every kind, and what ``sms-receipts explain`` finds out about them."""

import base64
import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from analytics.catalog import read_snapshot
from pipeline.explain.story import Explanation, Recipient, explain
from pipeline.options_explain import explain_options
from schemas.records import MnsMessage
from tests.job.small_job import NOON, QUEUE, SmallJob, answer, report

SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=secs) for secs in (1, 60, 3600, 86_400))
FIRST, SECOND_EPOCH, THIRD, FOURTH = NOON + MINUTE, NOON + 3 * HOUR, NOON + 4 * DAY, NOON + 5 * DAY
MATCHED, CORRECTED, ASKED, ORPHAN, BATCH = (f"70671519375198{n}^0" for n in range(5))
SILENT, BROKEN, UNREAD, WAITING, MANY = (f"80671519375198{n}^0" for n in range(5))
NUMBERLESS, ANOTHER_DAY = (f"90671519375198{n}^0" for n in range(2))
ANN, BOB, CLEO = "13800000001", "13912345678", "13787654321"
# Nobody must see these unless they ask for them.
PARAM, TAG, UNKNOWN_NAME, UNKNOWN_VALUE, OUT_ID, ERR_MSG = (
    "{\"code\":\"429817\"}", "vip-annette", "idcard", "11010519491231002X", "user-annette", "annette is away",
)  # fmt: skip
PRIVATE = (ANN, BOB, CLEO, "429817", TAG, UNKNOWN_NAME, UNKNOWN_VALUE, OUT_ID, ERR_MSG)


def body_of(message: MnsMessage) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(base64.b64decode(message.body))
    return decoded


def private_report(message: MnsMessage) -> MnsMessage:
    """The report with every text that a carrier could put into it."""
    more = {"out_id": OUT_ID, "err_msg": ERR_MSG, UNKNOWN_NAME: UNKNOWN_VALUE}
    body = json.dumps({**body_of(message), **more})
    return message._replace(body=base64.b64encode(body.encode()))


def broken(biz_id: str) -> MnsMessage:
    """A message that mentions a send and a person, and whose base64 somebody has wrapped."""
    body = base64.encodebytes(json.dumps({"biz_id": biz_id, "phone_number": CLEO}).encode() * 2)
    return MnsMessage("BROKEN", QUEUE, "SmsReport", NOON + 7 * SECOND, 1, body)


def log_private_send(job: SmallJob) -> None:
    entry = {
        "biz_id": MATCHED,
        "phone_number": ANN,
        "template_code": "SMS_1",
        "template_param": PARAM,
        "tags": {"person": TAG},
        "requested_at": (NOON - SECOND).isoformat(),
    }
    with job.send_log.open("a", encoding="utf-8") as log:
        log.write(json.dumps(entry) + "\n")


def varied_job(root: Path) -> SmallJob:
    """A job with one send of every kind."""
    job = SmallJob(root)
    log_private_send(job)
    for biz_id in (CORRECTED, ASKED, SILENT, BROKEN, NUMBERLESS):
        job.send(biz_id, ANN)
    job.send(BATCH, ANN, BOB, CLEO)
    job.send(MANY, *(f"1390000{number:04}" for number in range(7)))
    job.land(
        private_report(report(MATCHED, ANN, message_id="A1")),
        report(CORRECTED, ANN, err_code="MK:0001", message_id="B1"),
        report(ORPHAN, ANN, message_id="D1"),
        report(BATCH, ANN, message_id="E1"),
        report(BATCH, BOB, err_code="MK:0002", message_id="E2"),
        report(BATCH, None, message_id="E9"),
        report(NUMBERLESS, None, message_id="F1"),
        report(WAITING, BOB, message_id="W1", enqueued_at=THIRD),
        broken(BROKEN),
    )
    job.epoch(FIRST)
    job.land(
        private_report(report(MATCHED, ANN, message_id="A1"))._replace(dequeue_count=2),
        report(MATCHED, ANN, message_id="A2", enqueued_at=NOON + 2 * MINUTE),
        report(CORRECTED, ANN, message_id="B2", enqueued_at=NOON + HOUR),
    )
    job.land(answer(ASKED, ANN, err_code=None), answer(SILENT, ANN, err_code=None))
    job.land(answer(ASKED, ANN, asked_at=NOON + timedelta(hours=2.5)))
    job.epoch(SECOND_EPOCH)
    job.land(report(ASKED, ANN, message_id="C1", enqueued_at=NOON + DAY))
    job.land(report(ANOTHER_DAY, ANN, sent_at=NOON + 2 * DAY))
    job.epoch(THIRD)
    job.send(ORPHAN, ANN)
    job.epoch(FOURTH)
    job.send(UNREAD, ANN)
    job.land(report(UNREAD, ANN, message_id="U1"))
    return job


def flags(job: SmallJob, *more: str) -> list[str]:
    return [f"--archive={job.archive}", f"--dataset={job.dataset}", *more]


def explained(job: SmallJob, biz_id: str, *more: str, at: timedelta = 6 * DAY) -> Explanation:
    options = explain_options([biz_id, *flags(job, *more)])
    return explain(options, lambda: NOON + at, job.said.append)


def only(explanation: Explanation) -> Recipient:
    (recipient,) = explanation.recipients
    return recipient


def said(recipient: Recipient, *kinds: str) -> list[str]:
    """What happened, in order."""
    return [moment.what for moment in recipient.moments if not kinds or moment.kind in kinds]


def files(recipient: Recipient, what: str) -> Sequence[str]:
    """The files of the moment of which something is said."""
    (places,) = [moment.places for moment in recipient.moments if what in moment.what]
    return [place.file for place in places]


def current_files(job: SmallJob) -> list[str]:
    snapshot = read_snapshot(job.dataset)
    paths = (file.path for files in snapshot.files.values() for file in files)
    return [str(path.relative_to(job.dataset)) for path in paths]
