"""Starts the trainer from one line: overrides as one text, options left empty, several processes.

    python -m trainer.launch [--num-processes N] [--overrides "KEY=VALUE; ..."] [flags of `trainer`]

Kubeflow has a parameter's value or an empty text, never a missing argument, and no lists of arguments.
Replaces itself by the trainer, so that signals and exit codes are the trainer's own.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from voxsrc.command import run_command, without_empty_options
from voxsrc.cores import cpu_count
from voxsrc.errors import ConfigError


def build_parser() -> argparse.ArgumentParser:
    """The flags that are not the trainer's."""
    parser = argparse.ArgumentParser(
        prog="trainer",
        add_help=False,
        allow_abbrev=False,
        usage="trainer [--num-processes N] [--overrides TEXT] [the flags below]",
    )
    parser.add_argument(
        "--num-processes",
        type=int,
        default=1,
        metavar="N",
        help="processes that share each batch, one a GPU (default: 1); started by torchrun",
    )
    parser.add_argument(
        "--overrides",
        default="",
        metavar="TEXT",
        help='as several --set, divided by semicolons: "num_steps=1000; batch_size=128"',
    )
    return parser


def command(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The trainer's command line, and variables that are set where the environment lacks them.

    Args:
        arguments: Ours and the trainer's flags; an option whose value is empty counts as not given.

    Raises:
        ConfigError: If the number of processes is not positive.
    """
    parsed, others = build_parser().parse_known_args(without_empty_options(arguments))
    flags = ["trainer", *others, *_as_flags(parsed.overrides)]
    if parsed.num_processes < 1:
        raise ConfigError(f"--num-processes is {parsed.num_processes}; expected at least 1")
    if parsed.num_processes == 1:
        return [sys.executable, "-m", *flags], {}
    # By default they meet at the host's name, which not every container can resolve.
    torchrun = ["trainer.torchrun", "--standalone", "--local-addr", "127.0.0.1"]
    count = ["--nproc-per-node", str(parsed.num_processes)]
    # torchrun's own choice is one thread each.
    threads = {"OMP_NUM_THREADS": str(max(1, cpu_count() // parsed.num_processes))}
    return [sys.executable, "-m", *torchrun, *count, "-m", *flags], threads


def _as_flags(overrides: str) -> list[str]:
    """Divided by semicolons alone, as values such as `[4, 15]` hold spaces and commas."""
    entries = [entry.strip() for entry in overrides.split(";")]
    return [argument for entry in entries if entry for argument in ("--set", entry)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Becomes the trainer; returns only if the arguments cannot be used."""
    return run_command(
        _launch, argparse.Namespace(arguments=sys.argv[1:] if arguments is None else arguments)
    )


def _launch(parsed: argparse.Namespace) -> None:
    if {"-h", "--help"} & set(parsed.arguments):
        print(build_parser().format_help(), flush=True)
    line, variables = command(parsed.arguments)
    os.execve(line[0], line, {**variables, **os.environ})  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    sys.exit(main())
