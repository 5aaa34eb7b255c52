"""Makes an utterance list from a folder or an archive that holds `speaker/[session/]file`."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from voxsrc import corpus
from voxsrc.corpus import Utterance
from voxsrc.errors import CorpusError
from voxsrc.sources import Scan, SeveralSources, Source, match_utterances, open_sources, refuse_shared

_NAMED_MISSING = 5


@dataclass(frozen=True)
class Preparation:
    """An utterance list and how it came about.

    Attributes:
        utterances: In bytewise order of their paths, or in the order of the trials.
        prefix: Folder within the audio to which the paths are relative; found again at extraction. Empty of
            several sources, of which each may have its own.
        ignored: How many files were left out, by reason.
        notes: What else was found, for people to read.
    """

    utterances: list[Utterance]
    prefix: str
    ignored: Counter[str]
    notes: list[str]

    @property
    def summary(self) -> str:
        """Counts of speakers, sessions and utterances."""
        speakers = {u.speaker_id for u in self.utterances}
        sessions = {(u.speaker_id, u.session_id) for u in self.utterances}
        return f"{len(speakers):,} speakers, {len(sessions):,} sessions, {len(self.utterances):,} utterances"


def prepare(audio_uris: str | Sequence[str], output: str, trials_uri: str | None = None) -> Preparation:
    """Lists the utterances of `audio_uris` and writes the list to `output`, atomically.

    Args:
        audio_uris: Folder, tar, zip, or parts of one, or several of them; local or in a bucket.
        output: Where the list goes.
        trials_uri: A trial list; with it, only the utterances that it names are listed, under its names.

    Raises:
        CorpusError: If there is no audio, it does not lie as `speaker/[session/]file`, or that of a trial is
            missing, or two sources have the same utterance.
    """
    source = open_sources(audio_uris)
    try:
        prepared = _all_utterances(source) if trials_uri is None else _trial_utterances(source, trials_uri)
    finally:
        source.close()
    corpus.write_utterance_list(output, prepared.utterances)
    return prepared


def _all_utterances(source: Source | SeveralSources) -> Preparation:
    if not isinstance(source, SeveralSources):
        return _all_of(source)
    parts = {each.uri: _all_of(each) for each in source.sources}
    refuse_shared(source, [part.utterances for part in parts.values()])
    utterances = [utterance for part in parts.values() for utterance in part.utterances]
    return Preparation(
        sorted(utterances, key=lambda utterance: utterance.utterance_id.encode()),
        "",
        sum((part.ignored for part in parts.values()), Counter()),
        [f"{uri}: {note}" for uri, part in parts.items() for note in (part.summary, *part.notes)],
    )


def _all_of(source: Source) -> Preparation:
    scan = source.scan()
    paths, ignored = usable_paths(scan)
    if not paths:
        found = ", ".join(f"{count} {reason}" for reason, count in sorted(ignored.items())) or "nothing"
        raise CorpusError(f"{source.uri} has no audio as speaker/[session/]file; found: {found}")
    utterances, prefix = corpus.utterances_from_paths(paths)
    notes = [f"unsafe path, never read: {path!r}" for path in scan.unsafe_paths[:_NAMED_MISSING]]
    if len({u.speaker_id for u in utterances}) == 1:
        notes.append(
            f"only one speaker, {utterances[0].speaker_id}: name the folder above the speakers' as --audio"
        )
    return Preparation(utterances, prefix, ignored, notes)


def usable_paths(scan: Scan) -> tuple[list[str], Counter[str]]:
    """The paths that can be utterances, and how many others there are, by reason."""
    ignored = Counter(scan.skipped)
    paths = []
    for path, member in scan.members.items():
        reason = _reason_to_ignore(path, member.size)
        if reason:
            ignored[reason] += 1
        else:
            paths.append(path)
    return paths, ignored


def _reason_to_ignore(path: str, num_bytes: int) -> str | None:
    if "/" not in path:
        return "no_speaker_folder"
    return None if num_bytes else "empty"


def _trial_utterances(source: Source | SeveralSources, trials_uri: str) -> Preparation:
    listed = utterances_of_trials(corpus.read_trials(trials_uri).utterance_ids())
    matching = match_utterances(source, listed)
    if matching.missing:
        named = ", ".join(u.utterance_id for u in matching.missing[:_NAMED_MISSING])
        raise CorpusError(
            f"{len(matching.missing):,} of the {len(listed):,} utterances in {trials_uri} are not in "
            f"{source.uri} ({named}, …); VoxCeleb1-O needs vox1-test, E and H need vox1-dev and vox1-test: "
            "name both as --audio"
        )
    return Preparation(listed, matching.prefix, Counter(), matching.notes)


def utterances_of_trials(paths: Iterable[str]) -> list[Utterance]:
    """Utterances under the names that a trial list gives them; the speaker is found from the folders."""
    utterances, prefix = corpus.utterances_from_paths(paths)
    return [Utterance(prefix + u.utterance_id, u.speaker_id, u.session_id) for u in utterances]
