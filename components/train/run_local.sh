#!/usr/bin/env bash
# Trains on this machine, without a container; its flags are passed on.
set -euo pipefail
# shellcheck source=common/run_component.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../common/run_component.sh"

usage() {
  cat <<'HELP'
usage: run_local.sh --recipe NAME|FILE --features URI --output URI [--set KEY=VALUE ...] [--num-processes N]
                    [flags of `trainer`]

Trains a speaker-embedding model on a feature set. Interrupted, run it again: it continues. PYTHON names the
interpreter; by default .venv/bin/python of this repository, which is made if it is not there.

HELP
}

run_component trainer.launch -- "$@"
