"""What the tables must hold, worked out a second time: archive and send log, plain Python, dicts.

Nothing of the project is used but the archive's Avro schema. Rows are keyed, so that a test can compare
whole tables and see at a glance which key differs.
"""

import base64
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from hashlib import md5
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import fastavro
import pyarrow.parquet as pq

Row: TypeAlias = dict[str, Any]
Rows: TypeAlias = dict[Any, Row]

BEIJING = timezone(timedelta(hours=8))
_SEND_SIDE = (
    "sign_name", "template_code", "template_param", "sms_up_extend_code", "campaign", "requested_at",
    "request_id",
)  # fmt: skip
_SEND_FIELDS = ("biz_id", "phone_number", "out_id", *_SEND_SIDE)
_INBOUND_FIELDS = ("phone_number", "content", "dest_code", "sign_name")


@dataclass
class Tables:
    """The tables of a dataset, by key, as a reader who follows the rules sees them."""

    enriched: Rows = field(
        default_factory=dict
    )  # by (event_id, success, err_code, is a query's answer)
    unreported: Rows = field(default_factory=dict)  # by event_id
    open_sends: Rows = field(default_factory=dict)  # by event_id
    waiting: Rows = field(default_factory=dict)  # by (message_id, biz_id)
    inbound: Rows = field(default_factory=dict)  # by message_id
    answers: Rows = field(default_factory=dict)  # by message_id
    failed: Rows = field(default_factory=dict)  # by message_id

    def current(self) -> Rows:
        """The outcome that counts, by event id."""
        current: Rows = {}
        for row in sorted(self.enriched.values(), key=lambda row: int(row["revision"])):
            current[row["event_id"]] = row
        return current


class Meant(NamedTuple):
    """What a message says: reports, an inbound SMS, what a query answered, or nothing that can be used.

    ``message`` has the columns of ``mns_message``; reports and inbound rows have all their columns.
    """

    message: Row
    reports: Sequence[Row] = ()
    inbound: Row | None = None
    answer: Row | None = None


def event_id(biz_id: str, phone_number: str | None) -> str:
    return md5(f"{biz_id}|{phone_number or ''}".encode()).hexdigest()


def tables_of(dataset: Path) -> Tables:
    """Read the current files of a dataset; no row may stand there twice."""
    enriched = current_reports(current_rows(dataset, "enriched_reports"))
    reported = {row["event_id"] for row in enriched.values()}
    unreported = current_rows(dataset, "unreported_sends")
    return Tables(
        enriched=enriched,
        unreported={
            key: row for key, row in _keyed(unreported, "event_id").items() if key not in reported
        },
        open_sends=_keyed(
            [
                row | {"event_id": event_id(row["biz_id"], row["phone_number"])}
                for row in current_rows(dataset, "open_sends")
            ],
            "event_id",
        ),
        waiting=_keyed(current_rows(dataset, "waiting_reports"), "message_id", "biz_id"),
        inbound=_keyed(current_rows(dataset, "inbound_sms"), "message_id"),
        answers=_keyed(current_rows(dataset, "query_answers"), "message_id"),
        failed=_keyed(
            [
                {name: row[name] for name in ("message_id", "original", "queue_name")}
                for row in open_events(current_rows(dataset, "failed_events"))
            ],
            "message_id",
        ),
    )


def current_reports(rows: Iterable[Row]) -> Rows:
    """Of the rows of ``enriched_reports`` those that count, by outcome."""
    ranked = sorted(rows, key=_rank, reverse=True)
    return {_outcome_key(row): row for row in ranked}


def open_events(attempts: Sequence[Row]) -> list[Row]:
    """The last attempt at each failed event that was not replayed with success."""
    last: Rows = {}
    for row in sorted(attempts, key=lambda row: int(row["attempt"])):
        known = last.get(row["event_id"])
        assert known is None or known["attempt"] < row["attempt"], "an attempt stands there twice"
        last[row["event_id"]] = row
    return [row for row in last.values() if row.get("replayed_at") is None]


def current_rows(dataset: Path, table: str, day: str = "%") -> list[Row]:
    """Every row that stands in the current files of a table, of one Beijing day or of all."""
    database = sqlite3.connect(f"file:{dataset}/catalog.sqlite?mode=ro", uri=True)
    with closing(database):
        paths = database.execute(
            "SELECT path, rows FROM data_files"
            " WHERE table_name = ? AND dt LIKE ? AND removed_by IS NULL",
            (table, day),
        ).fetchall()
    rows: list[Row] = []
    for path, count in paths:
        of_file = pq.read_table(dataset / path, partitioning=None).to_pylist()
        assert len(of_file) == count, f"{path} does not hold what the catalog promises"
        rows += [
            {
                name: dict(value) if name in {"tags", "unknown_fields"} else value
                for name, value in row.items()
            }
            for row in of_file
        ]
    return rows


def _keyed(rows: Iterable[Row], *names: str) -> Rows:
    keyed: Rows = {}
    for row in rows:
        key = row[names[0]] if len(names) == 1 else tuple(row[name] for name in names)
        assert key not in keyed, f"the row {names} = {key} stands there twice"
        keyed[key] = row
    return keyed


def _rank(row: Row) -> tuple[Any, ...]:
    """Of the rows of one outcome: the earliest report counts, as its newest revision has it."""
    requested_at = row["requested_at"]
    return (
        *_order(row),
        -row["revision"],
        requested_at is None,
        requested_at or row["enqueued_at"],
    )


def expected_tables(
    archive: Path, send_log: Sequence[Path], as_of: datetime, patience: timedelta
) -> Tables:
    """Work out what the tables must hold when everything was processed by ``as_of``."""
    entries = [json.loads(line) for path in send_log for line in path.read_bytes().splitlines()]
    meant = map(_meant, archived_messages(archive))
    return tables_of_facts(meant, entries, as_of, patience)


def tables_of_facts(
    messages: Iterable[Meant], entries: Iterable[Row], as_of: datetime, patience: timedelta
) -> Tables:
    """Work out what the tables must hold of these messages and send log entries."""
    tables = Tables()
    deadline = as_of - patience
    sends = _earliest_sends(entries)
    recipients: defaultdict[str, set[str]] = defaultdict(set)
    for biz_id, phone_number in sends:
        recipients[biz_id].add(phone_number)

    reports: defaultdict[tuple[str, str | None, str | None], list[Row]] = defaultdict(list)
    for message, said, inbound, answer in messages:
        message_id = message["message_id"]
        if answer is not None:
            tables.answers[message_id] = answer
        elif inbound is not None:
            tables.inbound[message_id] = inbound
        elif not said:
            tables.failed[message_id] = {
                "message_id": message_id,
                "original": message["body"],
                "queue_name": message["queue_name"],
            }
        for report in map(dict, said):
            known_to = recipients[report["biz_id"]]
            if report["phone_number"] is None and len(known_to) == 1:
                report["phone_number"] = next(iter(known_to))
            phone = report["phone_number"]
            reports[report["biz_id"], phone, message_id if phone is None else None].append(report)

    for (biz_id, phone, name), of_key in reports.items():
        send = sends.pop((biz_id, phone), None) if phone is not None else None
        may_wait = send is None and (phone is not None or len(recipients[biz_id]) < 2)
        key = event_id(biz_id, phone)
        if name is not None:
            key = md5(f"{biz_id}|message:{name}".encode()).hexdigest()
        _judge(tables, key, of_key, send, deadline if may_wait else None)
    _place_silent_sends(tables, sends.values(), deadline)
    return tables


def _earliest_sends(entries: Iterable[Row]) -> dict[tuple[str, str], Row]:
    sends: dict[tuple[str, str], Row] = {}
    for logged in entries:
        requested_at = datetime.fromisoformat(logged["requested_at"].replace("Z", "+00:00"))
        # The contract counts milliseconds.
        requested_at -= timedelta(microseconds=requested_at.microsecond % 1000)
        entry = logged | {"requested_at": requested_at.astimezone(timezone.utc)}
        known = sends.setdefault((entry["biz_id"], entry["phone_number"]), entry)
        if entry["requested_at"] < known["requested_at"]:
            sends[entry["biz_id"], entry["phone_number"]] = entry
    return sends


def _judge(
    tables: Tables, key: str, reports: Sequence[Row], send: Row | None, deadline: datetime | None
) -> None:
    """Let the reports of a key leave, or wait if they may wait until ``deadline``."""
    first: dict[tuple[Any, ...], Row] = {}
    for report in sorted(reports, key=_order):
        first.setdefault(_outcome(report), report)
    if deadline and all(report["enqueued_at"] >= deadline for report in first.values()):
        tables.waiting |= {
            (report["message_id"], report["biz_id"]): report for report in first.values()
        }
        return
    for revision, report in enumerate(first.values(), start=1):
        row = _enriched(key, revision, report, send)
        tables.enriched[_outcome_key(row)] = row


def _outcome(report: Row) -> tuple[Any, ...]:
    return report["success"], report["err_code"], report["origin"] == "query"


def _outcome_key(row: Row) -> tuple[Any, ...]:
    return (row["event_id"], *_outcome(row))


def _order(report: Row) -> tuple[Any, ...]:
    return report["origin"] != "query", report["enqueued_at"], report["message_id"]


def _place_silent_sends(tables: Tables, sends: Iterable[Row], deadline: datetime) -> None:
    for entry in sends:
        key = event_id(entry["biz_id"], entry["phone_number"])
        row: Row = {"tags": {}, **dict.fromkeys(_SEND_FIELDS), **entry, "event_id": key}
        place = tables.unreported if entry["requested_at"] < deadline else tables.open_sends
        place[key] = row


def archived_messages(archive: Path) -> list[Row]:
    """Every distinct message of the archive."""
    messages: Rows = {}
    for path in sorted(archive.glob("*/landed=*/*.avro")):
        with path.open("rb") as file:
            for message in fastavro.reader(file):
                assert isinstance(message, dict)
                messages[message["message_id"]] = message
    return list(messages.values())


def _meant(message: Row) -> Meant:
    if message["queue_name"] == "QuerySendDetails":
        return _answered(message)
    body = _decoded(message)
    if body is None:
        return Meant(message)
    if message["queue_name"].endswith("-SmsUp"):
        return Meant(message, inbound=_inbound(message, body))
    return Meant(message, [_report(message, body)])


def _decoded(message: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The JSON object in a message; None if it is not one of those that the emulator means well."""
    try:
        body = json.loads(base64.b64decode(message["body"], validate=True).decode())
        if message["queue_name"].endswith("-SmsUp"):
            return body if isinstance(body["content"], str) else None
        _time(body["send_time"])
        is_report = isinstance(body["biz_id"], str) and isinstance(body["success"], bool)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return body if is_report else None


def _report(message: Mapping[str, Any], body: Mapping[str, Any]) -> Row:
    known = {
        "biz_id", "phone_number", "success", "err_code", "err_msg", "out_id", "sms_size", "send_time",
        "report_time",
    }  # fmt: skip
    size, report_time = body.get("sms_size"), body.get("report_time")
    return {
        **{name: body.get(name) for name in known},
        "sms_size": int(size) if size is not None else None,
        "send_time": _time(body["send_time"]),
        "report_time": _time(report_time) if report_time is not None else None,
        "unknown_fields": {
            name: json.dumps(value) for name, value in body.items() if name not in known
        },
        "message_id": message["message_id"],
        "enqueued_at": message["enqueued_at"],
        "origin": "mns",
    }


def _answered(message: Row) -> Meant:
    body = json.loads(message["body"])
    origin = {name: message[name] for name in ("message_id", "enqueued_at")}
    known = {row["SendStatus"] for row in body["details"]}
    words = {3: "delivered", 2: "failed", 1: "awaiting"}
    answer = origin | {
        "event_id": event_id(body["biz_id"], body["phone_number"]),
        "biz_id": body["biz_id"],
        "phone_number": body["phone_number"],
        "requested_at": datetime.fromtimestamp(body["requested_at_ms"] / 1000, timezone.utc),
        "answer": words[max(known)] if known else "unknown",
    }
    reports = [
        origin
        | {
            "biz_id": body["biz_id"],
            "phone_number": body["phone_number"],
            "success": row["SendStatus"] == 3,
            "err_code": row.get("ErrCode"),
            "err_msg": None,
            "out_id": row.get("OutId"),
            "sms_size": None,
            "send_time": _time(row["SendDate"]),
            "report_time": _time(row["ReceiveDate"]) if row.get("ReceiveDate") else None,
            "unknown_fields": {},
            "origin": "query",
        }
        for row in body["details"]
        if row["SendStatus"] != 1
    ]
    return Meant(message, reports, answer=answer)


def _inbound(message: Mapping[str, Any], body: Mapping[str, Any]) -> Row:
    return {
        **{name: body.get(name) for name in _INBOUND_FIELDS},
        "sequence_id": str(body["sequence_id"]),
        "send_time": _time(body["send_time"]),
        "unknown_fields": {},
        "message_id": message["message_id"],
        "enqueued_at": message["enqueued_at"],
    }


def _enriched(key: str, revision: int, report: Row, send: Row | None) -> Row:
    row = {
        **report,
        **dict.fromkeys(_SEND_SIDE),
        "tags": {},
        "event_id": key,
        "revision": revision,
        "match": "orphan" if send is None else "matched",
    }
    if send is not None:
        row |= {name: send.get(name) for name in _SEND_SIDE}
        row |= {"tags": send.get("tags") or {}, "out_id": report["out_id"] or send.get("out_id")}
    sent, reported, requested = row["send_time"], row["report_time"], row["requested_at"]
    return row | {
        "queueing_ms": _span(requested, sent),
        "carrier_ms": _span(sent, reported),
        "total_ms": _span(requested, reported),
    }


def _span(start: datetime | None, end: datetime | None) -> int | None:
    return None if start is None or end is None else _ms(end) - _ms(start)


def _time(text: str) -> datetime:
    """Read either of Alibaba's time formats, Beijing time both."""
    pattern = "%Y-%m-%d %H:%M:%S" if "-" in text else "%Y%m%d%H%M%S"
    local = datetime.strptime(text, pattern).replace(tzinfo=BEIJING)
    return local.astimezone(timezone.utc)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
