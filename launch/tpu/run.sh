#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/tpu/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
Runs a command on all workers of a slice at once, in the folder of the code, and shows what they print. Compiled
programs are kept in the bucket. Whatever lasts longer than this terminal is better given to create.sh.

  bash launch/tpu/run.sh --name=sst --zone=us-west4-a --project=PROJECT --bucket=gs://BUCKET -- \
      python -m launch.ablate --config=configs/ablation_sst.py --workdir=gs://BUCKET/sst/run

Flags (or the environment: TPU_NAME, TPU_ZONE, TPU_PROJECT, TPU_BUCKET):
  --name=NAME        of the slice
  --zone=ZONE        its zone
  --project=PROJECT  Google Cloud project
  --bucket=gs://...  as for create.sh
  --dry-run          prints the commands and runs none

Exit codes: 0 done, 2 the command cannot be used, else that of the command.
TEXT
}

parse "name zone project bucket --" "$@"
need_place
need_bucket
[ -n "$COMMAND" ] || die "the command is missing: write it after --, for example -- python -m launch.ablate --help."
# As root, like the training that a boot starts: the TPU library leaves files that one user only can open.
on_all "cd $PLACE/code && sudo env HOME=$PLACE PATH=$PLACE/venv/bin:\$PATH \
JAX_COMPILATION_CACHE_DIR=$(quoted "$BUCKET/$NAME/compiled") $COMMAND"
