"""Make a corpus: what this version leaves on disk, for later versions to prove that they can read it.

``python -m tests.corpus.make tests/corpus/0.2.0``, once, with the code that is released as 0.2.0. An emulator
and the command line write ``archive/``, ``dataset/`` and ``send_log/``. Beside them stand sends that were not
logged in time, for reports that wait or have left as orphans (``late_sends.jsonl``), and what this version
says of it all: ``records.json`` (the decoded archive) and ``report.json`` (``sms-receipts report --json``).
"""

import base64
import json
import sqlite3
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

from tests.emulator_process import EmulatorProcess, start_emulator_process
from tests.job.commands import Job
from transforms.archive import list_archive, read_archive
from transforms.decode import decode_messages

_BEIJING: Final = timezone(timedelta(hours=8))
_EPOCH: Final = datetime.fromtimestamp(0, timezone.utc)
# Patience is three days: with these, every table has rows, and the whole stays small.
_TRAFFIC: Final = (
    "--traffic=30",
    "--traffic_days=4",
    "--seed=corpus",
    "--traffic_garbage=6",
    "--carrier_failure_rate=0.2",
    "--carrier_duplicate_rate=0.1",
    "--carrier_correction_rate=0.1",
    "--carrier_silent_rate=0.25",
    "--carrier_reply_rate=0.2",
    "--carrier_missing_phone_rate=0.05",
    "--carrier_missing_optional_rate=0.1",
)
_LATE: Final = 3  # every third send is logged late


def main(target: Path) -> None:
    """Write a corpus to a new directory."""
    target.mkdir()
    send_log = target / "send_log"
    emulator = start_emulator_process(*_TRAFFIC, f"--traffic_send_log={send_log}/")
    try:
        now = datetime.now(_BEIJING)
        _hold_back(send_log, target / "late_sends.jsonl")
        _log(send_log / "silent.jsonl", _send("700000000000000000^0", now - timedelta(days=3.5)))
        job = Job(emulator, target)
        _require_success(job.run())
        reports, reply = _odd_bodies(now)
        for body in reports:
            _put(emulator, emulator.report_queue, body)
        _put(emulator, emulator.reply_queue, reply)
        _log(send_log / "broken.jsonl", "no object", {"biz_id": "1^0", "phone_number": 1})
        _require_success(job.run())
    finally:
        emulator.stop()
    report = job.command("report", f"--dataset={job.dataset}", "--json")
    _require_success(report)
    (target / "report.json").write_text(report.out)
    _write_json(target / "records.json", decoded_records(job.archive))
    # What is left by those who had it open.
    sqlite3.connect(job.dataset / "catalog.sqlite").execute(
        "PRAGMA wal_checkpoint"
    ).connection.close()
    (job.dataset / "_lock").unlink()
    (job.dataset / "_staging").rmdir()


def decoded_records(archive: Path) -> dict[str, list[dict[str, Any]]]:
    """Decode an archive; the records by contract, as JSON has them."""
    records: dict[str, list[dict[str, Any]]] = {}
    for file in list_archive(str(archive)):
        for batch in read_archive(file.path).batches:
            decoded = decode_messages(batch, failed_at=_EPOCH)
            for name, rows in (
                ("delivery_report", decoded.reports),
                ("inbound_sms", decoded.inbound),
                ("failed_event", decoded.failed),
            ):
                records.setdefault(name, []).extend(map(_plain, rows.to_pylist()))
    return records


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    plain = dict(record)
    for name, value in record.items():
        if isinstance(value, datetime):
            plain[name] = value.isoformat()
        elif isinstance(value, bytes):
            plain[name] = base64.b64encode(value).decode()
        elif isinstance(value, list):  # a map
            plain[name] = dict(value)
    return plain


def _hold_back(send_log: Path, late: Path) -> None:
    """Move some sends to a file that is no part of the send log."""
    held: list[str] = []
    for file in sorted(send_log.iterdir()):
        lines = file.read_text().splitlines(keepends=True)
        held += lines[::_LATE]
        file.write_text("".join(line for n, line in enumerate(lines) if n % _LATE))
    late.write_text("".join(held))


def _send(biz_id: str, requested_at: datetime) -> dict[str, str]:
    phone_number = "13800000001"
    return {
        "biz_id": biz_id,
        "phone_number": phone_number,
        "requested_at": requested_at.isoformat(),
    }


def _log(file: Path, *entries: object) -> None:
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def _odd_bodies(now: datetime) -> tuple[list[object], object]:
    """What the emulated carrier never sends: other shapes, unknown fields, many reports in one message.

    Returns:
        Bodies for the queue of reports, and one for the queue of replies.
    """
    spaced, rfc_822 = f"{now:%Y-%m-%d %H:%M:%S}", f"{now:%a, %d %b %Y %H:%M:%S} +0800"
    mainland = {
        "biz_id": "700000000000000001^0",
        "phone_number": "13800000001",
        "success": True,
        "err_code": "DELIVERED",
        "err_msg": "用户接收成功",
        "sms_size": "1",
        "send_time": spaced,
        "report_time": spaced,
    }
    international = {
        "MessageId": "700000000000000002^0",
        "To": "6591234567",
        "Status": "6",
        "ErrorCode": "EXPIRED",
        "SmsSize": "2",
        "SendDate": rfc_822,
    }
    reply = {
        "phone_number": "13800000001",
        "content": "好的",
        "dest_code": "1069000001",
        "sequence_id": 1234567890,
        "sign_name": "星河商城",
        "send_time": f"{now:%Y%m%d%H%M%S}",
        "mood": {"happy": 0.90},
    }
    pushed = [{**mainland, "biz_id": f"70000000000000000{n}^0"} for n in (3, 4)]
    return [{**mainland, "carrier_code": "CMCC"}, international, pushed], reply


def _put(emulator: EmulatorProcess, queue: str, body: object) -> None:
    from mns.account import Account  # noqa: PLC0415 (what it warns about is nobody's business here)
    from mns.queue import Message  # noqa: PLC0415

    account = Account(emulator.url, emulator.key_id, emulator.key_secret)
    account.get_queue(queue).send_message(Message(json.dumps(body, ensure_ascii=False)))
    account.mns_client.close_connection()


def _require_success(ended: Any) -> None:  # noqa: ANN401
    if ended.exit_code:
        raise SystemExit(ended.err)


def _write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
