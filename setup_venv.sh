# shellcheck shell=bash
# Sourced by run_local.sh and run_tests.sh: make .venv with this project installed, and put it on the PATH.
# $1 is what to install: "." or ".[test]".

for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python3.10 python3.14; do
  if [ -n "$candidate" ] && "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "${python:-}" ]; then
  echo "Python 3.10 or later, with its venv module, is needed: install it, or set PYTHON=/path/to/python3." >&2
  exit 1
fi

if [ ! -x .venv/bin/python ]; then
  "$python" -m venv .venv
fi
# Installed once for each state of setup.py; a stamp that is missing or old means: again.
stamp=".venv/installed-$(cksum <setup.py | tr ' ' -)-$(printf %s "$1" | cksum | tr ' ' -)"
if [ ! -e "$stamp" ]; then
  echo "Installing the packages of setup.py into .venv (a minute or two, once) ..." >&2
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable "$1"
  touch "$stamp"
fi
PATH="$PWD/.venv/bin:$PATH"
export PATH
