"""Which failed events a replay chooses, what becomes of each, and what is said of them afterwards."""

import base64
import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analytics.connection import connect
from pipeline.errors import OperatorError, OutputError
from pipeline.options_replay import replay_options
from pipeline.replay import FailedFile, days_learnt, failed_units, replay_summary, snapshot
from schemas.contracts import contract
from tests.analytics.dataset import DAY_1, DAY_2, Dataset, failed
from transforms.failures import PIPELINE_VERSION
from transforms.moments import day_number
from transforms.replay import Choice, Tried, try_again

NOON = datetime(2026, 11, 1, 4, tzinfo=timezone.utc)
LATER = NOON + timedelta(days=2)
REPORT = json.dumps(
    {"biz_id": "a", "phone_number": "1", "success": True, "send_time": "2026-11-01 12:00:00"}
).encode()
POISON = base64.b64encode(b"no report")
SEND = b'{"biz_id": "a", "phone_number": "1", "requested_at": "2026-11-01T12:00:00+08:00"}'
EVERYTHING = Choice()


def event(message_id: str, original: bytes = REPORT, **more: object) -> dict[str, Any]:
    """A failed message, as an earlier version wrote it."""
    return {
        "event_id": f"event {message_id}",
        "stage": "decode",
        "reason": "unknown_shape",
        "detail": "",
        "schema_name": "delivery_report",
        "schema_fingerprint": "0",
        "original": original,
        "message_id": message_id,
        "queue_name": "Alicom-Queue-1000000000000001-SmsReport",
        "message_type": "SmsReport",
        "enqueued_at": NOON,
        "failed_at": NOON,
        "attempt": 1,
        "pipeline_version": "0.0.1",
        **more,
    }


def failed_send(position: int, original: bytes = SEND, **more: object) -> dict[str, Any]:
    return event(
        f"sends.jsonl#{position}",
        original,
        schema_name="send_log_entry",
        queue_name=None,
        message_type=None,
        enqueued_at=None,
        source_file="sends.jsonl",
        **more,
    )


class Events:
    """Failed events in files of one table."""

    def __init__(self, directory: Path, table: str = "failed_events") -> None:
        self._directory, self._table = directory, table
        self.files: list[FailedFile] = []

    def add(self, *rows: Mapping[str, Any], dt: str = DAY_1, group: int = 1000) -> None:
        path = self._directory / f"{len(self.files)}.parquet"
        table = pa.Table.from_pylist(list(rows), schema=contract("failed_event").arrow)
        pq.write_table(table, path, row_group_size=group)
        self.files.append(FailedFile(str(path), dt, len(rows)))

    def replay(self, choice: Choice = EVERYTHING) -> list[Tried]:
        units = failed_units({self._table: self.files}, choice)
        return [tried for unit in units for tried in try_again(unit, LATER)]

    def attempts(self, choice: Choice = EVERYTHING) -> dict[str, dict[str, Any]]:
        """The new attempts, by message id."""
        rows = [row for tried in self.replay(choice) for row in tried.attempts.to_pylist()]
        by_id = {row["message_id"]: row for row in rows}
        assert len(by_id) == len(rows), "an event was tried twice"
        return by_id

    def counts(self, choice: Choice = EVERYTHING) -> Counter[str]:
        return sum((tried.counts for tried in self.replay(choice)), Counter())


@pytest.fixture
def events(tmp_path: Path) -> Events:
    return Events(tmp_path)


@pytest.fixture
def sends(tmp_path: Path) -> Events:
    return Events(tmp_path, "failed_sends")


def test_a_success_adds_an_attempt_and_a_report_of_its_own_origin(events: Events) -> None:
    events.add(event("m"))
    (tried,) = events.replay()

    assert tried.attempts.to_pylist() == [
        event("m", attempt=2, replayed_at=LATER, pipeline_version=PIPELINE_VERSION)
        | {"source_file": None}
    ]
    (row,) = tried.reports.to_pylist()
    assert (row["origin"], row["message_id"], row["enqueued_at"]) == ("replay", "m", NOON)


def test_a_failure_adds_an_attempt_with_the_verdict_of_this_version(events: Events) -> None:
    events.add(event("m", POISON, attempt=3))

    attempts = events.attempts()

    assert attempts["m"] == event("m", POISON) | {
        "reason": "malformed_json",
        "detail": attempts["m"]["detail"],
        "schema_fingerprint": contract("delivery_report").fingerprint,
        "failed_at": LATER,
        "attempt": 4,
        "pipeline_version": PIPELINE_VERSION,
        "replayed_at": None,
        "source_file": None,
    }


def test_a_replay_that_fails_as_the_one_before_it_says_nothing_new(events: Events) -> None:
    events.add(event("m", POISON))
    once = events.attempts()["m"]
    events.add(once)

    assert events.attempts() == {}
    assert events.counts()["failed_as_before/failed_events"] == 1


@pytest.mark.parametrize("name", ["reason", "detail", "schema_fingerprint", "pipeline_version"])
def test_a_replay_that_fails_otherwise_is_a_new_attempt(events: Events, name: str) -> None:
    events.add(event("m", POISON))
    once = events.attempts()["m"]
    events.add(once | {name: "wrong_type" if name == "reason" else "other"})

    assert events.attempts()["m"]["attempt"] == 3


def test_only_the_last_attempt_counts_wherever_it_stands(events: Events) -> None:
    events.add(event("settled", attempt=2, replayed_at=LATER), event("open", attempt=2))
    events.add(event("open"), event("settled"), event("new"))

    attempts = events.attempts()

    assert {name: row["attempt"] for name, row in attempts.items()} == {"open": 3, "new": 2}


def test_a_send_that_failed_again_on_another_day_is_found(sends: Events) -> None:
    sends.add(failed_send(0), failed_send(9))
    sends.add(failed_send(0, attempt=2, replayed_at=LATER, failed_at=LATER), dt="2026-11-03")
    of_first_day = range(day_number(DAY_1), day_number(DAY_1) + 1)

    assert list(sends.attempts(Choice(days=of_first_day))) == ["sends.jsonl#9"]


def test_poison_of_every_kind_stops_nobody(events: Events) -> None:
    kinds = (b"", b"\xff", b"[" * 100_000, b"null", b'{"a":1,"a":2}', b"\0", POISON, b"{}")
    poison = [event(str(number), body) for number, body in enumerate(kinds)]
    events.add(*poison, event("good"), event("unknown type", message_type="VoiceReport"))

    (tried,) = events.replay()

    assert tried.counts["succeeded/failed_events"] == 1
    assert tried.counts["failed_again/failed_events"] == len(kinds) + 1
    settled = [row["message_id"] for row in tried.attempts.to_pylist() if row["replayed_at"]]
    assert settled == ["good"]
    originals = {row["message_id"]: row["original"] for row in tried.attempts.to_pylist()}
    assert [originals[row["message_id"]] for row in poison] == list(kinds)


def test_poison_among_send_log_entries_stops_nobody(sends: Events) -> None:
    kinds = (b"", b"  ", b"\xff", b"{", b'{"biz_id":\n"a"}', b"[]", b"\\u0000")
    sends.add(*(failed_send(number, line) for number, line in enumerate(kinds)))
    sends.add(failed_send(100), failed_send(101, SEND.replace(b'"a"', b'"b"')))

    tried = sends.replay()

    entries = [row for each in tried for row in each.sends.to_pylist()]
    assert [row["biz_id"] for row in entries] == ["a", "b"]
    rows = [row for each in tried for row in each.attempts.to_pylist()]
    assert {row["message_id"] for row in rows if row["replayed_at"]} == {
        "sends.jsonl#100",
        "sends.jsonl#101",
    }
    assert {row["original"] for row in rows if not row["replayed_at"]} == set(kinds)
    assert {row["attempt"] for row in rows} == {2}


def test_a_damaged_archive_file_is_no_message_and_is_told_apart(events: Events) -> None:
    events.add(event("queue/file.avro#0+100", message_type=None), event("m"))

    assert list(events.attempts()) == ["m"]
    counts = events.counts()
    assert (counts["no_message"], counts["chosen/failed_events"]) == (1, 1)
    assert "1 more are parts of damaged archive files" in replay_summary(
        counts, "dataset", is_applied=False
    )


def test_an_event_that_stands_there_twice_is_tried_once(events: Events) -> None:
    events.add(event("m", POISON), event("m"))

    assert list(events.attempts()) == ["m"]


def test_rows_from_before_replays_were_noted_are_read(tmp_path: Path) -> None:
    rows = pa.Table.from_pylist([event("m")], schema=contract("failed_event").arrow)
    pq.write_table(rows.drop_columns(["replayed_at"]), tmp_path / "old.parquet")
    files = {"failed_events": [FailedFile(str(tmp_path / "old.parquet"), DAY_1, 1)]}

    (unit,) = failed_units(files, EVERYTHING)
    (tried,) = try_again(unit, LATER)

    assert tried.counts["succeeded/failed_events"] == 1


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        (EVERYTHING, {"a", "b", "c"}),
        (Choice(reasons=frozenset({"unknown_shape"})), {"a", "b"}),
        (Choice(reasons=frozenset({"unknown_shape", "wrong_type"})), {"a", "b", "c"}),
        (Choice(stages=frozenset({"validate"})), {"b"}),
        (Choice(schemas=frozenset({"inbound_sms"})), {"c"}),
        (Choice(message_ids=frozenset({"a", "c", "z"})), {"a", "c"}),
        (Choice(days=range(day_number(DAY_2), day_number(DAY_2) + 1)), {"c"}),
        (Choice(days=range(day_number(DAY_1))), set()),
        (Choice(reasons=frozenset({"unknown_shape"}), stages=frozenset({"validate"})), {"b"}),
    ],
)
def test_the_choice_is_what_all_flags_agree_on(
    events: Events, choice: Choice, chosen: set[str]
) -> None:
    events.add(event("a"), event("b", stage="validate"))
    events.add(
        event(
            "c",
            reason="wrong_type",
            schema_name="inbound_sms",
            enqueued_at=NOON + timedelta(days=1),
        ),
        dt=DAY_2,
    )

    assert set(events.attempts(choice)) == chosen
    assert events.counts(choice)["chosen/failed_events"] == len(chosen)


def test_many_events_are_many_units_and_each_is_tried_once(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.replay._ROWS_PER_UNIT", 30)
    events.add(*(event(f"a{number}") for number in range(100)), group=10)
    events.add(*(event(f"b{number}") for number in range(15)), group=10)

    units = failed_units({"failed_events": events.files}, EVERYTHING)

    assert [unit.rows for unit in units] == [30, 30, 30, 25]
    assert len(events.attempts()) == 115


def test_an_archive_file_learns_the_days_of_what_was_replayed_from_it() -> None:
    known = {"a": [5, 6], "b": [6], "c": [7]}
    assert days_learnt(known, {6: {2, 5}, 9: {1}}) == {"a": [2, 5, 6], "b": [2, 5, 6]}


def test_the_flags_make_a_choice() -> None:
    options = replay_options(
        [
            "--reason=wrong_type",
            "--reason=malformed_time",
            "--stage=decode",
            "--schema=delivery_report",
            "--message_id=sends,2.jsonl#0",
            "--from=2026-11-01",
            "--to=2026-11-02",
        ]
    )
    assert options.choice == Choice(
        frozenset({"wrong_type", "malformed_time"}),
        frozenset({"decode"}),
        frozenset({"delivery_report"}),
        frozenset({"sends,2.jsonl#0"}),
        range(day_number("2026-11-01"), day_number("2026-11-03")),
    )
    assert not options.is_applied
    assert replay_options(["--apply"]).is_applied
    assert replay_options([]).choice == EVERYTHING


def test_one_end_of_a_range_is_enough() -> None:
    from_first = replay_options(["--from=2026-11-01"]).choice.days
    to_first = replay_options(["--to=2026-11-01"]).choice.days
    first = day_number("2026-11-01")
    assert from_first is not None
    assert to_first is not None
    assert (first in from_first, first - 1 in from_first, first + 9999 in from_first) == (1, 0, 1)
    assert (first in to_first, first + 1 in to_first, 0 in to_first) == (1, 0, 1)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--reason=bad"], "argument --reason: invalid choice: 'bad'"),
        (["--stage=bad"], "argument --stage: invalid choice: 'bad'"),
        (["--schema=bad"], "argument --schema: invalid choice: 'bad'"),
        (["--from=1 November"], "--from must be a day"),
        (["--from=2026-11-02", "--to=2026-11-01"], "--to is before --from"),
    ],
)
def test_a_wrong_flag_is_refused_in_a_sentence(flags: list[str], sentence: str) -> None:
    with pytest.raises(OperatorError, match=sentence):
        replay_options(flags)


def test_no_dataset_is_a_sentence_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="There is no dataset at"):
        snapshot(str(tmp_path / "typo"))
    assert list(tmp_path.iterdir()) == []


def test_the_summary_names_what_to_do_next() -> None:
    counts = {
        "replay/wrong_type/succeeded": 1234,
        "replay/wrong_type/failed_as_before": 1,
        "succeeded/failed_events": 1234,
        "failed_as_before/failed_events": 1,
    }
    told = replay_summary(counts, "dataset", is_applied=False)
    assert "wrong_type                           1,234                 0                 1" in told
    assert "1 failed just as the last replay of them did" in told
    assert told.endswith("sms-receipts replay --apply, with the same flags, while no other process "
        "writes to the dataset")  # fmt: skip
    done = replay_summary(counts, "dataset", is_applied=True)
    assert "1,234 left the open failed events and are in the tables; 1 stay." in done
    assert done.endswith("sms-receipts report --sql=failed_events --dataset dataset")


def test_what_was_replayed_is_no_open_failure_any_more(tmp_path: Path) -> None:
    made = Dataset(tmp_path / "dataset")
    made.add("failed_events", DAY_1, [failed("settled"), failed("open"), failed("again")])
    made.add("failed_events", DAY_1, [failed("settled", attempt=2, replayed_at=LATER)])
    made.add("failed_events", DAY_1, [failed("again", attempt=2, reason="wrong_type")])
    far = NOON + timedelta(days=60)
    sent = {"enqueued_at": None, "failed_at": NOON}
    made.add("failed_sends", DAY_1, [failed("log#1", **sent), failed("log#2", **sent)])
    made.add(
        "failed_sends",
        "2026-12-31",
        [
            failed("log#1", enqueued_at=None, failed_at=far, attempt=2),
            failed("log#1", enqueued_at=None, failed_at=far, attempt=3, replayed_at=far),
        ],
    )
    made.commit()

    with connect(made.directory, first_day=NOON.date(), last_day=NOON.date()) as connection:
        rows = connection.execute("SELECT message_id, reason FROM failures ORDER BY ALL").fetchall()

    expected = {"again": "wrong_type", "log#2": "malformed_json", "open": "malformed_json"}
    assert rows == list(expected.items())
