"""Results of one evaluation are not replaced by another's unless that is asked for."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import contents
from evaluations import Evaluations, Trained, job, with_training, write_trials
from voxsrc.corpus import read_trials
from voxsrc.feature_set import FeatureSet
from voxsrc.models.stored import StoredModel, load_model, save_model


def copied(folder: str, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def retrained(trained: Trained, to: Path) -> str:
    """The model with other weights."""
    model: StoredModel = load_model(trained.model)
    for parameter in model.encoder.parameters():
        parameter.data.mul_(1.01)
    save_model(str(to), model.encoder, model.description)
    return str(to)


def remade(trained: Trained, to: Path) -> str:
    """The test features with another content: here it is enough that the manifest says so."""
    manifest = copied(trained.test, to) / "manifest.json"
    fields = json.loads(manifest.read_text())
    fields["shards"][0]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(fields))
    return str(to)


def fewer(trained: Trained, to: Path) -> str:
    """The trials without the last one."""
    lines = Path(trained.trials).read_text().splitlines(keepends=True)
    to.write_text("".join(lines[:-1]))
    return str(to)


def relabelled(trained: Trained, to: Path) -> str:
    """The trials, one of them with the other label."""
    text = Path(trained.trials).read_text()
    to.write_text(("0" if text[0] == "1" else "1") + text[1:])
    return str(to)


@pytest.mark.parametrize(
    ("flag", "make"),
    [("--model", retrained), ("--features", remade), ("--trials", fewer), ("--trials", relabelled)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_other_inputs_are_refused_before_anything_is_embedded(
    flag: str,
    make: Callable[[Trained, Path], str],
    trained: Trained,
    evaluations: Evaluations,
    tmp_path: Path,
) -> None:
    output = tmp_path / "output"
    evaluations.metrics(output, *with_training(trained))
    before = contents(output)
    assert "held_out_scores.txt" in before
    other = make(trained, tmp_path / "other")
    evaluations.num_batches = 0
    outcome = evaluations(*with_training(trained, flag, other), "--output", output)
    assert outcome.code == 1
    ours = {"--model": trained.model, "--features": trained.test, "--trials": trained.trials}[flag]
    assert f"{output} has the results of another evaluation: {flag} was {ours}, now {other}." in outcome.error
    assert outcome.error.endswith("give --overwrite to replace them")
    assert contents(output) == before
    assert evaluations.num_batches == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--scoring", "mean-distance"], "--scoring was as-norm, now mean-distance"),
        (["--top-cohort", 3], "--top-cohort was 300, now 3"),
        (["--cohort-utterances", 2], "--cohort-utterances was 20, now 2"),
        (["--quality"], "--quality was false, now true"),
        (["--p-target", 0.01], "--p-target was 0.05, now 0.01"),
    ],
)
def test_another_way_of_scoring_is_refused(
    more: list[str | float], told: str, trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    as_norm = with_training(trained, "--scoring", "as-norm")
    evaluations.metrics(tmp_path, *as_norm)
    outcome = evaluations(*as_norm, *more, "--output", tmp_path)
    assert outcome.code == 1
    assert told in outcome.error
    assert evaluations(*as_norm, *more, "--output", tmp_path, "--overwrite").code == 0
    assert evaluations(*as_norm, *more, "--output", tmp_path).code == 0


def test_all_that_differs_is_named(trained: Trained, evaluations: Evaluations, tmp_path: Path) -> None:
    evaluations.metrics(tmp_path, *job(trained))
    outcome = evaluations(
        *with_training(trained, "--scoring", "plda", "--p-target", 0.5), "--output", tmp_path
    )
    assert (
        f"--train-features was not given, now {trained.train}; --scoring was cosine, now plda; "
        "--cohort-utterances was not given, now 20; --p-target was 0.05, now 0.5. Choose" in outcome.error
    )


def test_what_changed_in_its_place_is_told(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    output, model = tmp_path / "output", copied(trained.model, tmp_path / "model")
    arguments = job(trained, "--model", model)
    evaluations.metrics(output, *arguments)
    retrained(trained, model)
    outcome = evaluations(*arguments, "--output", output)
    assert outcome.code == 1
    assert f"another evaluation: --model {model} has changed since." in outcome.error


def test_equal_content_at_another_place_is_the_same_evaluation(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    output, trials = tmp_path / "output", tmp_path / "trials.txt"
    first = evaluations.metrics(output, *job(trained))
    trials.write_bytes(Path(trained.trials).read_bytes().replace(b" ", b"\t").replace(b"\n", b"\r\n"))
    moved = [
        *("--model", copied(trained.model, tmp_path / "model")),
        *("--features", copied(trained.test, tmp_path / "test")),
        *("--trials", trials),
    ]
    # Neither changes a number that stands there already.
    more = ["--title", "Again", "--num-resamples", 30, "--compare", f"same={output / 'scores.txt'}"]
    second = evaluations.metrics(output, *moved, *more)
    assert second["eer"] == first["eer"]
    assert second["other_systems"]["same"]["eer"] == first["eer"]


def test_blind_results_are_protected_too(trained: Trained, evaluations: Evaluations, tmp_path: Path) -> None:
    names = FeatureSet.open(trained.test).index.utterance_ids
    blind = write_trials(tmp_path / "blind.txt", names, blind=True)
    output = tmp_path / "output"
    assert evaluations(*job(trained, "--trials", blind), "--output", output).code == 0
    assert evaluations(*job(trained, "--trials", blind), "--output", output).code == 0
    outcome = evaluations(*job(trained), "--output", output)
    assert f"--trials was {blind}, now {trained.trials}" in outcome.error
    assert (output / "submission.zip").exists()
    assert len(read_trials(blind)) == len(read_trials(trained.trials))


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"model": 1}', "\udcff"])
def test_damaged_or_unfinished_results_block_nobody(
    damage: str, trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    evaluations.metrics(tmp_path, *job(trained))
    settings = tmp_path / "evaluation.json"
    if damage:
        settings.write_bytes(damage.encode(errors="surrogateescape"))
    else:
        settings.unlink()
    metrics = evaluations.metrics(tmp_path, *job(trained, "--scoring", "mean-distance"))
    assert metrics["scoring"] == "mean-distance"
    assert json.loads(settings.read_text())["scoring"] == "mean-distance"
