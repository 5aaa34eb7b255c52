#!/usr/bin/env bash
# In a build stage: installs one requirements file into /opt/venv, then removes what no image needs of it.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: install_packages.sh BUILD_REQUIREMENTS REQUIREMENTS [BASE_REQUIREMENTS]

Installs BUILD_REQUIREMENTS beside pip in /opt/tools and REQUIREMENTS in /opt/venv,
both with hashes; from /wheels alone if that holds wheels. Packages that
BASE_REQUIREMENTS name are left out: the base image has them. What the packages carry
for their own development and tests is removed, symbols are stripped where that is
safe, and Python files compiled (without time stamps, so that equal inputs give equal
files).
TEXT
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
(($# == 2 || $# == 3)) || { usage >&2; exit 2; }

if compgen -G '/wheels/*.whl' >/dev/null; then
  export PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels
fi
requirements="$(mktemp)"
# An entry begins in the first column, with its name; its hashes are indented.
awk -F == 'FILENAME == base { named[$1]; next } /^[a-z0-9]/ { skip = $1 in named } !skip' \
  base="${3:-}" ${3+"$3"} "$2" >"$requirements"
pip_install=(/opt/tools/bin/pip --python)
"${pip_install[@]}" /opt/tools/bin/python install --no-deps --require-hashes --only-binary :all: --requirement "$1"
"${pip_install[@]}" /opt/venv/bin/python install --no-deps --require-hashes --only-binary :all: --no-compile \
  --requirement "$requirements"
rm "$requirements"

packages="$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
cd "$packages"
find . -type d -name tests -prune -exec rm -rf {} +
# torch compiles models with what it and CUDA's packages carry.
find . \( -path ./torch -o -path ./triton -o -path ./nvidia \) -prune -o -type f \( -name '*.a' -o -name '*.c' \
  -o -name '*.cc' -o -name '*.h' -o -name '*.hpp' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.pyi' \
  -o -name '*.pyx' \) -exec rm {} +
# Arrow's RPC and S3 clients, its link-time names, and zstandard's second back-end for other interpreters.
rm -f pyarrow/{_flight,_s3fs,_pyarrow_cpp_tests}.*.so pyarrow/libarrow_{flight,s3}.so* \
  pyarrow/libarrow_python_flight.so* pyarrow/libarrow_python*.so pyarrow/libarrow_python*.so.*.*.* \
  zstandard/_cffi.*.so
# Only wheels that carry their libraries as linked: strip breaks those that auditwheel's patchelf rewrote.
for package in cryptography pyarrow zstandard; do
  [[ ! -d "$package" ]] || find "$package" -type f -name '*.so*' -exec strip --strip-unneeded {} +
done
find . -type d -empty -delete
# torch's own tests need newer versions of Python.
/opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/torch/testing/_internal/' "$packages"
