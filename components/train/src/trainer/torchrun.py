"""torchrun, but that a signal ends it without a traceback: the trainer has said what it saved.

python -m trainer.torchrun [torchrun's arguments]
"""

import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing import SignalException

from voxsrc.command import EXIT_FAILED


def main() -> int:
    """Runs torchrun until its processes have ended; returns its exit code."""
    try:
        run.main()
    except SignalException:
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
