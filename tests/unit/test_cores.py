"""How many cores are taken, and that the libraries that take them know nothing of the command line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from feature_sets import make_feature_set
from voxsrc.feature_set import FeatureSet


@pytest.mark.parametrize(("given", "threads"), [(None, 3), (5, 5)])
def test_a_set_is_decoded_by_as_many_threads_as_the_process_has_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: int | None, threads: int
) -> None:
    make_feature_set(tmp_path / "set", [[20], [30]])
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    monkeypatch.setattr("voxsrc.cores._cgroup_cpus", lambda: 8)
    decode_all, taken = FeatureSet._decode_all, []

    def counting(self: FeatureSet, out: np.ndarray, num_threads: int) -> None:
        taken.append(num_threads)
        decode_all(self, out, num_threads)

    monkeypatch.setattr(FeatureSet, "_decode_all", counting)
    FeatureSet.open(str(tmp_path / "set"), "ram", num_threads=given)
    assert taken == [threads]


def test_scoring_and_features_import_neither_the_command_line_nor_yaml() -> None:
    code = (
        "import sys, voxsrc.scoring, voxsrc.features; "
        "print(sorted({'voxsrc.command', 'argparse', 'torch', 'yaml'}.intersection(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
