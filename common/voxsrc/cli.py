"""The command `voxsrc`: looks at what the components made, and uses it."""

import argparse
import sys
from collections.abc import Sequence

import voxsrc
from voxsrc.command import configure_logging, run_command


def build_parser() -> argparse.ArgumentParser:
    """The command line, with its help."""
    from voxsrc.commands import (
        cost,
        embed,
        features,
        fuse,
        identify,
        metrics,
        models,
        pipeline,
        submission,
        trials,
        verify,
    )

    parser = argparse.ArgumentParser(prog="voxsrc", description="Speaker verification for VoxSRC.")
    parser.add_argument("--version", action="version", version=f"voxsrc {voxsrc.__version__}")
    groups = parser.add_subparsers(dest="group", required=True, metavar="COMMAND")
    for module in (
        features,
        models,
        verify,
        identify,
        embed,
        metrics,
        fuse,
        trials,
        submission,
        pipeline,
        cost,
    ):
        module.add_commands(groups)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parsed = build_parser().parse_args(arguments)
    configure_logging()
    return run_command(parsed.function, parsed)


if __name__ == "__main__":
    sys.exit(main())
