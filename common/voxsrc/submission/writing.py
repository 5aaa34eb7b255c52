"""Writes a submission: the text, or a zip of it with the same bytes every time."""

import io
import zipfile
from dataclasses import dataclass

from numpy.typing import ArrayLike

from voxsrc import storage
from voxsrc.corpus import TrialList
from voxsrc.scores import finite_scores
from voxsrc.submission.errors import SubmissionError
from voxsrc.submission.mapping import unit_scores

MEMBER_NAME = "scores.txt"
# The earliest that a zip can name: the time of writing must not change the bytes.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_FILE_MODE = 0o644


@dataclass(frozen=True)
class Submission:
    """What was written.

    Attributes:
        uri: Where to.
        member: Name of the file in the zip, None if the submission is a text file.
        num_lines: Lines, one for each trial.
        num_bytes: Size of the file.
        how: How the scores came into [0, 1].
    """

    uri: str
    member: str | None
    num_lines: int
    num_bytes: int
    how: str


def write_submission(
    uri: str,
    trials: TrialList,
    scores: ArrayLike,
    *,
    calibrated: bool = False,
    prior: float = 0.05,
    member: str = MEMBER_NAME,
) -> Submission:
    """Writes lines `score path path` in the order of the trials, atomically.

    Args:
        uri: Where to: a zip if it ends in `.zip`, otherwise a text file.
        trials: N trials; labels, if there are any, are not used.
        scores: (N,) finite; they are mapped to [0, 1] by `unit_scores`.
        calibrated: Whether the scores are natural-log likelihood ratios.
        prior: As in `unit_scores`.
        member: Name of the file in the zip.

    Raises:
        ScoreError: If there is not one finite score for each trial.
        SubmissionError: If a path has spaces, which the form cannot hold, or the member's name has folders.
        StorageError: If it cannot be written.
    """
    if problem := path_problem(trials):
        raise SubmissionError(problem)
    if not is_plain_name(member):
        raise SubmissionError(f"member {member!r} of the zip; expected a file name without folders")
    unit = unit_scores(finite_scores(trials, scores), calibrated=calibrated, prior=prior)
    lines = zip(unit.values.tolist(), trials.enrollments, trials.tests, strict=True)
    # `repr` has the fewest digits that read back as the same float64: order and ties survive.
    text = "".join([f"{score!r} {first} {second}\n" for score, first, second in lines]).encode()
    zipped = uri.lower().endswith(".zip")
    content = _zip(member, text) if zipped else text
    storage.write_bytes(uri, content)
    return Submission(uri, member if zipped else None, len(trials), len(content), unit.how)


def path_problem(trials: TrialList) -> str:
    """Why a list can have no submission, whatever its scores: paths with spaces; else empty."""
    spaced = sorted(path for path in trials.utterance_ids() if path.split() != [path])
    if not spaced:
        return ""
    return (
        f"{len(spaced):,} paths have spaces, such as {spaced[0]!r}; the columns of a submission are "
        "separated by single spaces"
    )


def is_plain_name(name: str) -> bool:
    """Whether a member of a zip is a file at its top, whose name no system reads as a path."""
    return name not in ("", ".", "..") and not any(character in name for character in "/\\:\0")


def _zip(member: str, content: bytes) -> bytes:
    target = io.BytesIO()
    info = zipfile.ZipInfo(member, _ZIP_TIME)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3
    info.external_attr = _FILE_MODE << 16
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(info, content)
    return target.getvalue()
