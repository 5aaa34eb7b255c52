#!/usr/bin/env bash
# In a build stage: installs this project's own packages from /src into /opt/venv, without dependencies.
set -euo pipefail

/opt/tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /tmp/dist /src
/opt/tools/bin/pip --python /opt/venv/bin/python install --no-index --no-deps --no-compile /tmp/dist/*.whl
rm -rf /tmp/dist
/opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
  "$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
