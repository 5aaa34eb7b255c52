"""The error of this package, in a module of its own because all others here raise it."""

from voxsrc.errors import VoxsrcError


class SubmissionError(VoxsrcError):
    """A submission cannot be written or opened."""
