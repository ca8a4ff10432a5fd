#!/usr/bin/env bash
# Everything that must hold: style, types, who may import whom, shell scripts, and all tests.
# Flags are handed to pytest, e.g. ./run_tests.sh -m "not integration" -k join.
set -euo pipefail
cd "$(dirname "$0")"

# shellcheck source=setup_venv.sh
source ./setup_venv.sh ".[test]"

ruff check .
ruff format --check .
mypy
lint-imports
shellcheck ./*.sh .ci/run
pytest --numprocesses=2 --no-loadscope-reorder "$@"
