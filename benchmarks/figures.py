"""What is measured of one run of the bounded benchmark."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """One run. ``job_*`` leaves out the start of the interpreter and the imports.

    With worker processes, the start and imports of the workers are inside the job.
    """

    name: str
    rows: int
    cpu_secs: float
    wall_secs: float
    job_cpu_secs: float
    job_wall_secs: float
    peak_process_mb: float
    peak_tree_mb: float
