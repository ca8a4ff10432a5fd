"""A month of reports in the many files that epochs make, and in the few that ``compact`` makes of them.

    python -m benchmarks.compaction --days 30 --rows 1000000

A Beijing day begins with the most files that the job's own merging leaves of a table, 60 of four sizes; with
``--epochs``, with those of so many epochs, unmerged. Measured are the report of all days and of one, the
lookup of one ``biz_id``, and the audit; each from the disk (the files are dropped from the page cache before)
and once more. Then the dataset is compacted, and all of it measured again. The audit asks a server of this
module, which knows what was generated. Exits with 1 if an answer or a row is another one afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple, TypeVar
from urllib.parse import parse_qs, urlsplit

from analytics.catalog import read_snapshot
from analytics.connection import open_tables
from benchmarks import measure
from benchmarks.month import Truth, write_month

_KEYS: Final = {
    "ALIBABA_CLOUD_ACCESS_KEY_ID": "a-key",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "a-secret",
}


_Result = TypeVar("_Result")


class Taken(NamedTuple):
    """What one question took, from the disk and again; CPU and memory of the second time."""

    cold_secs: float
    warm_secs: float
    cpu_secs: float
    peak_mb: float


class Seen(NamedTuple):
    """The dataset at one time: its files and bytes, how long the questions took, what they answered."""

    files: int
    size: int
    taken: dict[str, Taken]
    answers: object


def main(argv: Sequence[str] | None = None) -> int:
    """Make the dataset, measure, compact, measure again; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rows", type=int, default=1_000_000, help="sends of a day")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="a day's files are those of so many epochs")
    parser.add_argument(
        "--workdir", type=Path, default=Path(tempfile.gettempdir()) / "sms-receipts-benchmark"
    )
    arguments = parser.parse_args(argv)
    os.environ.update(_KEYS)
    root = arguments.workdir / "compaction"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    began = time.monotonic()
    truths = _apart(
        write_month,
        root / "dataset",
        arguments.days,
        arguments.rows,
        arguments.seed,
        arguments.epochs,
    )
    print(f"{arguments.days} days written in {time.monotonic() - began:.0f} s", flush=True)
    with _totals_served(truths) as url:
        before = _look(root, url, truths)
        _print("before", before)
        usage = measure.run(
            [sys.executable, "-m", "pipeline", "compact", f"--dataset={root / 'dataset'}"],
            root / "compact.log",
        )
        print(
            f"compact: {usage.wall_secs:,.1f} s, {usage.cpu_secs:,.1f} CPU s, "
            f"{usage.peak_process_mb:,.0f} MB at most",
            flush=True,
        )
        after = _look(root, url, truths)
    _print("after", after)
    for name, then in before.taken.items():
        now = after.taken[name]
        print(
            f"{name:<14} {then.cold_secs / now.cold_secs:>6.1f} x faster from the disk, "
            f"{then.warm_secs / now.warm_secs:.1f} x again, {then.cpu_secs / now.cpu_secs:.1f} x less CPU"
        )
    is_same = before.answers == after.answers
    print(f"answers and rows: {'the same' if is_same else 'NOT THE SAME'}")
    return 0 if is_same else 1


def _look(root: Path, url: str, truths: Sequence[Truth]) -> Seen:
    dataset, log = root / "dataset", root / "question.log"
    snapshot = read_snapshot(dataset)
    files = [file.path for of_table in snapshot.files.values() for file in of_table]
    rows, biz_id = _apart(_rows, dataset, truths)
    answers: list[object] = [rows]

    def ask(*question: str) -> measure.Usage:
        usage = measure.run(
            [sys.executable, "-m", "pipeline", *question, f"--dataset={dataset}", "--json"], log
        )
        told = log.read_text("utf-8")
        document = json.loads(told[told.index("{") :])
        answers.append(document.get("answers") or document["days"])
        return usage

    def look_up() -> measure.Usage:
        usage, found = _apart(_look_up, dataset, biz_id)
        answers.append(found)
        return usage

    first, last = truths[0].day, truths[-1].day
    days = (f"--from={first}", f"--to={last}")
    questions: dict[str, Callable[[], measure.Usage]] = {
        "report": lambda: ask("report"),
        "report, a day": lambda: ask("report", f"--from={last}", f"--to={last}"),
        "lookup": look_up,
        "audit": lambda: ask("audit", *days, f"--dysmsapi_endpoint={url}"),
    }
    taken = {}
    for name, question in questions.items():
        _forget(files)
        cold, warm = question(), question()
        taken[name] = Taken(cold.wall_secs, warm.wall_secs, warm.cpu_secs, warm.peak_process_mb)
    return Seen(len(files), sum(path.stat().st_size for path in files), taken, answers)


def _print(when: str, seen: Seen) -> None:
    print(f"{when}: {seen.files:,} files, {seen.size / 1e6:,.0f} MB")
    for name, taken in seen.taken.items():
        print(
            f"  {name:<14}{taken.cold_secs:>9.2f} s{taken.warm_secs:>9.2f} s"
            f"{taken.cpu_secs:>9.2f} CPU s{taken.peak_mb:>9,.0f} MB"
        )
    sys.stdout.flush()


def _rows(dataset: Path, truths: Sequence[Truth]) -> tuple[list[object], str]:
    """What all rows of each table add up to, and a biz_id of a day in the middle."""
    middle = truths[len(truths) // 2].day
    snapshot = read_snapshot(dataset)
    with closing(open_tables(snapshot, None, None)) as connection:
        sums: list[object] = [
            connection.execute(
                f"SELECT count(*), sum(hash(rows)) FROM {table} AS rows"  # noqa: S608 - our names
            ).fetchall()
            for table in sorted(snapshot.files)
        ]
        ((biz_id,),) = connection.execute(
            "SELECT max(biz_id) FROM enriched_reports WHERE send_time < CAST(? AS TIMESTAMPTZ)",
            [f"{middle}T04:00:00Z"],
        ).fetchall()
    return sums, str(biz_id)


def _look_up(dataset: Path, biz_id: str) -> tuple[measure.Usage, object]:
    """Find the rows of a send, without any view."""
    began, cpu_secs = time.monotonic(), time.process_time()
    with closing(open_tables(read_snapshot(dataset), None, None)) as connection:
        query = "SELECT event_id, revision FROM enriched_reports WHERE biz_id = ? ORDER BY ALL"
        found = connection.execute(query, [biz_id]).fetchall()
    wall_secs, cpu_secs = time.monotonic() - began, time.process_time() - cpu_secs
    peak_mb = measure.memory_kb(os.getpid()).get("VmHWM", 0) / 1024
    return measure.Usage(cpu_secs, wall_secs, peak_mb, peak_mb), found


def _apart(function: Callable[..., _Result], *given: object) -> _Result:
    """Call a function in a process of its own: its memory is not that of what is measured next."""
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        return pool.submit(function, *given).result()


def _forget(files: Sequence[Path]) -> None:
    """Have the kernel drop these files from its page cache, so that they are read from the disk."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


@contextmanager
def _totals_served(truths: Sequence[Truth]) -> Iterator[str]:
    """Answer QuerySendStatistics from the truth; yields the address."""
    rows = [
        {
            "SendDate": f"{truth.day:%Y%m%d}",
            "TotalCount": truth.sent,
            "RespondedSuccessCount": truth.delivered,
            "RespondedFailCount": truth.failed,
            "NoRespondedCount": truth.sent - truth.delivered - truth.failed,
        }
        for truth in truths
    ]

    class Totals(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            given = parse_qs(urlsplit(self.path).query)
            of_place = rows if given["IsGlobe"] == ["1"] else []
            start = (int(given["PageIndex"][0]) - 1) * int(given["PageSize"][0])
            shown = of_place[start : start + int(given["PageSize"][0])]
            data = {"TargetList": shown, "TotalSize": len(of_place)}
            body = json.dumps({"Code": "OK", "Message": "OK", "Data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Totals) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


if __name__ == "__main__":
    sys.exit(main())
