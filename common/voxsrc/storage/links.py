"""Links among local files: to nothing, in a circle, and to folders that were listed before."""

import errno
import os
from collections.abc import Callable
from pathlib import Path


def leads_to(ask: Callable[[], bool]) -> bool:
    """What a folder's entry answers to `is_file` or `is_dir`; a link in a circle is as one to nothing."""
    try:
        return ask()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return False


def is_repeated(link: str, listed: dict[str, None]) -> bool:
    """Whether a link to a folder leads into a listed tree, or above the root; else adds it to `listed`.

    Args:
        link: Its path.
        listed: Real paths of the root, first, and of all links that were followed.
    """
    real = Path(os.path.realpath(link))
    root = Path(next(iter(listed)))
    if real in root.parents or any(str(folder) in listed for folder in (real, *real.parents)):
        return True
    listed[str(real)] = None
    return False
