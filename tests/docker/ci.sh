#!/usr/bin/env bash
# The tests that need a Docker engine, on a clean Debian machine.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

usage() {
  cat <<'TEXT'
Usage: ci.sh [pytest options]

Installs Docker's engine and debootstrap if they are missing (Debian, as root), starts
the engine if none answers, makes the base image if it cannot be pulled, and runs the
tests marked `docker`; a test that skips counts as failed. Stops the engine that it
started. Prints how long each step took.

The image with CUDA is left out, and this is said, where the disk has not the space. It is
tested where the space is not known, as the engine's folder is not on this machine.

Environment: PYTHON names the interpreter with the development requirements (default:
.venv/bin/python of this repository), DOCKER the client (default:
one on the PATH whose engine answers, else Debian's own), VOXSRC_CPU_TORCH the
CPU build of torch for the images of train and evaluate (default: see
common/containers/pytorch/cpu_wheels.sh), which pip's own configuration must be able to find.
TEXT
}

die() {
  printf 'ci.sh: %s\n' "$*" >&2
  exit 1
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
python="${PYTHON:-$root/.venv/bin/python}"
[[ -x "$python" ]] || die "no interpreter at $python; make the environment first (make test), or set PYTHON"

started_at=$SECONDS
step() {
  printf 'docker: %s: %d s\n' "$1" $((SECONDS - started_at))
  started_at=$SECONDS
}

engine=''
stop_engine() {
  if [[ -n "$engine" ]]; then
    # What failed or replaced builds left; an engine that was already there is its owner's.
    "$DOCKER" image prune --force >/dev/null || true
    "$DOCKER" builder prune --force --keep-storage 4GB >/dev/null || true
    kill "$engine"
    tail --pid="$engine" --follow /dev/null
  fi
}
trap stop_engine EXIT

installed() {
  [[ "$(dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

# A client whose engine answers and that can reach BuildKit; from version 23 on that takes a plugin.
usable() {
  "$1" info >/dev/null 2>&1 &&
    { "$1" buildx version >/dev/null 2>&1 || (($("$1" version --format '{{.Client.Version}}' | cut -d . -f 1) < 23)); }
}

missing=()
if [[ -z "${DOCKER:-}" ]] && usable docker; then
  DOCKER=docker
elif [[ -z "${DOCKER:-}" ]] && ! installed docker.io; then
  missing+=(docker.io)
fi
command -v debootstrap >/dev/null || missing+=(debootstrap)
if ((${#missing[@]})); then
  ((EUID == 0)) || die "not installed: ${missing[*]}; run as root, or install them"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "${missing[@]}" >/dev/null
fi
# By its path: another client that comes first on the PATH may lack the plugin.
export DOCKER="${DOCKER:-$(dpkg-query --listfiles docker.io | grep '/bin/docker$')}"
step 'install'
engine="$("$root/tests/docker/start_engine.sh")"
step 'start the engine'
"$root/tests/docker/make_base_image.sh"
step 'base image'
cd "$root"
# Its wheels, the builder's copy of them, the packages in the stage that installs them and in the image.
cuda_gb=30
engine_root="$("$DOCKER" info --format '{{.DockerRootDir}}')"
if free_gb="$(df --output=avail -B1000000000 "$engine_root" | tail -n 1)"; then
  free_gb=$((free_gb))
else
  printf 'docker: the space in %s is not known: all images are tested\n' "$engine_root"
  free_gb=$cuda_gb
fi
if ((free_gb < cuda_gb)); then
  set -- --ignore=tests/docker/test_cuda_image.py "$@"
fi
VOXSRC_REQUIRE_DOCKER=1 "$python" -m pytest tests/docker \
  -m docker --durations=10 --durations-min=1 "$@"
step 'tests'
if ((free_gb < cuda_gb)); then
  printf 'docker: the image with CUDA was NOT tested: %d GB of disk free, %d needed\n' "$free_gb" "$cuda_gb"
fi
