import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kfp_server import KfpServer
from pipeline_runs import ROOT, T0, Clock, at, planning_run, step, train_run, tree
from voxsrc.cost.prices import load_prices
from voxsrc.pipelines.pools import read_pools
from voxsrc.pipelines.run_cost import cost_so_far, cpu_price_ratio
from voxsrc.pipelines.watching import Watcher

Run = Callable[..., int]
Watch = tuple[str, Watcher, Clock, list[str]]
pytestmark = pytest.mark.usefixtures("both_shapes")


def test_cost_is_time_times_the_price_of_the_pool_that_the_arguments_choose(
    kfp_server: KfpServer, watch: Watch
) -> None:
    identity, watcher, clock, _ = watch
    region, prices = "europe-west4", load_prices()
    watcher.price = lambda progress, needs, now: cost_so_far(
        progress, needs, read_pools(), prices, region, now
    )
    clock.now = T0 + timedelta(minutes=66)
    nodes = tree(step(f"{ROOT}.train", "RUNNING", 6, None, failed_attempts=2))
    t4, l4 = prices.gpu(region, "t4", 1), prices.gpu(region, "l4", 1)

    kfp_server.answers[identity] = [train_run(nodes)]
    spot = watcher.look().cost
    assert spot is not None
    assert spot.spot_usd == pytest.approx(l4.spot_usd_per_hour)
    assert spot.on_demand_usd == pytest.approx(l4.on_demand_usd_per_hour)
    assert spot.most_usd == spot.spot_usd

    kfp_server.answers[identity] = [train_run(nodes, gpu_node_selector={"voxsrc/pool": "gpu-on-demand-t4"})]
    fixed = watcher.look().cost
    assert fixed is not None
    assert fixed.most_usd == pytest.approx(t4.on_demand_usd_per_hour)

    kfp_server.answers[identity] = [train_run(nodes, gpu_node_selector={"voxsrc/gpu": "t4"})]
    either = watcher.look().cost
    assert either is not None
    assert either.spot_usd == pytest.approx(t4.spot_usd_per_hour)
    assert either.most_usd == pytest.approx(t4.on_demand_usd_per_hour)

    for open_selector in ({"own/label": "x"}, {"voxsrc/provisioning": "spot"}):
        kfp_server.answers[identity] = [train_run(nodes, gpu_node_selector=open_selector)]
        unknown = watcher.look().cost
        assert unknown is not None
        assert unknown.unknown == ("train",)
        assert unknown.most_usd == 0


def test_each_pod_on_cpus_pays_for_a_whole_machine(kfp_server: KfpServer, watch: Watch) -> None:
    identity, watcher, clock, _ = watch
    prices = load_prices()
    watcher.price = lambda progress, needs, now: cost_so_far(
        progress, needs, read_pools(), prices, "us-central1", now
    )
    clock.now = T0 + timedelta(hours=9)
    nodes = tree(
        {f"{ROOT}.voxsrc-extract": ("RUNNING", at(1), "")},
        step(f"{ROOT}.voxsrc-extract.plan-extraction", "SUCCEEDED", 6, 36),
    )
    kfp_server.answers[identity] = [train_run(nodes)]
    snapshot = watcher.look()
    assert snapshot.cost is not None
    (cost,) = snapshot.cost.steps
    machine = prices.region("us-central1").extraction
    assert cost.spot_usd == pytest.approx(0.5 * machine.spot_usd_per_hour)
    assert cost.machine == machine.machine
    titles = [step.title for step in snapshot.progress.steps]
    assert titles[0] == "extract-train-set/plan-extraction"
    assert "train" in titles


def test_cpu_machines_are_priced_as_the_settings_have_them(
    kfp_server: KfpServer,
    voxsrc_pipeline: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    identity = kfp_server.add_run("r", "RUNNING")
    kfp_server.answers[identity] = [planning_run(60)]
    price = load_prices().region("us-central1").extraction
    assert price.machine == "n2d-standard-8"

    def costs(machine: str) -> tuple[dict[str, Any], str]:
        monkeypatch.setenv("VOXSRC_CPU_MACHINE_TYPE", machine)
        assert voxsrc_pipeline("watch", "r", "--once", "--json", "--region", "us-central1") == 4
        out, err = capsys.readouterr()
        return json.loads(out)["cost"], err

    cost, said = costs("")
    assert cost["usd_at_most"] == pytest.approx(price.spot_usd_per_hour, abs=1e-4)
    assert said == ""
    cost, said = costs("n2d-standard-64")
    assert cost["usd_estimated"] == pytest.approx(8 * price.spot_usd_per_hour, abs=1e-4)
    assert cost["usd_all_on_demand"] == pytest.approx(8 * price.on_demand_usd_per_hour, abs=1e-4)
    (plan,) = cost["steps"].values()
    assert (plan["machine"], plan["priced_as"]) == ("n2d-standard-64", "n2d-standard-8")
    assert said == (
        "warning: prices.yaml has no price of n2d-standard-64: what steps on it cost is estimated by that of "
        "n2d-standard-8\n"
    )
    for machine in ("n1-standard-8", "n2d-highmem-8", "n2d-custom-8-32768", "x9-mega"):
        cost, said = costs(machine)
        assert cost["usd_at_most"] == 0
        assert cost["unknown_steps"] == ["voxsrc-extract/plan-extraction"], machine
        assert said == ""


@pytest.mark.parametrize(
    ("machine", "priced", "ratio"),
    [
        ("n2d-standard-8", "n2d-standard-8 by contract", 1),
        ("n2d-standard-4", "n2d-standard-8", 0.5),
        ("n2-standard-8", "n2d-standard-8", None),
        ("n2d-highcpu-8", "n2d-standard-8", None),
        ("n2d-custom-8-65536", "n2d-custom-8-32768", None),
        ("", "n2d-standard-8", None),
    ],
)
def test_a_machine_costs_by_its_cores_beside_one_of_its_type(
    machine: str, priced: str, ratio: float | None
) -> None:
    price = replace(load_prices().region("us-central1").extraction, machine=priced)
    assert cpu_price_ratio(machine, price) == ratio


@pytest.mark.parametrize(
    ("state", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("CANCELED", 3), ("RUNNING", 4), ("PENDING", 4)]
)
def test_the_exit_code_tells_the_end(
    state: str, code: int, kfp_server: KfpServer, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = kfp_server.add_run("r", state)
    kfp_server.answers[identity] = [train_run(tree(step(f"{ROOT}.train", state, 6, 66, 1)), state)]
    assert voxsrc_pipeline("watch", "r", "--once", "--region", "us-central1") == code
    lines = capsys.readouterr().out.splitlines()
    assert f"run r ({identity})  {state}" in lines[0]
    assert "this run's machines at most $" in lines[0]
    assert "all on Spot $0.50, all on demand $0.89" in lines[0]
    (train,) = [line for line in lines if line.startswith("  train ")]
    assert train.endswith(f"{state}, 1 h 00 min, attempt 2, 1 retry")
    assert any(line.endswith("  waiting") for line in lines)


def test_json_has_a_line_for_each_change(
    kfp_server: KfpServer, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    identity = kfp_server.add_run("r", "RUNNING")
    running = train_run(tree(step(f"{ROOT}.train", "RUNNING", 6, None)))
    kfp_server.answers[identity] = [running, running, train_run(tree(), "SUCCEEDED")]
    assert voxsrc_pipeline("watch", identity, "--json", "--region", "us-central1") == 0
    first, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["link"] == f"{kfp_server.url}/#/runs/details/{identity}"
    assert first["steps"][0] == {
        "step": "train",
        "state": "RUNNING",
        "seconds": first["steps"][0]["seconds"],
        "attempts": 1,
        "retries": 0,
        "preemptions": None,
        "deleted_pods": None,
    }
    assert first["cost"]["steps"]["train"]["machine"] == "g2-standard-8"
    assert last["state"] == "SUCCEEDED"


@pytest.mark.usefixtures("interrupted_by_user")
def test_ctrl_c_leaves_the_run_alone(
    kfp_server: KfpServer, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    kfp_server.add_run("r", "RUNNING")
    assert voxsrc_pipeline("watch", "r") == 130
    assert "the run goes on" in capsys.readouterr().err
    assert {request.method for request in kfp_server.requests} == {"GET"}


def test_a_region_without_prices_does_not_end_the_watching(
    kfp_server: KfpServer,
    voxsrc_pipeline: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VOXSRC_REGION", "asia-east1")
    identity = kfp_server.add_run("r", "SUCCEEDED")
    kfp_server.answers[identity] = [train_run(tree(step(f"{ROOT}.train", "SUCCEEDED", 6, 66)), "SUCCEEDED")]
    assert voxsrc_pipeline("watch", "r") == 0
    assert "cost not known: prices.yaml has no region 'asia-east1'" in capsys.readouterr().out
    assert voxsrc_pipeline("watch", "r", "--region", "europe-wets4") == 1
    assert "did you mean europe-west4" in capsys.readouterr().err
