#!/usr/bin/env bash
# The whole way in containers on this machine: builds the images, runs the train pipeline on the bundled speech.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

usage() {
  cat <<'TEXT'
Usage: run_demo.sh [--output DIR] [options of `voxsrc pipeline run-local`]

Builds the three images, without CUDA if pip finds a CPU build of torch, and else with it:
then it downloads some gigabytes of CUDA's packages, and the images of train and evaluate
take about 6.4 GB. PIP_EXTRA_INDEX_URL, or pip's own configuration, names an index that has
a CPU build, PIP_FIND_LINKS a folder (see pytorch/cpu_wheels.sh).

Then runs train_pipeline.yaml in containers on the recorded speech in data/samples: extract
train and test set, two workers each, train with the recipe `demo` (some minutes on two
cores), evaluate. Ends with the EER and the path of the report. Interrupted, run it again:
it continues.

  --output DIR  of features, checkpoints, model and report (default build/demo-containers)

Other options win, such as --set overrides=num_steps=50 for a quick look. Environment:
PYTHON is an interpreter with the requirements of the extra `pipelines` (default: that of
.venv, which is made), DOCKER the client. Needs a Docker engine and a network.
TEXT
}

output="$root/build/demo-containers"
options=()
while (($#)); do
  case "$1" in
    --output) output="${2:?--output needs a folder}"; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) options+=("$1"); shift ;;
  esac
done

if [[ -z "${PYTHON:-}" ]]; then
  make --directory="$root" --no-print-directory --silent .venv/.cloud-ready >&2
  PYTHON="$root/.venv/bin/python"
fi
export PYTHON

mkdir -p "$output"
output="$(cd "$output" && pwd)"
# The containers' user is nobody here if this is root, and else the caller.
((EUID)) || chmod 777 "$output"

built="$("$root/common/containers/build_images.sh" --cpu)" || {
  (($? == 3)) || exit 1
  echo 'run_demo.sh: so the images have CUDA' >&2
  built="$("$root/common/containers/build_images.sh")"
}
images=()
while read -r image; do
  images+=(--image "$image")
done <<<"$built"

samples="$root/data/samples"
"$PYTHON" -m voxsrc.cli pipeline run-local train "${images[@]}" \
  --mount "$samples" --mount "$output" --root "$output/artifacts" --retries 1 \
  --set "train_audio=$samples" --set "train_list=$samples/train_list.txt" --set "train_features=$output/features/train" \
  --set "test_audio=$samples" --set "test_list=$samples/test_list.txt" --set "test_features=$output/features/test" \
  --set "trials=$samples/test_trials.txt" \
  --set "training=$output/training" --set "evaluation=$output/evaluation" \
  --set recipe=demo --set speed=0.9,1.1 --set 'parts=[0/2, 1/2]' --set num_workers=1 ${options[@]+"${options[@]}"}

"$PYTHON" - "$output/evaluation" <<'PYTHON'
import json, pathlib, sys

folder = pathlib.Path(sys.argv[1])
metrics = json.loads((folder / "metrics.json").read_text())
print(f"EER {100 * metrics['eer']:.2f} %, report {folder / 'report.html'}")
PYTHON
