"""The one command that builds the images and runs the train pipeline on the bundled speech, shortened."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]


def test_it_ends_with_the_eer_and_the_report(
    docker: Any, image: str, train_image: str, evaluate_image: str, tmp_path: Path
) -> None:
    """The images are asked for to be built by now; the command finds all but the last layers made."""
    command = [ROOT / "common/containers/run_demo.sh", "--output", tmp_path / "demo"]
    done = subprocess.run(
        [*map(str, command), "--set", "overrides=num_steps=40; batch_size=32; onnx=none"],
        env={**os.environ, "DOCKER": docker.client, "PYTHON": sys.executable},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"EER (\d+\.\d\d) %, report (.*)", done.stdout.splitlines()[-1])
    assert found, done.stdout
    assert 0 < float(found[1]) < 60
    assert Path(found[2]) == tmp_path / "demo" / "evaluation" / "report.html"
    assert "<html" in Path(found[2]).read_text()
