"""Checks a submission against its trial list, and names every kind of problem with its first line."""

import io
import math
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from voxsrc import storage
from voxsrc.corpus import TrialList, read_trials
from voxsrc.submission.errors import SubmissionError
from voxsrc.submission.writing import MEMBER_NAME, is_plain_name

_LISTED = 3
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# A score has at most 25 characters; whoever pads to 64 may still be checked.
_SCORE_BYTES = 64
_MARGIN_BYTES = 1 << 20
_ZIP_START = b"PK\x03\x04"
_ENCRYPTED = 1
_WRONG_PAIRS = {"columns", "not in the list", "duplicated", "missing"}
# What the zip module raises when it reads damaged archives.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class Report:
    """What was found in a submission.

    Attributes:
        uri: The submission.
        num_lines: Its lines.
        num_trials: Trials of the list.
        counts: Number of problems of each kind, in the order in which the kinds were met.
        problems: The first three of each kind as `file:line: found, expected`, in the order of the lines;
            those of the whole file come last.
        notes: What is allowed, but may not be meant.
    """

    uri: str
    num_lines: int
    num_trials: int
    counts: Mapping[str, int]
    problems: Sequence[str]
    notes: Sequence[str]

    @property
    def valid(self) -> bool:
        """Whether nothing is wrong."""
        return not self.counts


@dataclass
class _Findings:
    name: str
    counts: Counter[str] = field(default_factory=Counter)
    listed_of: Counter[str] = field(default_factory=Counter)
    listed: list[str] = field(default_factory=list)

    def add(self, kind: str, line: int | None, problem: str, *, count: int = 1) -> None:
        self.counts[kind] += count
        if self.listed_of[kind] < _LISTED:
            self.listed_of[kind] += 1
            self.listed.append(f"{self.name}{'' if line is None else f':{line}'}: {problem}")


def validate_submission(uri: str, trials_uri: str) -> Report:
    """Checks a submission, a text file or a zip with one.

    A line for each line of the list, in its order: the organisers' compute_min_dcf.py looks pairs up, but
    their compute_EER.py takes labels and scores line by line.

    Raises:
        SubmissionError: If the archive cannot be opened, is not safe to open, or is too large for the list.
        CorpusError: If the trial list is malformed.
        StorageError: If a file cannot be read.
    """
    trials = read_trials(trials_uri)
    limit = storage.stat(trials_uri).size + _SCORE_BYTES * len(trials) + _MARGIN_BYTES
    content, name, notes = _read(uri, limit)
    findings = _Findings(name)
    lines = _lines(content, findings, notes)
    _check_lines(lines, trials, findings)
    return Report(uri, len(lines), len(trials), dict(findings.counts), findings.listed, notes)


def _lines(content: bytes, findings: _Findings, notes: list[str]) -> list[str]:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        findings.add("encoding", line, f"byte {content[error.start]:#04x}, expected UTF-8")
        text = content.decode(errors="replace")
    if "\r\n" in text:
        notes.append("its lines end in CRLF; the organisers' scripts strip it")
        text = text.replace("\r\n", "\n")
    return text.removesuffix("\n").split("\n") if text else []


def _check_lines(lines: Sequence[str], trials: TrialList, findings: _Findings) -> None:
    """Checks each line for itself and that each pair is there as often as in the list."""
    wanted = Counter(zip(trials.enrollments, trials.tests, strict=True))
    first_line: dict[tuple[str, str], int] = {}
    seen: Counter[tuple[str, str]] = Counter()
    pairs: list[tuple[str, str]] = []
    scores: set[float] = set()
    for number, line in enumerate(lines, start=1):
        columns = line.split(" ")
        if len(columns) != 3 or not all(columns) or "\t" in line:
            findings.add(
                "columns", number, f"{line[:120]!r}, expected `score path path` with single spaces between"
            )
            continue
        problem = _problem_of_score(columns[0])
        if problem:
            kind, expected = problem
            findings.add(kind, number, f"the score is {columns[0]!r}, expected {expected}")
        else:
            scores.add(float(columns[0]))
        pair = (columns[1], columns[2])
        pairs.append(pair)
        seen[pair] += 1
        if pair not in wanted:
            turned = "; the list has the pair the other way round" if pair[::-1] in wanted else ""
            found = f"{columns[1]} {columns[2]}, expected a pair of the trial list{turned}"
            findings.add("not in the list", number, found)
        elif seen[pair] > wanted[pair]:
            earlier = f"is at line {first_line[pair]} already, expected {wanted[pair]} such line(s)"
            findings.add("duplicated", number, f"{columns[1]} {columns[2]} {earlier}")
        first_line.setdefault(pair, number)
    missing = wanted - seen
    if missing:
        trial = zip(trials.enrollments, trials.tests, strict=True)
        place, pair = next((place, pair) for place, pair in enumerate(trial, start=1) if pair in missing)
        others = missing.total() - 1
        more = f", nor for {others:,} others" if others else ""
        findings.add(
            "missing", None, f"no line for trial {place}, {pair[0]} {pair[1]}{more}", count=others + 1
        )
    if not _WRONG_PAIRS & findings.counts.keys():
        _check_order(pairs, trials, findings)
    if len(scores) == 1 and len(lines) > 1:
        findings.add("all scores equal", None, f"all scores are {scores.pop():g}, expected different ones")


def _problem_of_score(text: str) -> tuple[str, str] | None:
    """The kind of problem of a score and what was expected."""
    if text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return "not finite", "a number in [0, 1]"
    # `float` alone takes `1_0` and other scripts' digits.
    if not _NUMBER.fullmatch(text):
        return "not a number", "a number in [0, 1]"
    score = float(text)
    if not math.isfinite(score) or not 0 <= score <= 1:
        return "outside [0, 1]", "a number in [0, 1]; `voxsrc submission write` maps scores"
    return None


def _check_order(pairs: Sequence[tuple[str, str]], trials: TrialList, findings: _Findings) -> None:
    wanted = list(zip(trials.enrollments, trials.tests, strict=True))
    moved = [place for place, (pair, want) in enumerate(zip(pairs, wanted, strict=True)) if pair != want]
    if moved:
        found, expected = (" ".join(row[moved[0]]) for row in (pairs, wanted))
        findings.add(
            "order",
            moved[0] + 1,
            f"{found}, expected {expected}: the order of the list, for compute_EER.py goes line by line",
            count=len(moved),
        )


def _read(uri: str, limit: int) -> tuple[bytes, str, list[str]]:
    """The text, how to name it in messages, and notes."""
    _check_size(uri, storage.stat(uri).size, limit)
    content = storage.read_bytes(uri)
    if not uri.lower().endswith(".zip") and not content.startswith(_ZIP_START):
        return content, uri, []
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            member = _only_member(uri, archive, limit)
            with archive.open(member) as file:
                # An archive may lie about the size: `read` without a limit would expand all of it first.
                text = file.read(limit)
    except _DAMAGED as error:
        raise SubmissionError(f"{uri}: not a whole zip ({error}); write it again") from error
    notes = []
    if member.filename != MEMBER_NAME:
        notes.append(f"its file is {member.filename!r}; {MEMBER_NAME!r} is what VoxSRC's participants sent")
    return text, f"{uri}/{member.filename}", notes


def _only_member(uri: str, archive: zipfile.ZipFile, limit: int) -> zipfile.ZipInfo:
    members = archive.infolist()
    if len(members) != 1:
        names = ", ".join(repr(member.filename) for member in members[:_LISTED]) or "none"
        raise SubmissionError(f"{uri}: {len(members)} files ({names}), expected {MEMBER_NAME!r} alone")
    [member] = members
    if not is_plain_name(member.filename):
        raise SubmissionError(f"{uri}: {member.filename!r}, expected {MEMBER_NAME!r} outside any folder")
    if member.flag_bits & _ENCRYPTED:
        raise SubmissionError(f"{uri}: {member.filename!r} is encrypted, expected it without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise SubmissionError(
            f"{uri}: compression method {member.compress_type}, expected deflate, which every server reads"
        )
    _check_size(f"{uri}/{member.filename}", member.file_size, limit)
    return member


def _check_size(name: str, num_bytes: int, limit: int) -> None:
    if num_bytes > limit:
        raise SubmissionError(
            f"{name}: {num_bytes:,} bytes, expected at most {limit:,} for this trial list; is it of another?"
        )
