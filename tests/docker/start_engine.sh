#!/usr/bin/env bash
# Starts a Docker engine for the tests on a machine where none runs as a service.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: start_engine.sh [--log FILE]

Starts dockerd in the background unless an engine answers already, waits until it
answers, and prints the id of the process that it started (nothing if none). Stop it
with kill. Needs root.

  --log FILE  the engine's log (default: dockerd.log in the temporary folder)

Environment: DOCKER names the client (default docker).
TEXT
}

die() {
  printf 'start_engine.sh: %s\n' "$*" >&2
  exit 1
}

docker="${DOCKER:-docker}"
log="${TMPDIR:-/tmp}/dockerd.log"
while (($#)); do
  case "$1" in
    --log) log="${2:?--log needs a file}"; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) die "unknown option $1; see --help" ;;
  esac
done

answers() {
  "$docker" info >/dev/null 2>&1
}

if answers; then
  exit 0
fi
((EUID == 0)) || die 'no engine answers, and starting one needs root; start it (systemctl start docker) and try again'
command -v dockerd >/dev/null || die 'no engine answers, and dockerd is not installed; on Debian: apt-get install docker.io'

# The engine's own choice of storage first; vfs is slow but works on any file system.
for options in '' '--storage-driver=vfs'; do
  # shellcheck disable=SC2086
  setsid dockerd $options >"$log" 2>&1 </dev/null &
  engine=$!
  for ((i = 0; i < 300; i++)); do
    if answers; then
      printf '%s\n' "$engine"
      exit 0
    fi
    kill -0 "$engine" 2>/dev/null || break
    sleep 0.1
  done
  kill "$engine" 2>/dev/null || true
  wait "$engine" 2>/dev/null || true
done
die "dockerd did not come up; the end of $log: $(tail -n 3 "$log")"
