"""The command `feature-extractor`: plan, extract, finish, and run, which is all three."""

import argparse
import sys
from collections.abc import Sequence

import voxsrc
from feature_extractor import commands
from voxsrc.command import add_debug_flag, configure_logging, run_terminable_command
from voxsrc.cores import cpu_count
from voxsrc.feature_set.encoding import DEFAULT_STEP_NAT
from voxsrc.features import PRESETS


def build_parser() -> argparse.ArgumentParser:
    """The command line, with its help."""
    parser = argparse.ArgumentParser(
        prog="feature-extractor",
        description="Turns audio into a feature set: quantised log-mel filterbanks, sharded and checksummed. "
        "Interrupted at any instant, the same command continues and ends with the same bytes.",
    )
    parser.add_argument("--version", action="version", version=f"voxsrc {voxsrc.__version__}")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = parsers.add_parser(
        "run", help="plan, extract and finish in one go", description=commands.run.__doc__
    )
    _add_content_options(run)
    _add_worker_option(run)
    plan = parsers.add_parser(
        "plan", help="divide the listed audio into shards", description=commands.plan.__doc__
    )
    _add_content_options(plan)
    extract = parsers.add_parser(
        "extract", help="make some shards of a plan", description=commands.extract.__doc__
    )
    _add_output_option(extract)
    which = extract.add_mutually_exclusive_group()
    which.add_argument(
        "--shards", default="all", metavar="LIST", help="shards to make: `0-3,7` or `all` (default)"
    )
    which.add_argument("--part", metavar="I/N", help="the I-th of N equal parts of the shards, I from 0")
    _add_worker_option(extract)
    finish = parsers.add_parser(
        "finish", help="write index and manifest", description=commands.finish.__doc__
    )
    _add_output_option(finish)
    _add_executor_input(finish)
    for command, function in (
        (run, commands.run),
        (plan, commands.plan),
        (extract, commands.extract),
        (finish, commands.finish),
    ):
        command.set_defaults(function=function)
        add_debug_flag(command)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code, which is 143 after SIGTERM."""
    parsed = build_parser().parse_args(arguments)
    configure_logging()
    return run_terminable_command(parsed.function, parsed)


def _add_output_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", required=True, metavar="URI", help="folder of the feature set, local or gs://"
    )


def _add_worker_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--num-workers",
        type=int,
        default=cpu_count(),
        metavar="N",
        help="processes (default: the cores of this machine, %(default)s)",
    )


def _add_executor_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--executor-input", metavar="JSON", help=argparse.SUPPRESS)


def _add_content_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--audio",
        action="append",
        required=True,
        metavar="URI",
        help="folder, tar (plain, gz, zst) or zip of audio, local or gs://; of an archive in parts, any "
        "part. For several repeat it, or divide them by semicolons; no utterance may be in two",
    )
    parser.add_argument(
        "--list",
        metavar="URI",
        help="utterance list, lines `speaker path`; without it, all of --audio as speaker/[session/]file",
    )
    parser.add_argument(
        "--one-speaker",
        metavar="NAME",
        help="instead of --list: every audio file of --audio, at any depth, is an utterance of this one "
        "speaker; for noise and music, whose files need no speakers' folders",
    )
    _add_output_option(parser)
    parser.add_argument("--preset", choices=PRESETS, default="lfb40", help="features (default: %(default)s)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="replace a field of the preset, such as num_mels=80; may be repeated",
    )
    parser.add_argument(
        "--step",
        type=float,
        default=DEFAULT_STEP_NAT,
        metavar="NAT",
        help="quantisation step, twice the greatest error (default: %(default)s, 6.8%% of PCM16; 0.1: 8.4%%)",
    )
    parser.add_argument(
        "--speed",
        default="",
        metavar="LIST",
        help="add copies at these speeds as new speakers, such as 0.9,1.1 (id10001-sp0.9)",
    )
    parser.add_argument(
        "--num-shards",
        type=int,
        default=0,
        metavar="N",
        help="0, the default: one for each 1,000 utterances, but 8 of a small corpus",
    )
    parser.add_argument(
        "--min-duration",
        type=float,
        default=0.1,
        metavar="S",
        help="reject shorter audio (default: %(default)s s)",
    )
    parser.add_argument(
        "--max-rejected",
        type=float,
        default=0.01,
        metavar="FRACTION",
        help="fail if more than this part of the utterances cannot be used (default: %(default)s)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="look, say what would be made, and write nothing"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="look at the audio anew; make again what options, rejected utterances, or files of another "
        "checksum or, where they have none, time of change concern",
    )
    _add_executor_input(parser)


if __name__ == "__main__":
    sys.exit(main())
