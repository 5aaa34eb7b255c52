"""What every command of the project does alike: errors to one line, the number of cores, `--debug`."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from voxsrc.errors import VoxsrcError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def add_debug_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `--debug`, which `run_command` reads."""
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def run_command(function: Callable[[argparse.Namespace], int | None], parsed: argparse.Namespace) -> int:
    """Runs a subcommand; an expected error becomes one message on stderr.

    Returns:
        The exit code: what `function` returns, 0 if None; 1 for a VoxsrcError; 130 for Ctrl-C.
    """
    try:
        return function(parsed) or 0
    except VoxsrcError as error:
        if getattr(parsed, "debug", False):
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted; what is finished is kept", file=sys.stderr)
        return EXIT_INTERRUPTED


def without_empty_options(arguments: Sequence[str]) -> list[str]:
    """Leaves out options with an empty value, `--name ""` and `--name=`: Kubeflow cannot leave one out."""
    kept: list[str] = []
    for argument in arguments:
        if argument == "" and kept and kept[-1].startswith("--"):
            kept.pop()
        elif not (argument.startswith("--") and argument.endswith("=")):
            kept.append(argument)
    return kept


def cpu_count() -> int:
    """Cores that this process may use: fewer than the machine's where it is pinned or in a container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, _cgroup_cpus()))


def _cgroup_cpus() -> int:
    """The CPU quota of a container (cgroup v2), rounded up; very many if there is none."""
    unlimited = 1 << 16
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:  # noqa: PTH123 - a kernel interface, not a path of ours
            quota, period = file.read().split()
    except (OSError, ValueError):
        return unlimited
    return unlimited if quota == "max" else -(-int(quota) // int(period))
