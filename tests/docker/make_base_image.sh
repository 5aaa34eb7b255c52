#!/usr/bin/env bash
# Makes the Debian base image on a machine that cannot pull one from a registry.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: make_base_image.sh [--tag IMAGE:TAG] [--suite NAME] [--force]

For machines that cannot pull: builds a minimal Debian root file system with
debootstrap and imports it under the tag that the Dockerfiles name in FROM
(default debian:bookworm-slim). Does nothing if that tag exists or can be pulled.

The local CA certificates of this machine (/usr/local/share/ca-certificates) are
added, so that builds work behind a proxy that inspects TLS. The image is for tests;
publish images that were built on the real base.

  --tag IMAGE:TAG  name of the image to make        (default debian:bookworm-slim)
  --suite NAME     Debian suite                     (default bookworm)
  --force          make it even if the tag exists, and without trying to pull

Environment: DOCKER names the client (default docker). Needs root and debootstrap.
TEXT
}

die() {
  printf 'make_base_image.sh: %s\n' "$*" >&2
  exit 1
}

docker="${DOCKER:-docker}"
tag=debian:bookworm-slim
suite=bookworm
force=false
while (($#)); do
  case "$1" in
    --tag) tag="${2:?--tag needs a value}"; shift 2 ;;
    --suite) suite="${2:?--suite needs a value}"; shift 2 ;;
    --force) force=true; shift ;;
    -h | --help) usage; exit 0 ;;
    *) die "unknown option $1; see --help" ;;
  esac
done

if ! $force; then
  if "$docker" image inspect "$tag" >/dev/null 2>&1; then
    printf '%s exists\n' "$tag"
    exit 0
  fi
  if timeout 60 "$docker" pull --quiet "$tag" 2>/dev/null; then
    printf '%s pulled\n' "$tag"
    exit 0
  fi
fi
((EUID == 0)) || die 'debootstrap needs root'
command -v debootstrap >/dev/null || die 'debootstrap is missing; install it with apt-get install debootstrap'

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
root="$work/root"

# The same exclusions as the official slim variant, so that measured sizes are comparable.
mkdir -p "$root/etc/dpkg/dpkg.cfg.d"
cat >"$root/etc/dpkg/dpkg.cfg.d/slim" <<'TEXT'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/lintian/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
TEXT
debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" >"$work/log" 2>&1 ||
  die "debootstrap failed: $(tail -n 5 "$work/log")"
find "$root/usr/share/doc" -mindepth 2 -type f ! -name copyright -delete
rm -rf "$root"/usr/share/{info,lintian,locale,man}/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* \
  "$root"/var/log/*

changes=(--change 'CMD ["bash"]')
shopt -s nullglob
certificates=(/usr/local/share/ca-certificates/*.crt)
if ((${#certificates[@]})); then
  cp "${certificates[@]}" "$root/usr/local/share/ca-certificates/"
  chroot "$root" update-ca-certificates >"$work/log" 2>&1 || die "update-ca-certificates failed: $(cat "$work/log")"
  bundle=/etc/ssl/certs/ca-certificates.crt
  for name in SSL_CERT_FILE PIP_CERT REQUESTS_CA_BUNDLE CURL_CA_BUNDLE; do
    changes+=(--change "ENV $name=$bundle")
  done
fi
tar --numeric-owner -C "$root" -c . | "$docker" import "${changes[@]}" - "$tag" >/dev/null
printf '%s made with debootstrap (%s local CA certificates)\n' "$tag" "${#certificates[@]}"
