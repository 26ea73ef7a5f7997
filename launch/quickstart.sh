#!/usr/bin/env bash
# Makes a virtual environment in .venv, then trains the six techniques on the embedded data set and shows what they do.
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
make_environment ""
exec .venv/bin/python -m launch.quickstart "$@"
