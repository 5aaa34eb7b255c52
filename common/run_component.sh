#!/usr/bin/env bash
# Runs a component on this machine, without a container; sourced by each component's run_local.sh, which
# defines `usage` and calls: run_component MODULE [ARGUMENT…] -- "$@"

run_component() {
  local root python module=()
  root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
  python="${PYTHON:-$root/.venv/bin/python}"
  while [[ "$1" != -- ]]; do
    module+=("$1")
    shift
  done
  shift
  if [[ -z "${PYTHON:-}" ]]; then
    # Says nothing and takes no time when the environment is up to date.
    make --directory="$root" --no-print-directory --silent .venv/.run-ready >&2
  fi
  local argument
  for argument in "$@"; do
    if [[ "$argument" == --help || "$argument" == -h ]]; then
      usage
    fi
  done
  exec "$python" -m "${module[@]}" "$@"
}
