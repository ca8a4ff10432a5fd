"""The same job, written by hand on other tools; each module is one way of doing it.

All of them read what :mod:`benchmarks.generate` wrote and leave the same tables behind:
``enriched_reports/dt=*/``, ``unreported_sends/dt=*/`` and ``failed_events/``, all Parquet (zstd).
The names here are those of ``--skip`` and ``--only``; each stands for ``module:function``, imported
in a process of its own.
"""

from __future__ import annotations

from typing import Final

COMPETITORS: Final = {
    "duckdb": "benchmarks.competitors.duckdb_sql:run",
    "polars": "benchmarks.competitors.polars_lazy:run",
    "plain": "benchmarks.competitors.plain_python:run_with_validate",
    "plain-quiet": "benchmarks.competitors.plain_python:run_with_quiet_validate",
    "plain-msgspec": "benchmarks.competitors.plain_python:run_with_msgspec",
    "idiomatic": "benchmarks.competitors.idiomatic_beam:run_with_validate",
    "idiomatic-msgspec": "benchmarks.competitors.idiomatic_beam:run_with_msgspec",
    "ours": "benchmarks.competitors.sms_receipts:run",
    "ours-2-workers": "benchmarks.competitors.sms_receipts:run_with_two_workers",
}
REFERENCE: Final = "duckdb"
# Minutes a million rows, and nowhere near the others: one round says enough.
SLOW: Final = frozenset({"plain", "plain-quiet", "plain-msgspec", "idiomatic", "idiomatic-msgspec"})
# Nobody has corrections in this input: every outcome is the first of its key.
FIRST_REVISION: Final = 1
