"""VoxSRC submissions: written so that they are valid, and checked as strictly as the challenge may.

The form, lines `score path path` in the order of the list, a single space between the columns and scores in
[0, 1], is that of the VoxSRC-20 toolkit's README (a-nagrani/VoxSRC2020). What the evaluation server took is
not verified: a zip with the one file `scores.txt` is what a participant's script makes
(preparation_scripts/validate_scores.py of nikvaessen/w2v2-speaker), and `scores.txt` the toolkit's example.
"""

from voxsrc.submission.errors import SubmissionError
from voxsrc.submission.mapping import UnitScores, unit_scores
from voxsrc.submission.validation import Report, validate_submission
from voxsrc.submission.writing import MEMBER_NAME, Submission, path_problem, write_submission

__all__ = [
    "MEMBER_NAME",
    "Report",
    "Submission",
    "SubmissionError",
    "UnitScores",
    "path_problem",
    "unit_scores",
    "validate_submission",
    "write_submission",
]
