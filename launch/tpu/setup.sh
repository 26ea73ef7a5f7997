#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/tpu/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
Puts this checkout into the bucket and installs it on all workers of a slice: a virtual environment with Python 3.12,
JAX for TPU and this package. Again after a change of the code,
while nothing is running; what is there already is not downloaded twice.

  bash launch/tpu/setup.sh --name=sst --zone=us-west4-a --project=PROJECT --bucket=gs://BUCKET

Flags (or the environment: TPU_NAME, TPU_ZONE, TPU_PROJECT, TPU_BUCKET):
  --name=NAME        of the slice
  --zone=ZONE        its zone
  --project=PROJECT  Google Cloud project
  --bucket=gs://...  as for create.sh
  --dry-run          prints the commands and runs none

Exit codes: 0 done, 2 the command cannot be used, else that of gcloud.
TEXT
}

parse "name zone project bucket" "$@"
need_place
need_bucket
put_code
home=$(quoted "$BUCKET/$NAME")
script=$PLACE/startup.sh
on_all "set -o pipefail; sudo mkdir -p $PLACE && gcloud storage cp $home/code.tar.gz - | \
tar -xzO launch/tpu/startup.sh | sudo tee $script >/dev/null && sudo bash $script --home=$home --setup"
