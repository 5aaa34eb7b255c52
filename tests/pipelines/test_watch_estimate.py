"""A cost that was told from another machine's price is an estimate, and no bound."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from kfp_server import KfpServer
from pipeline_runs import ROOT, T0, Clock, planning_run, step, train_run, tree
from voxsrc.cost.prices import load_prices
from voxsrc.pipelines.pools import read_pools
from voxsrc.pipelines.report import snapshot_lines, snapshot_mapping
from voxsrc.pipelines.run_cost import cost_so_far
from voxsrc.pipelines.watching import Watcher

Run = Callable[..., int]
Watch = tuple[str, Watcher, Clock, list[str]]
WATCH = ["watch", "r", "--once", "--region", "us-central1"]


def test_a_cost_that_was_scaled_is_not_called_a_bound(
    kfp_server: KfpServer,
    voxsrc_pipeline: Run,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = kfp_server.add_run("r", "FAILED")
    kfp_server.answers[other] = [planning_run(60)]
    identity = kfp_server.add_run("r", "RUNNING")
    kfp_server.answers[identity] = [planning_run(60)]
    assert voxsrc_pipeline(*WATCH) == 4
    said = capsys.readouterr().out
    assert "this run's machines at most $" in said and "2 runs of this name at most $" in said
    monkeypatch.setenv("VOXSRC_CPU_MACHINE_TYPE", "n2d-standard-64")
    assert voxsrc_pipeline(*WATCH) == 4
    said = capsys.readouterr().out
    assert "this run's machines about $" in said and "2 runs of this name about $" in said
    assert "at most" not in said
    assert voxsrc_pipeline(*WATCH, "--json") == 4
    answer = json.loads(capsys.readouterr().out)
    for cost in (answer["cost"], answer["cost_of_name"]):
        assert cost["usd_at_most"] is None
        assert cost["usd_estimated"] > 0


def test_of_all_runs_of_a_name_one_estimate_makes_an_estimate(watch: Watch, kfp_server: KfpServer) -> None:
    identity, watcher, clock, _ = watch
    watcher.price = lambda progress, needs, now: cost_so_far(
        progress,
        needs,
        [replace(p, machine_type="n2d-standard-64") if p.gpus == 0 else p for p in read_pools()],
        load_prices(),
        "us-central1",
        now,
    )
    clock.now = T0 + timedelta(hours=2)
    kfp_server.answers[kfp_server.add_run("r", "FAILED")] = [planning_run(60)]
    kfp_server.answers[identity] = [train_run(tree(step(f"{ROOT}.train", "RUNNING", 6, None)))]
    snapshot = watcher.look()
    mapping = snapshot_mapping(snapshot, "link")
    assert mapping["cost"]["usd_at_most"] > 0
    assert mapping["cost"]["usd_estimated"] is None
    assert mapping["cost_of_name"]["usd_at_most"] is None
    said = next(snapshot_lines(snapshot, None))
    assert "this run's machines at most $" in said and "2 runs of this name about $" in said


@pytest.mark.parametrize(
    ("gpus", "machine", "vcpus", "is_estimate"),
    [
        (1, "g2-standard-8", 8, False),
        (1, "g2-standard-16", 16, True),
        (2, "g2-standard-24", 24, False),
    ],
)
def test_machines_with_gpus_are_priced_by_how_many(
    gpus: int, machine: str, vcpus: int, is_estimate: bool, watch: Watch, kfp_server: KfpServer
) -> None:
    """Whoever adds a line to pools.tsv chooses cores, too."""
    identity, watcher, clock, _ = watch
    prices = load_prices()
    pools = [
        replace(p, gpus=gpus, machine_type=machine, vcpus=vcpus) if p.gpu == "l4" else p for p in read_pools()
    ]
    watcher.price = lambda progress, needs, now: cost_so_far(
        progress, needs, pools, prices, "us-central1", now
    )
    clock.now = T0 + timedelta(minutes=66)
    kfp_server.answers[identity] = [
        train_run(tree(step(f"{ROOT}.train", "RUNNING", 6, None)), num_gpus=str(gpus))
    ]
    cost = watcher.look().cost
    assert cost is not None
    price = prices.gpu("us-central1", "L4", gpus)
    assert cost.spot_usd == pytest.approx(gpus * price.spot_usd_per_hour)
    assert cost.is_estimate == is_estimate
    assert [s.priced_as for s in cost.steps] == ([price.machine] if is_estimate else [""])
