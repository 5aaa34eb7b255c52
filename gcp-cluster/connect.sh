#!/usr/bin/env bash
# Reaches Kubeflow Pipelines from this machine, until it is interrupted.
set -euo pipefail

# shellcheck source=lib/commands.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/commands.sh"
# shellcheck source=lib/settings.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"

usage() {
  cat <<'TEXT'
Usage: gcp-cluster/connect.sh [options]

Forwards a port of this machine to Kubeflow Pipelines, which has no public address, and
prints the endpoint as a line for a shell or for env/cloud.env. Runs until interrupted
(Ctrl-C): leave it in a terminal of its own, and submit and watch in another. A connection
that is lost, as after sleep, is made again; one that cannot be made at first ends it.

The port is that of VOXSRC_KFP_ENDPOINT, http://localhost:PORT; without it, 8080.
TEXT
}

begin "$@"
no_arguments
need gcloud kubectl gke-gcloud-auth-plugin

endpoint="${VOXSRC_KFP_ENDPOINT:-http://localhost:8080}"
[[ "$endpoint" =~ ^http://(localhost|127\.0\.0\.1):([0-9]+)/?$ ]] ||
  die "VOXSRC_KFP_ENDPOINT: found $endpoint; expected http://localhost:PORT, as only a port of this machine can be \
forwarded; another address needs no connect.sh"
forward=(kubectl port-forward service/ml-pipeline-ui "${BASH_REMATCH[2]}:80"
  "--namespace=$VOXSRC_KFP_NAMESPACE" "--context=$context")

get_credentials
if $dry_run; then
  run "${forward[@]}"
  exit
fi
print_command "${forward[@]}" >&2

connected=false failures=0 forwarding=''
# kubectl would hold the port for as long as it is connected.
trap '[[ -z "$forwarding" ]] || kill "$forwarding" 2>/dev/null || true' EXIT
while true; do
  exec 3< <(exec "${forward[@]}")
  forwarding=$!
  while IFS= read -r line <&3; do
    [[ "$line" == 'Forwarding from '* ]] || continue
    failures=0
    $connected || printf 'VOXSRC_KFP_ENDPOINT=%s\n' "$endpoint"
    $connected || say "connected until this is interrupted; in a browser: $endpoint"
    connected=true
  done
  wait "$forwarding" || true
  forwarding=''
  $connected || die 'no connection (the reason is above): is Kubeflow Pipelines installed, and the port free?'
  ((failures += 1))
  ((failures <= 20)) || die 'no connection any more (the reason is above); run this again'
  say 'the connection is lost: trying again'
  ((failures == 1)) || sleep "${VOXSRC_RETRY_WAIT_S:-15}"
done
