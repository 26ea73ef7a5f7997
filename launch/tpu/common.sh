# shellcheck shell=bash disable=SC2034
# What the scripts of this folder share: flags, sentences for what is missing, --dry-run. Runs on bash 3.2 and newer;
# what is set here is read by the script that sources this.

# Where it is set, cd prints the folder it finds, which may be another one.
unset CDPATH

NAME=${TPU_NAME:-}
ZONE=${TPU_ZONE:-}
TYPE=${TPU_TYPE:-}
PROJECT=${TPU_PROJECT:-}
BUCKET=${TPU_BUCKET:-}
SPOT=""
DRY_RUN=""
COMMAND=""

# Where everything lies on a worker; startup.sh, which stands alone there, has the same line.
PLACE=/var/lib/flax_attnat

die() {
  echo "error: $*" >&2
  exit 2
}

# parse FLAGS "$@": sets the variables above; FLAGS are the names that this script knows.
parse() {
  local known=" $1 " name
  shift
  while [ $# -gt 0 ]; do
    case $1 in
      --help | -h)
        usage
        exit 0
        ;;
      --dry-run) DRY_RUN=yes ;;
      --)
        case $known in *" -- "*) ;; *) die "this script takes no command; see --help." ;; esac
        shift
        COMMAND=$(quoted "$@")
        return 0
        ;;
      --*)
        name=${1#--}
        name=${name%%=*}
        case $known in *" $name "*) ;; *) die "--$name is not a flag of this script; see --help." ;; esac
        if [ "$name" = spot ]; then
          SPOT=yes
        else
          case $1 in *=?*) ;; *) die "flags are written --NAME=VALUE; got $1." ;; esac
          set_flag "$name" "${1#*=}"
        fi
        ;;
      *) die "unexpected argument $1: flags are written --NAME=VALUE, a command comes after --; see --help." ;;
    esac
    shift
  done
}

set_flag() {
  case $1 in
    name) NAME=$2 ;;
    zone) ZONE=$2 ;;
    type) TYPE=$2 ;;
    project) PROJECT=$2 ;;
    bucket) BUCKET=$2 ;;
  esac
}

# need FLAG VALUE MEANING
need() {
  [ -n "$2" ] || die "--$1=VALUE is missing: give $3, or set TPU_$(echo "$1" | tr '[:lower:]' '[:upper:]')."
}

need_place() {
  need name "$NAME" "the name of the TPU"
  need zone "$ZONE" "its zone, us-west4-a say"
  need project "$PROJECT" "the Google Cloud project"
}

need_bucket() {
  need bucket "$BUCKET" "the Cloud Storage bucket, gs://BUCKET or a folder of it"
  case $BUCKET in gs://?*) ;; *) die "--bucket must begin with gs://; got $BUCKET." ;; esac
  BUCKET=${BUCKET%/}
}

# The arguments as one line that a shell reads back.
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

# Prints a command; runs it unless this is a dry run.
step() {
  if [ -n "$DRY_RUN" ]; then
    quoted "$@"
  else
    echo "+ $(quoted "$@")" >&2
    "$@"
  fi
}

# put URL COMMAND...: what a command prints, as an object of the bucket.
put() {
  local url=$1
  shift
  if [ -n "$DRY_RUN" ]; then
    echo "$(quoted "$@") | $(quoted gcloud storage cp - "$url")"
  else
    echo "+ $(quoted "$@") | $(quoted gcloud storage cp - "$url")" >&2
    "$@" | gcloud storage cp - "$url"
  fi
}

# Uploads what a worker needs of this checkout.
put_code() {
  local root
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
  put "$BUCKET/$NAME/code.tar.gz" tar --exclude=__pycache__ -czf - -C "$root" \
    flax_attnat launch configs pyproject.toml README.md CHANGELOG.md LICENSE
}

# on_all COMMAND: a command line on every worker, at the same time.
on_all() {
  step gcloud compute tpus tpu-vm ssh "$NAME" --project="$PROJECT" --zone="$ZONE" --worker=all --command="$1"
}
