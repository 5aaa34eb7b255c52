# shellcheck shell=bash
# Reads env/cloud.env: values from the environment, else the file, else the default; all checked at once.

# The settings: name; pattern (extended regular expression); what is expected; default. `-` is no default, and
# `optional` an empty one. A default may name VOXSRC_PROJECT and VOXSRC_ZONE.
list_settings() {
  local account='[a-z][a-z0-9-]{4,28}[a-z0-9]@[a-z0-9.:-]+\.iam\.gserviceaccount\.com'
  local name='[a-z]([a-z0-9-]*[a-z0-9])?' zone='[a-z]+-[a-z]+[0-9]+-[a-z]'
  local machine='[a-z][a-z0-9]*(-[a-z0-9]+)+' network='([0-9]{1,3}\.){3}[0-9]{1,3}/[0-9]{1,2}'
  local count='[1-9][0-9]{0,3}' gpu='(t4|l4|v100|a100-40gb|a100-80gb|h100)'
  cat <<TABLE
VOXSRC_PROJECT;[a-z][a-z0-9-]{4,28}[a-z0-9];a project id such as my-project;-
VOXSRC_REGION;[a-z]+-[a-z]+[0-9]+;a region such as europe-west4;-
VOXSRC_ZONE;$zone;a zone such as europe-west4-a;-
VOXSRC_NODE_ZONES;$zone(,$zone)*;zones such as europe-west4-a,europe-west4-b;\$VOXSRC_ZONE
VOXSRC_REGISTRY;[a-z0-9-]+-docker\.pkg\.dev/[a-z0-9-]+/[a-z]([a-z0-9-]{0,61}[a-z0-9])?;REGION-docker.pkg.dev/PROJECT/REPOSITORY;-
VOXSRC_SOURCE_URL;https?://[^ ]+;the address of the source, or nothing;optional
VOXSRC_BUCKET;[a-z0-9][a-z0-9._-]{1,61}[a-z0-9];a bucket's name of 3 to 63 characters, without gs://;-
VOXSRC_SOFT_DELETE_DAYS;0|[7-9]|[1-8][0-9]|90;0 or 7 to 90;7
VOXSRC_CLUSTER;[a-z]([a-z0-9-]{0,38}[a-z0-9])?;a name of at most 40 lower-case letters, digits and hyphens;-
VOXSRC_SERVICE_ACCOUNT;$account;NAME@PROJECT.iam.gserviceaccount.com, NAME of 6 to 30 characters;-
VOXSRC_KUBERNETES_SERVICE_ACCOUNT;$name;a Kubernetes service account's name;pipeline-runner
VOXSRC_NODE_SERVICE_ACCOUNT;$account;NAME@PROJECT.iam.gserviceaccount.com, NAME of 6 to 30 characters;voxsrc-nodes@\$VOXSRC_PROJECT.iam.gserviceaccount.com
VOXSRC_KFP_SERVICE_ACCOUNT;$account;NAME@PROJECT.iam.gserviceaccount.com, NAME of 6 to 30 characters;voxsrc-kfp@\$VOXSRC_PROJECT.iam.gserviceaccount.com
VOXSRC_NETWORK;$name;the name of a VPC network of the project;default
VOXSRC_SUBNETWORK;$name;the name of a subnetwork of VOXSRC_REGION, or nothing;optional
VOXSRC_PRIVATE_NODES;yes|no|own-nat;yes, no, or own-nat;no
VOXSRC_AUTHORIZED_NETWORKS;$network(,$network)*;networks such as 192.0.2.0/24, or nothing;optional
VOXSRC_SYSTEM_MACHINE_TYPE;$machine;a machine type such as e2-standard-4;e2-standard-4
VOXSRC_SYSTEM_MAX_NODES;$count;a number of nodes, at least 1;3
VOXSRC_CPU_MACHINE_TYPE;$machine;a machine type such as n2d-standard-8, or nothing;optional
VOXSRC_CPU_MAX_NODES;$count;a number of nodes, at least 1;8
VOXSRC_GPU_MAX_NODES;$count;a number of nodes, at least 1;2
VOXSRC_GPU_TYPES;none|$gpu(,$gpu)*;none, or some of t4,l4,v100,a100-40gb,a100-80gb,h100;l4
VOXSRC_KFP_VERSION;[0-9]+\.[0-9]+\.[0-9]+;a release such as 2.17.0;2.17.0
VOXSRC_KFP_ENDPOINT;https?://[^ ]+;an address such as http://localhost:8080, or nothing;optional
VOXSRC_KFP_NAMESPACE;$name;a namespace such as kubeflow;kubeflow
VOXSRC_KFP_EXPERIMENT;.+;the name of an experiment;voxsrc
TABLE
}

# read_settings_file FILE: sets a variable in_file_NAME for each line, or adds to `problems`.
read_settings_file() {
  local line number=0 name value known
  known="$(list_settings | cut -d ';' -f 1)"
  while IFS= read -r line || [[ -n "$line" ]]; do
    ((number += 1))
    if [[ "$line" =~ ^[[:space:]]*(#.*)?$ ]]; then
      continue
    fi
    if ! [[ "$line" =~ ^([A-Z][A-Z0-9_]*)=(\"[^\"]*\"|\'[^\']*\'|[^[:space:]\"\']*)$ ]]; then
      problem "$1:$number: found $line; expected NAME=VALUE without spaces, or a comment"
      continue
    fi
    name="${BASH_REMATCH[1]}" value="${BASH_REMATCH[2]}"
    if [[ "$value" == *[\$\`\\]* ]]; then
      problem "$1:$number: $name holds \$, \` or \\; expected plain text, as nothing is expanded"
    elif [[ $'\n'"$known"$'\n' != *$'\n'"$name"$'\n'* ]]; then
      problem "$1:$number: found $name, which no script reads; expected a name of env/cloud.env.example"
    elif [[ "$value" == [\"\']* ]]; then
      printf -v "in_file_$name" '%s' "${value:1:${#value}-2}"
    else
      printf -v "in_file_$name" '%s' "$value"
    fi
  done <"$1"
}

problem() {
  problems+="${problems:+$'\n'}$1"
}

# check_machine SETTING: ends the script if a machine type cannot be had in a cluster as these scripts make it. From
# docs.cloud.google.com/compute/docs/machine-resource: processors, and disks of each series.
check_machine() {
  local why=''
  case "${!1%%-*}" in
    t2a | c4a | n4a) why='ARM processors, which the images are not for' ;;
    a4x) why='ARM processors, which the images are not for, and GPUs' ;;
    n4 | n4d | c4 | c4d | h4d | m4 | x4) why='Hyperdisk alone, and the nodes here have Persistent Disk (pd-balanced)' ;;
    a2 | a3 | a4 | g2 | g4) why='GPUs, and this pool is one without: see VOXSRC_GPU_TYPES' ;;
  esac
  [[ -z "$why" ]] ||
    die "$1: found ${!1}, a machine with $why; expected another series, such as e2, n2d, n2, c3 or c3d"
}

# Adds to `problems` what is wrong between settings, and what is known of their values.
compare_settings() {
  local zone account host project
  for zone in ${VOXSRC_ZONE//,/ } ${VOXSRC_NODE_ZONES//,/ }; do
    [[ "$zone" == "$VOXSRC_REGION"-? ]] ||
      problem "VOXSRC_ZONE, VOXSRC_NODE_ZONES: found $zone; expected zones of VOXSRC_REGION, $VOXSRC_REGION"
  done
  IFS=/ read -r host project _ <<<"$VOXSRC_REGISTRY"
  [[ "$host" == "$VOXSRC_REGION-docker.pkg.dev" && "$project" == "$VOXSRC_PROJECT" ]] ||
    problem "VOXSRC_REGISTRY: found $VOXSRC_REGISTRY; expected $VOXSRC_REGION-docker.pkg.dev/$VOXSRC_PROJECT/REPOSITORY, \
as VOXSRC_REGION and VOXSRC_PROJECT say"
  for account in VOXSRC_SERVICE_ACCOUNT VOXSRC_NODE_SERVICE_ACCOUNT VOXSRC_KFP_SERVICE_ACCOUNT; do
    [[ "${!account}" == *"@$VOXSRC_PROJECT.iam.gserviceaccount.com" ]] ||
      problem "$account: found ${!account}; expected an account of VOXSRC_PROJECT, \
NAME@$VOXSRC_PROJECT.iam.gserviceaccount.com"
  done
}

# load_settings FILE: sets every setting as a variable, or ends with all that is wrong.
load_settings() {
  local file="$1" problems='' setting pattern expected default value in_file
  if [[ ! -f "$file" ]]; then
    die "no settings file $file; make it: cp env/cloud.env.example env/cloud.env, fill it in (or name one: --env FILE)"
  fi
  read_settings_file "$file"
  while IFS=';' read -r setting pattern expected default; do
    in_file="in_file_$setting"
    value="${!setting:-${!in_file:-}}"
    if [[ -z "$value" && "$default" == - ]]; then
      problem "$setting: found nothing; expected $expected"
    elif [[ -z "$value" && "$default" != optional ]]; then
      value="${default//\$VOXSRC_PROJECT/${VOXSRC_PROJECT:-}}"
      value="${value//\$VOXSRC_ZONE/${VOXSRC_ZONE:-}}"
    elif [[ -n "$value" ]] && ! [[ "$value" =~ ^($pattern)$ ]]; then
      problem "$setting: found $value; expected $expected"
    fi
    printf -v "$setting" '%s' "$value"
  done < <(list_settings)
  [[ -n "$problems" ]] || compare_settings
  if [[ -n "$problems" ]]; then
    die "settings cannot be used; correct $file or the environment:"$'\n'"$problems"
  fi
}
