"""This project's way: `feature-extractor run`, in this process or as one of its own."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path

from material import Audio

from feature_extractor.cli import main


def arguments(audio: Audio, output: Path, *options: str, num_workers: int = 1) -> list[str]:
    """The command's arguments."""
    listed = ["--list", str(audio.list_file)] if audio.list_file else []
    common = ["--audio", str(audio.root), "--output", str(output), "--num-workers", str(num_workers)]
    return ["run", *common, *listed, *options]


def extract(audio: Audio, output: Path, *options: str) -> None:
    """Makes a feature set in this process, with one worker."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        exit_code = main(arguments(audio, output, *options))
    if exit_code:
        raise RuntimeError(f"the extraction into {output} failed: {printed.getvalue()}")


def extract_as_process(audio: Audio, output: Path) -> None:
    """The same with the interpreter's start and all imports."""
    command = [sys.executable, "-m", "feature_extractor", *arguments(audio, output)]
    subprocess.run(command, check=True, capture_output=True)
