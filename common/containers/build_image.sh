#!/usr/bin/env bash
# The one script that builds every image; each component's build_image.sh calls it.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

usage() {
  cat <<'TEXT'
Usage: build_image.sh NAME [options]

Builds the image voxsrc-NAME from the repository root. NAME is a folder with a
Dockerfile: common/containers/NAME (a base image) or components/NAME. A Dockerfile
that says `ARG X_IMAGE` without a default is built on the base image x, which is
built first unless one from the same files exists.

The tag is the short git commit, with -dirty if the tree differs from it; the version
in pyproject.toml is set as a second, local tag (the compiled components name it).
Prints image, tag, id, digest and size on standard output, the build's log on
standard error.

  --push                push the commit's tag to the registry, print the digest
  --registry REGISTRY   default: VOXSRC_REGISTRY from the environment or the settings
  --env FILE            settings; default: $VOXSRC_CLOUD_ENV, else env/cloud.env if it exists
  --tag TAG             instead of the commit
  --variant VARIANT     with this variant of the base image, such as `cpu` of pytorch; the
                        tags end in -VARIANT
  --wheels DIR          install from this folder of wheels alone, without a network
                        (the base images' Debian packages still come through one, if
                        they are missing); fill it on Linux with Python 3.11:
                          pip download --no-deps --require-hashes --dest DIR
                            -r env/requirements-NAME.txt -r env/requirements-build.txt
                        (for --variant cpu: common/containers/pytorch/cpu_wheels.sh NAME DIR)
  --build-arg KEY=VALUE passed on; repeatable (BASE_IMAGE=debian@sha256:… pins the base)
  --pull                look for a newer Debian image of that name, and rebuild on it if there
                        is one; without, the one that is here stays in use
  --no-cache            rebuild everything, the base image too: with newer Debian packages

Debian's image is a label of what is built on it, org.opencontainers.image.base.name and, if
it came from a registry, .digest: --build-arg BASE_IMAGE=NAME@DIGEST builds on the same again.
  -h, --help            this text

Environment: DOCKER names the client (default docker); VOXSRC_SOURCE_URL sets the label
org.opencontainers.image.source; VOXSRC_PLATFORM is what images are built for (default
linux/amd64, as the cluster's nodes are, whatever machine builds them: an ARM one emulates
it). Another, for runs on this machine, is not pushed.
TEXT
}

die() {
  printf 'build_image.sh: %s\n' "$*" >&2
  exit 1
}

# shellcheck source=gcp-cluster/lib/settings.sh
source "$root/gcp-cluster/lib/settings.sh"

docker="${DOCKER:-docker}"
name=''
settings="${VOXSRC_CLOUD_ENV:-}"
push=false
registry=''
tag=''
variant=''
wheels=''
build_args=()
no_cache=()
pull=false
while (($#)); do
  case "$1" in
    --push) push=true; shift ;;
    --env) settings="${2:?--env needs a file}"; shift 2 ;;
    --env=*) settings="${1#--env=}"; shift ;;
    --registry) registry="${2:?--registry needs a value}"; shift 2 ;;
    --tag) tag="${2:?--tag needs a value}"; shift 2 ;;
    --variant) variant="${2:?--variant needs a name}"; shift 2 ;;
    --wheels) wheels="${2:?--wheels needs a folder}"; shift 2 ;;
    --build-arg) build_args+=(--build-arg "${2:?--build-arg needs KEY=VALUE}"); shift 2 ;;
    --pull) pull=true; shift ;;
    --no-cache) no_cache=(--no-cache); shift ;;
    -h | --help) usage; exit 0 ;;
    -*) die "unknown option $1; see --help" ;;
    *)
      [[ -z "$name" ]] || die "unexpected argument $1 after $name; see --help"
      name="$1"; shift ;;
  esac
done
[[ -n "$name" ]] || die 'no image named; see --help'

# Prints the Dockerfile of image $1, relative to the root.
dockerfile_of() {
  local candidate
  for candidate in "common/containers/$1/Dockerfile" "components/$1/Dockerfile"; do
    if [[ -f "$root/$candidate" ]]; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  die "no image $1: neither common/containers/$1/Dockerfile nor components/$1/Dockerfile exists"
}

# Reads the settings file, if there is one, as the scripts of gcp-cluster do: nothing in it is executed.
read_settings() {
  local problems=''
  if [[ -n "$settings" ]]; then
    [[ -f "$settings" ]] || die "no settings file $settings; make it: cp env/cloud.env.example env/cloud.env"
  elif [[ -f "$root/env/cloud.env" ]]; then
    settings="$root/env/cloud.env"
  else
    return 0
  fi
  read_settings_file "$settings"
  [[ -z "$problems" ]] || die "settings cannot be used; correct $settings:"$'\n'"$problems"
}

# Prints the value of variable $1: the environment's, else that of the settings file.
setting() {
  local in_file="in_file_$1"
  printf '%s' "${!1:-${!in_file:-}}"
}

# Prints the commit that the tree is at, or VERSION-nogit outside a git repository.
revision_of_tree() {
  if [[ ! -e "$root/.git" ]] || ! git -C "$root" rev-parse --git-dir >/dev/null; then
    [[ ! -e "$root/.git" ]] || die 'git cannot read the repository (its message is above); or name a --tag'
    printf '%s-nogit' "$version"
  elif ! git -C "$root" rev-parse --verify --quiet HEAD >/dev/null; then
    printf '%s-nogit' "$version"
  else
    local dirty=''
    [[ -z "$(git -C "$root" status --porcelain)" ]] || dirty=-dirty
    printf '%s%s' "$(git -C "$root" rev-parse --short=12 HEAD)" "$dirty"
  fi
}

# build NAME DOCKERFILE [docker build options…]
build() {
  local title="$1" dockerfile="$2"
  shift 2
  local labels=(
    --label "org.opencontainers.image.title=voxsrc-$title"
    --label "org.opencontainers.image.version=$version"
    --label "org.opencontainers.image.revision=$revision"
  )
  [[ -z "$debian" ]] || labels+=(--label "org.opencontainers.image.base.name=$debian")
  [[ -z "$debian_digest" ]] || labels+=(--label "org.opencontainers.image.base.digest=$debian_digest")
  [[ -z "$source_url" ]] || labels+=(--label "org.opencontainers.image.source=$source_url")
  "$docker" build --platform "$platform" --file "$root/$dockerfile" "${labels[@]}" \
    ${no_cache[@]+"${no_cache[@]}"} ${build_args[@]+"${build_args[@]}"} "$@" "$root" >&2
}

dockerfile="$(dockerfile_of "$name")"
version="$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml")"
revision="$(revision_of_tree)"
tag="${tag:-$revision}${variant:+-$variant}"
read_settings
source_url="$(setting VOXSRC_SOURCE_URL)"
registry="${registry:-$(setting VOXSRC_REGISTRY)}"
platform="${VOXSRC_PLATFORM:-linux/amd64}"
[[ "$platform" =~ ^linux/([a-z0-9]+)(/v[0-9]+)?$ ]] ||
  die "VOXSRC_PLATFORM: found $platform; expected linux/amd64, linux/arm64 or the like"
architecture="${BASH_REMATCH[1]}"
if $push && [[ "$architecture" != amd64 ]]; then
  die "--push: VOXSRC_PLATFORM is $platform; expected linux/amd64, as the cluster's nodes are: leave it unset"
fi
if $push && [[ -z "$registry" ]]; then
  die '--push needs a registry: give --registry, or set VOXSRC_REGISTRY in env/cloud.env (see env/cloud.env.example)'
fi

command -v "$docker" >/dev/null || die "no Docker client named $docker; install docker.io or set DOCKER"
# BuildKit is part of the engine; from version 23 on the client reaches it through a plugin.
client_version="$("$docker" version --format '{{.Client.Version}}' 2>/dev/null || true)"
[[ -n "$client_version" ]] || die "$docker does not answer; is the engine running? Try: $docker version"
if ((${client_version%%.*} >= 23)) && ! "$docker" buildx version >/dev/null 2>&1; then
  die "$docker (version $client_version) lacks its buildx plugin; install docker-buildx or set DOCKER to another client"
fi
export DOCKER_BUILDKIT=1
export BUILDKIT_PROGRESS="${BUILDKIT_PROGRESS:-plain}"

# variable_options DOCKERFILE: adds to `options` the build arguments, not names of base images, that it declares.
variable_options() {
  if [[ -n "$variant" ]] && grep -q '^ARG VARIANT=' "$root/$1"; then
    options+=(--build-arg "VARIANT=$variant")
  fi
  if [[ -n "$wheels" ]] && grep -q '^ARG WHEELS_IMAGE=' "$root/$1"; then
    options+=(--build-arg "WHEELS_IMAGE=$wheels_image")
  fi
}

# architecture_of IMAGE: prints what the image that is here was built for; nothing if it is not here.
architecture_of() {
  "$docker" image inspect --format '{{.Architecture}}' "$1" 2>/dev/null || true
}

# Finds the Debian image that all others are built on, from a registry if it is not here: sets `debian`, its name,
# `debian_id` and, if a registry gave it, `debian_digest`. One for another architecture is no reason not to look there.
find_debian() {
  local argument digests here
  debian="$(sed -n 's/^ARG BASE_IMAGE=//p' "$root/common/containers/python/Dockerfile")"
  for argument in ${build_args[@]+"${build_args[@]}"}; do
    [[ "$argument" != BASE_IMAGE=* ]] || debian="${argument#BASE_IMAGE=}"
  done
  [[ -n "$debian" ]] || return 0
  here="$(architecture_of "$debian")"
  if $pull || [[ "$here" != "$architecture" ]]; then
    "$docker" pull --platform "$platform" "$debian" >&2 || {
      if $pull || [[ -z "$here" ]]; then
        die "$debian cannot be pulled for $platform (see above)"
      fi
      # An engine that keeps several platforms of one name may have this one, too, and show another.
      printf 'build_image.sh: warning: %s cannot be pulled for %s (see above), and what is here may be for %s alone\n' \
        "$debian" "$platform" "$here" >&2
    }
  fi
  debian_id="$("$docker" image inspect --format '{{.Id}}' "$debian")"
  digests="$("$docker" image inspect --format '{{join .RepoDigests "\n"}}' "$debian")"
  digests="${digests%%$'\n'*}"
  debian_digest="${digests#*@}"
}

# Prints what names the base image of Dockerfile $1: what it is made from, not the commit, as most commits leave
# it as it is. A folder of wheels is known by their names and sizes.
content_of() {
  local -a files
  {
    (cd "$root/${1%/*}" && cat -- *)
    while read -r -a files; do
      (cd "$root" && cat -- "${files[@]}")
    done < <(sed -n 's/^COPY \(env\/.*\) [^ ]*$/\1/p' "$root/$1")
    printf '%s\n' "$debian_id" ${options[@]+"${options[@]/#WHEELS_IMAGE=*/$wheels_content}"} \
      ${build_args[@]+"${build_args[@]}"}
  } | sha256sum | cut -c 1-12
}

# base_options NAME: sets `options` to the build arguments that name the base images of NAME, made if missing.
base_options() {
  local -a collected=()
  local argument base base_dockerfile image
  while read -r argument; do
    base="$(tr 'A-Z_' 'a-z-' <<<"${argument%_IMAGE}")"
    base_options "$base"
    base_dockerfile="$(dockerfile_of "$base")"
    variable_options "$base_dockerfile"
    image="voxsrc-$base:content-$(content_of "$base_dockerfile")"
    if ((${#no_cache[@]})) && [[ " ${rebuilt[*]-} " != *" $image "* ]] ||
      [[ "$(architecture_of "$image")" != "$architecture" ]]; then
      build "$base" "$base_dockerfile" --tag "$image" ${options[@]+"${options[@]}"}
      rebuilt+=("$image")
    fi
    collected+=(--build-arg "$argument=$image")
  done < <(sed -n 's/^ARG \([A-Z_]*_IMAGE\)$/\1/p' "$root/$(dockerfile_of "$1")")
  options=(${collected[@]+"${collected[@]}"})
}

wheels_image='' wheels_content=''
if [[ -n "$wheels" ]]; then
  compgen -G "$wheels/*.whl" >/dev/null || die "--wheels $wheels: no wheel there"
  wheels_content="$(cd "$wheels" && wc -c -- *.whl)"
  wheels_image="voxsrc-wheels:$$"
  trap '"$docker" image rm --force "$wheels_image" >/dev/null 2>&1 || true' EXIT
  "$docker" build --platform "$platform" --file - --tag "$wheels_image" "$wheels" >&2 <<<$'FROM scratch\nCOPY *.whl /'
fi

debian='' debian_id='' debian_digest=''
find_debian
rebuilt=()
base_options "$name"
variable_options "$dockerfile"
[[ -z "$wheels" ]] || options+=(--network none)

image="voxsrc-$name"
build "$name" "$dockerfile" --build-arg "VOXSRC_COMMIT=$revision" \
  --tag "$image:$tag" --tag "$image:$version${variant:+-$variant}" ${options[@]+"${options[@]}"}

# inspect FORMAT: prints a property of the image.
inspect() {
  "$docker" image inspect --format "$1" "$image:$tag"
}

digest='none (not pushed)'
if $push; then
  # Some engines take a base image that is here for whatever platform is asked for.
  built="$(architecture_of "$image:$tag")"
  [[ "$built" == "$architecture" ]] ||
    die "$image:$tag is for ${built:-no known architecture}; expected $architecture, as the cluster's nodes are: not\
 pushed. Its base image is for that: name one for $platform with --build-arg BASE_IMAGE=…, or let --pull fetch it"
  "$docker" tag "$image:$tag" "$registry/$image:$tag"
  "$docker" push "$registry/$image:$tag" >&2
  image="$registry/$image"
  digests="$(inspect '{{join .RepoDigests "\n"}}')"
  digest="$(grep -F -m 1 "$image@" <<<"$digests")" ||
    die "$image:$tag was pushed, but $docker names no digest of it there; found: ${digests:-none}"
fi
# All is known before a line is printed: what reads them gets all or none.
id="$(inspect '{{.Id}}')"
size="$(inspect '{{.Size}}')"
printf 'image   %s\ntag     %s\nid      %s\ndigest  %s\nsize    %s MB\n' "$image" "$tag" "$id" "$digest" \
  "$((size / 1000000))"
