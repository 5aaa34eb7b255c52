"""What can go wrong in a training."""

from voxsrc.errors import VoxsrcError


class TrainingError(VoxsrcError):
    """The training cannot go on: the loss is not a number, or the device's memory is full."""


class DivergedError(TrainingError):
    """The loss, a weight or a statistic is not a number."""


class PreemptedError(VoxsrcError):
    """SIGTERM: a last checkpoint was tried; the same command continues."""
