#!/usr/bin/env bash
# Brings VoxCeleb and its lists to the bucket.
set -euo pipefail

# shellcheck source=lib/commands.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/commands.sh"
# shellcheck source=lib/settings.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/settings.sh"

usage() {
  cat <<'TEXT'
Usage: gcp-cluster/upload_voxceleb.sh --from BASE [options]

Brings to the bucket VoxCeleb2 dev to train on (78 GB) and VoxCeleb1 test with the cleaned
trials vox1-O, checks their MD5 and lists their utterances, all by voxceleb-data (see
data/README.md); then prints, as YAML, the parameters of the train pipeline that name them.
Interrupted, run it again: what has arrived is not sent again. For recordings of your own,
use `gcloud storage cp` and name them in the same parameters.

For E and H also:
  voxceleb-data download vox1-dev --from BASE --output gs://BUCKET/vox1
  voxceleb-data trials vox1-E --output gs://BUCKET/lists
Then of these parameters change (the list is O's; without one, all of the audio is taken):
  test_audio: gs://BUCKET/vox1/vox1_dev_wav_partaa; gs://BUCKET/vox1/vox1_test_wav.zip
  test_list: ''
  test_features: gs://BUCKET/features/vox1
  trials: gs://BUCKET/lists/vox1-E-cleaned.txt

  --from BASE         where VoxCeleb's parts lie: a local folder, gs://my-bucket/folder, http(s)://…
  --staging DIR       local folder with room for one part (11 GB), where BASE is remote
  --user-env NAME     environment variable with the user name for http(s), likewise
  --password-env NAME and
  --key-env NAME
  --run NAME          of the run: its outputs go to runs/NAME (default baseline)

PYTHON names an interpreter with voxsrc (default: that of .venv, which `make cloud` makes).
It writes to the bucket as you: gcloud auth login --update-adc.
TEXT
}

begin "$@"
from='' run_name=baseline
download=()
set -- ${arguments[@]+"${arguments[@]}"}
while (($#)); do
  # --flag=value is read as --flag value.
  if [[ "$1" == --*=* ]]; then
    set -- "${1%%=*}" "${1#*=}" "${@:2}"
  fi
  case "$1" in
    --from) from="${2:?--from needs a place}"; shift 2 ;;
    --run) run_name="${2:?--run needs a name}"; shift 2 ;;
    --staging | --user-env | --password-env | --key-env)
      download+=("$1" "${2:?$1 needs a value}"); shift 2 ;;
    *) die "unexpected argument $1; see --help" ;;
  esac
done
[[ -n "$from" ]] || die '--from is missing: where VoxCeleb lies; see --help'
[[ "$run_name" =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] ||
  die "--run: found $run_name; expected letters, digits, dots, hyphens and underscores"
python="${PYTHON:-$(cd "$gcp_cluster/.." && pwd)/.venv/bin/python}"
$dry_run || command -v "$python" >/dev/null || die "no interpreter $python; make it: make cloud"

bucket="gs://$VOXSRC_BUCKET"
vox2="$bucket/vox2/vox2_dev_aac_partaa"
vox1="$bucket/vox1/vox1_test_wav.zip"

# Progress goes to standard error: standard output is for the parameters.
voxceleb_data() {
  if $dry_run; then
    run "$python" -m voxceleb_data.cli "$@"
  else
    run "$python" -m voxceleb_data.cli "$@" >&2
  fi
}

voxceleb_data download vox2-dev --from "$from" --output "$bucket/vox2" ${download[@]+"${download[@]}"}
voxceleb_data download vox1-test --from "$from" --output "$bucket/vox1" ${download[@]+"${download[@]}"}
voxceleb_data trials vox1-O --output "$bucket/lists"
voxceleb_data prepare --audio "$vox2" --output "$bucket/lists/vox2-dev.txt"
voxceleb_data prepare --audio "$vox1" --trials "$bucket/lists/vox1-O-cleaned.txt" --output "$bucket/lists/vox1-test.txt"
$dry_run || cat <<YAML
train_audio: $vox2
train_list: $bucket/lists/vox2-dev.txt
train_features: $bucket/features/vox2-dev
test_audio: $vox1
test_list: $bucket/lists/vox1-test.txt
test_features: $bucket/features/vox1-test
trials: $bucket/lists/vox1-O-cleaned.txt
training: $bucket/runs/$run_name
evaluation: $bucket/runs/$run_name/evaluation
YAML
