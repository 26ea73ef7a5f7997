#!/usr/bin/env bash
# Makes a virtual environment in .venv, then runs the linter, the type checker, the tests, and, without any argument, a
# quick comparison of speeds, for information. Arguments go to pytest; --slow: the tests that take minutes too.
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
make_environment "[test]"
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
.venv/bin/python -m pytest -n 2 --dist loadfile --durations=15 "$@"
if [ $# -eq 0 ]; then
  echo "Ratios of speeds, for information:"
  JAX_PLATFORMS=cpu timeout 600 .venv/bin/python -m benchmarks.run --quick || echo "They could not be measured."
fi
