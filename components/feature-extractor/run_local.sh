#!/usr/bin/env bash
# Runs the feature extractor on this machine, without a container; its flags are passed on.
set -euo pipefail
# shellcheck source=common/run_component.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../common/run_component.sh"

usage() {
  cat <<'HELP'
usage: run_local.sh --audio URI --list URI --output URI [flags of `feature-extractor run`]

Makes a feature set of the listed audio; --audio may be repeated. Interrupted, run it again: it
continues. PYTHON names the interpreter; by default .venv/bin/python of this repository, which is
made if it is not there.

HELP
}

run_component feature_extractor run -- "$@"
