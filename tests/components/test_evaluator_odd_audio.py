"""Recordings that are too long to embed as a whole, and paths that a submission cannot hold."""

import json
from pathlib import Path

import pytest

from audio_files import noise, wav
from corpora import write_files
from evaluations import Evaluations, Trained, job, write_trials
from evaluator import scoring
from voxsrc.embedding.embedder import Embedder
from voxsrc.feature_set import FeatureSet

SPACED = [f"id{speaker}/my session/take {take}.wav" for speaker in range(2) for take in range(2)]


def test_a_blind_list_whose_paths_have_spaces_is_scored_but_not_submitted(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    audio, output = tmp_path / "my audio", tmp_path / "my output"
    write_files(audio, {name: wav(noise(0.4, seed=place)) for place, name in enumerate(SPACED)})
    trials = tmp_path / "my blind list.txt"
    trials.write_text("".join(f"{SPACED[0]}\t{name}\n" for name in SPACED[1:]))
    outcome = evaluations(
        *("--model", trained.model, "--trials", trials, "--audio", audio, "--output", output)
    )
    assert outcome.code == 0, outcome.errors
    told = "4 paths have spaces, such as 'id0/my session/take 0.wav'; the columns of a submission are"
    assert f"no submission: {told}" in outcome.output
    assert json.loads((output / "evaluation.json").read_text())["trials"]["uri"] == str(trials)
    assert len((output / "scores.txt").read_text().splitlines()) == 3
    assert not (output / "submission.zip").exists()


def test_that_there_will_be_no_submission_is_said_before_anything_is_embedded(
    trained: Trained, evaluations: Evaluations, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trials = tmp_path / "blind.txt"
    trials.write_text("".join(f"{SPACED[0]}\t{name}\n" for name in SPACED[1:]))
    outcome = evaluations(*job(trained, "--trials", trials), "--output", tmp_path / "output")
    assert outcome.code == 1  # the features have none of these
    assert evaluations.num_batches == 0
    assert "there will be no submission: 4 paths have spaces" in caplog.text


def test_too_long_recordings_are_scored_by_crops_as_the_message_says(
    trained: Trained, evaluations: Evaluations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = FeatureSet.open(trained.test).index.utterance_ids
    trials = write_trials(tmp_path / "trials.txt", names)

    def small(*given: object, **options: object) -> Embedder:
        return Embedder(*given, **options, max_frames=12)  # type: ignore[arg-type]

    monkeypatch.setattr(scoring, "Embedder", small)
    outcome = evaluations(*job(trained, "--trials", trials), "--output", tmp_path / "whole")
    assert outcome.code == 1
    assert "too_long" in outcome.error
    assert "--scoring mean-distance" in outcome.error
    assert "--crops" not in outcome.errors
    evaluations.metrics(tmp_path / "crops", *job(trained, "--scoring", "mean-distance"))
