"""Runs gcloud, where it is installed."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence

# It starts slowly, and may ask several services.
GCLOUD_TIMEOUT_S = 60.0


def run_gcloud(arguments: Sequence[str]) -> tuple[int, str, str]:
    """Runs gcloud; status 127 if it is not installed, 124 if it gives no answer in time."""
    program = shutil.which("gcloud")
    if program is None:
        return 127, "", "gcloud is not installed"
    with subprocess.Popen(  # noqa: S603  (arguments are built here, no shell)
        [program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # gcloud is a shell script that starts Python: both are ended
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=GCLOUD_TIMEOUT_S)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return 124, "", f"gcloud did not answer within {GCLOUD_TIMEOUT_S:g} s"
            raise
    return process.returncode, output, errors
