"""`watch --resubmit`: a run that lost its machine is continued, one that failed by itself is not."""

from collections.abc import Callable
from typing import Any

import pytest

from kfp_server import KfpServer
from pipeline_runs import ROOT, at, step, train_run, tree
from voxsrc.commands import pipeline_watch
from voxsrc.pipelines import resubmission
from voxsrc.pipelines.attempts import Attempt
from voxsrc.pipelines.cluster import ClusterError
from voxsrc.pipelines.kfp_api import KubeflowApi, KubeflowError
from voxsrc.pipelines.resubmission import failed_steps, resubmit

Run = Callable[..., int]
ARGUMENTS = {"training": "gs://b/runs/r", "num_shards": 16}
SETS = [f"{part}_{what}" for part in ("train", "test") for what in ("audio", "list", "features")]
COMPLETE = {**ARGUMENTS, **dict.fromkeys([*SETS, "trials", "evaluation"], "gs://b/x")}
SHUTDOWN = Attempt(f"{ROOT}.train.executor(0)", "Failed", "Terminated in response to imminent node shutdown.")
DELETED = Attempt(f"{ROOT}.train.executor(1)", "Error", "pod deleted")
PREEMPTED = Attempt(f"{ROOT}.train.executor(1)", "Failed", "imminent node shutdown")
OWN = Attempt(f"{ROOT}.train.executor(2)", "Failed", "Error (exit code 1)")
WATCH = ["watch", "r", "--resubmit", "--region", "us-central1"]


class Pods:
    """A cluster that lists the same pods for every run, after failing `faults` times."""

    def __init__(self) -> None:
        self.listed: list[Attempt] = []
        self.faults = 0

    def attempts(self, run_id: str) -> list[Attempt]:
        if self.faults:
            self.faults -= 1
            raise ClusterError("no answer.")
        return self.listed


@pytest.fixture
def pods(monkeypatch: pytest.MonkeyPatch) -> Pods:
    pods = Pods()
    monkeypatch.setattr(pipeline_watch, "open_cluster", lambda *_: pods)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return pods


def add_run(server: KfpServer, state: str = "FAILED", **fields: Any) -> str:
    server.experiments["e"] = {"experiment_id": "e", "display_name": "voxsrc"}
    run = train_run(tree(step(f"{ROOT}.train", state, 1, 9, 1)), state, **ARGUMENTS)
    del run["state"]
    added = {**run, "finished_at": at(9), "experiment_id": "e", "service_account": "runner", **fields}
    return server.add_run("r", state, **added)


def created(server: KfpServer) -> list[dict[str, Any]]:
    return [request.body for request in server.sent("POST", "/runs")]


def every_new_run_ends(server: KfpServer, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    create = server._create_run

    def ended(body: Any) -> tuple[int, Any]:
        status, run = create(body)
        run |= {"state": state, "finished_at": at(19)}
        return status, run

    monkeypatch.setattr(server, "_create_run", ended)


@pytest.mark.parametrize("last", [DELETED, PREEMPTED], ids=["pod deleted", "node shutdown"])
def test_the_same_is_submitted_again_and_followed(
    last: Attempt,
    kfp_server: KfpServer,
    pods: Pods,
    voxsrc_pipeline: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = add_run(kfp_server, runtime_config={"parameters": COMPLETE, "pipeline_root": "gs://b/root"})
    pods.listed = [SHUTDOWN, last, Attempt("w.root-driver", "Succeeded", "")]
    every_new_run_ends(kfp_server, monkeypatch, "SUCCEEDED")
    assert voxsrc_pipeline(*WATCH) == 0
    (body,) = created(kfp_server)
    before = kfp_server.runs[first]
    for field in ("display_name", "experiment_id", "pipeline_spec", "runtime_config", "service_account"):
        assert body[field] == before[field]
    printed = capsys.readouterr()
    newest = list(kfp_server.runs)[-1]
    assert f"run r ({first})  FAILED" in printed.out
    assert f"run r ({newest})  SUCCEEDED" in printed.out
    assert ("1 by preemption, 1 by a deleted pod" in printed.out) == (last is DELETED)
    link = f"{kfp_server.url}/#/runs/details/{newest}"
    assert f"lost its machine (train: {last.message}); submitted again: {link}" in printed.err


def test_without_the_flag_nothing_is_submitted(
    kfp_server: KfpServer, pods: Pods, voxsrc_pipeline: Run
) -> None:
    add_run(kfp_server)
    pods.listed = [DELETED]
    assert voxsrc_pipeline("watch", "r", "--cluster", "--region", "us-central1") == 1
    assert created(kfp_server) == []


@pytest.mark.parametrize(
    ("attempts", "words"),
    [
        ([SHUTDOWN, DELETED, OWN], "train failed by itself: Error (exit code 1)"),
        (
            [DELETED, Attempt(f"{ROOT}.evaluate.executor(0)", "Failed", "OOM")],
            "evaluate failed by itself: OOM",
        ),
        ([DELETED, Attempt("w.root-driver", "Failed", "")], "w.root-driver failed by itself: no reason"),
        ([], "the cluster remembers no attempt that failed"),
        (
            [SHUTDOWN, Attempt(f"{ROOT}.train.executor(1)", "Succeeded", "")],
            "the cluster remembers no attempt",
        ),
    ],
)
def test_a_run_that_failed_by_itself_stays_failed(
    attempts: list[Attempt],
    words: str,
    kfp_server: KfpServer,
    pods: Pods,
    voxsrc_pipeline: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add_run(kfp_server)
    pods.listed = attempts
    assert voxsrc_pipeline(*WATCH) == 1
    assert created(kfp_server) == []
    assert f"run 'r': not submitted again: {words}" in capsys.readouterr().err


def test_a_run_that_somebody_terminated_stays_ended(
    kfp_server: KfpServer, pods: Pods, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(kfp_server, state_history=[{"state": s} for s in ("RUNNING", "CANCELING", "FAILED")])
    pods.listed = [DELETED]
    assert voxsrc_pipeline(*WATCH) == 1
    assert created(kfp_server) == []
    assert "somebody terminated it" in capsys.readouterr().err


@pytest.mark.parametrize(("state", "words"), [("RUNNING", "continues it already"), ("FAILED", "is newer")])
def test_only_the_newest_run_of_a_name_is_continued(
    state: str, words: str, kfp_server: KfpServer, api: KubeflowApi
) -> None:
    older, newer = add_run(kfp_server), add_run(kfp_server, state)
    done = resubmit(api, older, lambda _: [DELETED], made=print, warn=print, pause=print)
    assert (done.run_id, done.submitted) == (newer, False)
    assert done.reason == f"run {newer} of the same name {words}, and is followed"
    assert created(kfp_server) == []


def test_a_cluster_that_does_not_answer_is_waited_for(
    kfp_server: KfpServer, pods: Pods, api: KubeflowApi
) -> None:
    identity = add_run(kfp_server)
    pods.faults, pods.listed = 3, [OWN]
    warnings, pauses = list[str](), list[float]()
    done = resubmit(api, identity, pods.attempts, made=print, warn=warnings.append, pause=pauses.append)
    assert done.reason.startswith("train failed by itself")
    assert pauses == [2, 4, 8]
    assert warnings[0] == "no answer. Trying again in 2 s"
    pods.faults = 1000
    with pytest.raises(ClusterError):
        resubmit(api, identity, pods.attempts, made=print, warn=warnings.append, pause=pauses.append)
    assert 600 <= sum(pauses[3:]) < 700


def test_what_was_seen_counts_though_the_cluster_forgot_it(kfp_server: KfpServer, api: KubeflowApi) -> None:
    identity = add_run(kfp_server)
    done = resubmit(api, identity, lambda _: [], seen=[DELETED, OWN], made=print, warn=print, pause=print)
    assert done.reason.startswith("train failed by itself")


def test_an_unclear_end_of_the_submission_is_said(kfp_server: KfpServer, api: KubeflowApi) -> None:
    identity = add_run(kfp_server)
    kfp_server.faults = [("POST", "/runs", 502, b"")]
    with pytest.raises(KubeflowError, match="Whether it was created is not known"):
        resubmit(api, identity, lambda _: [DELETED], made=print, warn=print, pause=print)
    assert len(created(kfp_server)) == 1


def test_a_cluster_that_takes_every_machine_is_given_up(
    kfp_server: KfpServer,
    pods: Pods,
    voxsrc_pipeline: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resubmission, "MOST_RESUBMISSIONS", 3)
    spec = add_run(kfp_server)
    declared = kfp_server.runs[spec]["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"][
        "parameters"
    ]
    for fields in declared.values():
        fields["isOptional"] = True
    pods.listed = [DELETED]
    every_new_run_ends(kfp_server, monkeypatch, "FAILED")
    assert voxsrc_pipeline(*WATCH) == 1
    assert len(created(kfp_server)) == 3
    assert "not submitted again, as it was 3 times" in capsys.readouterr().err


def test_the_last_attempt_counts_by_its_number() -> None:
    ninth = Attempt(f"{ROOT}.train.executor(9)", "Error", "pod deleted")
    tenth = Attempt(f"{ROOT}.train.executor(10)", "Running", "")
    assert failed_steps([tenth, ninth, SHUTDOWN]) == []
    assert failed_steps([ninth, SHUTDOWN]) == [ninth]


ATTEMPT = "w(0).root(0).train(0).executor"
LOST_DRIVER = Attempt("w(0).root(0).train-driver(0)", "Error", "pod deleted")
LOST = Attempt(f"{ATTEMPT}(1)", "Failed", "Pod was terminated in response to imminent node shutdown.")


@pytest.mark.parametrize(
    ("attempts", "failed"),
    [
        # a driver that was made again well, and one that was not
        ([LOST_DRIVER, Attempt("w(0).root(0).train-driver(1)", "Succeeded", ""), LOST], [LOST]),
        ([LOST_DRIVER], [LOST_DRIVER]),
        ([Attempt(f"{ATTEMPT}(0)", "Failed", "main: Error (exit code 1)"), LOST], [LOST]),
        ([LOST, Attempt(f"{ATTEMPT}(2)", "Succeeded", "")], []),
        # what failed in an attempt of a DAG that was made again as a whole
        (
            [
                Attempt(f"{ATTEMPT}(7)", "Error", "wait: Error"),
                Attempt("w(0).root(1).a-driver(0)", "Running", ""),
            ],
            [],
        ),
        # items of a loop are no attempts of each other
        (
            [
                Attempt(
                    f"w(0).root(0).l(0).iteration-iterations({item})(0).iteration-item(0).p(0).executor(0)",
                    *end,
                )
                for item, end in (("0:0", ("Error", "pod deleted")), ("1:1", ("Succeeded", "")))
            ],
            [
                Attempt(
                    "w(0).root(0).l(0).iteration-iterations(0:0)(0).iteration-item(0).p(0).executor(0)",
                    "Error",
                    "pod deleted",
                )
            ],
        ),
    ],
)
def test_under_kubeflows_defaults_the_last_attempt_of_each_pod_counts(
    attempts: list[Attempt], failed: list[Attempt]
) -> None:
    assert failed_steps(attempts) == failed_steps(attempts[::-1])[::-1] == failed


def test_under_kubeflows_defaults_the_same_is_submitted_again(
    kfp_server: KfpServer, api: KubeflowApi
) -> None:
    identity = add_run(kfp_server, runtime_config={"parameters": COMPLETE})
    made_again = Attempt("w(0).root(0).train-driver(1)", "Succeeded", "")
    done = resubmit(
        api, identity, lambda _: [LOST_DRIVER, made_again, LOST], made=print, warn=print, pause=print
    )
    assert done.run_id is not None
    assert done.reason == f"train: {LOST.message}"
    kfp_server.runs[done.run_id]["state"] = "FAILED"
    again = resubmit(api, done.run_id, lambda _: [LOST_DRIVER], made=print, warn=print, pause=print)
    assert again.run_id is not None
    assert again.reason == "w(0).root(0).train-driver(0): pod deleted"


def test_once_and_resubmit_exclude_each_other(
    voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert voxsrc_pipeline("watch", "r", "--resubmit", "--once") == 1
    assert "give one of them" in capsys.readouterr().err
