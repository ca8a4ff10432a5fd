"""A million failed events go back in: how long a dry run, a replay, and a second replay take.

    python -m benchmarks.replay --events 1000000

The events are the bounded benchmark's messages as a version would have failed them that knew no tenth field:
every body has one, so that the careful decoder is asked, one by one. 1 % of them are poison. Their sends wait
in the dataset, so that a replay joins them, too. Exits with 1 when a row is missing, doubled or wrong.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from analytics.connection import connect
from benchmarks import measure
from benchmarks.generate import Inputs, generate
from benchmarks.traffic import BAD_BODIES
from pipeline.catalog import Catalog, Commit
from pipeline.epochs import JobSettings, find_new_input, run_epoch
from schemas.contracts import contract
from transforms.moments import to_ms
from transforms.tables import FAILED_EVENTS, WrittenFile, write_table

_AIM_SECS: Final = 300
_AIM_EVENTS: Final = 1_000_000
# The generated days are over.
_AS_OF: Final = datetime(2026, 11, 4, 4, tzinfo=timezone.utc)
_MESSAGE_COLUMNS: Final = ("message_id", "queue_name", "message_type", "enqueued_at")
_NEW_FIELD: Final = b',"charge_type":"1"}'
_CHECKS: Final = {
    "open": "SELECT count(*) FROM failures",
    "known": "SELECT count(*) FROM reports",
    "waiting": "SELECT count(*) FROM waiting",
    "matched": "SELECT count(*) FROM reports WHERE match = 'matched'",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Make the dataset, replay it three times, check it; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=_AIM_EVENTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--workdir", type=Path, default=Path(tempfile.gettempdir()) / "sms-receipts-benchmark"
    )
    parser.add_argument("--workers", type=int, default=1, help="worker processes of Beam")
    arguments = parser.parse_args(argv)
    logging.getLogger().setLevel(logging.ERROR)  # what Beam tells its developers
    arguments.workdir.mkdir(parents=True, exist_ok=True)
    inputs = generate(arguments.events, arguments.seed, arguments.workdir)
    root = arguments.workdir / "replay"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    _make_dataset(inputs, root)
    print(f"{arguments.events:,} failed events, {arguments.events:,} sends that wait: {root}")

    command = [
        *(sys.executable, "-m", "pipeline", "replay"),
        *(f"--dataset={root / 'dataset'}", f"--send_log={inputs.send_log_parquet}"),
    ]
    workers = (
        ["--direct_running_mode=multi_processing", f"--direct_num_workers={arguments.workers}"]
        if arguments.workers > 1
        else []
    )
    secs = {}
    for name, flags in (("dry run", []), ("replay", ["--apply"]), ("again", ["--apply"])):
        usage = measure.run([*command, *flags, *workers], root / f"{name}.log")
        secs[name] = usage.wall_secs
        print(
            f"{name:<10}{usage.wall_secs:>8.1f} s{usage.cpu_secs:>8.1f} CPU s"
            f"{arguments.events / usage.wall_secs:>12,.0f} events/s"
            f"{usage.peak_process_mb:>8,.0f} MB, all together {usage.peak_tree_mb:,.0f} MB",
            flush=True,
        )
    complaints = _complaints(inputs, root / "dataset")
    if arguments.events >= _AIM_EVENTS:  # below, the start of the process is most of it
        is_met = secs["replay"] / arguments.events <= _AIM_SECS / _AIM_EVENTS
        print(f"aim, {_AIM_EVENTS:,} in {_AIM_SECS} s: {'met' if is_met else 'missed'}")
    print("rows: " + ("; ".join(complaints) or "as generated"))
    return 1 if complaints else 0


def _make_dataset(inputs: Inputs, root: Path) -> None:
    """Commit every message as a failed event, and let every send wait."""
    dataset, archive = str(root / "dataset"), str(root / "archive")
    settings = JobSettings(
        archive, dataset, timedelta(days=3), inputs.send_log_parquet, ["--runner=FnApiRunner"]
    )
    with Catalog(dataset, lambda: _AS_OF) as catalog:
        run_epoch(catalog, settings, find_new_input(catalog, settings), _AS_OF)
        added = list(_failed_events(inputs, catalog.staging("earlier")))
        commit = Commit("run", to_ms(_AS_OF), {}, added, [], {}, {})
        catalog.commit(commit, "earlier")


def _failed_events(inputs: Inputs, staging: str) -> Iterator[WrittenFile]:
    for path in sorted(Path(inputs.root / "messages").glob("*.parquet")):
        messages = pq.read_table(path).to_pylist()
        bodies = [_with_new_field(message["body"].encode()) for message in messages]
        count = len(messages)
        constants = {
            "stage": "decode",
            "reason": "unknown_shape",
            "detail": "9 fields were expected",
            "schema_name": "delivery_report",
            "schema_fingerprint": contract("delivery_report").fingerprint,
            "attempt": 1,
            "pipeline_version": "0.0.1",
            "failed_at": _AS_OF,
        }
        columns = {
            **{name: [message[name] for message in messages] for name in _MESSAGE_COLUMNS},
            **{name: [value] * count for name, value in constants.items()},
            "event_id": [
                hashlib.md5(f"failed|{message['message_id']}".encode()).hexdigest()
                for message in messages
            ],
            "original": bodies,
        }
        schema = FAILED_EVENTS.schema
        arrays = [pa.array(columns.get(field.name, [None] * count), field.type) for field in schema]
        yield from write_table(FAILED_EVENTS, pa.Table.from_arrays(arrays, schema=schema), staging)


def _with_new_field(body: bytes) -> bytes:
    """Add a field to a body that is whole."""
    try:
        document = base64.b64decode(body, validate=True)
    except ValueError:
        return body
    if not document.endswith(b"}"):
        return body
    return base64.b64encode(document[:-1] + _NEW_FIELD)


def _complaints(inputs: Inputs, dataset: Path) -> list[str]:
    """What is not as it was generated."""
    expected = inputs.expected
    with connect(dataset) as connection:
        counted = {name: _one(connection, query) for name, query in _CHECKS.items()}
    counted["known"] += counted.pop("waiting")
    should = {
        "open": sum(expected[reason] for reason in BAD_BODIES),
        "known": expected["enriched_reports"],
        "matched": expected["matched"],
    }
    return [
        f"{counted[name]:,} {name}, {number:,} were generated"
        for name, number in should.items()
        if counted[name] != number
    ]


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


if __name__ == "__main__":
    sys.exit(main())
