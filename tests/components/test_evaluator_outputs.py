"""Blind lists, comparisons with other systems, buckets, and what Kubeflow is given."""

import itertools
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from evaluations import Evaluations, Trained, job, write_trials
from voxsrc import storage
from voxsrc.corpus import read_trials
from voxsrc.feature_set import FeatureSet
from voxsrc.submission import validate_submission

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def blind(trained: Trained, tmp_path: Path) -> str:
    names = FeatureSet.open(trained.test).index.utterance_ids
    return write_trials(tmp_path / "blind.txt", names, blind=True)


def test_a_list_without_labels_gives_scores_and_a_submission(
    blind: str, trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    evaluations.metrics(tmp_path / "labelled", *job(trained))
    outcome = evaluations(*job(trained, "--trials", blind), "--output", tmp_path / "output")
    assert outcome.code == 0
    assert "has no labels: no metrics, no report" in outcome.output
    assert "probabilities of the same speaker, from log-likelihood ratios and prior 0.05" in outcome.output
    assert (tmp_path / "output" / "scores.txt").read_bytes() == (
        tmp_path / "labelled" / "scores.txt"
    ).read_bytes()
    assert not (tmp_path / "output" / "metrics.json").exists()
    assert len(evaluations.reports) == 1

    submission = tmp_path / "output" / "submission.zip"
    assert validate_submission(str(submission), blind).valid
    with zipfile.ZipFile(submission) as archive:
        submitted = [float(line.split()[0]) for line in archive.read("scores.txt").decode().splitlines()]
    scores = [
        float(line.split()[0]) for line in (tmp_path / "output" / "scores.txt").read_text().splitlines()
    ]
    assert sorted(range(len(scores)), key=scores.__getitem__) == sorted(
        range(len(scores)), key=submitted.__getitem__
    )


def test_a_submission_without_calibration(
    blind: str, trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    outcome = evaluations(
        *job(trained, "--trials", blind, "--scoring", "mean-distance"), "--output", tmp_path / "output"
    )
    assert outcome.code == 0
    assert "in the order of the scores, not probabilities" in outcome.output
    assert validate_submission(str(tmp_path / "output" / "submission.zip"), blind).valid


def test_systems_are_compared_on_the_same_trials(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    trials = read_trials(trained.trials)
    assert trials.labels is not None
    perfect, same = tmp_path / "perfect.txt", tmp_path / "same.txt"
    lines = [
        f"{2 * label + 0.001 * place} {first} {second}\n"
        for place, (label, first, second) in enumerate(
            zip(trials.labels.tolist(), trials.enrollments, trials.tests, strict=True)
        )
    ]
    swapped = [" ".join([line.split()[0], *reversed(line.split()[1:])]) + "\n" for line in lines[:7]]
    perfect.write_text("".join(swapped + lines[7:]) + "0.5 some/s0/0.wav one/s0/0.wav\n")
    evaluations.metrics(tmp_path / "first", *job(trained))
    same.write_text((tmp_path / "first" / "scores.txt").read_text())

    # The first has its file's name.
    flags = ["--compare", perfect, "--compare", f"the same={same}", "--num-resamples", 199]
    metrics = evaluations.metrics(tmp_path / "output", *job(trained, *flags))
    assert metrics["warnings"] == ["perfect: 7 pairs swapped", "perfect: 1 scores of no trial"]
    assert metrics["other_systems"]["perfect"]["eer"] == 0
    assert metrics["other_systems"]["the same"]["eer"] == metrics["eer"]
    assert "cllr" not in metrics["other_systems"]["perfect"]
    found = {(each["other"], each["metric"]): each for each in metrics["comparisons"]}
    assert found.keys() == set(
        itertools.product(("perfect", "the same"), ("eer", "min_dcf", "min_dcf_p01", "min_cllr"))
    )
    against = found["perfect", "eer"]
    assert against["system"] == "cosine"
    assert against["difference"] == pytest.approx(metrics["eer"])
    low, high = against["interval"]
    assert 0 < low < high
    assert against["p_value"] == pytest.approx(2 / 200)
    assert found["the same", "eer"]["p_value"] == 1
    assert found["the same", "eer"]["interval"] == [0, 0]
    report = evaluations.reports[-1]
    assert [system.name for system in report.systems] == ["cosine", "perfect", "the same"]
    assert len(report.comparisons) == 8


def test_scores_of_another_list_are_refused_before_anything_is_embedded(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("0.5 some/s0/0.wav one/s0/0.wav\n")
    outcome = evaluations(*job(trained, "--compare", f"other={other}"), "--output", tmp_path / "output")
    assert outcome.code == 1
    assert f"{other} has no score for" in outcome.error
    assert evaluations.num_batches == 0


def test_all_of_it_in_a_bucket(
    trained: Trained, evaluations: Evaluations, bucket: str, tmp_path: Path
) -> None:
    evaluations.whole = True

    def uploaded(name: str, path: str) -> str:
        uri = storage.join(bucket, name)
        files = [Path(path)] if Path(path).is_file() else [f for f in Path(path).rglob("*") if f.is_file()]
        for file in files:
            relative = os.path.relpath(file, path)
            storage.write_bytes(uri if relative == "." else storage.join(uri, relative), file.read_bytes())
        return uri

    where = ["--model", uploaded("model", trained.model), "--features", uploaded("test", trained.test)]
    where += ["--trials", uploaded("trials.txt", trained.trials)]
    where += ["--train-features", uploaded("train", trained.train), "--scoring", "as-norm"]
    output = f"{bucket}/evaluations/first"
    assert evaluations(*where, "--output", output).code == 0
    evaluations.whole = False
    local = evaluations.metrics(
        tmp_path / "local", *job(trained, "--train-features", trained.train, "--scoring", "as-norm")
    )
    remote = json.loads(storage.read_bytes(f"{output}/metrics.json"))
    placed = {"trials", "model", "features"}
    assert {key: value for key, value in remote.items() if key not in placed} == {
        key: value for key, value in local.items() if key not in placed
    }
    assert storage.read_bytes(f"{output}/scores.txt") == (tmp_path / "local" / "scores.txt").read_bytes()
    names = {storage.name(info.uri) for info in storage.list_files(output)}
    assert {"report.html", "det.png", "log_likelihood_ratios.txt"} <= names
    evaluations.num_batches, evaluations.whole = 0, False
    assert evaluations(*where, "--output", output).code == 0
    assert evaluations.num_batches == 0


def executor_input(folder: Path) -> dict[str, Any]:
    """What the launcher tells of the component's outputs."""
    kinds = {"metrics": "Metrics", "roc": "ClassificationMetrics", "report": "HTML"}
    artifacts = {
        name: {
            "artifacts": [
                {
                    "name": name,
                    "type": {"schemaTitle": f"system.{kind}", "schemaVersion": "0.0.1"},
                    "uri": str(folder / name),
                    "metadata": {},
                }
            ]
        }
        for name, kind in kinds.items()
    }
    return {
        "inputs": {"parameterValues": {}},
        "outputs": {"artifacts": artifacts, "outputFile": str(folder / "executor_output.json")},
    }


def test_kubeflow_gets_metrics_roc_and_report(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    evaluations.whole = True
    message = executor_input(tmp_path)
    report = tmp_path / "deeper" / "report"
    flags = ["--executor-input", json.dumps(message), "--report-path", report]
    metrics = evaluations.metrics(tmp_path / "output", *job(trained, *flags))
    artifacts = json.loads((tmp_path / "executor_output.json").read_text())["artifacts"]
    found = {name: entry["artifacts"][0]["metadata"] for name, entry in artifacts.items()}
    assert found.keys() == {"metrics", "roc", "report"}
    for key in ("eer", "min_dcf", "min_dcf_p01", "actual_dcf", "cllr", "min_cllr"):
        assert found["metrics"][key] == metrics[key]
        assert [found["metrics"][f"{key}_low"], found["metrics"][f"{key}_high"]] == metrics[f"{key}_interval"]
    points = found["roc"]["confidenceMetrics"]
    assert 10 < len(points) <= 200
    accepts = [point["falsePositiveRate"] for point in points]
    assert accepts == sorted(accepts)
    assert (points[-1]["falsePositiveRate"], points[-1]["recall"]) == (1, 1)
    thresholds = [point["confidenceThreshold"] for point in points]
    assert thresholds == sorted(thresholds, reverse=True)
    assert report.read_bytes() == (tmp_path / "output" / "report.html").read_bytes()


def test_without_intervals_kubeflow_gets_the_numbers_alone(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    flags = ["--executor-input", json.dumps(executor_input(tmp_path)), "--num-resamples", 0]
    evaluations.metrics(tmp_path / "output", *job(trained, *flags))
    artifacts = json.loads((tmp_path / "executor_output.json").read_text())["artifacts"]
    assert "eer" in artifacts["metrics"]["artifacts"][0]["metadata"]
    assert "eer_low" not in artifacts["metrics"]["artifacts"][0]["metadata"]


def test_kfp_itself_reads_what_is_written(trained: Trained, evaluations: Evaluations, tmp_path: Path) -> None:
    if not os.environ.get("VOXSRC_REQUIRE_KFP"):
        pytest.importorskip("kfp", reason="kfp is not installed (extra `pipelines`)")
    from google.protobuf import json_format
    from kfp import components, dsl
    from kfp.local import executor_output_utils
    from kfp.pipeline_spec import pipeline_spec_pb2

    fields = executor_input(tmp_path)
    evaluations.metrics(tmp_path / "output", *job(trained, "--executor-input", json.dumps(fields)))
    message = pipeline_spec_pb2.ExecutorInput()
    json_format.ParseDict(fields, message)
    package = components.load_component_from_file(str(ROOT / "components/evaluate/evaluate_component.yaml"))
    outputs = executor_output_utils.get_outputs_for_task(
        message, package.pipeline_spec.components["comp-evaluate"]
    )
    assert isinstance(outputs["metrics"], dsl.Metrics)
    assert isinstance(outputs["roc"], dsl.ClassificationMetrics)
    assert isinstance(outputs["report"], dsl.HTML)
    metrics = json.loads((tmp_path / "output" / "metrics.json").read_text())
    assert outputs["metrics"].metadata["eer"] == metrics["eer"]
    assert outputs["roc"].metadata["confidenceMetrics"][-1]["recall"] == 1
    assert outputs["report"].uri == str(tmp_path / "report")


def test_nothing_of_an_earlier_evaluation_is_left_beside_a_later_one(
    blind: str, trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    evaluations.whole = True
    output = tmp_path / "output"
    evaluations.metrics(output, *job(trained))
    assert {"det.png", "scores.png", "report.html"} < {path.name for path in output.iterdir()}
    (output / "notes.png").write_bytes(b"the user's own")
    assert evaluations(*job(trained, "--trials", blind), "--output", output, "--overwrite").code == 0
    assert {path.name for path in output.iterdir()} == {
        "embeddings", "evaluation.json", "log_likelihood_ratios.txt", "notes.png", "scores.txt",
        "submission.zip", "writer.json",
    }  # fmt: skip


def test_audio_that_is_not_there_is_found_before_anything_is_embedded(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    evaluations.metrics(output, *job(trained))
    before = {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}
    evaluations.embedded.clear()
    outcome = evaluations(*job(trained), "--output", output, "--audio", tmp_path / "nowhere")
    assert outcome.code == 1
    assert str(tmp_path / "nowhere") in outcome.error
    assert evaluations.embedded == []
    assert {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()} == before


def test_draws_that_were_left_out_are_told(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    trials = read_trials(trained.trials)
    pairs = list(zip(trials.enrollments, trials.tests, strict=True))
    target = next(pair for pair, label in zip(pairs, trials.labels, strict=True) if label)
    other = next(
        pair for pair, label in zip(pairs, trials.labels, strict=True)
        if not label and not {name.split("/")[0] for name in pair} & {target[0].split("/")[0]}
    )  # fmt: skip
    (tmp_path / "two.txt").write_text(f"1 {' '.join(target)}\n0 {' '.join(other)}\n")
    metrics = evaluations.metrics(tmp_path / "output", *job(trained, "--trials", tmp_path / "two.txt"))
    left_out = metrics["num_resamples_left_out"]
    assert left_out > 1
    assert any(f"{left_out} of 20 draws of the speakers lacked" in warning for warning in metrics["warnings"])


def test_with_p_target_001_the_same_metric_is_told_once(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    outcome = evaluations(*job(trained), "--output", tmp_path / "output", "--p-target", 0.01)
    assert outcome.output.count("minDCF") == 1
