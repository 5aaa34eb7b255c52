"""Finds the file of each listed utterance."""

import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from voxsrc.corpus import Utterance, utterances_from_paths
from voxsrc.errors import CorpusError
from voxsrc.sources.base import Member, Source

_PROBED = 50
_PROBED_DEEPLY = 5


@dataclass(frozen=True)
class Matching:
    """Utterances and their files.

    Attributes:
        pairs: Each utterance that has a file, with it; in the order of the list.
        missing: Utterances without a file.
        prefix: The folder within the source to which the list's paths are relative.
        num_other_suffix: Utterances whose file has another suffix than listed.
        notes: What else was found, for people to read.
    """

    pairs: list[tuple[Utterance, Member]]
    missing: list[Utterance]
    prefix: str
    num_other_suffix: int
    notes: list[str]


def match_utterances(source: Source, utterances: Sequence[Utterance]) -> Matching:
    """Finds the file of each listed utterance.

    A path whose file has another suffix is matched by its stem: VoxCeleb2's own list names `.wav`
    where the archive has `.m4a`. The folder that the paths are relative to is found by looking.

    Raises:
        CorpusError: If none of the first utterances is there, or in several places.
    """
    prefix = _find_prefix(source, utterances)
    pairs, missing = [], []
    for utterance in utterances:
        member = source.find(prefix + _path(utterance))
        if member is None:
            missing.append(utterance)
        else:
            pairs.append((utterance, member))
    others = Counter(
        f".{listed.rpartition('.')[2]} where the file is .{member.path.rpartition('.')[2]}"
        for listed, member in ((prefix + _path(u), member) for u, member in pairs)
        if listed != member.path
    )
    notes = [
        f"the list says {what}: {count} utterances matched by stem" for what, count in sorted(others.items())
    ]
    if prefix:
        notes.insert(0, f"the list's paths are found below {prefix}")
    return Matching(pairs, missing, prefix, sum(others.values()), notes)


def match_all_files(source: Source) -> Matching:
    """Takes every audio file of a source laid out as `speaker/[session/]file`.

    Raises:
        CorpusError: If the files do not lie so.
    """
    scan = source.scan()
    utterances, prefix = utterances_from_paths(scan.members)
    pairs = [(utterance, scan.members[prefix + utterance.utterance_id]) for utterance in utterances]
    skipped = [f"{count} entries skipped: {reason}" for reason, count in sorted(scan.skipped.items())]
    speakers = {utterance.speaker_id for utterance in utterances}
    if len(speakers) == 1 and len({utterance.session_id for utterance in utterances}) > 1:
        # A folder around the speakers' looks the same as one speaker with sessions.
        skipped.append(
            f"all files are taken as one speaker's, {speakers.pop()!r}: is that a speaker's folder?"
        )
    return Matching(pairs, [], prefix, 0, skipped)


def _find_prefix(source: Source, utterances: Sequence[Utterance]) -> str:
    if any(source.find(_path(utterance)) for utterance in utterances[:_PROBED]):
        return ""
    for utterance in utterances[:_PROBED_DEEPLY]:
        prefixes = source.find_prefix(_path(utterance))
        if len(prefixes) > 1:
            raise CorpusError(
                f"{utterance.utterance_id} is in {source.uri} more than once, below {', '.join(prefixes)}; "
                "name one of these folders as the audio"
            )
        if prefixes:
            return prefixes[0]
    raise CorpusError(
        f"none of the first {min(_PROBED_DEEPLY, len(utterances))} listed utterances is in {source.uri} "
        f"(the first is {utterances[0].utterance_id}); the list's paths must be relative to the audio folder "
        "or to a folder in it"
    )


def _path(utterance: Utterance) -> str:
    """The listed path without the `./` that `find .` puts before it."""
    return posixpath.normpath(utterance.utterance_id)
