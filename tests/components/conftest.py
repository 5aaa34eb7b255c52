"""Fixtures of the components' tests."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from audio_files import noise, wav
from commands import Command, Outcome, contents, extractor_options
from corpora import Corpus, write_corpus

if TYPE_CHECKING:
    from evaluations import Evaluations, Trained


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """24 wav files of noise, 0.3 to 0.44 s each: 3 speakers, 2 sessions each. Not to be changed."""
    members = {
        f"id{speaker}/s{session}/{number}.wav": wav(
            noise(0.3 + 0.02 * (4 * session + number), seed=100 * speaker + 10 * session + number)
        )
        for speaker in range(3)
        for session in range(2)
        for number in range(4)
    }
    return write_corpus(tmp_path_factory.mktemp("corpus"), members)


@pytest.fixture
def feature_extractor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command in this process."""
    from feature_extractor.cli import main

    # No test outlives a power failure, and waiting for the disk would be half of the time.
    monkeypatch.setattr(os, "fsync", lambda fd: None)

    def run(*arguments: str | Path | float) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def finished(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one worker makes of the corpus in one go; not to be changed."""
    output = tmp_path_factory.mktemp("finished") / "set"
    from feature_extractor.cli import main

    assert main(["run", *extractor_options(corpus, output), "--num-workers", "1"]) == 0
    return output


@pytest.fixture
def begun(corpus: Corpus, finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished set, to be changed."""
    output = tmp_path / "begun"
    for path, content in contents(finished).items():
        (output / path).parent.mkdir(parents=True, exist_ok=True)
        (output / path).write_bytes(content)
    return output


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> "Trained":
    """A model with its features and trials; not to be changed."""
    from evaluations import train

    return train(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> "Evaluations":
    """Runs the evaluator in this process."""
    from evaluations import watched

    return watched(monkeypatch)
