#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/tpu/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
Asks Cloud TPU for a slice, and puts this checkout into the bucket. Each worker installs it when it boots; with a
COMMAND it then starts that, and does so again at every later boot, so that the training goes on where it was stopped.

  bash launch/tpu/create.sh --name=sst --zone=us-west4-a --type=v5litepod-8 --project=PROJECT --bucket=gs://BUCKET
  bash launch/tpu/create.sh ... --spot -- python -m launch.ablate --config=configs/ablation_sst.py \
      --workdir=gs://BUCKET/sst/run

Flags (or the environment: TPU_NAME, TPU_ZONE, TPU_TYPE, TPU_PROJECT, TPU_BUCKET):
  --name=NAME        of the slice and its queued resource
  --zone=ZONE        us-west4-a, say
  --type=TYPE        accelerator type: v5litepod-8, v6e-8, v5p-8, v4-8, ...
  --project=PROJECT  Google Cloud project
  --bucket=gs://...  code goes to NAME/ in it, compiled programs to NAME/compiled/, and raw files are taken from raw/
  --spot             a cheaper slice that may be taken away at any time
  --dry-run          prints the commands and runs none

Exit codes: 0 done, 2 the command cannot be used, else that of gcloud.
TEXT
}

parse "name zone type project bucket spot --" "$@"
need_place
need type "$TYPE" "the accelerator type, v5litepod-8 say"
need_bucket
case $TYPE in
  v2-* | v3-* | v4-*) RUNTIME=tpu-ubuntu2204-base ;;
  v5litepod-*) RUNTIME=v2-alpha-tpuv5-lite ;;
  v5p-*) RUNTIME=v2-alpha-tpuv5 ;;
  v6e-*) RUNTIME=v2-alpha-tpuv6e ;;
  *) die "--type=$TYPE is not known here: give v2-N, v3-N, v4-N, v5litepod-N, v5p-N or v6e-N." ;;
esac

put_code
# Without a command too, lest a boot find that of an earlier slice of this name.
put "$BUCKET/$NAME/command" echo "exec ${COMMAND:-true}"
set -- --project="$PROJECT" --zone="$ZONE" --node-id="$NAME" --accelerator-type="$TYPE" --runtime-version="$RUNTIME"
set -- "$@" --scopes=https://www.googleapis.com/auth/cloud-platform
set -- "$@" --metadata="flax-attnat-home=$BUCKET/$NAME"
set -- "$@" --metadata-from-file="startup-script=$(dirname "${BASH_SOURCE[0]}")/startup.sh"
if [ -n "$SPOT" ]; then
  set -- "$@" --spot
fi
step gcloud compute tpus queued-resources create "$NAME" "$@"
