"""Hours at a steady rate under mild faults: does memory grow, does a thread, file or socket stay behind?

    python -m benchmarks.soak --minutes 60 --per_sec 200

``sms-receipts run --follow`` reads the emulator's queues while its application sends SMS and a fault plan
disturbs them. Every ten seconds the job is looked at from outside, children included. Then it is asked to
stop, and its books are closed: every message that was on the queues is in the archive or still on them, what
is in the archive was processed, and no row is there twice.

The first part of the run is the warm-up; what counts is the rest. Its first part is compared with its last:
the median of the resident memory, and the least number of descriptors, sockets and threads, since whatever
is only in use for a while is not in the least. The command exits with 1 when an aim is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import measure
from benchmarks.emulator_process import emulator_process

_ROOT: Final = Path(__file__).parents[1]
_QUEUES: Final = tuple(
    f"Alicom-Queue-1000000000000001-{message_type}" for message_type in ("SmsReport", "SmsUp")
)
# Warm-up, first and last part: a sixth of the run each.
_PARTS: Final = 6
_MOST_GROWTH: Final = 0.02
# How often to see whether the job has begun.
_START_SECS: Final = 0.2
# What a clean stop may take (issued by systemd, kubernetes...), and what we wait before giving up on it.
_STOP_SECS, _GIVE_UP_SECS = 30.0, 120.0
# Reports and sends that do not find each other shall leave during the warm-up, or what waits would grow.
_PATIENCE_SECS: Final = 120
_CARRIER_DELAY_SECS: Final = 5
_ENVIRONMENT: Final = {
    **os.environ,
    "ALIBABA_CLOUD_ACCESS_KEY_ID": "emulator-key-id",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "emulator-key-secret",
}


class Sample(NamedTuple):
    """The job at one moment, all its processes together; memory in MB, of 1,048,576 bytes."""

    at_secs: float
    """Since the job began to read."""
    resident_mb: float
    anonymous_mb: float
    """Of the resident memory, what is no page of a file."""
    descriptors: int
    sockets: int
    """Of the descriptors."""
    threads: int
    processes: int
    cpu_secs: float
    on_queue: int
    """Messages that wait at the emulator, hidden or not."""


class Growth(NamedTuple):
    """What changed between the first part after the warm-up and the last; shares of the first."""

    resident: float
    anonymous: float
    descriptors: int
    sockets: int
    threads: int

    @property
    def is_none(self) -> bool:
        """Whether the aims are reached."""
        is_flat = self.resident <= _MOST_GROWTH
        return is_flat and max(self.descriptors, self.sockets, self.threads) <= 0


class Books(NamedTuple):
    """Where the messages of the whole run went."""

    delivered: int
    """Put on the queues, by the emulator's count."""
    archived: int
    """Different ones in the archive."""
    left: int
    """Still on the queues, and not in the archive."""
    archived_again: int
    """Messages in the archive that are there already, since the queue handed them out once more."""
    decoded: int
    failed: int
    doubled_rows: int
    """Rows of a table that repeat another one."""

    @property
    def missing(self) -> int:
        """Messages that are nowhere."""
        return self.delivered - self.archived - self.left

    @property
    def is_closed(self) -> bool:
        """Whether every message is in exactly one place."""
        is_processed = self.archived + self.archived_again == self.decoded + self.failed
        return is_processed and not self.missing and not self.doubled_rows


@dataclass(frozen=True)
class Plan:
    """A soak: how long, at how many SMS per second, under which faults.

    Attributes:
        minutes: since the job began to read.
        per_sec: SMS per second.
        faults: the emulator's fault plan, a file or the name of one that comes along.
        job_flags: more flags for ``sms-receipts run``.
        sample_secs: how often the job is looked at.
    """

    minutes: float = 60.0
    per_sec: float = 200.0
    faults: str = "mild"
    job_flags: Sequence[str] = ()
    sample_secs: float = 10.0


class SoakFigures(NamedTuple):
    """What a soak has shown."""

    samples: Sequence[Sample]
    growth: Growth
    books: Books
    injected_faults: int
    stop_secs: float
    """From SIGTERM to the end of the job."""

    @property
    def is_reached(self) -> bool:
        """Whether all aims are."""
        return self.growth.is_none and self.books.is_closed and self.stop_secs <= _STOP_SECS


def growth_of(samples: Sequence[Sample]) -> Growth:
    """Compare the first part after the warm-up with the last one.

    Args:
        samples: in the order of time; three at least.
    """
    span_secs = samples[-1].at_secs / _PARTS
    first = [sample for sample in samples if span_secs <= sample.at_secs <= 2 * span_secs]
    last = [sample for sample in samples if sample.at_secs >= samples[-1].at_secs - span_secs]

    def share(field: str) -> float:
        before, after = (
            statistics.median(getattr(sample, field) for sample in part) for part in (first, last)
        )
        return float(after / before - 1)

    def more(field: str) -> int:
        before, after = (min(getattr(sample, field) for sample in part) for part in (first, last))
        return int(after - before)

    return Growth(
        resident=share("resident_mb"),
        anonymous=share("anonymous_mb"),
        descriptors=more("descriptors"),
        sockets=more("sockets"),
        threads=more("threads"),
    )


def soak(plan: Plan, root: Path) -> SoakFigures:
    """Run the job for some minutes in the empty directory ``root``, stop it, and close its books."""
    (root / "send_log").mkdir()
    with emulator_process(
        f"--faults={plan.faults}",
        *(f"--traffic_per_sec={plan.per_sec}", f"--traffic_send_log={root / 'send_log'}"),
        f"--carrier_delay_secs={_CARRIER_DELAY_SECS}",
    ) as (_, endpoint):
        with _job(plan, root, endpoint) as job:
            samples = list(_watched(job, root / "job.log", endpoint, plan))
            began = time.monotonic()
            job.send_signal(signal.SIGTERM)
            exit_code = job.wait(_GIVE_UP_SECS)
            stop_secs = time.monotonic() - began
        if exit_code:
            log = (root / "job.log").read_text("utf-8", "replace")
            raise RuntimeError(f"the job ended with exit code {exit_code}: {log[-2000:]}")
        injected = sum(rule["injected"] for rule in _asked(endpoint, "/faults")["counts"])
        books = _books(root, endpoint)
    return SoakFigures(samples, growth_of(samples), books, injected, stop_secs)


@contextmanager
def _job(plan: Plan, root: Path, endpoint: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        *(sys.executable, "-m", "pipeline", "run", "--follow"),
        *(f"--mns_queues={','.join(_QUEUES)}", f"--mns_endpoint={endpoint}"),
        *(f"--dybaseapi_endpoint={endpoint}", f"--send_log={root / 'send_log'}"),
        *(f"--archive={root / 'archive'}", f"--dataset={root / 'dataset'}"),
        *(f"--join_patience_secs={_PATIENCE_SECS}", *plan.job_flags),
    ]
    with (root / "job.log").open("wb") as log:
        job = subprocess.Popen(  # noqa: S603 - our own command
            command, cwd=_ROOT, env=_ENVIRONMENT, stdout=log, stderr=log
        )
    try:
        yield job
    finally:
        if job.poll() is None:
            job.kill()
            job.wait()


def _watched(
    job: subprocess.Popen[bytes], log: Path, endpoint: str, plan: Plan
) -> Iterator[Sample]:
    """Look at the job, from its first words on, until the time is over; prints a line a minute."""
    while b"queues: reading" not in log.read_bytes():
        _pass(job, _START_SECS)
    began = time.monotonic()
    printed = 0
    while (left_secs := began + plan.minutes * 60 - time.monotonic()) > 0:
        _pass(job, min(plan.sample_secs, left_secs))
        sample = _sampled(job.pid, endpoint, time.monotonic() - began)
        yield sample
        if sample.at_secs // 60 > printed:
            printed = int(sample.at_secs // 60)
            print(f"{printed:>4} min {_line(sample)}", flush=True)


def _pass(job: subprocess.Popen[bytes], secs: float) -> None:
    """Let the job work for a while."""
    try:
        exit_code = job.wait(secs)
    except subprocess.TimeoutExpired:
        return
    raise RuntimeError(f"the job ended by itself, with exit code {exit_code}")


def _sampled(pid: int, endpoint: str, at_secs: float) -> Sample:
    pids = measure.process_tree(pid)
    memory = [measure.memory_kb(each) for each in pids]
    links = [link for each in pids for link in _descriptors(each)]
    return Sample(
        at_secs=at_secs,
        resident_mb=sum(sizes.get("VmRSS", 0) for sizes in memory) / 1024,
        anonymous_mb=sum(sizes.get("RssAnon", 0) for sizes in memory) / 1024,
        descriptors=len(links),
        sockets=sum(link.startswith("socket:") for link in links),
        threads=sum(len(os.listdir(f"/proc/{each}/task")) for each in pids),
        processes=len(pids),
        cpu_secs=measure.cpu_of(pid),
        on_queue=_depth(_asked(endpoint, "")),
    )


def _depth(overview: dict[str, Any]) -> int:
    return sum(sum(depths.values()) for depths in overview["queues"].values())


def _descriptors(pid: int) -> list[str]:
    links = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            links.append(os.readlink(entry.path))
        except OSError:
            continue  # closed meanwhile
    return links


def _asked(endpoint: str, what: str) -> Any:
    with urllib.request.urlopen(f"{endpoint}/emulator{what}", timeout=60) as answer:  # noqa: S310
        return json.load(answer)


def _books(root: Path, endpoint: str) -> Books:
    messages = _archived_ids(root / "archive")
    archived = frozenset(messages)
    # Traffic goes on, but both numbers are of one moment, and no archived message is new on the queues.
    overview = _asked(endpoint, "")
    undeleted = len(archived & _on_queues(endpoint))
    counts = _counts(root / "dataset")
    return Books(
        delivered=sum(overview["delivered"].values()),
        archived=len(archived),
        left=_depth(overview) - undeleted,
        archived_again=len(messages) - len(archived),
        decoded=counts["decoded_messages"],
        failed=counts["failed_messages"],
        doubled_rows=_doubled_rows(root / "dataset"),
    )


def _archived_ids(archive: Path) -> list[str]:
    """The message ids of the whole archive, repeats included."""
    ids: list[str] = []
    for path in archive.glob("*/landed=*/*.avro"):
        with path.open("rb") as file:
            records: Iterator[Any] = iter(fastavro.reader(file))
            ids += [record["message_id"] for record in records]
    return ids


def _on_queues(endpoint: str) -> frozenset[str]:
    """The ids of the messages that are on the queues, hidden or not."""
    queues = [_asked(endpoint, f"/queues/{name}") for name in _QUEUES]
    return frozenset(each for states in queues for ids in states.values() for each in ids)


def _counts(dataset: Path) -> Counter[str]:
    total: Counter[str] = Counter()
    with closing(_catalog(dataset)) as catalog:
        for (counts,) in catalog.execute("SELECT counts FROM epochs WHERE kind = 'run'"):
            total.update(json.loads(counts))
    return total


def _doubled_rows(dataset: Path) -> int:
    identities = {
        "enriched_reports": ["event_id", "message_id", "revision", "match"],
        # An inbound SMS and a failed event are named by their message.
        "inbound_sms": ["message_id"],
        "failed_events": ["message_id"],
        "unreported_sends": ["event_id"],
    }
    doubled = 0
    with closing(_catalog(dataset)) as catalog:
        for table, identity in identities.items():
            paths = catalog.execute(
                "SELECT path FROM data_files WHERE table_name = ? AND removed_by IS NULL", (table,)
            ).fetchall()
            files = [pq.read_table(dataset / path, columns=identity) for (path,) in paths]
            if files:
                rows = pa.concat_tables(files)
                doubled += rows.num_rows - rows.group_by(identity).aggregate([]).num_rows
    return doubled


def _catalog(dataset: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{(dataset / 'catalog.sqlite').as_uri()}?mode=ro", uri=True)


def _line(sample: Sample) -> str:
    return (
        f"{sample.resident_mb:>7.1f} MB resident, {sample.anonymous_mb:.1f} anonymous; "
        f"{sample.descriptors} descriptors, {sample.sockets} sockets, {sample.threads} threads; "
        f"{sample.cpu_secs:.0f} s CPU; {sample.on_queue:,} on the queues"
    )


def _verdicts(figures: SoakFigures) -> Iterator[tuple[bool, str]]:
    growth, books = figures.growth, figures.books
    yield (
        growth.resident <= _MOST_GROWTH,
        f"resident memory grew by {growth.resident:+.2%}, anonymous by {growth.anonymous:+.2%} "
        f"(aim: at most {_MOST_GROWTH:.0%})",
    )
    for field in ("descriptors", "sockets", "threads"):
        more = getattr(growth, field)
        yield more <= 0, f"{field}: {more:+} (aim: none left behind)"
    yield (
        books.is_closed,
        f"{books.delivered:,} messages delivered = {books.archived:,} archived + {books.left:,} left on the "
        f"queues + {books.missing:,} missing; with {books.archived_again:,} redelivered ones, "
        f"{books.decoded:,} decoded + {books.failed:,} failed; {books.doubled_rows:,} rows doubled",
    )
    yield figures.stop_secs <= _STOP_SECS, f"stopped within {figures.stop_secs:.1f} s of SIGTERM"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code, 1 when an aim is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Every other flag is handed to the job: --epoch_secs=0.5, --landing_processes=2...",
        allow_abbrev=False,
    )
    parser.add_argument("--minutes", type=float, default=Plan.minutes)
    parser.add_argument("--per_sec", type=float, default=Plan.per_sec, help="SMS per second")
    parser.add_argument("--faults", default=Plan.faults, help="fault plan of the emulator")
    parser.add_argument(
        "--results", type=Path, default=Path(tempfile.gettempdir()) / "sms-receipts-soak.json"
    )
    arguments, job_flags = parser.parse_known_args(argv)
    plan = Plan(arguments.minutes, arguments.per_sec, arguments.faults, job_flags)
    with tempfile.TemporaryDirectory(prefix="sms-receipts-soak-") as root:
        figures = soak(plan, Path(root))
    print(
        f"\n{plan.minutes:g} minutes at {plan.per_sec:g} SMS a second, {figures.injected_faults:,} faults; "
        f"warm-up {plan.minutes / _PARTS:g} minutes"
    )
    for is_reached, sentence in _verdicts(figures):
        print(f"  {'reached' if is_reached else 'MISSED '}  {sentence}")
    arguments.results.write_text(json.dumps(_document(plan, figures), indent=1), "utf-8")
    print(f"all figures: {arguments.results}")
    return 0 if figures.is_reached else 1


def _document(plan: Plan, figures: SoakFigures) -> dict[str, object]:
    return {
        **asdict(plan),
        **figures._asdict(),
        "samples": [sample._asdict() for sample in figures.samples],
        "growth": figures.growth._asdict(),
        "books": figures.books._asdict(),
    }


if __name__ == "__main__":
    sys.exit(main())
