"""Fixtures of the components' tests."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from audio_files import noise, wav
from commands import Command, Outcome, contents, extractor_options
from corpora import Corpus, write_corpus
from file_server import Server
from voxsrc import storage

if TYPE_CHECKING:
    from evaluations import Evaluations, Trained
    from steered_trainings import Arguments
    from training_runs import Trainings


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


@pytest.fixture
def trainer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command in this process; it draws no plot, and awaits each save: see `Trainings.run`."""
    from trainer.cli import main
    from training_runs import await_saves, write_no_curves

    await_saves(monkeypatch.setattr)
    monkeypatch.setattr("trainer.run.draw_curves", write_no_curves)

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = main(arguments)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A feature set of 8 artificial speakers; not to be changed."""
    from training_runs import write_speakers

    return write_speakers(tmp_path_factory.mktemp("features") / "set")


@pytest.fixture(scope="session")
def trainings() -> "Iterator[Trainings]":
    """Runs trainings and evaluations in child processes."""
    from training_runs import Trainings

    with Trainings() as started:
        yield started


@pytest.fixture
def arguments(features: str, tmp_path: Path) -> "Arguments":
    """Arguments that train by ANGLEPROTO, some of its keys replaced, into tmp_path / run."""
    from training_runs import ANGLEPROTO, recipe_file, training_arguments

    def of(
        *more: str, output: str | Path = tmp_path / "run", using: str = features, **changes: Any
    ) -> list[str]:
        recipe = recipe_file(tmp_path / "recipe.yaml", ANGLEPROTO, **changes)
        return training_arguments(recipe, using, output, *more)

    return of


@pytest.fixture
def output(place: str) -> str:
    """Where a run writes: below a folder, then in a bucket."""
    return storage.join(place, "run")


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


@pytest.fixture
def file_server() -> Iterator[Server]:
    """A server of one file, which the test may make unreliable."""
    server = Server()
    yield server
    server.close()


@pytest.fixture
def no_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the user's own credentials and proxies out."""
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("no_proxy", "*")
