"""The machine that measures: one core and one thread for the single-core rows, and what it is.

Imports nothing heavy: libraries count the cores that they may use when they are imported.
"""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Machine:
    """What the process was given, and the one core that it then kept.

    Attributes:
        cores: Numbers of the cores that the process may use.
        core: The one to which it pinned itself.
        environment: Environment variables as they were, for child processes that use all cores.
    """

    cores: tuple[int, ...]
    core: int
    environment: dict[str, str]


def pin_to_one_core() -> Machine:
    """Leaves this process and its children one core, and BLAS one thread. Call it before importing NumPy."""
    machine = Machine(tuple(sorted(os.sched_getaffinity(0))), max(os.sched_getaffinity(0)), dict(os.environ))
    os.sched_setaffinity(0, {machine.core})
    for name in _THREAD_VARIABLES:
        os.environ[name] = "1"
    return machine


def describe(machine: Machine) -> dict[str, Any]:
    """What a reader of the figures must know of the machine, JSON-ready."""
    from importlib.metadata import version

    packages = ("numpy", "scipy", "av", "soundfile", "torch", "torchaudio", "zstandard")
    return {
        "cpu": _cpu_model(),
        "cores": len(machine.cores),
        "pinned_to_core": machine.core,
        "load_average": list(os.getloadavg()),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
