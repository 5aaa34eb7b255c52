#!/usr/bin/env bash
# Builds the images of all three components; each can be built alone by its components/NAME/build_image.sh.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

usage() {
  cat <<'TEXT'
Usage: build_images.sh [--cpu] [options of build_image.sh]

Builds the feature extractor's, the trainer's and the evaluator's image, and prints a line
COMPONENT=IMAGE:TAG for each on standard output, logs on standard error. Other options, such
as --push or --registry, are passed on to each build_image.sh; then IMAGE is the registry's
and what is printed its digest: COMPONENT=IMAGE@sha256:…

  --cpu  without CUDA: smaller by some gigabytes, for machines without a GPU. Fills
         build/wheels first; the exit code is 3 if pip finds no such torch, see
         pytorch/cpu_wheels.sh.

Environment: DOCKER names the client (default docker), PYTHON an interpreter with pip.
TEXT
}

wheels=()
options=()
while (($#)); do
  case "$1" in
    --cpu) wheels=("$root/build/wheels"); shift ;;
    -h | --help) usage; exit 0 ;;
    *) options+=("$1"); shift ;;
  esac
done

for component in feature-extractor train evaluate; do
  variant=()
  if ((${#wheels[@]})) && [[ "$component" != feature-extractor ]]; then
    "$root/common/containers/pytorch/cpu_wheels.sh" "$component" "${wheels[0]}/$component" >&2
    variant=(--variant cpu --wheels "${wheels[0]}/$component")
  fi
  "$root/components/$component/build_image.sh" ${variant[@]+"${variant[@]}"} ${options[@]+"${options[@]}"} |
    awk -v component="$component" '
      { value[$1] = $2 }
      END { print component "=" (value["digest"] ~ /@/ ? value["digest"] : value["image"] ":" value["tag"]) }'
done
