"""SIGTERM: an orderly end, at once, with nothing left behind."""

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from audio_files import noise, wav
from commands import Command, contents
from corpora import write_corpus

MEMBERS = {f"id{n}/s/{n}.wav": wav(noise(0.3, seed=n)) for n in range(4)}


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """The fork server's socket lies in it, whose whole path has at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="voxsrc-") as folder:
        yield Path(folder)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_it_ends_at_once_and_leaves_no_temporary_files_and_no_workers(
    tmp_path: Path, feature_extractor: Command, short_folder: Path, num_workers: int
) -> None:
    temporary = short_folder
    corpus, output = write_corpus(tmp_path, MEMBERS), tmp_path / "set"
    what = ["--audio", corpus.audio, "--list", corpus.list, "--output", str(output), "--num-shards", "4"]
    assert feature_extractor("plan", *what).code == 0
    held = tmp_path / "audio/id3/s/3.wav"
    held.unlink()
    os.mkfifo(held)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "feature_extractor",
            "extract",
            "--output",
            output,
            "--num-workers",
            str(num_workers),
        ],
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
    )
    opened: queue.Queue[int] = queue.Queue()
    # It opens for writing as soon as whoever makes the shard has opened it for reading, and waits.
    threading.Thread(target=lambda: opened.put(os.open(held, os.O_WRONLY)), daemon=True).start()
    try:
        pipe = opened.get(timeout=60)
    except queue.Empty:
        process.kill()
        pytest.fail(f"it never came to that file: {process.communicate()[1]}")
    assert bool(list(temporary.iterdir())) == (num_workers > 1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors.splitlines()[-1] == "terminated; what is finished is kept"
    assert "Traceback" not in errors
    assert list(temporary.iterdir()) == []
    with pytest.raises(BrokenPipeError):  # nobody is left who reads
        os.write(pipe, b"x")
    os.close(pipe)

    held.unlink()
    held.write_bytes(MEMBERS["id3/s/3.wav"])
    assert feature_extractor("run", *what, "--num-workers", 1).code == 0
    undisturbed = tmp_path / "undisturbed"
    what[5] = str(undisturbed)
    assert feature_extractor("run", *what, "--num-workers", 1).code == 0
    shards = {path: content for path, content in contents(output).items() if path.startswith("shard")}
    assert shards.items() <= contents(undisturbed).items()


def test_a_command_that_has_ended_leaves_the_handling_of_signals_as_it_was(
    tmp_path: Path, feature_extractor: Command
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert feature_extractor("finish", "--output", tmp_path / "nothing").code == 1
    assert signal.getsignal(signal.SIGTERM) is before
