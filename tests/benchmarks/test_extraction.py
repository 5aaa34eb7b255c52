"""The extraction benchmark runs to its end and measures every row; its timings are not judged here."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_PROGRAM = Path(__file__).with_name("extraction.py")
_ROWS = {
    "compressed",
    "compressed_process",
    "compressed_joined",
    "wav",
    "wav_process",
    "log_mel_voxceleb_trainer",
    "log_mel_lfb40",
    "footprint_step_0.2",
    "max_error_step_0.2",
    "footprint_step_0.1",
    "max_error_step_0.1",
    "memory_worker",
    "memory_mmap",
    "read_ram",
    "read_by_shard",
    "crops_ram",
    "crops_mmap",
    "crops_bandwidth",
    "crops_original",
    "two_workers",
    "two_workers_process",
}


def run(json_file: Path, *flags: str, **environment: str) -> dict[str, Any]:
    """Runs the benchmark; its rows by name."""
    command = [sys.executable, str(_PROGRAM), "--quick", "--json", str(json_file), *flags]
    subprocess.run(command, check=True, env={**os.environ, **environment})
    return {row["name"]: row for row in json.loads(json_file.read_text())["rows"]}


@pytest.mark.benchmark
def test_every_row_has_finite_figures_or_a_reason(tmp_path: Path) -> None:
    rows = run(tmp_path / "rows.json")
    assert set(rows) == _ROWS
    for name, row in rows.items():
        if row["skipped"]:
            assert row["ours"] is None, name
            continue
        figures = [row["ours"], *(row[key] for key in ("reference", "ratio") if row[key] is not None)]
        assert figures and all(math.isfinite(figure) for figure in figures), name
        assert row["ours"] >= 0, name
    # What does not depend on the clock holds even on half a minute of audio.
    for name in ("max_error_step_0.2", "max_error_step_0.1", "memory_worker"):
        assert rows[name]["passed"], rows[name]
    for name in ("log_mel_voxceleb_trainer", "log_mel_lfb40"):
        assert rows[name]["details"]["max_difference_nat"] < 1e-3


@pytest.mark.benchmark
def test_missing_programs_are_named_in_the_row(tmp_path: Path) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    rows = run(tmp_path / "rows.json", "--only", "compressed", "wav", PATH=str(empty))
    assert "ffmpeg" in rows["compressed"]["skipped"]
    assert "pigz" in rows["wav"]["skipped"]
    assert rows["wav"]["passed"] is None
