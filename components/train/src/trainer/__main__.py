"""`python -m trainer`."""

import os
import sys

from trainer.cli import main

exit_code = main()
sys.stdout.flush()
sys.stderr.flush()
if int(os.environ.get("WORLD_SIZE", "1")) > 1:
    # Everything is written. While the interpreter is torn down, a thread of torch's that lets go of a Python
    # object would abort the process, and torchrun would call the training failed.
    os._exit(exit_code)
sys.exit(exit_code)
