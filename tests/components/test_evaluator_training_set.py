"""Models and training sets as they may be: without calibration, without strangers, with test speakers."""

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluations import Evaluations, Trained, job, speakers_of, with_training, write_trials
from evaluator.options import SCORINGS
from training_runs import ANGLEPROTO, recipe_file, training_arguments, write_speakers
from voxsrc.config import read_yaml, write_yaml
from voxsrc.feature_set import FeatureSet
from voxsrc.feature_set.manifest import INDEX_NAME, MANIFEST_NAME
from voxsrc.models.stored import load_model


def test_without_the_training_set_plain_cosines_have_the_models_own_calibration(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    cosine = evaluations.metrics(tmp_path / "cosine", *job(trained))
    assert cosine["calibration"] == load_model(trained.model).description.calibration
    crops = evaluations.metrics(tmp_path / "crops", *job(trained, "--scoring", "mean-distance"))
    assert crops["calibration"] is None
    assert "cllr" not in crops
    assert crops["warnings"] == ["there is no calibration of mean-distance scores without --train-features"]


def changed_model(trained: Trained, folder: Path, **changes: Any) -> Path:
    """A copy of the model whose description has other fields."""
    folder.mkdir()
    original = Path(trained.model)
    (folder / "model.safetensors").write_bytes((original / "model.safetensors").read_bytes())
    fields = read_yaml((original / "model.yaml").read_text(), "model.yaml") | changes
    (folder / "model.yaml").write_text(
        write_yaml({key: value for key, value in fields.items() if value is not None})
    )
    return folder


def test_a_model_without_calibration(trained: Trained, evaluations: Evaluations, tmp_path: Path) -> None:
    model = changed_model(trained, tmp_path / "model", calibration=None)
    metrics = evaluations.metrics(tmp_path / "output", *job(trained, "--model", model))
    assert metrics["calibration"] is None
    assert not {"cllr", "actual_dcf"} & metrics.keys()
    assert metrics["warnings"] == ["the model has no calibration, and --train-features is not given"]
    assert not (tmp_path / "output" / "log_likelihood_ratios.txt").exists()
    assert evaluations.reports[0].main.llrs is None


def test_a_damaged_calibration(trained: Trained, evaluations: Evaluations, tmp_path: Path) -> None:
    model = changed_model(trained, tmp_path / "model", calibration={"inputs": ["score"], "weights": "1"})
    outcome = evaluations(*job(trained, "--model", model), "--output", tmp_path / "output")
    assert outcome.code == 1
    assert outcome.error.startswith("model.yaml: calibration")


def test_a_model_that_held_out_nobody(trained: Trained, evaluations: Evaluations, tmp_path: Path) -> None:
    recipe = {"validation": {"fraction": 0}}
    model = changed_model(trained, tmp_path / "model", recipe=recipe)
    arguments = with_training(trained, "--model", model, "--scoring", "as-norm")
    metrics = evaluations.metrics(tmp_path / "output", *arguments)
    seen, held_out = trained.sides
    assert speakers_of(evaluations.embedded[-1][1]) == seen | held_out
    assert metrics["calibration"] is None
    assert metrics["warnings"] == [
        "there is no calibration, as no speakers but those of the trials were held out of training"
    ]
    with_quality = evaluations(*arguments, "--quality", "--output", tmp_path / "quality")
    assert with_quality.code == 1
    assert with_quality.error.startswith("--quality: there is no calibration, as no speakers")


def test_a_model_that_does_not_say_whom_it_held_out(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    model = changed_model(trained, tmp_path / "model", recipe={})
    outcome = evaluations(*with_training(trained, "--model", model), "--output", tmp_path / "output")
    assert outcome.code == 1
    assert "has no validation.fraction" in outcome.error
    assert evaluations.num_batches == 0


def test_scores_worse_than_chance_are_not_calibrated(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:

    def reversed_(self: Any, embeddings: Any, first: Any, second: Any) -> np.ndarray:
        names = embeddings.utterance_ids
        return np.array(
            [
                float(names[a].split("/")[0] != names[b].split("/")[0]) + 0.01 * (a + b)
                for a, b in zip(first, second, strict=True)
            ]
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluator.scorers.CosineScorer.scores", reversed_)
        metrics = evaluations.metrics(tmp_path / "output", *with_training(trained))
    assert metrics["calibration"] is None
    assert metrics["warnings"] == [
        "there is no calibration: on held-out speakers the scores are worse than chance"
    ]


@pytest.mark.parametrize("scoring", SCORINGS)
def test_speakers_of_the_trials_are_in_no_cohort_and_no_calibration(
    scoring: str, trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    seen, held_out = trained.sides
    known, stranger = sorted(seen)[:2], sorted(held_out)[0]
    names = [
        name
        for name in FeatureSet.open(trained.train).index.utterance_ids
        if name.split("/")[0] in {*known, stranger}
    ]
    trials = write_trials(tmp_path / "trials.txt", names)
    flags = ["--features", trained.train, "--trials", trials, "--scoring", scoring]
    metrics = evaluations.metrics(tmp_path / "output", *with_training(trained, *flags))
    tested, *others = evaluations.embedded
    assert speakers_of(tested[1]) == {*known, stranger}
    if scoring in ("as-norm", "plda"):
        assert speakers_of(others.pop(0)[1]) == seen - set(known)
    assert [speakers_of(ids) for _, ids in others] == [held_out - {stranger}]
    # Another is on the draws of so few speakers.
    assert metrics["warnings"][:1] == [
        f"2 of 3 test speakers are in the training features, too, the first is {known[0]}: the results say "
        "little about strangers"
    ]


def test_a_cohort_of_nobody(trained: Trained, evaluations: Evaluations, tmp_path: Path) -> None:
    trials = write_trials(tmp_path / "trials.txt", FeatureSet.open(trained.train).index.utterance_ids)
    flags = ["--features", trained.train, "--trials", trials, "--scoring", "as-norm"]
    outcome = evaluations(*with_training(trained, *flags), "--output", tmp_path / "output")
    assert outcome.code == 1
    assert "has 0 speakers whom the training saw and who are in no trial" in outcome.error


def test_another_training_set_than_the_models(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    other = write_speakers(tmp_path / "other", num_speakers=9, first_speaker=70, seed=3)
    metrics = evaluations.metrics(tmp_path / "output", *job(trained, "--train-features", other))
    assert len(metrics["warnings"]) == 1
    assert "is not the feature set that the model says it was trained on" in metrics["warnings"][0]


def with_names(trained: Trained, folder: Path, names: dict[str, str], speeds: list[str]) -> Trained:
    """The same with other speakers' names in the training features, said to have copies at these speeds."""
    folder.mkdir()
    for file in Path(trained.train).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    table = pq.read_table(folder / INDEX_NAME)
    renamed = pa.array([names.get(name, name) for name in table["speaker_id"].to_pylist()])
    buffer = io.BytesIO()
    pq.write_table(
        table.set_column(table.schema.get_field_index("speaker_id"), "speaker_id", renamed), buffer
    )
    content = buffer.getvalue()
    (folder / INDEX_NAME).write_bytes(content)
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    manifest["made_from"] = {"speeds": speeds}
    manifest["index"] |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
    return replace(trained, train=str(folder))


def test_speed_perturbed_copies_are_nobodys_voice(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    names = {f"id{2 * n + 1:03d}": f"id{2 * n:03d}-sp0.9" for n in range(6)}
    # Two people are called as copies at other speeds would be.
    names |= {"id012": "anna-sp1", "id013": "anna-sp2"}
    renamed = with_names(trained, tmp_path / "train", names, ["0.9"])
    index = FeatureSet.open(renamed.train).index
    speaker_of = dict(zip(index.utterance_ids, index.speaker_ids, strict=True))
    people = {name for name in index.speaker_ids if not name.endswith("-sp0.9")}
    seen, held_out = renamed.sides
    assert min(len(people & seen), len(people & held_out)) > 1
    tested = {name for name in sorted(people & seen) if f"{name}-sp0.9" in seen}
    tested = {min(tested), max(tested)}
    trials = write_trials(tmp_path / "trials", [name for name in speaker_of if speaker_of[name] in tested])

    def used(*flags: str | Path | float) -> list[set[str]]:
        evaluations.embedded.clear()
        evaluations.metrics(
            tmp_path / f"output{len(flags)}", *with_training(renamed, "--scoring", "as-norm", *flags)
        )
        return [{speaker_of[name] for name in ids} for _, ids in evaluations.embedded[1:]]

    assert used() == [people & seen, people & held_out]
    # The copies of test speakers, who are in no cohort, must not be taken for people either.
    assert used("--features", renamed.train, "--trials", trials) == [
        people & seen - tested,
        people & held_out,
    ]


def test_a_cohort_does_without_utterances_too_short_for_the_model(
    evaluations: Evaluations, tmp_path: Path
) -> None:
    from trainer.cli import main

    training = write_speakers(tmp_path / "train", num_speakers=9, frames=(2, 40))
    recipe = recipe_file(tmp_path / "recipe.yaml", ANGLEPROTO, num_steps=2)
    assert main(training_arguments(recipe, training, tmp_path / "run")) == 0
    test = write_speakers(tmp_path / "test", num_speakers=4, first_speaker=50)
    trials = write_trials(tmp_path / "trials.txt", FeatureSet.open(test).index.utterance_ids)
    least = load_model(str(tmp_path / "run" / "model")).encoder.min_frames
    index = FeatureSet.open(training).index
    frames = dict(zip(index.utterance_ids, index.num_frames.tolist(), strict=True))
    where = ["--model", tmp_path / "run" / "model", "--features", test, "--trials", trials]
    evaluations.metrics(tmp_path / "output", *where, "--train-features", training, "--scoring", "as-norm")
    cohort = next(names for uri, names in evaluations.embedded if uri == training)
    assert set(cohort) == {name for name, count in frames.items() if count >= least} != frames.keys()
