"""Makes the plan of an extraction: finds each utterance's audio and divides all into shards."""

import os
from collections.abc import Set
from pathlib import Path

from feature_extractor.options import ExtractionOptions, copy_name
from feature_extractor.plan import Plan, PlannedUtterance, list_hash
from voxsrc import storage
from voxsrc.corpus import read_utterance_list
from voxsrc.errors import ConfigError, CorpusError
from voxsrc.feature_set.shard import RejectedUtterance
from voxsrc.sources import (
    Matching,
    SeveralSources,
    Source,
    match_all_files,
    match_utterances,
    open_sources,
)
from voxsrc.sources.several import each_source

# About 20 MB and half a minute of one core for VoxCeleb2: little is lost to a preemption.
_UTTERANCES_PER_SHARD = 1000
# A small corpus is still split so that a few workers share it.
_FEW_SHARDS = 8
_FEWEST_UTTERANCES = 25


def make_plan(options: ExtractionOptions) -> tuple[Plan, list[list[PlannedUtterance]]]:
    """Finds the audio of every listed utterance and divides it into shards of about equal audio.

    Returns:
        The plan and each shard's utterances.

    Raises:
        CorpusError: If the list or the audio is not as expected, or too many utterances have no audio.
        ConfigError: If copies at another speed would be called like a speaker.
        StorageError: If either cannot be read.
    """
    source = open_sources(options.audio_uris)
    try:
        if options.list_uri is None:
            matching = match_all_files(source, one_speaker=options.one_speaker)
        else:
            matching = match_utterances(source, read_utterance_list(options.list_uri))
        _check_copies({utterance.speaker_id for utterance, _ in matching.pairs}, options)
        rejected = _rejected(source, matching, options)
    finally:
        source.close()
    planned = [PlannedUtterance(utterance, member) for utterance, member in matching.pairs]
    # Source after source: archives are read from front to back, files of a folder keep the list's order.
    planned.sort(key=lambda p: p.member.place)
    shards = _divide(planned, options.num_shards or _default_num_shards(len(planned)))
    plan = Plan(
        options=options,
        list_sha256=list_hash(options.list_uri),
        num_utterances=len(planned),
        shard_sizes=[len(shard) for shard in shards],
        audio_bytes=[sum(p.member.size for p in shard) for shard in shards],
        rejected=rejected,
        notes=matching.notes,
    )
    return plan, shards


def check_output(output_uri: str, options: ExtractionOptions) -> None:
    """Raises ConfigError if no feature set can or should be made at a place."""
    place = _same_for_same_folder(output_uri)
    if place in map(_same_for_same_folder, options.audio_uris):
        raise ConfigError(
            f"--output {output_uri} is --audio, too: the feature set would lie among the recordings; give it "
            "a folder of its own"
        )
    if not storage.is_remote(output_uri):
        for path in (place, *map(str, Path(place).parents)):
            if storage.exists(path):  # as a file
                found = f"{output_uri} is" if path == place else f"{output_uri}: {path} is"
                raise ConfigError(f"--output {found} a file; expected a folder, which need not be there yet")


def _same_for_same_folder(uri: str) -> str:
    return uri.rstrip("/") if storage.is_remote(uri) else os.path.realpath(storage.local_path(uri))


def _check_copies(speaker_ids: Set[str], options: ExtractionOptions) -> None:
    """Raises ConfigError if a copy at another speed would be called like another speaker."""
    for speed in options.speeds:
        for speaker_id in sorted(speaker_ids):
            if (copy := copy_name(speaker_id, speed)) in speaker_ids:
                raise ConfigError(
                    f"--speed {float(speed):g}: the copies of {speaker_id} would be called {copy}, as "
                    "another speaker is; rename one of the two, or leave out that speed"
                )


def _rejected(
    source: Source | SeveralSources, matching: Matching, options: ExtractionOptions
) -> list[RejectedUtterance]:
    missing = [
        RejectedUtterance(u.utterance_id, u.speaker_id, "missing", f"not in {source.uri}")
        for u in matching.missing
    ]
    num_listed = len(matching.pairs) + len(missing)
    if len(missing) / num_listed > options.max_rejected:
        raise CorpusError(
            f"{len(missing)} of {num_listed} listed utterances are not in {source.uri}, the first is "
            f"{missing[0].utterance_id}; complete the audio or the list, or raise --max-rejected "
            f"(now {options.max_rejected:g})"
        )
    # A folder cannot hold such paths, and to ask would walk all of it.
    archives = sorted({member.source for _, member in matching.pairs if member.method != "file"})
    return missing + [
        RejectedUtterance(path, "", "unsafe_path", "the archive's entry leaves the archive; it is never read")
        for archive in archives
        for path in each_source(source)[archive].scan().unsafe_paths
    ]


def _default_num_shards(num_utterances: int) -> int:
    few = min(_FEW_SHARDS, num_utterances // _FEWEST_UTTERANCES)
    return max(1, few, -(-num_utterances // _UTTERANCES_PER_SHARD))


def _divide(planned: list[PlannedUtterance], num_shards: int) -> list[list[PlannedUtterance]]:
    """Cuts the sequence where the audio's bytes come closest to equal parts; no shard is empty."""
    num_shards = min(num_shards, len(planned))
    total = sum(p.member.size for p in planned)
    shards: list[list[PlannedUtterance]] = [[]]
    cumulated = 0
    for position, utterance in enumerate(planned):
        boundary = total * len(shards) / num_shards
        left, shards_left = len(planned) - position, num_shards - len(shards)
        due = cumulated + utterance.member.size / 2 > boundary or left <= shards_left
        if shards[-1] and shards_left and due:
            shards.append([])
        shards[-1].append(utterance)
        cumulated += utterance.member.size
    return shards
