"""VoxCeleb1's official trial lists, how to recognise one, and the speakers of a list's trials.

Results on an original list and on its cleaned version are not comparable, and file names do not tell the two
apart: a list is known by its checksum.
"""

import codecs
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from voxsrc import storage
from voxsrc.corpus import TrialList, utterances_from_paths
from voxsrc.errors import CorpusError

_LISTED_PATHS = 10


@dataclass(frozen=True)
class OfficialList:
    """A trial list or utterance list as published.

    Attributes:
        name: How the commands call it.
        file_name: The published name, below a base URL.
        output_name: The name under which it is kept, which tells cleaned from original.
        kind: `trials` has lines `1|0 path path`, `utterances` has `speaker path`.
        num_lines: Number of lines, as published.
        num_targets: Number of lines with label 1, as published (trials only).
        md5: MD5 of the file, or None where nobody published one.
        md5_sources: How many independent projects publish that MD5. With one, the counts decide.
        note: What is in it, for the reader of the output: a title, and a remark in parentheses.
    """

    name: str
    file_name: str
    output_name: str
    kind: Literal["trials", "utterances"]
    num_lines: int
    num_targets: int = 0
    md5: str | None = None
    md5_sources: int = 0
    note: str = field(default="", kw_only=True)

    @property
    def title(self) -> str:
        """The note without its remark: `VoxCeleb1-O, cleaned`."""
        return self.note.partition(" (")[0]


# Counts of trials and targets: examples/voxceleb/README.md of PaddlePaddle/PaddleSpeech.
# MD5s: dataset/voxceleb/voxceleb1.py of PaddlePaddle/PaddleSpeech (at 2ad3a819) for all six; the three
# cleaned ones again in mrouvier/kiwano's download of VoxCeleb1, and the original O in its and lhotse's
# handling of openslr.org/49 (voxceleb1_test_v2.txt). E and H original have the first source alone.
TRIAL_LISTS: Mapping[str, OfficialList] = MappingProxyType(
    {
        official.name: official
        for official in (
            OfficialList(
                "vox1-O",
                "veri_test2.txt",
                "vox1-O-cleaned.txt",
                "trials",
                37_611,
                18_802,
                "b73110731c9223c1461fe49cb48dddfc",
                2,
                note="VoxCeleb1-O, cleaned",
            ),
            OfficialList(
                "vox1-O-original",
                "veri_test.txt",
                "vox1-O-original.txt",
                "trials",
                37_720,
                18_860,
                "29fc7cc1c5d59f0816dc15d6e8be60f7",
                2,
                note="VoxCeleb1-O, original (before the labels were cleaned)",
            ),
            OfficialList(
                "vox1-E",
                "list_test_all2.txt",
                "vox1-E-cleaned.txt",
                "trials",
                579_818,
                289_921,
                "a53e059deb562ffcfc092bf5d90d9f3a",
                2,
                note="VoxCeleb1-E, cleaned",
            ),
            OfficialList(
                "vox1-E-original",
                "list_test_all.txt",
                "vox1-E-original.txt",
                "trials",
                581_480,
                290_743,
                "b9ecf7aa49d4b656aa927a8092844e4a",
                1,
                note="VoxCeleb1-E, original (before the labels were cleaned)",
            ),
            OfficialList(
                "vox1-H",
                "list_test_hard2.txt",
                "vox1-H-cleaned.txt",
                "trials",
                550_894,
                275_488,
                "857790e09d579a68eb2e339a090343c8",
                2,
                note="VoxCeleb1-H, cleaned",
            ),
            OfficialList(
                "vox1-H-original",
                "list_test_hard.txt",
                "vox1-H-original.txt",
                "trials",
                552_536,
                276_270,
                "21c341b6b2168eea2634df0fb4b8fff1",
                1,
                note="VoxCeleb1-H, original (before the labels were cleaned)",
            ),
        )
    }
)


@dataclass(frozen=True)
class Recognition:
    """What a trial list is, by its bytes.

    Attributes:
        official: The official list that it is or looks like, None if neither.
        evidence: `checksum`: the bytes are the published ones; `normalised`: they are once line ends, the
            final one and a byte-order mark are as published; `counts`: only the numbers of trials and of
            targets agree.
        num_trials: Lines that are not blank.
    """

    official: OfficialList | None
    evidence: Literal["checksum", "normalised", "counts"] | None
    num_trials: int

    @property
    def name(self) -> str | None:
        """The official name if the checksum proves it."""
        return self.official.name if self.official and self.evidence != "counts" else None

    @property
    def description(self) -> str:
        """One line for reports: `VoxCeleb1-O, cleaned (37,611 trials; MD5 as published)`."""
        if self.official is None:
            return f"not an official list ({self.num_trials:,} trials)"
        counts = f"{self.num_trials:,} trials"
        if self.evidence == "checksum":
            return f"{self.official.title} ({counts}; MD5 as published)"
        if self.evidence == "normalised":
            return f"{self.official.title} ({counts}; MD5 as published once its line ends are)"
        return (
            f"looks like {self.official.title} by its counts ({counts}, {self.official.num_targets:,} "
            "targets), but its checksum is not the published one"
        )

    @property
    def caution(self) -> str | None:
        """What to know before comparing results on this list with others, None if nothing."""
        if self.official is None or not self.official.name.endswith("-original"):
            return None
        cleaned = TRIAL_LISTS[self.official.name.removesuffix("-original")]
        return (
            f"{self.official.title}, has known label errors; compare only with results on this very list, "
            f"or take {cleaned.title} ({cleaned.file_name}, {cleaned.num_lines:,} trials)"
        )


def recognise(source: bytes | str) -> Recognition:
    """Finds out which official list a trial list is.

    Args:
        source: The list's bytes, or its URI.

    Raises:
        StorageError: If the URI cannot be read.
    """
    content = storage.read_bytes(source) if isinstance(source, str) else source
    lines = [line for line in content.removeprefix(codecs.BOM_UTF8).splitlines() if line.strip()]
    # `1` may be followed by a space or a tab: reformatted lists count, too.
    num_targets = sum(line.lstrip().startswith(b"1") for line in lines)
    alike = [
        official
        for official in TRIAL_LISTS.values()
        if (official.num_lines, official.num_targets) == (len(lines), num_targets)
    ]
    if not alike:
        return Recognition(None, None, len(lines))
    unix = b"\n".join(line.rstrip() for line in lines)
    dos = unix.replace(b"\n", b"\r\n")
    normalised = {md5_of(text) for text in (unix, unix + b"\n", dos, dos + b"\r\n")}
    for official in alike:
        if official.md5 == md5_of(content):
            return Recognition(official, "checksum", len(lines))
        if official.md5 in normalised:
            return Recognition(official, "normalised", len(lines))
    return Recognition(alike[0], "counts", len(lines))


def speakers_from_paths(trials: TrialList) -> dict[str, str]:
    """The speaker of each utterance, where paths are `[folder/…]speaker/[session/]file`.

    Raises:
        CorpusError: If the paths do not have that form.
    """
    utterances, folder = utterances_from_paths(trials.utterance_ids())
    return {folder + utterance.utterance_id: utterance.speaker_id for utterance in utterances}


def trusted_speakers(trials: TrialList) -> tuple[dict[str, str] | None, str]:
    """The speaker of each utterance by its path; or None, and why they cannot be told or believed."""
    try:
        speaker_of = speakers_from_paths(trials)
    except CorpusError as error:
        return None, f"the paths do not name the speakers ({error})"
    if wrong := contradictions(trials, speaker_pairs(trials, speaker_of)):
        return None, told_contradictions(trials, speaker_of, wrong, "the paths")
    return speaker_of, ""


def told_contradictions(
    trials: TrialList, speaker_of: Mapping[str, str], wrong: Sequence[int], source: str
) -> str:
    """`contradictions` in words; `source` names the speakers."""
    first, second = trials.enrollments[wrong[0]], trials.tests[wrong[0]]
    truth = "the same speaker" if speaker_of[first] == speaker_of[second] else "two speakers"
    return (
        f"{len(wrong):,} labels contradict the speakers, the first of trial {wrong[0] + 1}, {first} {second}"
        f": {truth} by {source}, but its label says otherwise"
    )


def speaker_pairs(trials: TrialList, speaker_of: Mapping[str, str]) -> list[tuple[str, str]]:
    """The speakers of enrolment and test of each trial, for the speaker bootstrap.

    Raises:
        CorpusError: If utterances have no speaker; all are counted and the first ten named.
    """
    unknown = sorted({*trials.enrollments, *trials.tests} - speaker_of.keys())
    if unknown:
        named = ", ".join(unknown[:_LISTED_PATHS]) + (", …" if len(unknown) > _LISTED_PATHS else "")
        raise CorpusError(
            f"{len(unknown):,} utterances of the trials have no speaker: {named}; "
            "expected each in the list of `speaker path`, with the path as the trials have it"
        )
    pairs = zip(trials.enrollments, trials.tests, strict=True)
    return [(speaker_of[first], speaker_of[second]) for first, second in pairs]


def contradictions(trials: TrialList, speakers: Sequence[tuple[str, str]]) -> list[int]:
    """Trials, from 0, whose label denies their speakers: 0 for the same, 1 for different ones."""
    if trials.labels is None:
        return []
    same = [first == second for first, second in speakers]
    return [index for index, label in enumerate(trials.labels.tolist()) if same[index] != (label == 1)]


def md5_of(content: bytes) -> str:
    """The MD5 of a list, hexadecimal: what is published of official ones."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
