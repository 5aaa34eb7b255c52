"""The command `voxceleb-data`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import voxsrc
from voxceleb_data import inspection, subset, trials
from voxceleb_data.official import ARCHIVES, LIST_BASE_URLS, LISTS, Archive, OfficialFile
from voxceleb_data.origins import Credentials, open_origin
from voxceleb_data.prepare import prepare
from voxceleb_data.transfer import Transfer
from voxsrc.command import add_debug_flag, configure_logging, run_command
from voxsrc.errors import ConfigError
from voxsrc.sources import audio_uris

_EPILOG = """\
from nothing to a feature set:
  voxceleb-data download vox2-dev --from gs://my-bucket/voxceleb --output /data/vox2
  voxceleb-data prepare --audio '/data/vox2/vox2_dev_aac_part*' --output /data/vox2/train_list.txt
  voxceleb-data download vox1-test --from gs://my-bucket/voxceleb --output /data/vox1
  voxceleb-data trials vox1-O --output /data/vox1
  voxceleb-data download vox1-dev --from gs://my-bucket/voxceleb --output /data/vox1
  voxceleb-data prepare --audio '/data/vox1/vox1_dev_wav_part*' --audio /data/vox1/vox1_test_wav.zip \\
      --output /data/vox1/list.txt
then the feature-extractor with --audio '/data/vox2/vox2_dev_aac_part*' --list /data/vox2/train_list.txt
"""
_DOWNLOAD_EPILOG = """\
credentials are taken from ~/.netrc (or $NETRC), or from the environment variables that you name; they are
never shown. Examples:
  voxceleb-data download vox1-test --from gs://my-bucket/voxceleb --output gs://other-bucket/voxceleb
  voxceleb-data download vox2-dev --from https://host/vox1a --user-env VOX_USER --password-env VOX_PASSWORD \\
      --output /data/vox2
  voxceleb-data download vox1-dev --from 'https://host/download?key={key}&file={name}' --key-env VOX_KEY \\
      --output /data/vox1
"""

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="voxceleb-data",
        description="Download, verify and list VoxCeleb 1 & 2, or your own recordings.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"voxsrc {voxsrc.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_download, _add_verify, _add_trials, _add_prepare, _add_copy_subset):
        add(commands)
    return parser


def _add_download(commands: _Commands) -> None:
    command = commands.add_parser(
        "download",
        help="fetch an archive's parts, resumable, checked by MD5",
        description="Fetches the official parts of an archive and checks their MD5. Run it again after any "
        "interruption: it goes on where it was, and skips what is verified.",
        epilog=_DOWNLOAD_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("archive", choices=ARCHIVES, help="which archive")
    command.add_argument(
        "--from",
        dest="base",
        required=True,
        metavar="BASE",
        help="where the parts lie: gs://bucket/folder, a local folder, or http(s)://…; an address may have "
        "{name} for the file's name and {key} for the value of --key-env in it",
    )
    command.add_argument("--output", required=True, metavar="URI", help="local folder or gs://bucket/folder")
    command.add_argument("--user-env", metavar="NAME", help="environment variable with the user name")
    command.add_argument("--password-env", metavar="NAME", help="environment variable with the password")
    command.add_argument("--key-env", metavar="NAME", help="environment variable with the key for {key}")
    command.add_argument(
        "--parts-only", nargs="+", metavar="PART", help="only these parts, by name or ending (partaa partab)"
    )
    command.add_argument(
        "--joined", action="store_true", help="fetch the joined zip, if BASE has that instead"
    )
    command.add_argument("--verify", action="store_true", help="hash again what was verified before")
    command.add_argument(
        "--staging",
        type=Path,
        default=Path("~/.cache/voxceleb-data"),
        metavar="DIR",
        help="local folder for one part at a time on its way to a bucket (default: %(default)s)",
    )
    command.set_defaults(function=_download)
    add_debug_flag(command)


def _add_verify(commands: _Commands) -> None:
    command = commands.add_parser(
        "verify",
        help="check the MD5 of what is there",
        description="Hashes every official file in a folder or bucket; names missing and damaged ones and "
        "then exits with 1.",
    )
    command.add_argument("folder", metavar="DIR", help="local folder or gs://bucket/folder")
    command.add_argument(
        "--archive",
        action="append",
        default=[],
        choices=ARCHIVES,
        help="an archive that must be whole; may be repeated (default: those of which something is there)",
    )
    command.set_defaults(function=_verify)
    add_debug_flag(command)


def _add_trials(commands: _Commands) -> None:
    command = commands.add_parser(
        "trials",
        help="fetch VoxCeleb's own trial and utterance lists",
        description="Fetches official lists and checks them. vox1-O, -E and -H are the cleaned lists, on "
        "which results are published today; those before cleaning end in -original.",
        epilog="\n".join(
            f"  {item.name:<20} {item.note}, {item.num_lines:,} lines" for item in LISTS.values()
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "lists", nargs="+", choices=LISTS, metavar="LIST", help="see below; several may be given"
    )
    command.add_argument("--output", required=True, metavar="DIR", help="local folder or gs://bucket/folder")
    command.add_argument(
        "--base-url",
        action="append",
        metavar="URL",
        help=f"folder with the official files; may be repeated (default: {' then '.join(LIST_BASE_URLS)})",
    )
    command.set_defaults(function=_trials)
    add_debug_flag(command)


def _add_prepare(commands: _Commands) -> None:
    command = commands.add_parser(
        "prepare",
        help="make an utterance list from a folder or an archive",
        description="Lists audio that lies as speaker/[session/]file below some common folder, in lines "
        "`speaker path`, always in the same order.",
    )
    command.add_argument(
        "--audio",
        action="append",
        required=True,
        metavar="URI",
        help="folder, tar, zip, or parts ('…part*'); local or gs://; may be repeated, no utterance in two",
    )
    command.add_argument("--output", required=True, metavar="LIST", help="the list to write")
    command.add_argument("--trials", metavar="FILE", help="list only what these trials need")
    command.set_defaults(function=_prepare)
    add_debug_flag(command)


def _add_copy_subset(commands: _Commands) -> None:
    command = commands.add_parser(
        "copy-subset",
        help="copy M utterances of each of N speakers, for local work",
        description="Copies a part of a corpus, chosen by hash and spread over the speakers' sessions, with "
        "a list.txt beside it.",
    )
    command.add_argument("--audio", required=True, metavar="URI", help="as in `prepare`, but only one")
    command.add_argument(
        "--list", dest="list_uri", required=True, metavar="LIST", help="utterance list of the audio"
    )
    command.add_argument("--speakers", type=_positive, required=True, metavar="N", help="number of speakers")
    command.add_argument(
        "--utterances", type=_positive, required=True, metavar="M", help="utterances of each"
    )
    command.add_argument(
        "--seed", type=int, default=0, metavar="S", help="another seed, another choice (default: 0)"
    )
    command.add_argument("--output", required=True, metavar="DIR", help="local folder or gs://bucket/folder")
    command.set_defaults(function=_copy_subset)
    add_debug_flag(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parsed = build_parser().parse_args(argv)
    configure_logging()
    return run_command(parsed.function, parsed)


def _download(args: argparse.Namespace) -> int:
    credentials = Credentials.from_environment(
        os.environ,
        user_variable=args.user_env,
        password_variable=args.password_env,
        key_variable=args.key_env,
    )
    archive = ARCHIVES[args.archive]
    files = _selected(archive.files(joined=args.joined), args.parts_only)
    transfer = Transfer(open_origin(args.base, credentials), args.output, args.staging.expanduser())
    num_fetched = transfer.download(files, rehash=args.verify)
    print(
        f"{args.archive}: {len(files)} file(s) verified in {args.output}, {num_fetched} of them fetched now"
    )
    print(f"read it as --audio '{_audio_uri(archive, files, args.output)}'")
    return 0


def _selected(files: tuple[OfficialFile, ...], endings: Sequence[str] | None) -> tuple[OfficialFile, ...]:
    if endings is None:
        return files
    for ending in endings:
        if not any(file.name.endswith(ending) for file in files):
            known = ", ".join(file.name for file in files)
            raise ConfigError(f"--parts-only {ending} is no part; the parts are {known}")
    return tuple(file for file in files if file.name.endswith(tuple(endings)))


def _audio_uri(archive: Archive, files: Sequence[OfficialFile], output: str) -> str:
    name = files[0].name
    is_part = len(archive.parts) > 1 and files[0] in archive.parts
    return f"{output.rstrip('/')}/{name[:-2] + '*' if is_part else name}"


def _verify(args: argparse.Namespace) -> int:
    findings = []
    for finding in inspection.verify(args.folder, args.archive):
        print(f"{finding.state:<8} {finding.name}: {finding.detail}", flush=True)
        findings.append(finding)
    wrong = [finding for finding in findings if finding.state != "ok"]
    print(f"{len(findings) - len(wrong)} ok, {len(wrong)} missing or damaged")
    return 1 if wrong else 0


def _trials(args: argparse.Namespace) -> int:
    for name in dict.fromkeys(args.lists):
        trials.fetch(LISTS[name], args.output, base_urls=args.base_url or LIST_BASE_URLS)
    return 0


def _prepare(args: argparse.Namespace) -> int:
    prepared = prepare(audio_uris(args.audio), args.output, args.trials)
    print(f"{args.output}: {prepared.summary}")
    if prepared.prefix:
        print(f"paths are relative to {prepared.prefix} in the audio; extraction finds that by itself")
    for reason, count in sorted(prepared.ignored.items()):
        print(f"ignored {count:,} files: {reason}")
    for note in prepared.notes:
        print(note)
    return 0


def _copy_subset(args: argparse.Namespace) -> int:
    copied = subset.copy_subset(
        args.audio,
        args.list_uri,
        args.output,
        num_speakers=args.speakers,
        num_utterances=args.utterances,
        seed=args.seed,
    )
    print(
        f"{args.output}: {args.utterances} utterances of each of {args.speakers} speakers, "
        f"{copied.num_bytes / 1e6:.1f} MB, with list.txt"
    )
    if copied.too_few:
        named = ", ".join(copied.too_few[:10]) + (", …" if len(copied.too_few) > 10 else "")
        print(f"passed over {len(copied.too_few)} speakers, with fewer than {args.utterances}: {named}")
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
