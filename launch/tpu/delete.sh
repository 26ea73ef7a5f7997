#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/tpu/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
Deletes a slice and its queued resource, which ends the cost; also one that was taken away, before create.sh asks for
the same name again. What is in the bucket stays.

  bash launch/tpu/delete.sh --name=sst --zone=us-west4-a --project=PROJECT

Flags (or the environment: TPU_NAME, TPU_ZONE, TPU_PROJECT):
  --name=NAME        of the slice
  --zone=ZONE        its zone
  --project=PROJECT  Google Cloud project
  --dry-run          prints the command and does not run it

Exit codes: 0 done, 2 the command cannot be used, else that of gcloud.
TEXT
}

parse "name zone project" "$@"
need_place
step gcloud compute tpus queued-resources delete "$NAME" --project="$PROJECT" --zone="$ZONE" --force --quiet
