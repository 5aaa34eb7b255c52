"""What can go wrong with checkpoints, beside the errors of storage."""

from voxsrc.errors import VoxsrcError


class CheckpointError(VoxsrcError):
    """A checkpoint cannot be made, is damaged, or is of another format."""
