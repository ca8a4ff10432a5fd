"""What does it cost an epoch to know that it has seen a report before?

    python -m benchmarks.dedup --keys 1000000 5000000

A dataset with so many reports on one day, and 29 days of unreadable files around it: an epoch that opened
one of them would fail. Then an epoch of 100 redelivered reports of that day and 100 new ones, in a process of
its own; and the same on a dataset without reports. The difference of the two in peak memory, divided by the
number of reports, is what a key costs: each epoch begins as a copy of one process that has imported all it
needs. Exits with 1 if a key costs more than 100 bytes; fails if a report is doubled or missed.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.catalog import Catalog, Commit
from pipeline.epochs import JobSettings, find_new_input, run_epoch
from schemas.contracts import contract
from schemas.records import MnsMessage
from transforms import keys, tables
from transforms.archive import write_archive_file
from transforms.moments import BEIJING, day_name, day_number
from transforms.tables import ROWS_PER_GROUP, WrittenFile, write_file

MOST_BYTES_PER_KEY: Final = 100
_DAYS: Final = 30
_NEWS: Final = 100
_NOON: Final = datetime(2026, 11, 1, 4, tzinfo=timezone.utc)
_DAY: Final = "2026-11-01"
_LATER: Final = _NOON + timedelta(days=6, hours=23)


class _Figures(NamedTuple):
    """What an epoch took; the peak is that of its process, by the kernel's account."""

    wall_secs: float
    cpu_secs: float
    peak_mb: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--keys", type=int, nargs="+", default=[1_000_000])
    parser.add_argument(
        "--epochs", type=Path, nargs="+", help="run the epochs of datasets (what is measured)"
    )
    arguments = parser.parse_args(argv)
    if arguments.epochs:
        return _run_each(arguments.epochs)
    costs = list(bytes_per_key(arguments.keys))
    return int(max(costs) > MOST_BYTES_PER_KEY)


def bytes_per_key(counts: Sequence[int]) -> Iterator[float]:
    """Measure with so many reports there, tell the figures, and yield for each what a key costs."""
    with ExitStack() as stack:
        roots = []
        for count in (0, *counts):
            roots.append(Path(stack.enter_context(tempfile.TemporaryDirectory())))
            _prepare(roots[-1], count)
        command = [sys.executable, "-m", "benchmarks.dedup", "--epochs", *map(str, roots)]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - our own
        figures = [_Figures(*json.loads(line)) for line in told.stdout.splitlines()]
        without, *others = figures
        _tell(roots[0], 0, without, "")
        for count, root, each in zip(counts, roots[1:], others, strict=True):
            cost = (each.peak_mb - without.peak_mb) * 2**20 / count
            _tell(root, count, each, f": {cost:.0f} bytes a key")
            yield cost


def _prepare(root: Path, count: int) -> None:
    """Write a dataset of ``count`` reports, and the messages of an epoch on it."""
    _write_past(root / "dataset", count)
    redelivered = [_message(number) for number in range(min(_NEWS, count))]
    news = [_message(count + number) for number in range(_NEWS)]
    write_archive_file(str(root / "archive"), redelivered + news, _LATER)


def _tell(root: Path, count: int, figures: _Figures, remark: str) -> None:
    """Check what an epoch did, and tell what it took."""
    with Catalog(str(root / "dataset"), lambda: _LATER) as catalog:
        rows = sum(file.rows for file in catalog.files(tables.ENRICHED_REPORTS.name, [_DAY]))
    assert rows == count + _NEWS, "a report was doubled or missed"
    print(
        f"{count:>12,} reports written: {figures.wall_secs:5.2f} s, {figures.cpu_secs:5.2f} s of CPU, "
        f"{figures.peak_mb:4.0f} MB at most{remark}",
        flush=True,
    )


def _run_each(roots: Sequence[Path]) -> int:
    """Run the epoch of each dataset in a copy of this process, and tell its figures."""
    for root in roots:
        process_id = os.fork()
        if not process_id:
            print(json.dumps(_run_epoch(root)), flush=True)
            os._exit(0)
        _, status = os.waitpid(process_id, 0)
        if status:
            return 1
    return 0


def _run_epoch(root: Path) -> _Figures:
    settings = JobSettings(
        archive=str(root / "archive"),
        dataset=str(root / "dataset"),
        patience=timedelta(days=3),
        send_log=None,
        beam_args=["--runner=FnApiRunner"],
    )
    wall_secs, cpu_secs = time.monotonic(), time.process_time()
    with Catalog(settings.dataset, lambda: _LATER) as catalog:
        run_epoch(catalog, settings, find_new_input(catalog, settings), _LATER)
    wall_secs, cpu_secs = time.monotonic() - wall_secs, time.process_time() - cpu_secs
    # Not getrusage: its peak is also that of the parent, before this process was told what to run.
    status = Path("/proc/self/status").read_text("ascii")
    (peak_kb,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return _Figures(wall_secs, cpu_secs, int(peak_kb) / 1024)


def _write_past(dataset: Path, count: int) -> None:
    """Write a day of ``count`` reports in one file, and the other days in files that nobody can read."""
    table = tables.ENRICHED_REPORTS
    with Catalog(str(dataset), lambda: _NOON) as catalog:
        staging = catalog.staging("past")
        files = []
        if count:
            groups = (
                _rows(range(start, min(start + ROWS_PER_GROUP, count)))
                for start in range(0, count, ROWS_PER_GROUP)
            )
            files.append(write_file(table, _DAY, groups, staging))
        for day in range(day_number(_DAY) + 1, day_number(_DAY) + _DAYS):
            path = Path(table.name, f"dt={day_name(day)}", "unreadable.parquet")
            target = Path(staging, path)
            target.parent.mkdir(parents=True)
            target.write_text("no Parquet", encoding="ascii")
            files.append(WrittenFile(table.name, day_name(day), str(path), 1, 1))
        catalog.commit(Commit("run", 1, {}, files, [], {}, {}), "past")


def _rows(numbers: range) -> pa.Table:
    """Rows of ``enriched_reports``, as an epoch writes them of :func:`_message`."""
    schema = contract("enriched_report").arrow
    count = len(numbers)
    biz_ids = pa.array([_biz_id(number) for number in numbers])
    phones = pa.array([_phone(number) for number in numbers])
    at = pa.array(np.full(count, int(_NOON.timestamp() * 1000))).cast(
        schema.field("send_time").type
    )
    known: dict[str, Any] = {
        "event_id": keys.event_ids(biz_ids, phones),
        "biz_id": biz_ids,
        "phone_number": phones,
        "message_id": pa.array([_message_id(number) for number in numbers]),
        "revision": pa.repeat(pa.scalar(1, schema.field("revision").type), count),
        "match": pa.repeat("orphan", count),
        "origin": pa.repeat("mns", count),
        "success": pa.repeat(True, count),
        "err_code": pa.repeat("DELIVERED", count),
        "send_time": at,
        "report_time": at,
        "enqueued_at": at,
    }
    nothing = pa.array([{}] * count, pa.map_(pa.string(), pa.string()))
    columns = [
        known[field.name]
        if field.name in known
        else nothing
        if pa.types.is_map(field.type)
        else pa.nulls(count, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _message(number: int) -> MnsMessage:
    local = _NOON.astimezone(BEIJING).strftime("%Y-%m-%d %H:%M:%S")
    body = {
        "biz_id": _biz_id(number),
        "phone_number": _phone(number),
        "success": True,
        "err_code": "DELIVERED",
        "send_time": local,
        "report_time": local,
    }
    return MnsMessage(
        message_id=_message_id(number),
        queue_name="Alicom-Queue-1000000000000001-SmsReport",
        message_type="SmsReport",
        enqueued_at=_NOON,
        dequeue_count=2,
        body=base64.b64encode(json.dumps(body).encode()),
    )


def _biz_id(number: int) -> str:
    return f"{706_715_193_751_989_145 + number * 7919}^0"


def _phone(number: int) -> str:
    return f"138{number % 10**8:08}"


def _message_id(number: int) -> str:
    return f"{number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032X}"


if __name__ == "__main__":
    sys.exit(main())
