#!/usr/bin/env bash
# Prints a requirements file without torch and without what only its CUDA build needs.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: without_cuda.sh REQUIREMENTS

The rest is what an image's CPU variant installs beside a CPU build of torch. A folder of
wheels for it is filled by cpu_wheels.sh.
TEXT
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
(($# == 1)) || { usage >&2; exit 2; }

# An entry begins in the first column; its hashes are indented.
awk '/^[a-z0-9]/ { keep = !/^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==/ } keep' "$1"
