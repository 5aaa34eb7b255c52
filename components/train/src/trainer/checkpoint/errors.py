"""What can go wrong with checkpoints, beside the errors of storage."""

from voxsrc.errors import VoxsrcError


class CheckpointError(VoxsrcError):
    """A checkpoint cannot be made, is damaged, or is of another format."""


class WriterActiveError(CheckpointError):
    """Another run is writing checkpoints to the same output."""


class LeaseLostError(CheckpointError):
    """Another run has taken over the output; this one must not save any more."""
