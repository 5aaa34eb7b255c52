#!/usr/bin/env bash
# In a build stage: installs torch and what it needs into /opt/venv.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: install_pytorch.sh cuda|cpu BUILD_REQUIREMENTS REQUIREMENTS

cuda installs REQUIREMENTS, torch among them. cpu installs the one torch in /wheels, and
REQUIREMENTS without torch and the packages of CUDA.
TEXT
}

die() {
  printf 'install_pytorch.sh: %s\n' "$*" >&2
  exit 1
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
(($# == 3)) || { usage >&2; exit 2; }

tools=/opt/tools/bin
case "$1" in
  cuda) "$tools/install_packages.sh" "$2" "$3" ;;
  cpu)
    shopt -s nullglob
    torch=(/wheels/torch-*.whl)
    ((${#torch[@]} == 1)) ||
      die "the cpu variant takes torch from a folder of wheels, found ${#torch[@]} there, expected 1: build_image.sh --wheels DIR"
    "$tools/pip" --python /opt/venv/bin/python install --no-index --no-deps --no-compile "${torch[0]}"
    packages="$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    # For building extensions and for compiling models on a CPU, which takes a compiler that is not there.
    rm -rf "$packages"/torch/{include,share/cmake,test} "$packages"/torch/bin/{protoc,test_}*
    "$tools/without_cuda.sh" "$3" >/tmp/requirements.txt
    "$tools/install_packages.sh" "$2" /tmp/requirements.txt
    rm /tmp/requirements.txt ;;
  *) die "there is no variant $1; expected cuda or cpu" ;;
esac
