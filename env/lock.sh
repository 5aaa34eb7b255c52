#!/usr/bin/env bash
# Compiles the requirements files of this folder from pyproject.toml.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: env/lock.sh [--upgrade] [--check]

Writes env/requirements-<extra>.txt for every extra of pyproject.toml,
env/requirements-pytorch.txt for the base image of those with torch, and
env/requirements-build.txt for the build system, all with exact versions for
Python 3.11 on any platform. Versions in the files are kept while they satisfy
pyproject.toml and env/constraints.txt.

  --upgrade  take the newest versions
  --check    change nothing; fail if a file would change
TEXT
}

die() {
  printf 'lock.sh: %s\n' "$*" >&2
  exit 1
}

upgrade=()
check=false
while (($#)); do
  case "$1" in
    --upgrade) upgrade=(--upgrade); shift ;;
    --check) check=true; shift ;;
    -h | --help) usage; exit 0 ;;
    *) die "unknown option $1; see --help" ;;
  esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v uv >/dev/null || die 'uv is missing; install it with: pip install uv'

target="$PWD/env"
if $check; then
  target="$(mktemp -d)"
  trap 'rm -rf "$target"' EXIT
  # uv keeps the versions that it finds in its output file.
  cp env/requirements-*.txt "$target/"
fi

# compile NAME [uv options…] SOURCE
compile() {
  local name="$1"
  shift
  uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --no-emit-index-url \
    --constraint env/constraints.txt --custom-compile-command env/lock.sh ${upgrade[@]+"${upgrade[@]}"} \
    --no-annotate --output-file "$target/requirements-$name.txt" "$@"
}

# Without hashes: on a developer's machine other builds of a package may stand in.
compile dev --extra dev pyproject.toml
# The images install with hashes, and only versions that the tests run with.
for extra in feature-extractor train evaluate pipelines; do
  compile "$extra" --constraint "$target/requirements-dev.txt" --generate-hashes --extra "$extra" pyproject.toml
done
# lines EXPRESSION: prints a list in pyproject.toml, one entry a line.
lines() {
  python3 -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb')); print(*$1, sep='\n')"
}
lines "(line for line in project['project']['optional-dependencies']['train'] if line.startswith('torch>'))" |
  compile pytorch --constraint "$target/requirements-dev.txt" --generate-hashes -
lines "project['build-system']['requires']" |
  compile build --constraint "$target/requirements-dev.txt" --generate-hashes -

if $check; then
  for file in "$target"/requirements-*.txt; do
    diff -u "env/${file##*/}" "$file" || die "env/${file##*/} is out of date; run env/lock.sh"
  done
fi
