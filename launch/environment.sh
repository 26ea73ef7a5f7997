# Makes .venv with this package in it, if it is not there yet; sourced by quickstart.sh and test.sh.
# usage: source launch/environment.sh EXTRAS, with EXTRAS like "" or "[test]"

find_python() {
  local name
  for name in "${PYTHON:-}" python3.12 python3.11 python3.13 python3; do
    if [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 &&
      "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$name"
      return 0
    fi
  done
  echo "error: no Python 3.11 or newer with venv and pip was found. Install one (on Debian and Ubuntu:" \
    "apt-get install python3 python3-venv), or name one: PYTHON=/path/to/python bash $0" >&2
  return 1
}

make_environment() {
  local extras=$1 stamp python
  stamp=".venv/installed$extras"
  if [ -x .venv/bin/python ] && [ -f "$stamp" ] && [ "$stamp" -nt pyproject.toml ]; then
    return 0
  fi
  if [ ! -x .venv/bin/python ]; then
    python=$(find_python) || return 1
    echo "Making a virtual environment in .venv with $("$python" --version) ..."
    "$python" -m venv --clear .venv || return 1
  fi
  echo "Installing flax_attnat$extras and what it needs (a minute or two, 1.4 to 2.2 GB) ..."
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$extras" || return 1
  touch "$stamp"
}
