"""Evaluations in this process: a tiny model trained on artificial speakers, others to test it on."""

import contextlib
import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import Outcome, contents
from evaluator import cli
from evaluator.report import ReportData, write_report
from training_runs import AAM, ANGLEPROTO, recipe_file, training_arguments, write_no_curves, write_speakers
from voxsrc.corpus import speed_copies, split_speakers
from voxsrc.embedding.embedder import Embedder
from voxsrc.feature_set import FeatureSet
from voxsrc.lease import LEASE_NAME
from voxsrc.models.encoder import SpeakerEncoder

NUM_TRAINING_SPEAKERS = 14
HELD_OUT_FRACTION = 0.3
FIRST_TEST_SPEAKER = 50


@dataclass(frozen=True)
class Trained:
    """A trained model with its features, and trials of other speakers."""

    model: str
    train: str
    test: str
    trials: str

    @property
    def sides(self) -> tuple[set[str], set[str]]:
        """The speakers that training saw, and those that it held out."""
        features = FeatureSet.open(self.train)
        speakers = features.index.speaker_ids
        copies = speed_copies(speakers, features.manifest.made_from)
        seen, held_out = split_speakers(speakers, copies=copies, validation_fraction=HELD_OUT_FRACTION)
        return set(seen), set(held_out)


@dataclass
class Evaluations:
    """Runs `evaluator`; most tests need no report, only what it would be made of.

    Attributes:
        reports: What each report was to be made of.
        embedded: URI and ids of each feature set that was embedded.
        num_batches: How often the network ran.
        whole: Whether reports are written.
    """

    reports: list[ReportData] = field(default_factory=list)
    embedded: list[tuple[str, list[str]]] = field(default_factory=list)
    num_batches: int = 0
    whole: bool = False

    def __call__(self, *arguments: str | Path | float) -> Outcome:
        """Runs the command to its end; few resamples unless the arguments say otherwise."""
        given = [str(argument) for argument in arguments]
        if "--num-resamples" not in given:
            given += ["--num-resamples", "20"]
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = cli.main(given)
        return Outcome(code, output.getvalue(), errors.getvalue())

    def metrics(self, output: Path, *arguments: str | Path | float) -> dict[str, Any]:
        """Runs the command, which must succeed, with this output; returns its metrics.json."""
        outcome = self(*arguments, "--output", output)
        assert outcome.code == 0, outcome.errors
        metrics: dict[str, Any] = json.loads((output / "metrics.json").read_text())
        return metrics


def train(folder: Path) -> Trained:
    """Writes features, trains a model, and lists trials; all of it below `folder`."""
    from trainer.cli import main

    training = write_speakers(folder / "train", num_speakers=NUM_TRAINING_SPEAKERS)
    test = write_speakers(folder / "test", num_speakers=6, first_speaker=FIRST_TEST_SPEAKER, seed=1)
    recipe = recipe_file(
        folder / "recipe.yaml",
        ANGLEPROTO,
        encoder=AAM["encoder"],  # sees the mean spectrum, in which the speakers differ
        validation={"fraction": HELD_OUT_FRACTION, "crop_frames": 24},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.run.draw_curves", write_no_curves)
        assert main(training_arguments(recipe, training, folder / "run")) == 0
    trials = write_trials(folder / "trials.txt", FeatureSet.open(test).index.utterance_ids)
    return Trained(str(folder / "run" / "model"), training, test, trials)


def watched(monkeypatch: pytest.MonkeyPatch) -> Evaluations:
    """Evaluations that note what they embed and report."""
    made = Evaluations()
    embed_set, forward = Embedder.embed_set, SpeakerEncoder.forward

    def recorded(self: Embedder, features: FeatureSet, ids: Sequence[str] | None = None) -> Any:
        assert ids is not None
        made.embedded.append((features.uri, list(ids)))
        return embed_set(self, features, ids)

    def counted(self: SpeakerEncoder, batch: torch.Tensor) -> torch.Tensor:
        made.num_batches += 1
        return forward(self, batch)

    def taken(uri: str, data: ReportData) -> None:
        made.reports.append(data)
        if made.whole:
            write_report(uri, data)

    monkeypatch.setattr(Embedder, "embed_set", recorded)
    monkeypatch.setattr(SpeakerEncoder, "forward", counted)
    monkeypatch.setattr("evaluator.reporting.write_report", taken)
    return made


def write_trials(path: Path, utterance_ids: Sequence[str], *, blind: bool = False) -> str:
    """Writes all target trials of `speaker/…` utterances and a third of the others; returns the path."""
    lines = []
    for number, (first, second) in enumerate(itertools.combinations(utterance_ids, 2)):
        is_target = first.split("/")[0] == second.split("/")[0]
        if is_target or number % 3 == 0:
            lines.append(f"{first} {second}\n" if blind else f"{int(is_target)} {first} {second}\n")
    path.write_text("".join(lines))
    return str(path)


def job(trained: Trained, *more: str | Path | float) -> list[str | Path | float]:
    """The arguments of an evaluation of the model on its trials, but the output."""
    return ["--model", trained.model, "--features", trained.test, "--trials", trained.trials, *more]


def with_training(trained: Trained, *more: str | Path | float) -> list[str | Path | float]:
    """The same with the set that the model was trained on."""
    return job(trained, "--train-features", trained.train, *more)


def speakers_of(utterance_ids: Sequence[str]) -> set[str]:
    """Who speaks in utterances `speaker/…`."""
    return {name.split("/")[0] for name in utterance_ids}


def results(output: Path) -> dict[str, bytes]:
    """Every file of an evaluation by its path, but for the one that says who writes."""
    return {path: content for path, content in contents(output).items() if path != LEASE_NAME}
