"""Two evaluations into one output: they neither mix nor replace each other's results unasked."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from commands import Outcome
from evaluations import Evaluations, Trained, job, results
from evaluator import evaluation
from evaluator.outputs import check_replaceable
from evaluator.reporting import report
from voxsrc import storage

OTHER = ("--scoring", "mean-distance")


def test_while_one_is_running_another_is_refused(
    trained: Trained, evaluations: Evaluations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, refused = tmp_path / "output", list[Outcome]()

    def interrupted(*given: Any) -> None:
        # Between the deletion of earlier results and the first of its own.
        refused.append(evaluations(*job(trained, *OTHER), "--output", output, "--overwrite"))
        report(*given)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "report", interrupted)
        metrics = evaluations.metrics(output, *job(trained))
    assert metrics["scoring"] == "cosine"
    assert refused[0].code == 1
    assert "is writing here" in refused[0].error
    evaluations.metrics(tmp_path / "alone", *job(trained))
    assert (output / "scores.txt").read_bytes() == (tmp_path / "alone" / "scores.txt").read_bytes()


def test_results_that_came_between_check_and_claim_are_not_replaced(
    trained: Trained, evaluations: Evaluations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, earlier = tmp_path / "output", list[dict[str, bytes]]()

    def late(*given: Any) -> None:
        check_replaceable(*given)
        monkeypatch.setattr(evaluation, "check_replaceable", check_replaceable)
        evaluations.metrics(output, *job(trained))
        earlier.append(results(output))

    monkeypatch.setattr(evaluation, "check_replaceable", late)
    outcome = evaluations(*job(trained, *OTHER), "--output", output)
    assert outcome.code == 1
    assert "has the results of another evaluation: --scoring was cosine, now mean-distance" in outcome.error
    assert results(output) == earlier[0]


def test_whoever_was_replaced_touches_nothing_any_more(
    trained: Trained, evaluations: Evaluations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that hung for long, on a machine that cannot be seen from the other's."""
    evaluations.metrics(tmp_path, *job(trained))
    before, scored = results(tmp_path), evaluation._scored

    def replaced(*given: Any) -> Any:
        uri = str(tmp_path / "writer.json")
        fields = json.loads(storage.read_bytes(uri)) | {"writer": "another", "run_id": "another run"}
        storage.write_bytes(uri, json.dumps(fields).encode())
        return scored(*given)

    monkeypatch.setattr(evaluation, "_scored", replaced)
    outcome = evaluations(*job(trained, *OTHER), "--output", tmp_path, "--overwrite")
    assert outcome.code == 1
    assert "run 'another run'" in outcome.error
    assert "has taken over" in outcome.error
    after = results(tmp_path)
    assert {path: after.get(path) for path in before} == before  # it may keep more embeddings


def test_an_output_that_cannot_be_written_is_found_before_anything_is_embedded(
    trained: Trained, evaluations: Evaluations, tmp_path: Path
) -> None:
    output = tmp_path / "results"
    output.write_text("notes, not a folder\n")
    outcome = evaluations(*job(trained), "--output", output, "--cache", tmp_path / "cache")
    assert outcome.code == 1
    assert str(output) in outcome.error
    assert evaluations.num_batches == 0


def test_sigterm_leaves_the_output_to_the_next_run(
    trained: Trained, evaluations: Evaluations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminated(*given: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "_scored", terminated)
        outcome = evaluations(*job(trained), "--output", tmp_path)
    assert outcome.code == 143
    assert outcome.errors.splitlines()[-1] == "terminated; what is finished is kept"
    assert json.loads((tmp_path / "writer.json").read_bytes())["released"]
