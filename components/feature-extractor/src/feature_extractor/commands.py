"""The commands: plan, extract, finish, and run, which is all three."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from feature_extractor.options import ExtractionOptions, parse_spec
from voxsrc import storage
from voxsrc.errors import ConfigError, NotFoundError
from voxsrc.feature_set import Manifest, read_manifest
from voxsrc.feature_set.manifest import MANIFEST_NAME, percent
from voxsrc.speeds import parse_speeds

_LOG_INTERVAL_S = 30.0
# Of the log-mel values limited to the encoding's range; speech at the default options has none.
_NOTABLE_PART = 1e-3


def run(parsed: argparse.Namespace) -> None:
    """Makes a feature set: plans, extracts all shards, writes index and manifest.

    Run again, it continues where it was interrupted; a finished set is left as it is.
    """
    from feature_extractor import finishing

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
    _conclude(parsed, finishing.finish(parsed.output))


def plan(parsed: argparse.Namespace) -> None:
    """Finds the audio of every listed utterance and divides it into shards of about equal size."""
    options = _options(parsed)
    if _finished_manifest(parsed, options) is not None:
        print(f"{parsed.output} is finished already; nothing to plan")
        return
    _ensure_plan(parsed, options)


def extract(parsed: argparse.Namespace) -> None:
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


def finish(parsed: argparse.Namespace) -> None:
    """Checks that all shards of the plan are made, and writes index and manifest."""
    from feature_extractor import finishing

    _conclude(parsed, _without_plan(parsed.output) or finishing.finish(parsed.output))


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
    # Of what was made, the manifest's own account is checked, the copy of it there is not.
    checked = {"spec": manifest.spec.to_dict(), "encoding": manifest.encoding.to_dict()}
    difference = settings_difference({**manifest.made_from, **checked}, settings)
    if not difference and not parsed.overwrite:
        return manifest
    if not parsed.overwrite:
        raise ConfigError(
            f"{parsed.output} holds a feature set made with other options ({difference}); "
            "choose another --output, or give --overwrite"
        )
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
    from feature_extractor.planning import check_output, make_plan
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
                f"{parsed.output} holds an unfinished extraction with other options ({difference}); "
                "choose another --output, or give --overwrite"
            )
    if begun is None:
        check_output(parsed.output, options)
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
        # Only now: what cannot be planned leaves a finished set as it is.
        storage.delete(storage.join(parsed.output, MANIFEST_NAME), missing_ok=True)
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


def _options(parsed: argparse.Namespace) -> ExtractionOptions:
    from voxsrc.sources import audio_uris

    return ExtractionOptions(
        audio_uris=audio_uris(parsed.audio),
        list_uri=parsed.list or None,
        one_speaker=parsed.one_speaker or None,
        spec=parse_spec(parsed.preset, parsed.set),
        step_nat=parsed.step,
        speeds=parse_speeds(parsed.speed),
        num_shards=parsed.num_shards or None,
        min_duration_s=parsed.min_duration,
        max_rejected=parsed.max_rejected,
    )
