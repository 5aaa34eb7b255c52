# shellcheck shell=bash
# Runs, or with --dry-run prints, the commands that change something; asks what exists before it is created.

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

say() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# Prints one argument as a shell would read it.
quoted() {
  if [[ "$1" =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then
    printf '%s' "$1"
  else
    printf "'%s'" "${1//\'/\'\\\'\'}"
  fi
}

# Prints a command to copy and paste, one flag a line.
print_command() {
  local argument
  quoted "$1"
  shift
  for argument in "$@"; do
    if [[ "$argument" == --* ]]; then
      printf " \\\\\n    "
    else
      printf ' '
    fi
    quoted "$argument"
  done
  printf '\n'
}

# command_line COMMAND…: prints a command to copy and paste on one line, for messages.
command_line() {
  local argument
  quoted "$1"
  shift
  for argument in "$@"; do
    printf ' '
    quoted "$argument"
  done
}

# run COMMAND…: the only way in which these scripts change anything. A failure is told with `hint`, if there is one.
hint=''
run() {
  if $dry_run; then
    print_command "$@"
    return
  fi
  print_command "$@" >&2
  "$@" || die "the command above failed with exit status $?; after correcting the cause, run this again: it continues\
${hint:+; $hint}"
}

# run_eventually COMMAND…: as run, but tries again while what was just created is not visible everywhere yet.
# Google's IAM is eventually consistent: a new account may be unknown for a minute or more.
run_eventually() {
  local attempt errors
  if $dry_run; then
    print_command "$@"
    return
  fi
  print_command "$@" >&2
  errors="$(mktemp)"
  for attempt in 1 2 3 4 5 6 7 8; do
    if "$@" 2>"$errors"; then
      rm -f "$errors"
      return
    fi
    cat "$errors" >&2
    grep -qE 'does not exist|NOT_FOUND|not found|Identity Pool' "$errors" || break
    ((attempt == 8)) || sleep "${VOXSRC_RETRY_WAIT_S:-15}"
  done
  rm -f "$errors"
  die 'the command above failed; after correcting the cause, run this again: it continues'
}

# exists COMMAND…: whether COMMAND, which describes something, finds it; its output is left in `found`. Any other
# failure than "not found" ends the script: creating what one may not see would fail with a worse message.
# A dry run asks nobody and takes `dry_run_finds` for the answer.
exists() {
  local errors status=0
  found=''
  if $dry_run; then
    $dry_run_finds
    return
  fi
  errors="$(mktemp)"
  # shellcheck disable=SC2034  # read by the scripts
  found="$("$@" 2>"$errors")" || status=$?
  if ((status)) && { grep -qiE 'PERMISSION_DENIED|code=403|HTTPError 403|forbidden' "$errors" ||
    ! grep -qE 'NOT_FOUND|[Nn]ot found|code=404' "$errors"; }; then
    cat "$errors" >&2
    rm -f "$errors"
    die "could not find out whether something exists: $(command_line "$@")"
  fi
  rm -f "$errors"
  return "$status"
}

# sorted_list ITEMS: prints the comma-separated items in order, to compare what has none.
sorted_list() {
  tr , '\n' <<<"$1" | sort -u | tr '\n' ' ' | sed 's/ *$//; s/^ *//; s/ /,/g'
}

# Ends the script if one of the named programs is missing; a dry run needs none.
need() {
  local program
  $dry_run && return
  for program in "$@"; do
    command -v "$program" >/dev/null ||
      die "$program is missing; see \"What you need\" in gcp-cluster/README.md"
  done
}

# begin SCRIPT_ARGUMENTS…: reads the options that all scripts have, then the settings; the rest is in `arguments`.
# The script defines usage().
begin() {
  local folder file
  folder="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
  file="${VOXSRC_CLOUD_ENV:-$folder/../env/cloud.env}"
  dry_run=false
  dry_run_finds=false
  common_options=()
  arguments=()
  while (($#)); do
    case "$1" in
      --env)
        (($# > 1)) || die '--env needs a file'
        file="$2"; shift 2 ;;
      --env=*) file="${1#--env=}"; shift ;;
      --dry-run) dry_run=true; shift ;;
      -h | --help) usage; options_help; exit 0 ;;
      *) arguments+=("$1"); shift ;;
    esac
  done
  ! $dry_run || common_options+=(--dry-run)
  common_options+=(--env "$file")
  load_settings "$file"
  # shellcheck disable=SC2034  # used by the scripts
  {
    at_project="--project=$VOXSRC_PROJECT"
    at_zone="--location=$VOXSRC_ZONE"
    at_region="--location=$VOXSRC_REGION"
    # The compute API's commands name it otherwise.
    in_region="--region=$VOXSRC_REGION"
    router_name="$VOXSRC_CLUSTER-router"
    nat_name="$VOXSRC_CLUSTER-nat"
    registry_name="${VOXSRC_REGISTRY##*/}"
    context="gke_${VOXSRC_PROJECT}_${VOXSRC_ZONE}_$VOXSRC_CLUSTER"
    kfp_disks="description~created-for/pvc/namespace.*$VOXSRC_KFP_NAMESPACE"
    gcp_cluster="$folder"
  }
}

# For scripts without arguments of their own.
no_arguments() {
  ((!${#arguments[@]})) || die "unexpected argument ${arguments[0]}; see --help"
}

options_help() {
  cat <<'TEXT'

  --env FILE   settings; default: $VOXSRC_CLOUD_ENV, else env/cloud.env
  --dry-run    print the commands that would run on an empty project, run none
  -h, --help   this text
TEXT
}

# check_other_zones REASON: ends the script if the cluster exists in another zone than VOXSRC_ZONE, where one has just
# looked for it in vain. A dry run asks nobody.
check_other_zones() {
  local elsewhere
  $dry_run && return
  elsewhere="$(gcloud container clusters list "$at_project" "--filter=name=$VOXSRC_CLUSTER" '--format=value(location)' |
    tr '\n' ' ')" || die "could not list the clusters of $VOXSRC_PROJECT"
  elsewhere="${elsewhere% }"
  [[ -z "$elsewhere" ]] ||
    die "cluster $VOXSRC_CLUSTER is in $elsewhere; VOXSRC_ZONE says $VOXSRC_ZONE$1: correct VOXSRC_ZONE,\
 choose another VOXSRC_CLUSTER, or delete that one (VOXSRC_ZONE=${elsewhere%% *} gcp-cluster/delete_cluster.sh)"
}

# Writes the cluster into the user's kubeconfig; all kubectl commands here name its context, whatever is current.
get_credentials() {
  run gcloud container clusters get-credentials "$VOXSRC_CLUSTER" "$at_project" "$at_zone"
}

# wait_for_operations must-succeed|may-fail: waits for the operations on the cluster that a killed earlier run has left
# under way. One that fails ends the script, or is only told. A dry run asks nobody.
wait_for_operations() {
  local operation operations
  $dry_run && return
  operations="$(gcloud container operations list "$at_project" "$at_zone" \
    "--filter=status!=DONE AND targetLink~/clusters/$VOXSRC_CLUSTER(/|\$)" '--format=value(name)')" ||
    die "could not list the operations on cluster $VOXSRC_CLUSTER"
  for operation in $operations; do
    say "an operation on cluster $VOXSRC_CLUSTER is under way: waiting for $operation"
    gcloud container operations wait "$operation" "$at_project" "$at_zone" || {
      [[ "$1" == may-fail ]] ||
        die "operation $operation failed; see status.sh and the console, correct the cause, then run this again"
      say "operation $operation failed (its message is above): going on"
    }
  done
}
