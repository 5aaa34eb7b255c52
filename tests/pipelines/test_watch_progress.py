from datetime import timedelta
from typing import Any

from kfp_server import KfpServer, argo_id
from pipeline_runs import ROOT, T0, at, loop, run_of, step, tree
from voxsrc.pipelines.kfp_api import KubeflowApi
from voxsrc.pipelines.progress import node_id, read_progress


def progress_of(kfp_server: KfpServer, api: KubeflowApi, run: dict[str, Any], **titles: str) -> Any:
    identity = kfp_server.add_run("r", "RUNNING")
    kfp_server.answers[identity] = [run]
    return read_progress(api.get_run(identity), titles)


def test_node_ids_are_those_of_argo() -> None:
    # of a workflow in frontend/mock-backend/data/v1/runtime/mock-retry-runtime.ts of kubeflow/pipelines
    workflow = "retry-random-failures-p9snt"
    assert node_id(workflow + ".random-failure(0)") == f"{workflow}-310421839"
    assert node_id(workflow + ".random-failure") == f"{workflow}-3193641316"
    assert node_id(workflow + ".print-msg") == argo_id(workflow + ".print-msg") == f"{workflow}-3292940923"


def test_attempts_are_counted_per_step_although_their_names_are_alike(
    kfp_server: KfpServer, api: KubeflowApi
) -> None:
    nodes = tree(
        step(f"{ROOT}.plan", "SUCCEEDED", 2, 5),
        step(f"{ROOT}.train", "RUNNING", 6, None, failed_attempts=3),
    )
    progress = progress_of(kfp_server, api, run_of(nodes), plan="plan", evaluate="evaluate")
    plan, train, evaluate = progress.steps
    assert (plan.step, plan.state, plan.attempts, plan.retries) == ("plan", "SUCCEEDED", 1, 0)
    assert plan.seconds(T0 + timedelta(hours=9)) == 180
    assert (train.step, train.state, train.attempts, train.retries) == ("train", "RUNNING", 4, 3)
    assert train.ended is None
    assert train.seconds(T0 + timedelta(minutes=10)) == 240
    assert (evaluate.step, evaluate.state, evaluate.attempts) == ("evaluate", "WAITING", 0)


def test_items_of_loops_and_nested_pipelines_are_told_apart(kfp_server: KfpServer, api: KubeflowApi) -> None:
    nested = {
        f"{ROOT}.sub": ("RUNNING", at(1), ""),
        f"{ROOT}.sub-2": ("RUNNING", at(1), ""),
    }
    nodes = tree(
        nested,
        loop(f"{ROOT}.sub.for-loop-1", "part", [("SUCCEEDED", 0), ("RUNNING", 2)], 2, None),
        loop(f"{ROOT}.sub-2.for-loop-1", "part", [("FAILED", 1)], 2, 8),
    )
    progress = progress_of(
        kfp_server, api, run_of(nodes), **{"sub/for-loop-1/part": "train-set/for-loop-1/part"}
    )
    found = {step.title: (step.state, step.attempts) for step in progress.steps}
    assert found == {
        "train-set/for-loop-1[0]/part": ("SUCCEEDED", 1),
        "train-set/for-loop-1[1]/part": ("RUNNING", 3),
        "sub-2/for-loop-1[0]/part": ("FAILED", 2),
    }


def test_a_step_without_retry_policy_and_one_that_only_has_a_driver(
    kfp_server: KfpServer, api: KubeflowApi
) -> None:
    nodes = tree(
        {
            f"{ROOT}.plain-driver": ("SUCCEEDED", at(1), at(2)),
            f"{ROOT}.plain": ("RUNNING", at(2), ""),
            f"{ROOT}.plain.executor": ("RUNNING", at(2), ""),
            f"{ROOT}.begins-driver": ("RUNNING", at(2), ""),
        }
    )
    found = {s.step: (s.state, s.attempts) for s in progress_of(kfp_server, api, run_of(nodes)).steps}
    assert found["plain"] == ("RUNNING", 1)
    assert found["begins"] == ("PENDING", 0)


def test_a_run_that_has_only_been_created(kfp_server: KfpServer, api: KubeflowApi) -> None:
    identity = kfp_server.add_run("r", None)
    progress = read_progress(api.get_run(identity), {"a": "a"})
    assert progress.state == "PENDING"
    assert [step.state for step in progress.steps] == ["WAITING"]
