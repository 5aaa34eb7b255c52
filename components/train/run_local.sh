#!/usr/bin/env bash
# Trains on this machine, without a container; its flags are passed on.
set -euo pipefail

component="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$component/../.." && pwd)"
python="${PYTHON:-$root/.venv/bin/python}"

usage() {
  cat <<'HELP'
usage: run_local.sh --recipe NAME|FILE --features URI --output URI [--set KEY=VALUE ...] [--num-processes N]
                    [flags of `trainer`]

Trains a speaker-embedding model on a feature set. Interrupted, run it again: it continues. PYTHON names the
interpreter; by default .venv/bin/python of this repository, which is made if it is not there.

HELP
}

if [[ -z "${PYTHON:-}" ]]; then
  # Says nothing and takes no time when the environment is up to date.
  make --directory="$root" --no-print-directory --silent .venv/.run-ready >&2
fi
for argument in "$@"; do
  if [[ "$argument" == "--help" || "$argument" == "-h" ]]; then
    usage
  fi
done
exec "$python" -m trainer.launch "$@"
