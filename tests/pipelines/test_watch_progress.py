from datetime import timedelta
from typing import Any

import pytest

from kfp_server import KfpServer, argo_id, task_details
from pipeline_runs import ROOT, T0, Nodes, at, loop, retried, run_of, step, tree
from voxsrc.pipelines.kfp_api import KubeflowApi
from voxsrc.pipelines.progress import bare, node_id, numbers, read_progress, step_of

pytestmark = pytest.mark.usefixtures("both_shapes")


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


def test_numbers_of_attempts_and_indices_of_loops_are_told_apart() -> None:
    path = "w(0).root(0).for-loop-1(1).iteration-iterations(3:3)(2).iteration-item(0).part(0).executor(12)"
    assert bare(path) == "w.root.for-loop-1.iteration-iterations(3:3).iteration-item.part.executor"
    assert numbers(path) == (0, 0, 1, 2, 0, 0, 12)
    assert numbers("w.root.for-loop-1.iteration-iterations(3:3).part") == (-1,) * 5
    assert step_of(path.rpartition(".")[0]) == step_of(bare(path).rpartition(".")[0]) == "for-loop-1[3]/part"
    assert node_id("w(0)") == argo_id("w(0)")


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


def test_the_defaults_put_a_node_above_each_but_the_attempts(kfp_server: KfpServer, api: KubeflowApi) -> None:
    assert list(retried(tree(step(f"{ROOT}.train", "FAILED", 2, 5, failed_attempts=1)))) == [
        "w",
        "w(0)",
        "w(0).root-driver",
        "w(0).root-driver(0)",
        "w(0).root",
        "w(0).root(0)",
        "w(0).root(0).train-driver",
        "w(0).root(0).train-driver(0)",
        "w(0).root(0).train",
        "w(0).root(0).train(0)",
        "w(0).root(0).train(0).executor",
        "w(0).root(0).train(0).executor(0)",
        "w(0).root(0).train(0).executor(1)",
    ]


def whole_again(nodes: Nodes, path: str, start: float) -> Nodes:
    """The nodes of a DAG that is tried again as a whole: what is below its first attempt, below a second."""
    first, second = f"{path}(0)", f"{path}(1)"
    again = {second + name.removeprefix(first): name for name in nodes if name.startswith(first)}
    return nodes | {name: (nodes[old][0], at(start), nodes[old][2]) for name, old in again.items()}


def test_a_dag_that_is_tried_again_has_one_step_with_the_attempts_of_both(
    kfp_server: KfpServer, api: KubeflowApi
) -> None:
    once = retried(tree(step(f"{ROOT}.train", "FAILED", 2, 5, failed_attempts=1)))
    nodes = whole_again(once, "w(0).root", 10)
    ended = ("SUCCEEDED", at(11), at(30))
    nodes |= {f"w(0).root(1).train{rest}": ended for rest in ("", "(0)", "(0).executor", "(0).executor(1)")}
    run = {**run_of({}), "run_details": task_details(nodes)}
    (train,) = progress_of(kfp_server, api, run).steps
    assert (train.step, train.state, train.attempts) == ("train", "SUCCEEDED", 4)
    assert train.seconds(T0) == 28 * 60


def test_a_driver_that_is_tried_again_hides_no_step(kfp_server: KfpServer, api: KubeflowApi) -> None:
    nodes = retried(tree(step(f"{ROOT}.train", "RUNNING", 6, None)))
    driver = "w(0).root(0).train-driver"
    nodes |= {f"{driver}(0)": ("FAILED", at(5), at(5)), f"{driver}(1)": ("SUCCEEDED", at(5), at(6))}
    run = {**run_of({}), "run_details": task_details(nodes)}
    (train,) = progress_of(kfp_server, api, run, train="train").steps
    assert (train.state, train.attempts, train.retries) == ("RUNNING", 1, 0)


def test_a_step_whose_driver_waits_to_be_tried_again_is_pending(
    kfp_server: KfpServer, api: KubeflowApi
) -> None:
    driver = "w(0).root(0).train-driver"
    nodes = retried(tree()) | {
        driver: ("RUNNING", at(5), ""),
        f"{driver}(0)": ("FAILED", at(5), at(6)),
    }
    run = {**run_of({}), "run_details": task_details(nodes)}
    (train,) = progress_of(kfp_server, api, run, train="train").steps
    assert (train.state, train.attempts) == ("PENDING", 0)
