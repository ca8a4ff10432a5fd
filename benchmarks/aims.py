"""The figures as tables, and what the project holds itself to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from benchmarks.competitors import REFERENCE
from benchmarks.figures import Figures

_MILLION: Final = 1_000_000
_SMALL, _LARGE = _MILLION, 5 * _MILLION


class Aim(NamedTuple):
    """A ratio or size that must stay at or below ``most``."""

    text: str
    found: float
    most: float


def line(run: Figures) -> str:
    """One run in one line."""
    return (
        f"{run.name:<18} job {run.job_cpu_secs:7.2f} s CPU {run.job_wall_secs:7.2f} s wall | "
        f"whole {run.cpu_secs:7.2f} s CPU {run.wall_secs:7.2f} s wall | "
        f"peak {run.peak_process_mb:6.0f} MB a process, {run.peak_tree_mb:6.0f} MB all"
    )


def table(runs: Sequence[Figures]) -> str:
    """The best of the rounds by size and competitor, with ratios to the reference."""
    lines = []
    for rows in sorted({run.rows for run in runs}):
        best = _best(runs, rows)
        reference = best.get(REFERENCE)
        lines.append(f"\nbest of the rounds at {rows:,}; ratios to {REFERENCE}")
        for run in best.values():
            ratios = (
                f" | CPU x{run.job_cpu_secs / reference.job_cpu_secs:.2f}"
                f" wall x{run.job_wall_secs / reference.job_wall_secs:.2f}"
                if reference
                else ""
            )
            rate = f" | {run.rows / run.job_wall_secs:,.0f} reports/s"
            lines.append(line(run) + ratios + rate)
    return "\n".join(lines)


def verdicts(runs: Sequence[Figures]) -> str:
    """One line for each aim that these runs can judge."""
    found = list(_aims(runs))
    if not found:
        return f"\naims: they are set for {_SMALL:,} reports and more"
    return "\naims\n" + "\n".join(
        f"{'reached' if aim.found <= aim.most else 'MISSED '} {aim.text}: "
        f"{aim.found:.3g} (at most {aim.most:g})"
        for aim in found
    )


def _best(runs: Iterable[Figures], rows: int) -> dict[str, Figures]:
    """The lowest of each figure over the rounds, memory its highest."""
    by_name: dict[str, list[Figures]] = {}
    for run in runs:
        if run.rows == rows:
            by_name.setdefault(run.name, []).append(run)
    return {
        name: Figures(
            name=name,
            rows=rows,
            cpu_secs=min(run.cpu_secs for run in rounds),
            wall_secs=min(run.wall_secs for run in rounds),
            job_cpu_secs=min(run.job_cpu_secs for run in rounds),
            job_wall_secs=min(run.job_wall_secs for run in rounds),
            peak_process_mb=max(run.peak_process_mb for run in rounds),
            peak_tree_mb=max(run.peak_tree_mb for run in rounds),
        )
        for name, rounds in by_name.items()
    }


def _aims(runs: Sequence[Figures]) -> Iterator[Aim]:
    small, large = _best(runs, _SMALL), _best(runs, _LARGE)
    for rows in sorted({run.rows for run in runs if run.rows >= _SMALL}):
        yield from _aims_at(f"{rows:,}", _best(runs, rows))
    if workers := large.get("ours-2-workers"):
        for name, most in ((REFERENCE, 1.4), ("polars", 1.0)):
            if other := large.get(name):
                ratio = workers.wall_secs / other.wall_secs
                yield Aim(f"5,000,000: wall with two workers over {name}'s", ratio, most)
    for name in ("ours", "ours-2-workers"):
        if name in small and name in large:
            growth = large[name].peak_process_mb / small[name].peak_process_mb
            yield Aim(f"memory of {name}, 5,000,000 over 1,000,000", growth, 1.5)


def _aims_at(size: str, best: dict[str, Figures]) -> Iterator[Aim]:
    ours = best.get("ours")
    if ours is None:
        return
    for name, most in (
        (REFERENCE, 1.25),
        ("plain", 1 / 10),
        ("idiomatic", 1 / 8),
        ("idiomatic-msgspec", 1 / 8),
    ):
        if other := best.get(name):
            ratio = ours.job_cpu_secs / other.job_cpu_secs
            yield Aim(f"{size}: CPU after imports over {name}'s", ratio, most)
    for name in ("ours", "ours-2-workers"):
        if name in best:
            yield Aim(f"{size}: MB a process of {name}", best[name].peak_process_mb, 800)
