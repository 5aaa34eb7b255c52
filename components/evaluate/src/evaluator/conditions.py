"""What is known of every trial beside its score, by which the report groups the trials.

Letters: N trials.
"""

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np

from evaluator.report import Condition
from voxsrc import storage
from voxsrc.corpus import TrialList, session_of
from voxsrc.embedding import Embeddings
from voxsrc.errors import CorpusError
from voxsrc.features import FbankSpec

DURATION = "duration of the shorter utterance (s)"
SESSION = "session"

_BETWEEN = " / "
_MAX_VALUES = 40


def conditions_of(
    spec: FbankSpec, trials: TrialList, embeddings: Embeddings, speaker_of: Mapping[str, str] | None
) -> list[Condition]:
    """Conditions that need no table: duration and, where the paths tell sessions apart, sessions.

    Args:
        spec: Of the features.
        trials: N trials.
        embeddings: Of their utterances.
        speaker_of: Speaker of each utterance, by its id, if known.
    """
    seconds = embeddings.num_frames * spec.hop_samples / spec.sample_rate_hz
    seconds_of = dict(zip(embeddings.utterance_ids, seconds.tolist(), strict=True))
    pairs = _pairs(trials)
    shorter = [min(seconds_of[first], seconds_of[second]) for first, second in pairs]
    found = [Condition(DURATION, np.array(shorter))]
    # In `speaker/file` the folder is no session.
    if speaker_of is not None and any(
        session_of(path) not in ("", speaker_of[path]) for path in trials.utterance_ids()
    ):
        same = [session_of(first) == session_of(second) for first, second in pairs]
        # Two speakers have no session in common: all of their trials are what any target is compared with.
        values = ["same session" if is_same else "different sessions" for is_same in same]
        found.append(Condition(SESSION, values, targets_only=True))
    return found


def conditions_of_metadata(
    uri: str, trials: TrialList, speaker_of: Mapping[str, str] | None
) -> tuple[list[Condition], list[str]]:
    """One condition for each column of a table about utterances or speakers.

    Args:
        uri: A CSV or TSV file with a header. Its first column has utterance ids or speakers.
        trials: N trials.
        speaker_of: Speaker of each utterance, by its id, if known.

    Returns:
        The conditions, and warnings: how many utterances the table lacks, which columns are left out.

    Raises:
        CorpusError: If the file is no such table, or its first column names none of the trials' utterances
            or speakers.
        StorageError: If it cannot be read.
    """
    columns, rows = _read_table(uri)
    names = trials.utterance_ids()
    keys = dict(zip(names, names, strict=True))
    if not any(name in rows for name in names):
        keys = dict(speaker_of) if speaker_of is not None else {}
        if not any(keys.get(name) in rows for name in names):
            raise CorpusError(
                f"{uri}: its first column, {columns[0]!r}, names no utterance and no speaker of the trials "
                f"(found {next(iter(rows))!r}, expected such as {names[0]!r}); put the ids first"
            )
    lacking = [name for name in names if keys.get(name) not in rows]
    warnings = []
    if lacking:
        warnings.append(
            f"{uri} has nothing about {len(lacking):,} of {len(names):,} utterances, such as {lacking[0]}; "
            "they count as unknown"
        )
    conditions = []
    for place, column in enumerate(columns[1:], start=1):
        value_of = {name: rows[keys[name]][place] if keys.get(name) in rows else "" for name in names}
        num_values = len({value for value in value_of.values() if value})
        if num_values > _MAX_VALUES:
            warnings.append(f"{uri}: column {column!r} has {num_values:,} values; it makes no groups")
        elif num_values:
            conditions.append(_condition(column, value_of, trials))
        else:
            warnings.append(f"{uri}: column {column!r} is empty; it makes no groups")
    return conditions, warnings


def _condition(column: str, value_of: Mapping[str, str], trials: TrialList) -> Condition:
    """Trials by the unordered pair of both sides' values."""
    name = f"{column} (metadata)" if column in (DURATION, SESSION) else column
    return Condition(name, [_pair(value_of[first], value_of[second]) for first, second in _pairs(trials)])


def _pair(first: str, second: str) -> str:
    if not first or not second:
        return ""
    return first if first == second else _BETWEEN.join(sorted((first, second)))


def _pairs(trials: TrialList) -> Sequence[tuple[str, str]]:
    return list(zip(trials.enrollments, trials.tests, strict=True))


def _read_table(uri: str) -> tuple[list[str], dict[str, list[str]]]:
    """The names of the columns, and the rows by their first column, which stays a part of them."""
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{uri}: not UTF-8 ({error}); convert the table") from error
    first_line = text.partition("\n")[0]
    delimiter = max("\t,;", key=first_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        # A quoted value may have several lines: the reader counts them.
        lines = [(reader.line_num, [value.strip() for value in line]) for line in reader]
    except csv.Error as error:
        raise CorpusError(f"{uri}:{reader.line_num}: {error}; expected a table of text") from error
    lines = [(number, line) for number, line in lines if any(line)]
    if len(lines) < 2 or len(lines[0][1]) < 2:
        raise CorpusError(
            f"{uri}: expected a header and rows of two columns or more, divided by tabs, commas or semicolons"
        )
    header = lines[0][1]
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise CorpusError(f"{uri}: several columns are called {repeated[0]!r}; give each a name of its own")
    rows: dict[str, list[str]] = {}
    for number, line in lines[1:]:
        if len(line) != len(header):
            raise CorpusError(f"{uri}:{number}: {len(line)} columns, the header has {len(header)}")
        if rows.setdefault(line[0], line) != line:
            raise CorpusError(f"{uri}:{number}: {line[0]!r} stands above with other values; keep one")
    return header, rows
