"""The error of this package, in a module of its own because all others here raise it."""

from voxsrc.errors import VoxsrcError


class ScoringError(VoxsrcError):
    """Embeddings, scores or labels that cannot be scored, normalised or calibrated."""
