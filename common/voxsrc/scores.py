"""Score files, lines `score path path`, and how they are matched with a trial list: by the pair.

Columns are separated as in trial lists: by tabs where a line has a tab, otherwise by spaces.
Letters: L lines of a score file with distinct pairs, N trials.
"""

import codecs
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxsrc import storage
from voxsrc.corpus import TrialList
from voxsrc.errors import ConfigError, VoxsrcError

# As an evaluation names them.
SCORES_NAME = "scores.txt"
_LISTED = 10


class ScoreError(VoxsrcError):
    """A score file, or scores to be written, cannot be used."""


@dataclass(frozen=True)
class ScoreFile:
    """The scores of a file, each pair once, in the order of its first line.

    Attributes:
        uri: Where they were read.
        scores: (L,) float64, finite.
        enrollments: L utterance ids, the first of each pair.
        tests: L utterance ids, the second of each pair.
        num_duplicates: Further lines of pairs that were there already, with the same score.
    """

    uri: str
    scores: NDArray[np.float64]
    enrollments: list[str]
    tests: list[str]
    num_duplicates: int

    def __len__(self) -> int:
        return len(self.enrollments)


@dataclass(frozen=True)
class MatchedScores:
    """The scores of a trial list.

    Attributes:
        scores: (N,) float64, in the order of the trials.
        num_swapped: Trials whose score is of the pair the other way round, for want of the exact one.
        num_extra: Pairs of the score file that no trial asks for.
    """

    scores: NDArray[np.float64]
    num_swapped: int
    num_extra: int


def named_scores(compare: str) -> tuple[str, str]:
    """Name and score file of a system that `--compare` gives, as `NAME=FILE` or as `FILE` alone.

    Alone it is named after the file, or after its folder if it is an evaluation's `scores.txt`. A name has no
    slash: `runs/lr=0.1/scores.txt` is a file.

    Raises:
        ConfigError: If one of both is empty.
    """
    name, equals, uri = compare.partition("=")
    if not equals or "/" in name:
        uri = compare.strip()
        path = PurePosixPath(uri)
        name = path.parent.name if path.name == SCORES_NAME and path.parent.name else path.stem
    if not (name.strip() and uri.strip()):
        raise ConfigError(
            f"--compare {compare!r}: expected a score file, or one with a name, such as baseline=scores.txt"
        )
    return name.strip(), uri.strip()


def read_scores(uri: str) -> ScoreFile:
    """Reads lines `score path path`.

    Raises:
        ScoreError: Naming file and line, on malformed lines, scores that are not finite, a pair with two
            different scores, or a file without scores.
        StorageError: If the file cannot be read.
    """
    errors: list[str] = []
    numbers: list[int] = []
    scores: list[float] = []
    enrollments: list[str] = []
    tests: list[str] = []
    for number, line in numbered_lines(storage.read_bytes(uri), uri):
        columns = columns_of(line)
        try:
            score = parse_score(columns)
            if not math.isfinite(score):
                raise ValueError(f"the score is {columns[0]}, expected a finite number")
        except ValueError as error:
            errors.append(f"{uri}:{number}: {error}")
            continue
        numbers.append(number)
        scores.append(score)
        enrollments.append(columns[1])
        tests.append(columns[2])
    _raise_listed("", errors)
    if not scores:
        raise ScoreError(f"{uri} has no scores; expected lines `score path path`")
    values = np.array(scores)
    number_of = _numbers()
    keys = _pair_keys(_numbered(number_of, enrollments), _numbered(number_of, tests))
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    original = first[inverse]
    changed = np.flatnonzero(values != values[original])
    _raise_listed(
        "",
        [
            f"{uri}:{numbers[line]}: {enrollments[line]} {tests[line]} has score {scores[line]!r}, but "
            f"{scores[earlier]!r} at line {numbers[earlier]}; expected one score for a pair"
            for line, earlier in zip(changed.tolist(), original[changed].tolist(), strict=True)
        ],
    )
    kept = np.sort(first)
    if len(kept) < len(values):
        enrollments = [enrollments[line] for line in kept]
        tests = [tests[line] for line in kept]
    return ScoreFile(uri, values[kept], enrollments, tests, len(values) - len(kept))


def write_scores(uri: str, trials: TrialList, scores: ArrayLike) -> None:
    """Writes lines `score path path` in the order of the trials, atomically.

    Args:
        uri: Where to.
        trials: N trials; labels are not used.
        scores: (N,) finite. A score has the fewest digits that read back as the same float32 or float64.

    Raises:
        ScoreError: If the number of scores is another, or one is not finite.
        StorageError: If the file cannot be written.
    """
    values = finite_scores(trials, scores)
    pairs = zip(map(str, values), trials.enrollments, trials.tests, strict=True)
    spaced = {path for path in (*trials.enrollments, *trials.tests) if path.split() != [path]}
    if not spaced:
        lines = "".join([f"{score} {first} {second}\n" for score, first, second in pairs])
    else:
        parts = []
        for score, first, second in pairs:
            separator = "\t" if first in spaced or second in spaced else " "
            parts.append(f"{score}{separator}{first}{separator}{second}\n")
        lines = "".join(parts)
    storage.write_bytes(uri, lines.encode())


def matched(scores: ScoreFile, trials: TrialList) -> MatchedScores:
    """Finds the score of each trial: that of its pair, or of the pair the other way round.

    Raises:
        ScoreError: If trials have no score; all are counted and the first ten named.
    """
    number_of = _numbers()
    known = _pair_keys(_numbered(number_of, scores.enrollments), _numbered(number_of, scores.tests))
    order = np.argsort(known)
    ordered = known[order]
    first, second = _numbered(number_of, trials.enrollments), _numbered(number_of, trials.tests)

    def lines_of(keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N,) line of each pair, -1 where there is none."""
        slots = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
        return np.where(ordered[slots] == keys, order[slots], -1)

    exact, reversed_ = lines_of(_pair_keys(first, second)), lines_of(_pair_keys(second, first))
    line = np.where(exact >= 0, exact, reversed_)
    missing = np.flatnonzero(line < 0).tolist()
    _raise_listed(
        f"{scores.uri} has no score for {len(missing):,} of {len(trials):,} trials; is it of another list?",
        [f"trial {index + 1}: {trials.enrollments[index]} {trials.tests[index]}" for index in missing],
    )
    return MatchedScores(
        scores=scores.scores[line],
        num_swapped=int((exact < 0).sum()),
        num_extra=len(scores) - len(np.unique(line)),
    )


def numbered_lines(content: bytes, name: str) -> Iterator[tuple[int, str]]:
    """The lines of a text, stripped, with their number from 1; blank ones are passed over.

    Raises:
        ScoreError: Naming file and line, if the text is not UTF-8.
    """
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise ScoreError(f"{name}:{number}: not UTF-8; expected lines `score path path`") from error
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if stripped:
            yield number, stripped


def columns_of(line: str) -> list[str]:
    """The columns of a line, separated by tabs if it has one, otherwise by spaces."""
    return [column.strip() for column in line.split("\t")] if "\t" in line else line.split()


def parse_score(columns: Sequence[str]) -> float:
    """The score of a line's columns; it may be NaN or infinite.

    Raises:
        ValueError: Saying what is wrong, if there are not three columns or the first is not a number.
    """
    if len(columns) != 3 or not columns[1] or not columns[2]:
        raise ValueError(f"{len(columns)} column(s), expected `score path path`")
    score = _number(columns[0])
    if score is None and _number(columns[2]) is not None:
        raise ValueError(f"the score {columns[2]!r} is last, expected it first: `score path path`")
    if score is None:
        raise ValueError(f"the score is {columns[0]!r}, expected a number")
    return score


def finite_scores(trials: TrialList, scores: ArrayLike) -> NDArray[np.floating]:
    """(N,) float32 or float64: `scores` if they are one finite number for each trial.

    Raises:
        ScoreError: If they are not; it names the first trial.
    """
    values = np.asarray(scores)
    if values.dtype != np.float32:
        values = values.astype(np.float64)
    if values.shape != (len(trials),):
        raise ScoreError(f"{values.shape} scores for {len(trials):,} trials; expected one for each")
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        index = int(bad[0])
        raise ScoreError(
            f"{len(bad):,} scores are not finite, the first of trial {index + 1}, "
            f"{trials.enrollments[index]} {trials.tests[index]}: {values[index]}"
        )
    return values


def _number(text: str) -> float | None:
    # Python reads `1_0` as 10; no other tool does.
    if "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _numbers() -> defaultdict[str, int]:
    """Numbers paths as they are asked for, from 0."""
    return defaultdict(itertools.count().__next__)


def _numbered(number_of: Mapping[str, int], paths: Sequence[str]) -> NDArray[np.int64]:
    return np.fromiter(map(number_of.__getitem__, paths), np.int64, len(paths))


def _pair_keys(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) one integer for each ordered pair of numbers below 2^31."""
    return (first << 32) | second


def _raise_listed(summary: str, errors: Sequence[str]) -> None:
    """Raises the summary, if there is one, and the first ten errors, if there are any."""
    if not errors:
        return
    more = len(errors) - _LISTED
    rest = [f"… and {more:,} more"] if more > 0 else []
    raise ScoreError("\n".join([*([summary] if summary else []), *errors[:_LISTED], *rest]))
