"""The evaluation benchmark runs to its end and measures every row; its timings are not judged here."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_PROGRAM = Path(__file__).with_name("evaluation.py")
_METRICS = {"error_rates", "cllr", "bootstrap"}


def run(json_file: Path, *flags: str) -> dict[str, Any]:
    """Runs the benchmark; its rows by name."""
    command = [sys.executable, str(_PROGRAM), "--quick", "--json", str(json_file), *flags]
    subprocess.run(command, check=True)
    return {row["name"]: row for row in json.loads(json_file.read_text())["rows"]}


@pytest.mark.benchmark
def test_metrics_are_measured_beside_loops_with_which_they_agree(tmp_path: Path) -> None:
    rows = run(tmp_path / "rows.json", "--only", "metrics")
    assert set(rows) == _METRICS
    for name, row in rows.items():
        assert row["ours"] > 0 and row["reference"] > 0, name
        assert row["details"]["max_difference"] < 1e-6, name


@pytest.mark.benchmark
def test_every_group_has_finite_figures_or_a_reason(tmp_path: Path) -> None:
    rows = run(tmp_path / "rows.json")
    assert rows.keys() > _METRICS
    for name, row in rows.items():
        if row["skipped"]:
            assert row["ours"] is None, name
            continue
        figures = [row[key] for key in ("ours", "reference", "ratio") if row[key] is not None]
        assert row["ours"] is not None and all(math.isfinite(figure) for figure in figures), name
