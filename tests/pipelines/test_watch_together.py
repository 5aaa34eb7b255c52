"""Several people who watch a run with `--resubmit` follow one run that continues it."""

import functools
import re
from collections.abc import Callable
from typing import Any

import pytest

from kfp_server import KfpServer
from pipeline_runs import ROOT, at, step, train_run, tree
from voxsrc.commands import pipeline_watch
from voxsrc.pipelines.attempts import Attempt
from voxsrc.pipelines.kfp_api import KubeflowApi
from voxsrc.pipelines.package import load_package, package_path
from voxsrc.pipelines.resubmission import resubmit

Run = Callable[..., int]
DELETED = Attempt(f"{ROOT}.train.executor(1)", "Error", "pod deleted")
WATCH = ["watch", "--resubmit", "--region", "us-central1"]


class Pods:
    def attempts(self, run_id: str) -> list[Attempt]:
        return [DELETED]


def pods(_: str) -> list[Attempt]:
    return [DELETED]


@functools.cache
def a_run() -> dict[str, Any]:
    parameters = load_package(package_path("train")).parameters
    required = {name: "gs://b/x" for name, parameter in parameters.items() if parameter.required}
    run = train_run(tree(step(f"{ROOT}.train", "FAILED", 1, 9, 1)), **required)
    del run["state"]
    return run | {"finished_at": at(9), "experiment_id": "e"}


def add_run(server: KfpServer, state: str) -> str:
    server.experiments["e"] = {"experiment_id": "e", "display_name": "voxsrc"}
    return server.add_run("r", state, **a_run())


def while_creating(
    server: KfpServer, monkeypatch: pytest.MonkeyPatch, *, before: str = "", after: str = ""
) -> list[str]:
    """Somebody else adds a run of this state just before or after each new one is added; gives their ids."""
    create, others = server._create_run, list[str]()

    def creating(body: Any) -> tuple[int, Any]:
        others.extend([add_run(server, before)] if before else [])
        answer = create(body)
        others.extend([add_run(server, after)] if after else [])
        return answer

    monkeypatch.setattr(server, "_create_run", creating)
    return others


def test_of_two_runs_made_at_once_the_first_is_followed_and_the_other_deleted(
    kfp_server: KfpServer, api: KubeflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = add_run(kfp_server, "FAILED")
    others = while_creating(kfp_server, monkeypatch, before="RUNNING")
    pauses = list[float]()
    done = resubmit(api, failed, pods, made=print, warn=print, pause=pauses.append)
    (other,) = others
    assert (done.run_id, done.submitted) == (other, False)
    assert list(kfp_server.runs) == [failed, other]
    # the server knows of a run some time after it has dated it
    assert pauses == [5]


@pytest.mark.parametrize("between", [{"after": "PENDING"}, {"before": "FAILED"}], ids=["newer", "ended"])
def test_the_first_of_two_runs_stays(
    between: dict[str, str], kfp_server: KfpServer, api: KubeflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = add_run(kfp_server, "FAILED")
    others = while_creating(kfp_server, monkeypatch, **between)
    done = resubmit(api, failed, pods, made=print, warn=print, pause=lambda _: None)
    assert done.submitted
    assert set(kfp_server.runs) == {failed, done.run_id, *others}
    assert len(kfp_server.runs) == 3


@pytest.mark.parametrize(
    ("method", "words"), [("GET", "list the runs named 'r'"), ("DELETE", "delete run .*, made at the same")]
)
def test_a_new_run_is_followed_though_others_are_not_known_or_stay(
    method: str, words: str, kfp_server: KfpServer, api: KubeflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = add_run(kfp_server, "FAILED")
    while_creating(kfp_server, monkeypatch, before="RUNNING")
    warnings = list[str]()

    def now_refuse(_: float) -> None:
        path = "/runs" if method == "GET" else list(kfp_server.runs)[-1]
        kfp_server.faults.append((method, path, 403, b'{"message": "no right"}'))

    done = resubmit(api, failed, pods, made=print, warn=warnings.append, pause=now_refuse)
    assert done.submitted
    assert done.run_id in kfp_server.runs
    (warning,) = warnings
    assert warning.startswith(f"run {done.run_id} may not be the only one of its name under way: ")
    assert re.search(words, warning)


def test_of_several_newer_runs_the_first_under_way_is_followed(
    kfp_server: KfpServer, api: KubeflowApi
) -> None:
    failed = add_run(kfp_server, "FAILED")
    _, first, _, _ = (add_run(kfp_server, state) for state in ("CANCELED", "RUNNING", "PENDING", "FAILED"))
    done = resubmit(api, failed, pods, made=print, warn=print, pause=print)
    assert done.run_id == first
    assert kfp_server.sent("POST", "/runs") == []


@pytest.mark.parametrize("state", ["RUNNING", "CANCELING", "PAUSED"])
def test_a_run_older_than_the_failed_one_is_not_given_way_to(
    state: str, kfp_server: KfpServer, api: KubeflowApi
) -> None:
    older, failed = add_run(kfp_server, state), add_run(kfp_server, "FAILED")
    done = resubmit(api, failed, pods, made=print, warn=print, pause=lambda _: None)
    assert done.submitted
    assert list(kfp_server.runs) == [older, failed, done.run_id]


@pytest.mark.usefixtures("interrupted_by_user")
def test_who_stops_watching_just_after_a_run_was_submitted_is_told_of_that_run(
    kfp_server: KfpServer,
    voxsrc_pipeline: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline_watch, "open_cluster", lambda *_: Pods())
    failed = add_run(kfp_server, "FAILED")
    assert voxsrc_pipeline(WATCH[0], "r", *WATCH[1:]) == 130
    _, new = kfp_server.runs
    assert new != failed
    message = capsys.readouterr().err
    assert f"the run goes on: {kfp_server.url}/#/runs/details/{new}" in message
    assert f"voxsrc pipeline watch {new}" in message


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED", "CANCELED"])
def test_the_slower_watcher_follows_what_the_faster_one_has_submitted(
    state: str,
    kfp_server: KfpServer,
    voxsrc_pipeline: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline_watch, "open_cluster", lambda *_: Pods())
    monkeypatch.setattr("time.sleep", lambda _: None)
    older = add_run(kfp_server, "FAILED")
    newer = add_run(kfp_server, "RUNNING")
    ended: dict[str, Any] = {"state": state}
    # asked for the cost of all runs of the name, too
    kfp_server.answers[newer] = [{}, {}, ended]
    if state == "FAILED":
        ended["state_history"] = [{"state": "CANCELING"}]  # else it would be submitted again
    code = voxsrc_pipeline(WATCH[0], older, *WATCH[1:])
    assert code == {"SUCCEEDED": 0, "FAILED": 1, "CANCELED": 3}[state]
    out, err = capsys.readouterr()
    link = f"{kfp_server.url}/#/runs/details/{newer}"
    assert f"run 'r': run {newer} of the same name continues it already, and is followed: {link}" in err
    assert f"run r ({newer})  {state}" in out
    assert list(kfp_server.runs) == [older, newer]
