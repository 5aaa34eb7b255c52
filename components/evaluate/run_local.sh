#!/usr/bin/env bash
# Evaluates on this machine, without a container; its flags are passed on.
set -euo pipefail
# shellcheck source=common/run_component.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../common/run_component.sh"

usage() {
  cat <<'HELP'
usage: run_local.sh --model URI --features URI --trials URI --output URI [flags of `evaluator`]

Scores trials with a trained model; writes scores.txt, metrics.json and report.html. PYTHON names the
interpreter; by default .venv/bin/python of this repository, which is made if it is not there.

HELP
}

run_component evaluator -- "$@"
