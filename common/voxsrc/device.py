"""The device that a network runs on, by name. Importing this module imports torch."""

import torch

from voxsrc.errors import ConfigError


def chosen_device(name: str) -> torch.device:
    """The device of this name: `cpu`, `cuda`, `cuda:1`, or `auto`, a GPU if there is one.

    Raises:
        ConfigError: If torch knows no such device, or it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device is {name!r}; expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(
                f"device is {name!r}, but torch {torch.__version__} sees no GPU; take cpu, or check the "
                "driver and that this torch was built for CUDA"
            )
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise ConfigError(
                f"device is {name!r}; there are {torch.cuda.device_count()} GPUs, from cuda:0 on"
            )
    return device
