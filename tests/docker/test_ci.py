"""ci.sh's own decisions, with stand-ins for the Docker client, df and Python."""

import subprocess
from pathlib import Path

import pytest

CI = Path(__file__).with_name("ci.sh")
DF = {
    "much": "echo Avail; echo ' 31'",
    "little": "echo Avail; echo ' 29'",
    "unknown": 'echo "df: $3: No such file or directory" >&2; exit 1',
}


@pytest.mark.parametrize(
    ("space", "left_out", "words"),
    [
        ("much", False, "docker: tests: "),
        ("little", True, "the image with CUDA was NOT tested: 29 GB of disk free, 30 needed"),
        ("unknown", False, "the space in /engine is not known: all images are tested"),
    ],
)
def test_the_image_with_cuda_is_left_out_where_the_disk_is_known_to_be_too_small(
    space: str, left_out: bool, words: str, tmp_path: Path
) -> None:
    scripts = {
        "docker": 'case "$*" in *DockerRootDir*) echo /engine ;; esac',
        "df": DF[space],
        "debootstrap": "exit 1",
        "python": 'echo "tested: $*"',
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "DOCKER": "docker",
        "PYTHON": str(tmp_path / "python"),
    }
    done = subprocess.run([CI], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert "tested: -m pytest tests/docker " in done.stdout
    assert ("--ignore=tests/docker/test_cuda_image.py" in done.stdout) == left_out
