"""Finds the file of each listed utterance."""

import posixpath
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from voxsrc.corpus import Utterance, session_of, utterances_from_paths
from voxsrc.errors import CorpusError
from voxsrc.sources.base import Member, Source, without_suffix
from voxsrc.sources.several import SeveralSources

_PROBED = 50
_PROBED_DEEPLY = 5
_NAMED = 5
_PATHS_REMEDY = "the list's paths must be relative to the audio folder or to a folder in it"


@dataclass(frozen=True)
class Matching:
    """Utterances and their files.

    Attributes:
        pairs: Each utterance that has a file, with it; in the order of the list, or of the ids without one.
        missing: Utterances without a file.
        prefix: The folder within the source to which the list's paths are relative; empty of several
            sources, of which each may have its own.
        num_other_suffix: Utterances whose file has another suffix than listed.
        notes: What else was found, for people to read.
    """

    pairs: list[tuple[Utterance, Member]]
    missing: list[Utterance]
    prefix: str
    num_other_suffix: int
    notes: list[str]


def match_utterances(source: Source | SeveralSources, utterances: Sequence[Utterance]) -> Matching:
    """Finds the file of each listed utterance.

    A path whose file has another suffix is matched by its stem: VoxCeleb2's own list names `.wav`
    where the archive has `.m4a`. One whose file has its accents in another Unicode form (NFC, NFD), as
    in archives made on a Mac, is matched if it is not there as listed. The folder that the paths are
    relative to is found by looking, in each of several sources anew.

    Raises:
        CorpusError: If none of the first utterances is there (of several sources: none at all), one is in
            several places, or two of known speakers have the same file.
    """
    if not isinstance(source, SeveralSources):
        return _match_below(source, _find_prefix(source, utterances), utterances)
    prefixes = [_find_only_prefix(each, utterances) for each in source.sources]
    matchings = [
        Matching([], [], "", 0, []) if prefix is None else _match_below(each, prefix, utterances)
        for each, prefix in zip(source.sources, prefixes, strict=True)
    ]
    if not any(matching.pairs for matching in matchings):
        raise CorpusError(
            f"none of the {len(utterances):,} listed utterances is in {source.uri} (the first is "
            f"{utterances[0].utterance_id}); {_PATHS_REMEDY}"
        )
    found = _united(source, matchings)
    return Matching(
        pairs=[found[u.utterance_id] for u in utterances if u.utterance_id in found],
        missing=[u for u in utterances if u.utterance_id not in found],
        prefix="",
        num_other_suffix=sum(matching.num_other_suffix for matching in matchings),
        notes=_notes(source, matchings, f"of the {len(utterances):,} listed utterances"),
    )


def _match_below(source: Source, prefix: str, utterances: Sequence[Utterance]) -> Matching:
    pairs, missing = [], []
    for utterance in utterances:
        member = _find(source, prefix, utterance)
        if member is None:
            missing.append(utterance)
        else:
            pairs.append((utterance, member))
    _check_own_files(source, pairs)
    others: Counter[str] = Counter()
    num_respelt = 0
    for listed, path in ((prefix + _path(utterance), member.path) for utterance, member in pairs):
        if listed == path:
            continue
        suffix, found = listed.rpartition(".")[2], path.rpartition(".")[2]
        if suffix != found:
            others[f".{suffix} where the file is .{found}"] += 1
        num_respelt += without_suffix(listed) != without_suffix(path)
    notes = [
        f"the list says {what}: {count} utterances matched by stem" for what, count in sorted(others.items())
    ]
    if num_respelt:
        notes.append(
            "the list has accents in another Unicode form than the files, which looks the same (NFC, NFD): "
            f"{num_respelt} utterances matched all the same"
        )
    if prefix:
        notes.insert(0, f"the list's paths are found below {prefix}")
    return Matching(pairs, missing, prefix, sum(others.values()), notes)


def _check_own_files(source: Source, pairs: Sequence[tuple[Utterance, Member]]) -> None:
    """Raises CorpusError if two utterances have the same file, whose speaker would then be in doubt.

    Utterances without a speaker are but names, as trials have them; several may mean one file.
    """
    utterance_of: dict[str, Utterance] = {}
    twice = []
    for utterance, member in pairs:
        if not utterance.speaker_id:
            continue
        first = utterance_of.setdefault(member.path, utterance)
        if first is not utterance:
            twice.append((first, utterance, member.path))
    if twice:
        named = "; ".join(
            f"{first.utterance_id} and {second.utterance_id} are both {path}"
            for first, second, path in twice[:_NAMED]
        )
        raise CorpusError(
            f"{len(twice):,} listed utterances have the file of another one in {source.uri}: {named}"
            f"{'; …' if len(twice) > _NAMED else ''}. Of paths that differ in `./`, in their suffix or in "
            "the Unicode form of accents alone list one, or add the file that is missing"
        )


def match_all_files(source: Source | SeveralSources, *, one_speaker: str | None = None) -> Matching:
    """Takes every audio file of a source, or of several, laid out as `speaker/[session/]file`.

    Args:
        source: Where the files are.
        one_speaker: If given, all are this speaker's, and may lie anywhere.

    Raises:
        CorpusError: If there are none, they do not lie so, or two sources have the same utterance.
    """
    if not isinstance(source, SeveralSources):
        return _match_all_of(source, one_speaker)
    matchings = []
    for each in source.sources:
        try:
            matchings.append(_match_all_of(each, one_speaker))
        except CorpusError as error:
            raise CorpusError(f"{each.uri}: {error}") from error
    found = _united(source, matchings)
    pairs = [found[utterance_id] for utterance_id in sorted(found, key=str.encode)]
    return Matching(pairs, [], "", 0, _notes(source, matchings, "utterances"))


def _match_all_of(source: Source, one_speaker: str | None) -> Matching:
    scan = source.scan()
    if one_speaker is None:
        utterances, prefix = _told_by_folders(scan.members)
    else:
        utterances, prefix = _of_one_speaker(scan.members, one_speaker), ""
    pairs = [(utterance, scan.members[prefix + utterance.utterance_id]) for utterance in utterances]
    skipped = [f"{count} entries skipped: {reason}" for reason, count in sorted(scan.skipped.items())]
    speakers = {utterance.speaker_id for utterance in utterances}
    sessions = {utterance.session_id for utterance in utterances}
    if one_speaker is None and len(speakers) == 1 and len(sessions) > 1:
        # A folder around the speakers' looks the same as one speaker with sessions.
        skipped.append(
            f"all files are taken as one speaker's, {speakers.pop()!r}: is that a speaker's folder?"
        )
    return Matching(pairs, [], prefix, 0, skipped)


def _told_by_folders(paths: Collection[str]) -> tuple[list[Utterance], str]:
    try:
        return utterances_from_paths(paths)
    except CorpusError as error:
        if not paths:
            raise
        raise CorpusError(
            f"{error}. Of noise and music, where speakers mean nothing, feature-extractor takes all files "
            "with --one-speaker NAME"
        ) from error


def _of_one_speaker(paths: Collection[str], speaker_id: str) -> list[Utterance]:
    if not paths:
        raise CorpusError("there are no audio files")
    return [Utterance(path, speaker_id, session_of(path)) for path in sorted(paths, key=str.encode)]


def _find_prefix(source: Source, utterances: Sequence[Utterance]) -> str:
    if any(_find(source, "", utterance) for utterance in utterances[:_PROBED]):
        return ""
    for utterance in utterances[:_PROBED_DEEPLY]:
        prefixes = source.find_prefixes(_spellings(utterance))
        if len(prefixes) > 1:
            raise CorpusError(
                f"{utterance.utterance_id} is in {source.uri} more than once, below {', '.join(prefixes)}; "
                "name one of these folders as the audio"
            )
        if prefixes:
            return prefixes[0]
    raise CorpusError(
        f"none of the first {min(_PROBED_DEEPLY, len(utterances))} listed utterances is in {source.uri} "
        f"(the first is {utterances[0].utterance_id}); {_PATHS_REMEDY}"
    )


def _find_only_prefix(source: Source, utterances: Sequence[Utterance]) -> str | None:
    """Where in one of several sources the list's paths are; None if it has none of them.

    All are looked for: whose are the first ones, nobody knows.
    """
    prefixes = source.find_prefixes([path for utterance in utterances for path in _spellings(utterance)])
    if len(prefixes) > 1:
        raise CorpusError(
            f"listed utterances are in {source.uri} below {', '.join(prefixes[:_NAMED])}"
            f"{', …' if len(prefixes) > _NAMED else ''}; instead of {source.uri} name "
            "each of these folders that is meant as audio of its own"
        )
    return prefixes[0] if prefixes else None


def _united(several: SeveralSources, matchings: Sequence[Matching]) -> dict[str, tuple[Utterance, Member]]:
    """The pairs of all sources by utterance id.

    Raises:
        CorpusError: See `refuse_shared`.
    """
    refuse_shared(several, [[utterance for utterance, _ in matching.pairs] for matching in matchings])
    return {
        utterance.utterance_id: (utterance, replace(member, source=index))
        for index, matching in enumerate(matchings)
        for utterance, member in matching.pairs
    }


def refuse_shared(several: SeveralSources, utterances: Sequence[Sequence[Utterance]]) -> None:
    """Raises CorpusError if two sources have the same utterance, be it under another suffix.

    Args:
        several: The sources.
        utterances: Those of each source.
    """
    # A listed path finds files of any suffix, so a suffix tells no utterances apart.
    found: dict[str, tuple[str, int]] = {}
    twice: list[tuple[str, int, str, int]] = []
    for index, of_source in enumerate(utterances):
        for utterance_id in (utterance.utterance_id for utterance in of_source):
            first = found.setdefault(without_suffix(utterance_id), (utterance_id, index))
            if first[1] != index:
                twice.append((*first, utterance_id, index))
    if twice:
        first_id, first_index, second_id, second_index = twice[0]
        other_name = "" if second_id == first_id else f" as {second_id}"
        raise CorpusError(
            f"{len(twice):,} utterances are in more than one source, the first is {first_id}: in "
            f"{several.sources[first_index].uri} and in {several.sources[second_index].uri}{other_name}. "
            "Nothing says which is meant: leave one of the sources out, or the utterances out of one of them"
        )


def _notes(several: SeveralSources, matchings: Sequence[Matching], what: str) -> list[str]:
    return [
        f"{source.uri}: {note}"
        for source, matching in zip(several.sources, matchings, strict=True)
        for note in (f"{len(matching.pairs):,} {what}", *matching.notes)
    ]


def _find(source: Source, prefix: str, utterance: Utterance) -> Member | None:
    """The utterance's file below `prefix`, as listed or else in another Unicode form."""
    found = (source.find(prefix + path) for path in _spellings(utterance))
    return next((member for member in found if member is not None), None)


def _spellings(utterance: Utterance) -> list[str]:
    """The listed path, then, if it is another one, with its accents composed, then with them apart."""
    path = _path(utterance)
    if path.isascii():
        return [path]
    return list(dict.fromkeys([path, *(unicodedata.normalize(form, path) for form in ("NFC", "NFD"))]))


def _path(utterance: Utterance) -> str:
    """The listed path without the `./` that `find .` puts before it."""
    return posixpath.normpath(utterance.utterance_id)
