"""What an estimate assumes where nothing is given, and where each number comes from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from voxsrc.checkpoint_interval import MEAN_TIME_BETWEEN_PREEMPTIONS_S
from voxsrc.errors import ConfigError


@dataclass(frozen=True)
class Assumption:
    """One number behind an estimate.

    Attributes:
        key: What it is, with its unit.
        value: The number.
        origin: `flag`, `run`, `default`, `computed` or `price file`.
        basis: Why this number.
    """

    key: str
    value: float
    origin: str
    basis: str


@dataclass(frozen=True)
class Measurement:
    """A number and what it rests on."""

    value: float
    basis: str


# Of a start's 450 s: until the process begins.
MACHINE_START_S = 350.0

# The option of `voxsrc cost` is the key with dashes.
DEFAULTS: Mapping[str, Measurement] = {
    "mean_hours_between_preemptions": Measurement(
        MEAN_TIME_BETWEEN_PREEMPTIONS_S / 3600.0,
        "assumed, as the trainer does: Google publishes no rate for GPUs, and it differs by zone and day. "
        "Exponential: of preemptible VMs, which end after 24 h, early preemptions were found more "
        "frequent than that (Kadupitiya et al., HPDC 2020)",
    ),
    "save_seconds": Measurement(
        5.0,
        "assumed (--from-run measures it): 145 MB (ECAPA-TDNN of 1024 channels with its loss and momentum) "
        "took 1.5 s to a local disk, and a bucket takes longer",
    ),
    "restore_seconds": Measurement(
        60.0,
        "assumed (--from-run measures it): up to 45 s of watching whether the killed run still lives, and "
        "15 s to read 145 MB (0.7 s from a local disk) and to begin",
    ),
    "start_seconds": Measurement(
        MACHINE_START_S + 100.0,
        "assumed (--from-run measures it), all billed: VM 60 s, GPU driver 60 s, image 230 s (3 min 50 s "
        "reported on GKE for Google's deep-learning image; 20 s with image streaming), features into memory "
        "95 s (19 GB, 200 MB/s), process 5 s",
    ),
    "wait_seconds": Measurement(300.0, "assumed: until Spot capacity is found, not billed; can be hours"),
    "fallback_probability": Measurement(
        0.1, "assumed: share of starts that find no Spot machine and go on demand to the end"
    ),
    "extract_core_hours": Measurement(0.0, "the features are there"),
    "storage_gb": Measurement(25.0, "assumed: VoxCeleb2 as features, 19 GB, and checkpoints"),
    "boot_disk_gb": Measurement(100.0, "as gcp-cluster makes GPU machines"),
    "pool_machines": Measurement(
        2.0, "assumed, of the 1 to 3 that gcp-cluster allows: Kubeflow Pipelines and the cluster's own pods"
    ),
    "pool_disk_gb": Measurement(50.0, "as gcp-cluster makes them"),
}


def resolve(given: Mapping[str, float | None], measured: Mapping[str, Measurement]) -> dict[str, Assumption]:
    """The number for each key of DEFAULTS: the given one, else the measured one, else the default.

    Raises:
        ConfigError: A given number is negative or not finite, or not a probability where one is meant. The
            mean time between preemptions may be infinite, and must be above 0.
    """
    resolved = {}
    for key, default in DEFAULTS.items():
        value = given.get(key)
        if value is None:
            origin, known = ("run", measured[key]) if key in measured else ("default", default)
            resolved[key] = Assumption(key, known.value, origin, known.basis)
            continue
        flag = "--" + key.replace("_", "-")
        if key == "mean_hours_between_preemptions":
            if not value > 0:
                raise ConfigError(f"{flag} is {value:g}; expected more than 0 hours, or inf for never")
        elif key == "fallback_probability":
            if not 0 <= value <= 1:
                raise ConfigError(f"{flag} is {value:g}; expected a number from 0 to 1")
        elif not 0 <= value < math.inf:
            raise ConfigError(f"{flag} is {value:g}; expected 0 or more")
        resolved[key] = Assumption(key, float(value), "flag", "")
    return resolved
