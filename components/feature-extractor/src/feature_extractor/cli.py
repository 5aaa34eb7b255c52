"""The command `feature-extractor`: plan, extract, finish, and run, which is all three."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

import voxsrc
from feature_extractor.options import ExtractionOptions, parse_speeds
from voxsrc import storage
from voxsrc.command import add_debug_flag, cpu_count, run_command
from voxsrc.errors import ConfigError, NotFoundError
from voxsrc.feature_set import Manifest, read_manifest
from voxsrc.feature_set.encoding import DEFAULT_STEP_NAT
from voxsrc.feature_set.manifest import percent
from voxsrc.features import PRESETS, FbankSpec, preset

_LOG_INTERVAL_S = 30.0
# Of the log-mel values limited to the encoding's range; speech at the default options has none.
_NOTABLE_PART = 1e-3


def build_parser() -> argparse.ArgumentParser:
    """The command line, with its help."""
    parser = argparse.ArgumentParser(
        prog="feature-extractor",
        description="Turns audio into a feature set: quantised log-mel filterbanks, sharded and checksummed. "
        "Interrupted at any instant, the same command continues and ends with the same bytes.",
    )
    parser.add_argument("--version", action="version", version=f"voxsrc {voxsrc.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="plan, extract and finish in one go", description=_run.__doc__)
    _add_content_options(run)
    _add_worker_option(run)
    plan = commands.add_parser("plan", help="divide the listed audio into shards", description=_plan.__doc__)
    _add_content_options(plan)
    extract = commands.add_parser("extract", help="make some shards of a plan", description=_extract.__doc__)
    _add_output_option(extract)
    which = extract.add_mutually_exclusive_group()
    which.add_argument(
        "--shards", default="all", metavar="LIST", help="shards to make: `0-3,7` or `all` (default)"
    )
    which.add_argument("--part", metavar="I/N", help="the I-th of N equal parts of the shards, I from 0")
    _add_worker_option(extract)
    finish = commands.add_parser("finish", help="write index and manifest", description=_finish.__doc__)
    _add_output_option(finish)
    _add_executor_input(finish)
    for command, function in ((run, _run), (plan, _plan), (extract, _extract), (finish, _finish)):
        command.set_defaults(function=function)
        add_debug_flag(command)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parsed = build_parser().parse_args(arguments)
    return run_command(parsed.function, parsed)


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


def _options(parsed: argparse.Namespace) -> ExtractionOptions:
    from voxsrc.sources import audio_uris

    return ExtractionOptions(
        audio_uris=audio_uris(parsed.audio),
        list_uri=parsed.list or None,
        spec=_spec(parsed.preset, parsed.set),
        step_nat=parsed.step,
        speeds=parse_speeds(parsed.speed),
        num_shards=parsed.num_shards or None,
        min_duration_s=parsed.min_duration,
        max_rejected=parsed.max_rejected,
    )


def _spec(preset_name: str, assignments: Sequence[str]) -> FbankSpec:
    defaults = preset(preset_name).to_dict()
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment}: expected FIELD=VALUE")
        kind = type(defaults.get(name, ""))
        try:
            overrides[name] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError) as error:
            raise ConfigError(f"--set {assignment}: expected a value of type {kind.__name__}") from error
    return preset(preset_name, **overrides)


def _run(parsed: argparse.Namespace) -> None:
    """Makes a feature set: plans, extracts all shards, writes index and manifest.

    Run again, it continues where it was interrupted; a finished set is left as it is.
    """
    from feature_extractor.finishing import finish

    _check_num_workers(parsed.num_workers)
    options = _options(parsed)
    manifest = _finished_manifest(parsed, options)
    if manifest is not None:
        _write_metrics(parsed.executor_input, manifest)
        print(f"{parsed.output} is finished already; nothing to do")
        return
    num_shards = _ensure_plan(parsed, options)
    if parsed.dry_run:
        return
    _extract_with_progress(parsed.output, range(num_shards), parsed.num_workers)
    _conclude(parsed, finish(parsed.output))


def _plan(parsed: argparse.Namespace) -> None:
    """Finds the audio of every listed utterance and divides it into shards of about equal size."""
    options = _options(parsed)
    if _finished_manifest(parsed, options) is not None:
        print(f"{parsed.output} is finished already; nothing to plan")
        return
    _ensure_plan(parsed, options)


def _extract(parsed: argparse.Namespace) -> None:
    """Makes shards of a plan; those that are finished are left as they are."""
    from feature_extractor.plan import read_plan

    _check_num_workers(parsed.num_workers)
    if _without_plan(parsed.output) is not None:
        print(f"{parsed.output} is finished already; nothing to extract")
        return
    num_shards = read_plan(parsed.output).num_shards
    part, chosen = parsed.part, parsed.shards
    shards = _part_of(part, num_shards) if part else _chosen_shards(chosen, num_shards)
    _extract_with_progress(parsed.output, shards, parsed.num_workers)


def _finish(parsed: argparse.Namespace) -> None:
    """Checks that all shards of the plan are made, and writes index and manifest."""
    from feature_extractor.finishing import finish

    _conclude(parsed, _without_plan(parsed.output) or finish(parsed.output))


def _without_plan(output_uri: str) -> Manifest | None:
    """The manifest of a finished set that came without its plan, as a copy does; None with a plan.

    Raises:
        NotFoundError: If there is neither.
    """
    from feature_extractor.plan import read_plan

    try:
        read_plan(output_uri)
    except NotFoundError as error:
        try:
            return read_manifest(output_uri)
        except NotFoundError:
            raise error from None
    return None


def _finished_manifest(parsed: argparse.Namespace, options: ExtractionOptions) -> Manifest | None:
    """The manifest of a set that has what is asked for already; an error if it has something else."""
    from feature_extractor.plan import content_settings, list_hash, settings_difference

    try:
        manifest = read_manifest(parsed.output)
    except NotFoundError:
        return None
    settings = content_settings(options, list_hash(options.list_uri))
    difference = settings_difference(dict(manifest.made_from), settings)
    if not difference and not parsed.overwrite:
        return manifest
    if not parsed.overwrite:
        raise ConfigError(
            f"{parsed.output} holds a feature set made with other options: {difference}; "
            "choose another --output, or give --overwrite"
        )
    if not parsed.dry_run:
        storage.delete(storage.join(parsed.output, "manifest.json"), missing_ok=True)
    return None


def _ensure_plan(parsed: argparse.Namespace, options: ExtractionOptions) -> int:
    """Reads the plan of an extraction begun with these options, or makes one; its number of shards."""
    from feature_extractor.plan import (
        content_settings,
        list_hash,
        read_plan,
        settings_difference,
        write_plan,
    )
    from feature_extractor.planning import make_plan
    from feature_extractor.renewal import changes_since_planned, settle

    try:
        begun = read_plan(parsed.output)
    except NotFoundError:
        begun = None
    if begun is not None:
        difference = settings_difference(
            content_settings(begun.options, begun.list_sha256),
            content_settings(options, list_hash(options.list_uri)),
        )
        same = not difference and begun.options.max_rejected == options.max_rejected
        if same and not parsed.dry_run and not parsed.overwrite:
            print(f"continuing the extraction in {parsed.output}", flush=True)
            if note := changes_since_planned(parsed.output, begun):
                print(f"note: {note}", flush=True)
            return begun.num_shards
        if difference and not parsed.overwrite:
            raise ConfigError(
                f"{parsed.output} holds an unfinished extraction with other options: {difference}; "
                "choose another --output, or give --overwrite"
            )
    print(f"looking for the audio in {', '.join(options.audio_uris)}", flush=True)
    plan, shards = make_plan(options)
    for note in plan.notes:
        print(f"note: {note}")
    if plan.rejected:
        print(
            f"note: {len(plan.rejected)} listed utterances or archive entries cannot be read; "
            "rejected.jsonl will name them"
        )
    gigabytes = sum(plan.audio_bytes) / 1e9
    print(
        f"{plan.num_utterances:,} utterances, {gigabytes:.3f} GB of audio, {plan.num_shards} shards",
        flush=True,
    )
    if parsed.dry_run:
        from feature_extractor.estimate import estimate

        print(estimate(options, shards, getattr(parsed, "num_workers", 1)))
    else:
        settled = settle(parsed.output, begun, plan, shards, overwrite=parsed.overwrite)
        write_plan(parsed.output, plan, settled)
    return plan.num_shards


def _extract_with_progress(output_uri: str, shards: Sequence[int], num_workers: int) -> None:
    from feature_extractor.extraction import Progress, extract_shards
    from feature_extractor.plan import read_plan

    plan = read_plan(output_uri)
    with _progress_bar(sum(plan.shard_sizes[shard] for shard in shards)) as bar:
        seconds, num_finished, began = 0.0, 0, time.monotonic()

        def show(progress: Progress) -> None:
            nonlocal seconds, num_finished
            if progress.resumed:  # which must not make this run look fast
                bar.initial += progress.num_utterances
            seconds += progress.seconds
            num_finished += progress.num_shards
            elapsed_s = time.monotonic() - began
            if elapsed_s:
                bar.set_postfix_str(
                    f"{seconds / elapsed_s:,.0f} × real time, {num_finished}/{len(shards)} shards",
                    refresh=False,
                )
            bar.update(progress.num_utterances)

        extract_shards(output_uri, shards, num_workers, show)


@contextmanager
def _progress_bar(total: int) -> "Iterator[tqdm[Any]]":
    # A log is not a terminal: there a line every half minute is enough.
    interval_s = 0.2 if sys.stderr.isatty() else _LOG_INTERVAL_S
    with tqdm(
        total=total, desc="extracting", unit=" utterances", mininterval=interval_s, smoothing=0.1
    ) as bar:
        yield bar
        bar.refresh()


def _conclude(parsed: argparse.Namespace, manifest: Manifest) -> None:
    _write_metrics(parsed.executor_input, manifest)
    rejected = sum(manifest.num_rejected.values())
    limited = manifest.counts.get("limited_values", 0) / (manifest.num_frames * manifest.spec.num_mels)
    if limited > _NOTABLE_PART:
        print(
            f"note: {100 * limited:.1f} % of the values lie outside what a step of "
            f"{manifest.encoding.step_nat:g} nat can hold and were limited; a larger --step holds them"
        )
    print(
        f"{parsed.output}: {manifest.num_utterances:,} utterances of {manifest.num_speakers:,} speakers, "
        f"{manifest.seconds / 3600:.2f} h, {manifest.stored_bytes / 1e6:.2f} MB "
        f"({percent(manifest.stored_bytes, manifest.pcm16_bytes):.2f} % of 16-bit PCM), {rejected} rejected"
    )


def _write_metrics(executor_input: str | None, manifest: Manifest) -> None:
    if not executor_input:
        return
    from voxsrc.kfp_output import write_executor_output

    write_executor_output(
        executor_input,
        metrics={
            "metrics": {
                "num_utterances": manifest.num_utterances,
                "num_speakers": manifest.num_speakers,
                "hours": manifest.seconds / 3600,
                "megabytes": manifest.stored_bytes / 1e6,
                "percent_of_pcm16": percent(manifest.stored_bytes, manifest.pcm16_bytes),
                "num_rejected": sum(manifest.num_rejected.values()),
            }
        },
    )


def _check_num_workers(num_workers: int) -> None:
    if num_workers < 1:
        raise ConfigError(f"--num-workers {num_workers}: expected at least 1")


def _chosen_shards(text: str, num_shards: int) -> list[int]:
    """`0-3,7` → [0, 1, 2, 3, 7]."""
    if text == "all":
        return list(range(num_shards))
    chosen: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            bounds = int(first), int(last or first)
        except ValueError as error:
            raise ConfigError(f"--shards {text!r}: expected numbers and ranges such as 0-3,7") from error
        if not 0 <= bounds[0] <= bounds[1] < num_shards:
            raise ConfigError(f"--shards {text!r}: the plan has shards 0 to {num_shards - 1}")
        chosen.update(range(bounds[0], bounds[1] + 1))
    return sorted(chosen)


def _part_of(text: str, num_shards: int) -> list[int]:
    """`1/4` → the second of four runs of shards."""
    index_text, _, count_text = text.partition("/")
    try:
        index, count = int(index_text), int(count_text)
    except ValueError as error:
        raise ConfigError(f"--part {text!r}: expected I/N such as 0/4") from error
    if not 0 <= index < count:
        raise ConfigError(f"--part {text!r}: expected I from 0 to N - 1")
    return list(range(num_shards * index // count, num_shards * (index + 1) // count))


if __name__ == "__main__":
    sys.exit(main())
