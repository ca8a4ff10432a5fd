"""One run of one competitor in a process of its own: ``python -m benchmarks.child NAME ...``."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import time
from pathlib import Path


def main() -> None:
    """Import the competitor, note what that cost, do the job."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("function", help="module:function")
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--started_at", type=float, required=True, help="time.monotonic()")
    parser.add_argument("--imports", type=Path, required=True, help="file for the cost of imports")
    arguments = parser.parse_args()

    module, _, function = arguments.function.partition(":")
    job = getattr(importlib.import_module(module), function)
    generate = importlib.import_module("benchmarks.generate")
    used = os.times()
    arguments.imports.write_text(
        json.dumps(
            {
                "cpu_secs": used.user + used.system,
                "wall_secs": time.monotonic() - arguments.started_at,
            }
        ),
        "utf-8",
    )
    job(generate.Inputs(arguments.input), arguments.output)


if __name__ == "__main__":
    main()
