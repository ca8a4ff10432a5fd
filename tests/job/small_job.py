"""A job without queues: an archive and a send log by hand, and epochs at the moments that a test chooses."""

import base64
import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from pipeline.backfill import backfill
from pipeline.catalog import Catalog
from pipeline.epochs import JobSettings, epochs_of, find_new_input, is_due, run_epoch
from schemas.records import MnsMessage
from tests.job.oracle import BEIJING, Tables, expected_tables, tables_of
from transforms.archive import write_archive_file
from transforms.decode_query import Question, query_message
from transforms.moments import day_number

# Noon of 1 November 2026 in Beijing.
NOON = datetime(2026, 11, 1, 4, tzinfo=timezone.utc)
QUEUE = "Alicom-Queue-1000000000000001-SmsReport"


def report(  # noqa: PLR0913 (what tests vary)
    biz_id: str,
    phone_number: str | None = "13800000001",
    *,
    err_code: str = "DELIVERED",
    sent_at: datetime = NOON,
    enqueued_at: datetime | None = None,
    message_id: str | None = None,
) -> MnsMessage:
    """A message as the carrier's report makes it; its id follows from what it says."""
    enqueued_at = enqueued_at or sent_at + timedelta(seconds=6)
    body = {
        "biz_id": biz_id,
        "phone_number": phone_number,
        "success": err_code == "DELIVERED",
        "err_code": err_code,
        "send_time": _beijing(sent_at),
        "report_time": _beijing(sent_at + timedelta(seconds=5)),
        "sms_size": "1",
    }
    present = {name: value for name, value in body.items() if value is not None}
    return MnsMessage(
        message_id=message_id or f"{biz_id}/{phone_number}/{err_code}",
        queue_name=QUEUE,
        message_type="SmsReport",
        enqueued_at=enqueued_at,
        dequeue_count=1,
        body=base64.b64encode(json.dumps(present).encode()),
    )


def answer(
    biz_id: str,
    phone_number: str = "13800000001",
    *,
    err_code: str | None = "DELIVERED",
    requested_at: datetime = NOON - timedelta(seconds=1),
    asked_at: datetime = NOON + timedelta(hours=2),
) -> MnsMessage:
    """What QuerySendDetails says of a send; without an err_code it still awaits its report."""
    detail = {"PhoneNum": phone_number, "SendStatus": 1, "SendDate": _beijing(requested_at)}
    if err_code is not None:
        detail |= {
            "SendStatus": 3 if err_code == "DELIVERED" else 2,
            "ErrCode": err_code,
            "ReceiveDate": _beijing(requested_at + timedelta(seconds=5)),
        }
    return query_message(Question(biz_id, phone_number, requested_at), [detail], asked_at)


def _beijing(moment: datetime) -> str:
    return moment.astimezone(BEIJING).strftime("%Y-%m-%d %H:%M:%S")


class SmallJob:
    """Archive, send log and dataset below one directory; ``patience`` is three days."""

    def __init__(self, root: Path, *, beam_args: Sequence[str] = ("--runner=FnApiRunner",)) -> None:
        self.archive, self.dataset = root / "archive", root / "dataset"
        self.send_log = root / "sends.jsonl"
        self.settings = JobSettings(
            archive=str(self.archive),
            dataset=str(self.dataset),
            patience=timedelta(days=3),
            send_log=str(self.send_log),
            beam_args=beam_args,
        )
        self.said: list[str] = []
        root.mkdir(exist_ok=True)
        self.send_log.touch()

    def land(self, *messages: MnsMessage) -> None:
        """Archive messages, in one file a queue."""
        for queue_name in dict.fromkeys(message.queue_name for message in messages):
            of_queue = [message for message in messages if message.queue_name == queue_name]
            write_archive_file(str(self.archive), of_queue, NOON)

    def send(
        self, biz_id: str, *phone_numbers: str, requested_at: datetime = NOON - timedelta(seconds=1)
    ) -> None:
        """Log a send to one number or several."""
        with self.send_log.open("a", encoding="utf-8") as log:
            for phone_number in phone_numbers or ("13800000001",):
                entry = {
                    "biz_id": biz_id,
                    "phone_number": phone_number,
                    "template_code": "SMS_1",
                    "tags": {"team": "growth"},
                    "requested_at": requested_at.isoformat(),
                }
                log.write(json.dumps(entry) + "\n")

    def epoch(self, as_of: datetime) -> Counter[str]:
        """Process what is new, as ``run`` does; the counts of all epochs together."""
        counts: Counter[str] = Counter()
        with Catalog(str(self.dataset), lambda: as_of) as catalog:
            new = find_new_input(catalog, self.settings)
            if new or is_due(catalog, self.settings, as_of):
                for batch in epochs_of(new):
                    counts.update(run_epoch(catalog, self.settings, batch, as_of))
        return counts

    def backfill(self, first: str, last: str, as_of: datetime) -> Counter[str]:
        """Recompute days."""
        days = range(day_number(first), day_number(last) + 1)
        with Catalog(str(self.dataset), lambda: as_of) as catalog:
            return backfill(catalog, self.settings, days, as_of, self.said.append)

    def tables(self) -> Tables:
        """What the dataset holds."""
        return tables_of(self.dataset)

    def expected(self, as_of: datetime) -> Tables:
        """What it must hold."""
        return expected_tables(self.archive, [self.send_log], as_of, self.settings.patience)
