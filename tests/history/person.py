"""A job in whose archive, tables and leftovers a person is everywhere, beside others who are to stay."""

import base64
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipeline.__main__ import main
from schemas.records import MnsMessage
from tests.decode.samples import GLOBE, INTERNATIONAL, REPLY
from tests.job.oracle import Rows, Tables
from tests.job.small_job import NOON, QUEUE, SmallJob, answer, report
from transforms.archive import list_archive, read_archive
from transforms.archive_replacement import staged

PERSON = "13812345678"
OTHER, THIRD = "13900000001", "13900000002"
# In every record that has to go, and in no other.
MARK = "GONE"
DAY = timedelta(days=1)
SOON, LATER, LATEST = (NOON + minutes * timedelta(minutes=10) for minutes in (1, 2, 3))


def message(name: str, body: object, message_type: str = "SmsReport") -> MnsMessage:
    """A message; bytes are its body as they are, anything else is written as base64 of JSON."""
    if not isinstance(body, bytes):
        body = base64.b64encode(json.dumps(body, ensure_ascii=False).encode())
    return MnsMessage(
        message_id=name,
        queue_name=QUEUE.replace("SmsReport", message_type),
        message_type=message_type,
        enqueued_at=NOON + timedelta(seconds=9),
        dequeue_count=1,
        body=body,
    )


def said(biz_id: str, phone_number: str, **more: Any) -> dict[str, Any]:
    """A mainland report as JSON."""
    return {
        "biz_id": biz_id,
        "phone_number": phone_number,
        "success": True,
        "err_code": "DELIVERED",
        "send_time": "2026-11-01 12:00:00",
        **more,
    }


def _reply(phone_number: str, content: str, **more: Any) -> dict[str, Any]:
    return {**REPLY, "phone_number": phone_number, "content": content, **more}


def ascii_body(body: object) -> bytes:
    """A body whose JSON spells what is no ASCII by its number."""
    return base64.b64encode(json.dumps(body).encode())


LEFT_OF_ARRAY = [said("array-1", OTHER), _reply(OTHER, "first"), said("array-2", THIRD)]
LEFT_OF_BROKEN_ARRAY = [said("broken-1", OTHER, send_time="when?"), said("broken-2", OTHER)]

THEIRS: Sequence[MnsMessage] = (
    report(f"{MARK}-sent", PERSON, message_id=f"{MARK}1"),
    report(f"{MARK}-sent", PERSON, err_code="EXPIRED", message_id=f"{MARK}2"),
    report(f"{MARK}-earlier", PERSON, sent_at=NOON - DAY, message_id=f"{MARK}3"),
    report("shared", PERSON, message_id=f"{MARK}4"),
    report("shared", None, message_id=f"{MARK}5"),
    report(f"{MARK}-alone", None, message_id=f"{MARK}6"),
    report(f"{MARK}-waits", f"86{PERSON}", message_id=f"{MARK}7"),
    answer(f"{MARK}-asked", PERSON)._replace(message_id=f"{MARK}8"),
    message(f"{MARK}9", json.dumps(said(f"{MARK}-plain", f"+86{PERSON}")).encode()),
    message(f"{MARK}10", said(f"{MARK}-text", OTHER, err_msg=f"转{PERSON}")),
    message(f"{MARK}11", ascii_body(said(f"{MARK}-ascii", OTHER, err_msg=f"转{PERSON}"))),
    message(f"{MARK}12", said(f"{MARK}-field", OTHER, contact={"phone": f"0086{PERSON}"})),
    message(f"{MARK}13", {**INTERNATIONAL, "To": f"86{PERSON}", "MessageId": MARK}),
    message(f"{MARK}14", {**GLOBE, "to": f"0086{PERSON}", "message_id": MARK}, "GlobeSmsReport"),
    message(f"{MARK}15", _reply(PERSON, MARK), "SmsUp"),
    message(f"{MARK}16", _reply(OTHER, f"{MARK} 138-1234-5678"), "SmsUp"),
    message(f"{MARK}17", _reply(OTHER, f"{MARK} １３８１２３４５６７８"), "SmsUp"),
    message(f"{MARK}18", PERSON.encode()),
    message(f"{MARK}19", b"\xff" + PERSON.encode() + MARK.encode()),
    message(f"{MARK}20", f"{MARK} {PERSON}".encode("utf-16")),
    message(f"{MARK}21", base64.b64encode(f"{MARK} {PERSON}".encode("utf-16"))),
    message(f"{MARK}22", base64.b64encode(json.dumps(said(MARK, PERSON)).encode())[:-3]),
    message(f"{MARK}23", {"phone": PERSON, "mark": MARK}, "VoiceReport"),
    message(f"{MARK}24", [said(MARK, PERSON), _reply(PERSON, MARK)]),
)  # fmt: skip
OTHERS: Sequence[MnsMessage] = (
    report("shared", OTHER, message_id="o1"),
    report("sent", OTHER, message_id="o2"),
    report("late", THIRD, message_id="o3"),
    report("nobody", None, message_id="o4"),
    report(f"900{PERSON}1234^0", OTHER, message_id="o5"),
    report("longer", f"{PERSON}9", message_id="o6"),
    message("o7", _reply(OTHER, f"{PERSON}00", sequence_id=int(f"9{PERSON}")), "SmsUp"),
    message("o8", b"\xff no report at all"),
    answer("asked", OTHER)._replace(message_id="o9"),
    message("array", [LEFT_OF_ARRAY[0], said(MARK, PERSON), *LEFT_OF_ARRAY[1:]]),
    message("broken", [LEFT_OF_BROKEN_ARRAY[0], said(MARK, PERSON), LEFT_OF_BROKEN_ARRAY[1]]),
)


class PersonsJob(SmallJob):
    """A job that has processed all of these, in two epochs, and has left more behind."""

    def live(self) -> None:
        """Let all of it happen."""
        self.send(f"{MARK}-sent", PERSON)
        self.send("shared", OTHER)
        self._log({"biz_id": "shared", "phone_number": PERSON, "campaign": MARK})
        self.send(f"{MARK}-alone", PERSON)
        self.send("sent", OTHER)
        for name, more in (
            ("tags", {"tags": {"by": f"+86 {PERSON}"}}),
            ("param", {"template_param": rf'{{"n":"\u4e09{PERSON}"}}'}),
        ):
            self._log({"biz_id": f"{MARK}-{name}", "phone_number": OTHER, **more})
        self.send(f"{MARK}-unreported", PERSON, requested_at=NOON - 5 * DAY)
        self.send("unreported", OTHER, requested_at=NOON - 5 * DAY)
        self._log({"biz_id": MARK, "phone_number": PERSON, "requested_at": "when?"})
        self._log({"biz_id": "broken", "phone_number": OTHER, "requested_at": "when?"})
        half = len(THEIRS) // 2
        self.land(*THEIRS[:half], *OTHERS[:5])
        self.epoch(SOON)
        self.land(*THEIRS[half:])
        self.land(*OTHERS[5:])
        self.send(f"{MARK}-open", PERSON)
        self.send("open", OTHER)
        self.epoch(LATER)
        # What no epoch has read yet.
        self.land(
            report("unread", OTHER, message_id="u1"), report(MARK, PERSON, message_id=f"{MARK}25")
        )
        self._leave_behind()

    def _log(self, entry: dict[str, Any]) -> None:
        with self.send_log.open("a", encoding="utf-8") as log:
            moment = (NOON - timedelta(seconds=1)).isoformat()
            log.write(json.dumps({"requested_at": moment, **entry}, ensure_ascii=False) + "\n")

    def _leave_behind(self) -> None:
        """What killed commands leave: an attempt, questions, an offer, and an archive file without a name."""
        for name in (
            "_staging/attempt/spill/bucket.arrow",
            "_staging/attempt/inbound_sms/dt=2026-11-01/x.parquet",
            "_reconcile/lane-0.arrow",
            "_compact/next/inbound_sms/dt=2026-11-01/x.parquet",
        ):
            path = self.dataset / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{MARK} {PERSON}")
        archived = Path(list_archive(str(self.archive))[0].path)
        for path in (archived.with_name(f".{archived.name}.tmp"), Path(staged(str(archived)))):
            path.write_text(f"{MARK} {PERSON}")

    def forget(self) -> None:
        """Write the send log anew without them, as the summary says, under another name."""
        lines = self.send_log.read_text("utf-8").splitlines(keepends=True)
        self.send_log.unlink()
        self.send_log = self.send_log.with_name("clean.jsonl")
        self.settings = replace(self.settings, send_log=str(self.send_log))
        self.send_log.write_text("".join(line for line in lines if MARK not in line), "utf-8")

    def erase(self, *flags: str) -> int:
        """``sms-receipts erase``; returns its exit code."""
        return main(
            [
                "erase",
                f"--phone_number={PERSON}",
                f"--archive={self.archive}",
                f"--dataset={self.dataset}",
                *flags,
            ]
        )

    def archived(self) -> dict[str, dict[str, Any]]:
        """Every message, by its id; none may be there twice, and names must keep what they promise."""
        found: dict[str, dict[str, Any]] = {}
        for file in list_archive(str(self.archive)):
            archived = read_archive(file.path)
            rows = [row for batch in archived.batches for row in batch.to_pylist()]
            assert len(rows) == file.messages
            for row in rows:
                assert row["message_id"] not in found
                found[row["message_id"]] = row
        return found

    def consumed(self) -> set[str]:
        """The archive files that the catalog takes for read."""
        with closing(sqlite3.connect(self.dataset / "catalog.sqlite")) as database:
            return {path for (path,) in database.execute("SELECT path FROM archive_files")}


def without(tables: Tables) -> Tables:
    """The same tables without the rows that have to go; a failed event keeps what is others'."""
    kept = Tables(**{name: _without(rows) for name, rows in vars(tables).items()})
    kept.failed["broken"]["original"] = array_of(LEFT_OF_BROKEN_ARRAY)
    return kept


def array_of(records: Sequence[object]) -> bytes:
    """The body of an array that others' records are left of."""
    parts = [json.dumps(record, ensure_ascii=False).encode() for record in records]
    return base64.b64encode(b"[" + b",".join(parts) + b"]")


def _without(rows: Rows) -> Rows:
    return {
        key: dict(row)
        for key, row in rows.items()
        if MARK not in f"{row.get('biz_id')} {row.get('message_id')}"
    }
