#!/usr/bin/env bash
# Builds the images of all three components; each can be built alone by its components/NAME/build_image.sh.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

usage() {
  cat <<'TEXT'
Usage: build_images.sh [--cpu] [--yaml] [options of build_image.sh]

Builds the feature extractor's, the trainer's and the evaluator's image. When all three are
built, prints a line COMPONENT=IMAGE:TAG for each on standard output; logs go to standard
error. Other options, such as --push, --registry or --env, are passed on to each
build_image.sh; after --push, IMAGE is the registry's and its digest is printed:
COMPONENT=IMAGE@sha256:…

  --cpu   without CUDA: smaller by some gigabytes, for machines without a GPU. Fills
          build/wheels first; the exit code is 3 if pip finds no such torch, see
          pytorch/cpu_wheels.sh.
  --yaml  print the pipelines' parameters instead, COMPONENT_image: IMAGE

Environment: DOCKER names the client (default docker), PYTHON an interpreter with pip;
VOXSRC_PLATFORM as build_image.sh has it, but the wheels of --cpu are for x86-64 alone.
TEXT
}

wheels=()
options=()
yaml=false
while (($#)); do
  case "$1" in
    --cpu) wheels=("$root/build/wheels"); shift ;;
    --yaml) yaml=true; shift ;;
    -h | --help) usage; exit 0 ;;
    *) options+=("$1"); shift ;;
  esac
done

lines=''
for component in feature-extractor train evaluate; do
  variant=()
  if ((${#wheels[@]})) && [[ "$component" != feature-extractor ]]; then
    "$root/common/containers/pytorch/cpu_wheels.sh" "$component" "${wheels[0]}/$component" >&2
    variant=(--variant cpu --wheels "${wheels[0]}/$component")
  fi
  built="$("$root/components/$component/build_image.sh" ${variant[@]+"${variant[@]}"} ${options[@]+"${options[@]}"})"
  image="$(awk '
    { value[$1] = $2 }
    END { print (value["digest"] ~ /@/ ? value["digest"] : value["image"] ":" value["tag"]) }' <<<"$built")"
  if $yaml; then
    lines+="${component//-/_}_image: $image"$'\n'
  else
    lines+="$component=$image"$'\n'
  fi
done
printf '%s' "$lines"
