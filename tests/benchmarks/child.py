"""A process of its own for what must be seen from outside: several cores, or the memory that is used.

Run with a JSON object as the one argument; prints a JSON object on its last line. Imports nothing heavy
here, because the extraction's worker processes import the main module too.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import Machine


def extract(machine: Machine, commands: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Runs `feature-extractor` commands one after the other in one new process that may use all cores.

    Returns:
        `seconds` of each command, and `peak_mib` and `start_mib`, the process's resident memory at its
        highest and before the first command.
    """
    return _run(machine, {"do": "extract", "cores": machine.cores, "commands": commands})


def open_mapped(machine: Machine, set_uri: Path, cache_dir: Path) -> dict[str, Any]:
    """Opens a feature set as a memory map, twice: the first time makes the cache file.

    Returns:
        `growth_mib`, what the second opening added to the resident memory, and `mapped_mib`, what of the
        cache file is resident then.
    """
    what = {"do": "open_mapped", "cores": machine.cores, "set": str(set_uri), "cache": str(cache_dir)}
    _run(machine, what)
    return _run(machine, what)


def _run(machine: Machine, what: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), json.dumps(what)]
    done = subprocess.run(command, env=machine.environment, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _extract(commands: Sequence[Sequence[str]]) -> dict[str, Any]:
    import feature_extractor.extraction
    import feature_extractor.finishing  # noqa: F401
    from feature_extractor.cli import main

    seconds, start_mib = [], _resident_mib("VmRSS")
    for command in commands:
        began, printed = time.perf_counter(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            exit_code = main(command)
        seconds.append(time.perf_counter() - began)
        if exit_code:
            raise RuntimeError(f"{' '.join(command)} failed: {printed.getvalue()}")
    return {"seconds": seconds, "start_mib": start_mib, "peak_mib": _resident_mib("VmHWM")}


def _open_mapped(set_uri: str, cache_dir: str) -> dict[str, Any]:
    from voxsrc.feature_set import FeatureSet

    # What the index takes and what is imported is not the map's.
    by_shard = FeatureSet.open(set_uri)
    before_mib = _resident_mib("VmRSS")
    opened = FeatureSet.open(set_uri, mode="mmap", cache_dir=cache_dir)
    growth_mib = _resident_mib("VmRSS") - before_mib
    return {
        "growth_mib": growth_mib,
        "mapped_mib": _mapped_resident_mib(cache_dir),
        "num_utterances": len(by_shard),
        "frames_mib": opened.frames.nbytes / 2**20,
    }


def _resident_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}; expected a Linux kernel's")


def _mapped_resident_mib(folder: str) -> float:
    """Resident memory of the maps of files in `folder`."""
    resident_kib, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = os.path.realpath(folder) in line
        elif inside and line.startswith("Rss:"):
            resident_kib += int(line.split()[1])
    return resident_kib / 1024


def _main() -> None:
    what = json.loads(sys.argv[1])
    os.sched_setaffinity(0, what["cores"])
    if what["do"] == "extract":
        found = _extract(what["commands"])
    else:
        found = _open_mapped(what["set"], what["cache"])
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
