"""A run's name stands for one piece of work: one pipeline, one set of arguments, one run under way."""

from collections.abc import Callable
from typing import Any

import pytest

from kfp_server import KfpServer

# kfp's client says so each time that it is made
pytestmark = pytest.mark.filterwarnings("ignore:This client only works with:FutureWarning")

Run = Callable[..., int]
IMAGES = [f"{name}_image=r.example/{name}@sha256:{'0' * 64}" for name in ("feature_extractor",)]
TRAIN_IMAGES = [f"{name}_image=r.example/{name}@sha256:{'0' * 64}" for name in ("train", "evaluate")]
OF_A_SET = ["audio", "list", "features"]
TRAIN = [f"{part}_{what}" for part in ("train", "test") for what in OF_A_SET] + [
    "trials",
    "training",
    "evaluation",
]


def submitting(pipeline: str, *sets: str) -> list[str]:
    names = ["audio", "output"] if pipeline == "extract" else TRAIN
    images = IMAGES if pipeline == "extract" else [*IMAGES, *TRAIN_IMAGES]
    given = [*(f"{name}=gs://b/{name}" for name in names), *images, *sets]
    flags = ["--no-input-check", "--run-name", "first"]
    return ["submit", pipeline, *flags, *(x for item in given for x in ("--set", item))]


@pytest.fixture
def succeeded(kfp_server: KfpServer, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]) -> KfpServer:
    """A server whose one run of the name, an extraction, has succeeded."""
    assert voxsrc_pipeline(*submitting("extract")) == 0
    (run,) = kfp_server.runs.values()
    run["state"] = "SUCCEEDED"
    capsys.readouterr()
    return kfp_server


def test_the_same_again_is_reported(
    succeeded: KfpServer, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    # 8 is the default: no change
    assert voxsrc_pipeline(*submitting("extract", "num_workers=8")) == 0
    assert "nothing was submitted" in capsys.readouterr().out
    assert len(succeeded.runs) == 1


@pytest.mark.parametrize(
    ("pipeline", "sets", "change"),
    [
        ("extract", ["preset=kaldi80"], "preset was 'lfb40', now 'kaldi80'"),
        ("train", [], "pipeline was 'voxsrc-extract', now 'voxsrc-train'"),
    ],
)
@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED"])
def test_other_work_under_the_name_of_earlier_work_is_refused(
    pipeline: str,
    sets: list[str],
    change: str,
    state: str,
    succeeded: KfpServer,
    voxsrc_pipeline: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (run,) = succeeded.runs.values()
    run["state"] = state
    assert voxsrc_pipeline(*submitting(pipeline, *sets)) == 1
    message = capsys.readouterr().err
    assert change in message
    assert "another --run-name" in message
    assert ("--again" if state == "SUCCEEDED" else "--allow-changes") in message
    assert len(succeeded.runs) == 1
    flag = "--again" if state == "SUCCEEDED" else "--allow-changes"
    assert voxsrc_pipeline(*submitting(pipeline, *sets), flag) == 0
    assert f"changed: {change}" in capsys.readouterr().out
    assert len(succeeded.runs) == 2


def between(server: KfpServer, monkeypatch: pytest.MonkeyPatch, *, older: bool) -> list[str]:
    """Somebody else starts a run of the name just before or after the server makes ours; gives its id."""
    create, others = server._create_run, list[str]()

    def creating(body: Any) -> tuple[int, Any]:
        if older:
            others.append(server.add_run("first", "PENDING"))
        answer = create(body)
        if not older:
            others.append(server.add_run("first", "PENDING"))
        return answer

    monkeypatch.setattr(server, "_create_run", creating)
    return others


def test_of_two_submissions_at_once_the_second_is_withdrawn(
    kfp_server: KfpServer,
    voxsrc_pipeline: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = between(kfp_server, monkeypatch, older=True)
    assert voxsrc_pipeline(*submitting("extract")) == 1
    (other,) = others
    assert list(kfp_server.runs) == [other]
    message = capsys.readouterr().err
    assert f"run 'first' is PENDING: {kfp_server.url}/#/runs/details/{other}" in message


def test_of_two_submissions_at_once_the_first_stays(
    kfp_server: KfpServer, voxsrc_pipeline: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = between(kfp_server, monkeypatch, older=False)
    assert voxsrc_pipeline(*submitting("extract")) == 0
    assert len(kfp_server.runs) == 2
    assert list(kfp_server.runs)[1:] == others


def test_a_run_of_the_same_second_that_is_listed_later_may_be_the_first(
    kfp_server: KfpServer, voxsrc_pipeline: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    others, waits = list[str](), list[float]()

    def pause(duration_s: float) -> None:
        waits.append(duration_s)
        (own,) = kfp_server.runs.values()
        others.append(kfp_server.add_run("first", "PENDING", created_at=own["created_at"]))
        # runs of one second are in the order of their ids: here the other's is the lower one
        del kfp_server.runs[own["run_id"]]
        kfp_server.runs[own["run_id"]] = own

    monkeypatch.setattr("time.sleep", pause)
    assert voxsrc_pipeline(*submitting("extract")) == 1
    assert list(kfp_server.runs) == others
    assert waits == [5]


@pytest.mark.usefixtures("interrupted_by_user")
def test_a_submission_that_is_interrupted_while_it_looks_for_others_is_told(
    kfp_server: KfpServer, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert voxsrc_pipeline(*submitting("extract")) == 130
    (own,) = kfp_server.runs
    link = f"{kfp_server.url}/#/runs/details/{own}"
    assert f"run 'first' was submitted, and goes on: {link}. " in capsys.readouterr().err


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_submission_is_told_though_others_are_not_known(
    method: str,
    kfp_server: KfpServer,
    voxsrc_pipeline: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    between(kfp_server, monkeypatch, older=True)
    create = kfp_server._create_run

    def refusing(body: Any) -> tuple[int, Any]:
        answer = create(body)
        path = "/runs" if method == "GET" else answer[1]["run_id"]
        kfp_server.faults.append((method, path, 403, b'{"message": "no right"}'))
        return answer

    monkeypatch.setattr(kfp_server, "_create_run", refusing)
    assert voxsrc_pipeline(*submitting("extract")) == 1
    own = list(kfp_server.runs)[-1]
    message = capsys.readouterr().err
    assert f"run 'first' was submitted: {kfp_server.url}/#/runs/details/{own}" in message
    assert "no right" in message
