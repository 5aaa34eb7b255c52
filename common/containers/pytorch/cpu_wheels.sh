#!/usr/bin/env bash
# Fills a folder of wheels for the CPU variant of an image with torch (build_image.sh --variant cpu --wheels DIR).
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)"

usage() {
  cat <<'TEXT'
Usage: cpu_wheels.sh NAME DIR

Downloads to DIR what the image NAME (train or evaluate) installs, at the versions and
hashes of env/requirements-NAME.txt, with a CPU build of torch. What DIR has already is
not downloaded again. For Linux on x86-64, whatever Python runs pip here.

Environment: PYTHON is an interpreter with pip (default python3). VOXSRC_CPU_TORCH is the
CPU build of torch as a requirement; by default that of the version in the requirements,
else, with a warning, torch==2.13.0+cpu. pip's own configuration, such as
PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS, says where it is found. If it finds none, the exit
code is 3.
TEXT
}

die() {
  printf 'cpu_wheels.sh: %s\n' "$*" >&2
  exit 1
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
(($# == 2)) || { usage >&2; exit 2; }
requirements="$root/env/requirements-$1.txt"
[[ -f "$requirements" ]] || die "no requirements of an image $1: $requirements; expected train or evaluate"
pinned="$(sed -n 's/^\(torch==[0-9.]*\).*/\1/p' "$requirements")"
[[ -n "$pinned" ]] || die "$requirements pins no torch"
older=torch==2.13.0+cpu

download() {
  "${PYTHON:-python3}" -m pip download --quiet --no-deps --dest "$folder" --python-version 3.11 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_26_x86_64 \
    --platform manylinux_2_24_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    --platform manylinux_2_12_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64 \
    --only-binary=:all: "$@"
}

folder="$2"
mkdir -p "$folder"
without_cuda="$(mktemp)"
trap 'rm -f "$without_cuda"' EXIT
"$root/common/containers/pytorch/without_cuda.sh" "$requirements" >"$without_cuda"
if [[ -n "${VOXSRC_CPU_TORCH:-}" ]]; then
  torch="$VOXSRC_CPU_TORCH"
  found="$(download "$torch" 2>&1)" || torch=''
else
  torch="$pinned+cpu"
  found="$(download "$torch" 2>&1)" || {
    torch="$older"
    if found+=$'\n'"$(download "$torch" 2>&1)"; then
      echo "cpu_wheels.sh: pip finds no $pinned+cpu, which the other images have; takes $torch" >&2
    else
      torch=''
    fi
  }
fi
if [[ -z "$torch" ]]; then
  printf '%s\n' "$found" >&2
  echo "cpu_wheels.sh: pip finds no ${VOXSRC_CPU_TORCH:-$pinned+cpu}; name an index that has it in pip's" \
    'configuration, or another build in VOXSRC_CPU_TORCH' >&2
  exit 3
fi
# The image's build takes the one torch that is there: another one is from an earlier time.
if [[ "$torch" == torch==* ]]; then
  for wheel in "$folder"/torch-*.whl; do
    [[ "${wheel##*/}" == "torch-${torch#torch==}-"* ]] || rm -f "$wheel"
  done
fi
download --require-hashes --requirement "$without_cuda"
download --require-hashes --requirement "$root/env/requirements-build.txt"
