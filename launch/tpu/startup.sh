#!/usr/bin/env bash
# Runs on every worker of a slice as root, at each boot (create.sh gives it to the slice) or by setup.sh.
set -euo pipefail

# As in common.sh, which is not there yet when this runs.
PLACE=/var/lib/flax_attnat
# A boot sets no HOME; prepared data, which go there, are found again whoever ran setup.sh or run.sh.
export HOME=$PLACE PATH=$PATH:/snap/bin
UNIT=flax-attnat
METADATA=http://metadata.google.internal/computeMetadata/v1/instance/attributes/flax-attnat-home

usage() {
  cat <<'TEXT'
Fetches the code from the bucket, installs it in a virtual environment, copies raw files, and starts the command that
create.sh put into the bucket, which goes on where it was stopped. It runs as the service flax-attnat: see it with
`journalctl -fu flax-attnat`, stop it with `systemctl stop flax-attnat`. Run by the workers, not by you.

Flags:
  --home=gs://...  folder of the bucket with code.tar.gz and command; otherwise asked of the metadata server
  --setup          installs only
  --dry-run        prints the commands and runs none
TEXT
}

die() {
  echo "error: $*" >&2
  exit 2
}

HOME_URL=""
SETUP=""
DRY_RUN=""
for argument in "$@"; do
  case $argument in
    --help | -h)
      usage
      exit 0
      ;;
    --dry-run) DRY_RUN=yes ;;
    --setup) SETUP=yes ;;
    --home=gs://?*) HOME_URL=${argument#--home=} ;;
    *) die "$argument is not a flag of this script; see --help." ;;
  esac
done
if [ -z "$HOME_URL" ] && [ -z "$DRY_RUN" ]; then
  HOME_URL=$(curl --fail --silent -H "Metadata-Flavor: Google" "$METADATA") || HOME_URL=""
fi
[ -n "$HOME_URL" ] || die "--home=gs://... is missing: give the folder of the bucket that create.sh made."
RAW_URL=${HOME_URL%/*}/raw

quoted() {
  local word line=""
  for word in "$@"; do
    case $word in
      "" | *[!A-Za-z0-9_./:=@%+,-]*) line="$line '$(printf %s "$word" | sed "s/'/'\\\\''/g")'" ;;
      *) line="$line $word" ;;
    esac
  done
  echo "${line# }"
}

step() {
  if [ -n "$DRY_RUN" ]; then
    quoted "$@"
  else
    echo "+ $(quoted "$@")" >&2
    "$@"
  fi
}

# Whether an object is there; a dry run shows what happens if it is.
is_there() {
  [ -n "$DRY_RUN" ] || gcloud storage ls "$1" >/dev/null 2>&1
}

fetch() {
  step rm -rf "$PLACE/code"
  step mkdir -p "$PLACE/code" "$PLACE/raw"
  step gcloud storage cp "$HOME_URL/code.tar.gz" "$PLACE/code.tar.gz"
  step tar -xzf "$PLACE/code.tar.gz" -C "$PLACE/code"
  if is_there "$RAW_URL"; then
    step gcloud storage rsync --recursive "$RAW_URL" "$PLACE/raw"
  fi
}

# The images bring Python 3.10, which this package is too new for; uv brings another.
install() {
  export UV_INSTALL_DIR=$PLACE/bin UV_PYTHON_INSTALL_DIR=$PLACE/python UV_CACHE_DIR=$PLACE/cache
  export UV_NO_MODIFY_PATH=1
  if [ -n "$DRY_RUN" ] || [ ! -x "$PLACE/bin/uv" ]; then
    step curl --fail --silent --show-error --location --retry 5 --output "$PLACE/uv.sh" https://astral.sh/uv/install.sh
    step sh "$PLACE/uv.sh"
  fi
  if [ -n "$DRY_RUN" ] || [ ! -x "$PLACE/venv/bin/python" ]; then
    step "$PLACE/bin/uv" venv --python 3.12 "$PLACE/venv"
  fi
  step "$PLACE/bin/uv" pip install --python "$PLACE/venv/bin/python" --editable "$PLACE/code[tpu,gcloud]"
}

# A service gets SIGTERM when the machine is taken away, and has 30 seconds to save. It is started again where another
# worker was lost or told to stop, not where the command cannot be used (2) or a run was frozen (3).
train() {
  step gcloud storage cp "$HOME_URL/command" "$PLACE/command"
  step systemd-run --unit="$UNIT" --collect \
    --property=WorkingDirectory="$PLACE/code" --property=TimeoutStopSec=30 \
    --property=Restart=on-failure --property=RestartSec=20 --property="RestartPreventExitStatus=2 3" \
    --setenv=HOME=$PLACE --setenv=PATH="$PLACE/venv/bin:/usr/local/bin:/usr/bin:/bin:/snap/bin" \
    --setenv=JAX_COMPILATION_CACHE_DIR="$HOME_URL/compiled" \
    bash "$PLACE/command"
}

# A boot and setup.sh may come at the same time.
if [ -z "$DRY_RUN" ]; then
  mkdir -p "$PLACE"
  exec 9>"$PLACE/lock"
  flock 9
fi
fetch
install
if [ -z "$SETUP" ]; then
  train
fi
