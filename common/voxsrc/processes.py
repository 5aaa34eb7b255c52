"""What tells a process from every other, on this machine and on others."""

import os
from pathlib import Path


def boot_id() -> str:
    """Tells this machine, since it was booted, from all others; "" where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def pid_scope() -> str:
    """Boot id and PID namespace of this process; "" where the system does not tell."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - no path, a label
    except OSError:
        return ""
    boot = boot_id()
    return f"{boot} {namespace}" if boot else ""


def process_started(pid: int) -> str:
    """When a process started, in ticks since boot; "" if it has ended, or waits only to be reaped."""
    try:
        # The name, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
