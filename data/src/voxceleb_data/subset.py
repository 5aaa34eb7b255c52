"""Copies N speakers × M utterances out of a large corpus, for work on one machine."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from voxsrc import corpus, storage
from voxsrc.corpus import Utterance
from voxsrc.errors import AudioError, CorpusError
from voxsrc.sources import Matching, Source, match_utterances, open_source

_NAMED = 5


@dataclass(frozen=True)
class Subset:
    """What was copied.

    Attributes:
        utterances: Those copied, in bytewise order; their ids are the paths below the output.
        too_few: Speakers passed over because they have fewer utterances than asked for.
        num_bytes: Bytes of audio copied.
    """

    utterances: list[Utterance]
    too_few: list[str]
    num_bytes: int


def copy_subset(
    audio_uri: str, list_uri: str, output: str, *, num_speakers: int, num_utterances: int, seed: int
) -> Subset:
    """Copies chosen utterances to `output` under their path in the source, and writes `output`/list.txt last.

    The choice depends on the list and the seed alone.

    Raises:
        CorpusError: If fewer speakers than asked for have enough utterances, or audio is missing or damaged.
    """
    chosen, too_few = choose(
        corpus.read_utterance_list(list_uri),
        num_speakers=num_speakers,
        num_utterances=num_utterances,
        seed=seed,
    )
    source = open_source(audio_uri)
    try:
        matching = match_utterances(source, chosen)
        if matching.missing:
            named = ", ".join(u.utterance_id for u in matching.missing[:_NAMED])
            raise CorpusError(
                f"{len(matching.missing)} of {len(chosen)} chosen utterances are not in {audio_uri}: "
                f"{named}; make the list anew with `voxceleb-data prepare --audio {audio_uri}`"
            )
        num_bytes = _copy(source, matching, output)
    finally:
        source.close()
    # Under the file's own name: the list may say .wav where the file is .m4a.
    copied = [
        Utterance(member.path.removeprefix(matching.prefix), utterance.speaker_id, utterance.session_id)
        for utterance, member in matching.pairs
    ]
    corpus.write_utterance_list(storage.join(output, "list.txt"), copied)
    return Subset(copied, too_few, num_bytes)


def choose(
    utterances: Iterable[Utterance], *, num_speakers: int, num_utterances: int, seed: int
) -> tuple[list[Utterance], list[str]]:
    """Chooses by hash, so that the order of the list does not matter and other machines choose the same.

    Args:
        utterances: What there is.
        num_speakers: How many speakers to choose among those with enough utterances.
        num_utterances: How many of each, from as many of the speaker's sessions as possible.
        seed: Another seed gives another choice.

    Returns:
        The utterances in bytewise order, and the speakers with too few, sorted.

    Raises:
        CorpusError: If there are fewer such speakers.
    """
    by_speaker: defaultdict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        by_speaker[utterance.speaker_id].append(utterance)
    enough = [speaker for speaker, own in by_speaker.items() if len(own) >= num_utterances]
    if len(enough) < num_speakers:
        raise CorpusError(
            f"{len(enough)} of {len(by_speaker)} speakers have {num_utterances} utterances or more, "
            f"{num_speakers} speakers were asked for; lower --speakers or --utterances"
        )
    speakers = sorted(enough, key=lambda speaker: _rank(seed, speaker))[:num_speakers]
    chosen = [u for s in speakers for u in _spread(by_speaker[s], seed)[:num_utterances]]
    return sorted(chosen, key=lambda u: u.utterance_id.encode()), sorted(set(by_speaker) - set(enough))


def _spread(utterances: Sequence[Utterance], seed: int) -> list[Utterance]:
    """One utterance of each session, then a second of each, and so on."""
    sessions: defaultdict[str, list[Utterance]] = defaultdict(list)
    for utterance in sorted(utterances, key=lambda u: _rank(seed, u.utterance_id)):
        sessions[utterance.session_id].append(utterance)
    ranked = [
        (turn, _rank(seed, session), utterance)
        for session, own in sessions.items()
        for turn, utterance in enumerate(own)
    ]
    return [utterance for _, _, utterance in sorted(ranked, key=lambda r: r[:2])]


def _copy(source: Source, matching: Matching, output: str) -> int:
    # A compressed tar can only be read forward.
    members = sorted((member for _, member in matching.pairs), key=lambda m: m.offset)
    for member, data in zip(members, source.read_all(members), strict=True):
        if isinstance(data, AudioError):
            raise CorpusError(f"{source.uri}: {member.path} cannot be read ({data}); fetch the archive again")
        storage.write_bytes(storage.join(output, member.path.removeprefix(matching.prefix)), data)
    return sum(member.size for member in members)


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
