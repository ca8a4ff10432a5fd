"""The bounded graph beside the same job on other tools, in interleaved rounds on one input.

    python -m benchmarks.bounded --rows 1000000 --rounds 3
    python -m benchmarks.bounded --rows 1000000 5000000 --only duckdb,polars,ours,ours-2-workers

Every run is a process of its own. Its CPU is that of the whole process tree, its output is digested
and compared with everybody else's in the same run, and figures are the best of the rounds, as
ratios to DuckDB's. Exits with 1 when outputs differ.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks import aims, measure, verify
from benchmarks.competitors import COMPETITORS, REFERENCE, SLOW
from benchmarks.figures import Figures
from benchmarks.generate import Inputs, generate

# The per-record competitors keep every record as a dict: at five million they would need 15 GB.
_SLOW_ROWS_MAX: Final = 1_000_000
_TOOLS: Final = ("apache-beam", "duckdb", "polars", "pyarrow", "datafusion", "fastavro", "msgspec")


@dataclass(frozen=True)
class Plan:
    """What one invocation runs."""

    rows: Sequence[int]
    rounds: int
    names: Sequence[str]
    seed: int
    workdir: Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark that the arguments describe; returns the exit code."""
    plan, results_file = _parse(argv)
    runs: list[Figures] = []
    complaints: list[str] = []
    for rows in plan.rows:
        inputs = generate(rows, plan.seed, plan.workdir)
        print(f"\n{rows:,} reports, {rows:,} send log entries: {inputs.root}", flush=True)
        at_size, found = _run_size(plan, rows, inputs)
        runs.extend(at_size)
        complaints.extend(found)
    print(aims.table(runs))
    print(aims.verdicts(runs))
    print("outputs: " + ("; ".join(complaints) or "equal in every column, and as generated"))
    results = {
        "machine": _machine(),
        "runs": [asdict(run) for run in runs],
        "differences": complaints,
    }
    results_file.write_text(json.dumps(results, indent=1), "utf-8")
    print(f"all figures: {results_file}")
    return 1 if complaints else 0


def _parse(argv: Sequence[str] | None) -> tuple[Plan, Path]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--rounds", type=int, default=3, help="the slow ones run once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--skip", default="", help=f"comma-separated, of {', '.join(COMPETITORS)}")
    parser.add_argument(
        "--only", default=",".join(COMPETITORS), help="the same, the other way round"
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        default=Path(tempfile.gettempdir()) / "sms-receipts-benchmark",
        help="inputs stay here and are used again (default %(default)s)",
    )
    parser.add_argument("--results", type=Path, help="JSON file (default: in the workdir)")
    arguments = parser.parse_args(argv)
    only, skip = set(arguments.only.split(",")), set(filter(None, arguments.skip.split(",")))
    if unknown := (only | skip) - COMPETITORS.keys():
        parser.error(f"no such competitor: {', '.join(sorted(unknown))}")
    arguments.workdir.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        rows=arguments.rows,
        rounds=arguments.rounds,
        names=[name for name in COMPETITORS if name in only - skip],
        seed=arguments.seed,
        workdir=arguments.workdir,
    )
    return plan, arguments.results or arguments.workdir / "bounded.json"


def _run_size(plan: Plan, rows: int, inputs: Inputs) -> tuple[list[Figures], list[str]]:
    runs: list[Figures] = []
    complaints: list[str] = []
    reference: verify.Digest | None = None
    for number in range(plan.rounds):
        for name in plan.names:
            if name in SLOW and (number or rows > _SLOW_ROWS_MAX):
                continue
            output = plan.workdir / "output" / name
            shutil.rmtree(output, ignore_errors=True)
            output.mkdir(parents=True)
            figures = _run_once(plan, rows, inputs, name, output)
            print(f"  round {number + 1}: {aims.line(figures)}", flush=True)
            runs.append(figures)
            digested = verify.digest(output)
            reference = reference or digested
            found = verify.differences(reference, digested) + _unexpected(inputs, digested)
            complaints.extend(f"{name} at {rows:,}: {difference}" for difference in found)
            shutil.rmtree(output)
    return runs, complaints


def _run_once(plan: Plan, rows: int, inputs: Inputs, name: str, output: Path) -> Figures:
    imports_file = plan.workdir / "imports.json"
    command = [
        *(sys.executable, "-m", "benchmarks.child", COMPETITORS[name]),
        *("--input", str(inputs.root), "--output", str(output)),
        *("--imports", str(imports_file), "--started_at", repr(time.monotonic())),
    ]
    usage = measure.run(command, plan.workdir / f"{name}.log")
    imports = json.loads(imports_file.read_text("utf-8"))
    return Figures(
        name=name,
        rows=rows,
        cpu_secs=usage.cpu_secs,
        wall_secs=usage.wall_secs,
        job_cpu_secs=usage.cpu_secs - imports["cpu_secs"],
        job_wall_secs=usage.wall_secs - imports["wall_secs"],
        peak_process_mb=usage.peak_process_mb,
        peak_tree_mb=usage.peak_tree_mb,
    )


def _unexpected(inputs: Inputs, digested: verify.Digest) -> list[str]:
    counted = verify.counts(digested)
    return [
        f"{counted.get(name, 0)} rows of {name}, {expected} were generated"
        for name, expected in inputs.expected.items()
        if counted.get(name, 0) != expected
    ]


def _machine() -> dict[str, object]:
    versions = {tool: importlib.metadata.version(tool) for tool in _TOOLS}
    return {
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "reference": REFERENCE,
        **versions,
    }


if __name__ == "__main__":
    sys.exit(main())
