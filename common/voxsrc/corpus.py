"""Lists of utterances and trials in VoxCeleb's own form, and the split of speakers into folds.

An utterance list has lines `speaker path`, a trial list `1|0 path path`, a blind trial list `path path`.
Columns are separated by tabs where a line has a tab, otherwise by spaces; an utterance's path may then
still contain spaces. An utterance's id is its path as listed; its session is the file's parent folder.
"""

import codecs
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from voxsrc import storage
from voxsrc.errors import CorpusError, FeatureSetError

# By name alone, before a byte is read; what a file really is, `voxsrc.audio` tells from its bytes. Of two
# files that differ in nothing else the first is taken.
AUDIO_SUFFIXES = (".wav", ".flac", ".m4a", ".aac", ".mp4", ".ogg", ".opus", ".mp3", ".webm", ".mka")

_T = TypeVar("_T")
_LISTED_ERRORS = 10
_AUDIO_NAME = re.compile(f"({'|'.join(map(re.escape, AUDIO_SUFFIXES))})$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording of one speaker; `utterance_id` is its path as listed."""

    utterance_id: str
    speaker_id: str
    session_id: str


@dataclass(frozen=True)
class TrialList:
    """Pairs of utterances to compare.

    Attributes:
        labels: (N,) int8, 1 for the same speaker and 0 for different ones; None in a blind list.
        enrollments: N utterance ids, the first of each pair.
        tests: N utterance ids, the second of each pair.
    """

    labels: NDArray[np.int8] | None
    enrollments: list[str]
    tests: list[str]

    def __len__(self) -> int:
        return len(self.enrollments)

    def utterance_ids(self) -> list[str]:
        """Every utterance named, once, in the order of its first appearance."""
        pairs = zip(self.enrollments, self.tests, strict=True)
        return list(dict.fromkeys(path for pair in pairs for path in pair))


def session_of(path: str) -> str:
    """The session of a path: its parent folder's name, empty if it has none."""
    folder = path.rpartition("/")[0].rstrip("/").rpartition("/")[2]
    return "" if folder == "." else folder


def read_utterance_list(uri: str) -> list[Utterance]:
    """Reads lines `speaker path`.

    Raises:
        CorpusError: Naming file and line, on malformed lines, duplicate paths, or an empty list.
        StorageError: If the list cannot be read.
    """
    first_line_of: dict[str, int] = {}

    def parse(columns: Sequence[str], line_number: int) -> Utterance:
        if len(columns) != 2:
            raise ValueError(f"{len(columns)} column(s), expected `speaker path`")
        speaker, path = columns
        if speaker in ("0", "1") and len(path.split()) == 2 and all(map(_AUDIO_NAME.search, path.split())):
            raise ValueError("a trial (`label path path`), expected `speaker path`; is this a trial list?")
        if "/" in speaker and _AUDIO_NAME.search(speaker):
            raise ValueError("two paths, expected `speaker path`; is this a list of blind trials?")
        _check_path(path)
        if path in first_line_of:
            raise ValueError(f"{path!r} is listed already at line {first_line_of[path]}; list it once")
        first_line_of[path] = line_number
        return Utterance(path, speaker, session_of(path))

    utterances = _parse_lines(uri, parse, max_columns=2)
    if not utterances:
        raise CorpusError(f"{uri} lists no utterances; expected lines `speaker path`")
    return utterances


def write_utterance_list(uri: str, utterances: Iterable[Utterance]) -> None:
    """Writes lines `speaker path`, with a tab between them where either has spaces."""
    lines = (
        f"{u.speaker_id}{_separator(u.speaker_id + u.utterance_id)}{u.utterance_id}\n" for u in utterances
    )
    storage.write_bytes(uri, "".join(lines).encode())


def read_trials(uri: str) -> TrialList:
    """Reads lines `1|0 path path`, or `path path` throughout (a blind list).

    Raises:
        CorpusError: Naming file and line, on malformed lines or a list without trials.
        StorageError: If the list cannot be read.
    """

    def parse(columns: Sequence[str], line_number: int) -> tuple[int | None, str, str]:
        if len(columns) == 3 and columns[0] in ("0", "1"):
            label, paths = int(columns[0]), columns[1:]
        elif len(columns) == 2:
            label, paths = None, columns
            if _AUDIO_NAME.search(columns[1]) and not _AUDIO_NAME.search(columns[0]):
                raise ValueError("a path after a name, expected two paths; is this an utterance list?")
        else:
            raise ValueError(
                f"{len(columns)} column(s), expected `1|0 path path` or `path path`; "
                "separate the columns by tabs if paths have spaces"
            )
        for path in paths:
            _check_path(path)
        return label, paths[0], paths[1]

    trials = _parse_lines(uri, parse, max_columns=-1)
    if not trials:
        raise CorpusError(f"{uri} lists no trials; expected lines `1|0 path path`")
    labels = [label for label, _, _ in trials]
    blind = labels.count(None)
    if blind not in (0, len(labels)):
        raise CorpusError(f"{uri} has {blind} trials without a label among {len(labels)}; label all or none")
    return TrialList(
        labels=None if blind else np.array(labels, np.int8),
        enrollments=[first for _, first, _ in trials],
        tests=[second for _, _, second in trials],
    )


def write_trials(uri: str, trials: TrialList) -> None:
    """Writes lines `1|0 path path`, or `path path` of a blind list; with tabs where paths have spaces."""
    pairs = zip(trials.enrollments, trials.tests, strict=True)
    columns = [[*pair] for pair in pairs]
    if trials.labels is not None:
        columns = [[str(label), *pair] for label, pair in zip(trials.labels.tolist(), columns, strict=True)]
    lines = (_separator("".join(line)).join(line) + "\n" for line in columns)
    storage.write_bytes(uri, "".join(lines).encode())


def utterances_from_paths(paths: Iterable[str]) -> tuple[list[Utterance], str]:
    """Makes utterances of files that lie as `speaker/[session/]file` below some common folder.

    Args:
        paths: Relative paths, in any order.

    Returns:
        The utterances in bytewise order of their path below the common folder, and that folder
        (`dev/aac/` in VoxCeleb2's archive; empty if there is none).

    Raises:
        CorpusError: If the paths do not have that form.
    """
    ordered = sorted(paths, key=str.encode)
    if not ordered:
        raise CorpusError("there are no audio files; expected speaker/[session/]file")
    folders = [path.split("/")[:-1] for path in ordered]
    depth = max(map(len, folders))
    common = 0
    while all(len(f) > common + 1 for f in folders) and len({f[common] for f in folders}) == 1:
        common += 1
    # One speaker alone: the common folder must not swallow the speaker's.
    common = min(common, max(depth - 2, 0))
    for path, folder in zip(ordered, folders, strict=True):
        if not 1 <= len(folder) - common <= 2:
            prefix = "/".join(folder[:common]) or "the top"
            raise CorpusError(f"{path!r} is not speaker/[session/]file below {prefix}; give a list instead")
    prefix = "".join(f"{name}/" for name in folders[0][:common])
    relative = [path[len(prefix) :] for path in ordered]
    return [Utterance(path, path.split("/")[0], session_of(path)) for path in relative], prefix


def speed_copies(speaker_ids: Iterable[str], made_from: Mapping[str, Any]) -> dict[str, str]:
    """The speed-perturbed copies among a feature set's speakers, each with the speaker that it copies.

    A copy is called `id10001-sp0.9`. People may be called so, too: a name is a copy's only if the set was
    made with that speed and has the speaker without the mark.

    Args:
        speaker_ids: All speakers of the set: among some of them a copy's original may be missing.
        made_from: What the set's manifest says under this name; `speeds` are those of copies.

    Raises:
        FeatureSetError: If `speeds` are not speeds.
    """
    speeds = made_from.get("speeds", [])
    try:
        marks = [f"-sp{float(speed):g}" for speed in speeds]
    except (TypeError, ValueError) as error:
        raise FeatureSetError(
            f"made_from.speeds in the set's manifest is {speeds!r}; expected a list such as "
            '["0.9", "1.1"]: extract the features again'
        ) from error
    speakers, copies = set(speaker_ids), dict[str, str]()
    # Shorter names first, so that the copy of somebody who might be a copy leads to the first of them.
    for name in sorted(speakers, key=len):
        for mark in marks:
            if name + mark in speakers:
                copies[name + mark] = copies.get(name, name)
    return copies


def split_speakers(
    speaker_ids: Iterable[str], *, copies: Mapping[str, str], validation_fraction: float
) -> tuple[list[str], list[str]]:
    """Splits speakers into training and validation, the same way on every machine.

    Speakers are ranked by a hash of the name, so that adding some moves few of the others.

    Args:
        speaker_ids: All speakers.
        copies: Those that are speed-perturbed copies (`speed_copies`); they stay with their originals.
        validation_fraction: Part of the originals that goes to validation.

    Returns:
        Sorted training speakers and sorted validation speakers, at least two of each.

    Raises:
        CorpusError: If there are fewer than four speakers to split.
    """
    speakers = sorted(set(speaker_ids))
    originals = sorted({copies.get(s, s) for s in speakers}, key=_rank)
    num_validation = max(2, round(validation_fraction * len(originals)))
    if len(originals) - num_validation < 2:
        raise CorpusError(
            f"{len(originals)} speakers cannot be split with validation_fraction {validation_fraction:g}: "
            "training and validation need two each"
        )
    held_out = set(originals[:num_validation])
    training = [s for s in speakers if copies.get(s, s) not in held_out]
    validation = [s for s in speakers if copies.get(s, s) in held_out]
    return training, validation


def _rank(speaker_id: str) -> bytes:
    # What is hashed must stay: a trained model's held-out speakers are found by it.
    return hashlib.sha256(f"0:{speaker_id}".encode()).digest()


def _separator(columns: str) -> str:
    return "\t" if any(map(str.isspace, columns)) else " "


def _check_path(path: str) -> None:
    if "\0" in path:
        raise ValueError(f"{path!r} has a NUL character; expected a list in UTF-8: convert it")
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{path!r} leaves the audio folder; expected a path relative to it")


def _parse_lines(uri: str, parse: Callable[[Sequence[str], int], _T], *, max_columns: int) -> list[_T]:
    """Applies `parse` to each line's columns; its ValueErrors are gathered into one CorpusError."""
    parsed: list[_T] = []
    errors: list[str] = []
    for line_number, line in _numbered_lines(uri):
        columns = line.split("\t", max_columns - 1) if "\t" in line else line.split(None, max_columns - 1)
        try:
            parsed.append(parse([column.strip() for column in columns], line_number))
        except ValueError as error:
            errors.append(f"{uri}:{line_number}: {error}")
    if errors:
        more = len(errors) - _LISTED_ERRORS
        rest = [f"… and {more} more such lines"] if more > 0 else []
        raise CorpusError("\n".join(errors[:_LISTED_ERRORS] + rest))
    return parsed


def _numbered_lines(uri: str) -> Iterator[tuple[int, str]]:
    content = storage.read_bytes(uri).removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line_number = content.count(b"\n", 0, error.start) + 1
        raise CorpusError(
            f"{uri}:{line_number}: not UTF-8 (byte {content[error.start]:#04x}); convert the list"
        ) from error
    for line_number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield line_number, line.strip()
