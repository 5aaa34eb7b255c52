#!/usr/bin/env bash
# Builds the evaluator's image; --help lists the options.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/../../common/containers/build_image.sh" evaluate "$@"
