"""How many cores a process may use, which in a container are fewer than the machine has."""

import os


def cpu_count() -> int:
    """Cores that this process may use: fewer than the machine's where it is pinned or in a container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, _cgroup_cpus()))


def _cgroup_cpus() -> int:
    """The CPU quota of a container (cgroup v2), rounded up; very many if there is none."""
    unlimited = 1 << 16
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:  # noqa: PTH123 - a kernel interface, not a path of ours
            quota, period = file.read().split()
    except (OSError, ValueError):
        return unlimited
    return unlimited if quota == "max" else -(-int(quota) // int(period))
