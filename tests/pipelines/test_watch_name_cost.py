"""The cost of all runs of a name, beside that of the one that is watched."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from kfp_server import KfpServer
from pipeline_runs import ROOT, T0, Clock, at, step, train_run, tree
from voxsrc.cost.prices import load_prices
from voxsrc.pipelines import kfp_api
from voxsrc.pipelines.pools import read_pools
from voxsrc.pipelines.report import snapshot_lines
from voxsrc.pipelines.run_cost import cost_so_far
from voxsrc.pipelines.watching import Watcher

Run = Callable[..., int]
Watch = tuple[str, Watcher, Clock, list[str]]
REGION = "us-central1"
HOUR_ON_SPOT = load_prices().gpu(REGION, "l4", 1).spot_usd_per_hour


@pytest.fixture
def priced(watch: Watch) -> Watch:
    prices = load_prices()
    watch[1].price = lambda progress, needs, now: cost_so_far(
        progress, needs, read_pools(), prices, REGION, now
    )
    return watch


def hours(number: float | None, state: str = "FAILED", **fields: Any) -> dict[str, Any]:
    """A run whose training began after six minutes, and held its machine for so long, or until now."""
    end = None if number is None else 6 + 60 * number
    return train_run(tree(step(f"{ROOT}.train", state, 6, end)), state) | fields


def asked(server: KfpServer, identity: str) -> int:
    return len(server.sent("GET", f"/runs/{identity}"))


def test_all_runs_of_the_name_add_up_and_ended_ones_are_fetched_once(
    kfp_server: KfpServer, priced: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kfp_api, "_PAGE_SIZE", 5)
    identity, watcher, clock, warnings = priced
    failed = [kfp_server.add_run("r", "FAILED") for _ in range(6)]
    short, long = hours(0.5), hours(1.5)
    kfp_server.answers |= {other: [long if number % 2 else short] for number, other in enumerate(failed)}
    succeeded = kfp_server.add_run("r", "SUCCEEDED")
    kfp_server.answers[succeeded] = [hours(2, "SUCCEEDED")]
    stranger = kfp_server.add_run("s", "FAILED")
    kfp_server.answers[identity] = [hours(None, "RUNNING")]
    for later in (1, 3):
        clock.now = T0 + timedelta(minutes=6 + 60 * later)
        snapshot = watcher.look()
        assert snapshot.cost is not None
        assert snapshot.name_cost is not None
        assert snapshot.name_cost.num_runs == 8
        assert snapshot.cost.most_usd == pytest.approx(later * HOUR_ON_SPOT)
        assert snapshot.name_cost.most_usd == pytest.approx((6 + 2 + later) * HOUR_ON_SPOT)
        assert snapshot.name_cost.spot_usd < snapshot.name_cost.on_demand_usd
    assert [asked(kfp_server, other) for other in (*failed, succeeded)] == [1] * 7
    assert asked(kfp_server, stranger) == 0
    assert len(kfp_server.sent("GET", "/runs")) == 2  # two pages, once
    assert warnings == []


def test_a_run_that_goes_on_is_asked_again(kfp_server: KfpServer, priced: Watch) -> None:
    identity, watcher, clock, _ = priced
    newer = kfp_server.add_run("r", "RUNNING")
    kfp_server.answers[identity] = [hours(1, finished_at=at(66))]
    kfp_server.answers[newer] = [hours(None, "RUNNING"), hours(4, finished_at=at(250))]
    clock.now = T0 + timedelta(minutes=126)
    for in_all in (1 + 2, 1 + 4, 1 + 4):
        snapshot = watcher.look()
        assert snapshot.name_cost is not None
        assert snapshot.name_cost.most_usd == pytest.approx(in_all * HOUR_ON_SPOT)
    assert asked(kfp_server, newer) == 2


def test_a_step_without_an_end_is_charged_until_the_end_of_its_run(
    kfp_server: KfpServer, priced: Watch
) -> None:
    identity, watcher, clock, _ = priced
    kfp_server.answers[identity] = [hours(None, finished_at=at(66))]
    earlier = kfp_server.add_run("r", "FAILED")
    kfp_server.answers[earlier] = [hours(None, finished_at=at(36))]
    clock.now = T0 + timedelta(days=9)
    snapshot = watcher.look()
    assert snapshot.cost is not None
    assert snapshot.name_cost is not None
    assert snapshot.cost.most_usd == pytest.approx(HOUR_ON_SPOT)
    assert snapshot.name_cost.most_usd == pytest.approx(1.5 * HOUR_ON_SPOT)


def test_the_run_that_continues_another_takes_its_cost_over(kfp_server: KfpServer, priced: Watch) -> None:
    identity, watcher, clock, _ = priced
    older = kfp_server.add_run("r", "FAILED")
    kfp_server.answers[older] = [hours(3)]
    kfp_server.answers[identity] = [hours(1)]
    clock.now = T0 + timedelta(minutes=66)
    assert watcher.look().has_ended
    newest = kfp_server.add_run("r", "RUNNING")
    kfp_server.answers[newest] = [hours(None, "RUNNING")]
    watcher.turn_to(newest)
    snapshot = watcher.look()
    assert snapshot.name_cost is not None
    assert snapshot.name_cost.num_runs == 3
    assert snapshot.name_cost.most_usd == pytest.approx((3 + 1 + 1) * HOUR_ON_SPOT)
    assert asked(kfp_server, older) == 1


def test_runs_that_cannot_be_priced_are_counted_and_do_not_end_the_watching(
    kfp_server: KfpServer, priced: Watch
) -> None:
    identity, watcher, clock, warnings = priced
    gone, foreign, open_machine = (kfp_server.add_run("r", "FAILED") for _ in range(3))
    kfp_server.faults = [("GET", gone, 404, b'{"message": "deleted"}')]
    kfp_server.answers[foreign] = [hours(1, pipeline_spec=None)]
    selector = {"runtime_config": {"parameters": {"gpu_node_selector": {"own/label": "x"}}}}
    kfp_server.answers[open_machine] = [hours(1, **selector)]
    kfp_server.answers[identity] = [hours(None, "RUNNING")]
    clock.now = T0 + timedelta(minutes=66)
    first = watcher.look()
    assert first.name_cost is not None
    assert (first.name_cost.num_runs, first.name_cost.num_unknown) == (4, 2)
    line = next(snapshot_lines(first, None))
    assert f"all 4 runs of this name at most ${HOUR_ON_SPOT:.2f}, without 2 whose cost is not known" in line
    assert "without steps of 1 whose machines are not known" in line
    assert watcher.look().name_cost == first.name_cost
    assert len(warnings) == 1
    assert gone in warnings[0]
    assert "deleted" in warnings[0]


def test_a_hiccup_is_waited_out_and_a_refusal_leaves_the_sum_out(
    kfp_server: KfpServer, priced: Watch
) -> None:
    _, watcher, clock, warnings = priced
    kfp_server.add_run("r", "FAILED")
    kfp_server.faults = [("GET", "/runs", 503, b""), ("GET", "/runs", 403, b'{"message": "not yours"}')]
    snapshot = watcher.look()
    assert clock.pauses == [2]
    assert snapshot.name_cost is None
    assert "other runs named 'r' is not known" in warnings[1]
    assert "not yours" in warnings[1]
    assert watcher.look().name_cost is None
    assert len(warnings) == 2


def test_watch_prints_both(
    kfp_server: KfpServer, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    first = kfp_server.add_run("r", "FAILED")
    kfp_server.answers[first] = [hours(2)]
    assert voxsrc_pipeline("watch", "r", "--once", "--region", REGION) == 1
    line = capsys.readouterr().out.splitlines()[0]
    assert line.endswith("; the only run of this name")

    second = kfp_server.add_run("r", "SUCCEEDED")
    kfp_server.answers[second] = [hours(1, "SUCCEEDED")]
    assert voxsrc_pipeline("watch", "r", "--once", "--region", REGION) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert f"this run's machines at most ${HOUR_ON_SPOT:.2f} so far" in line
    assert line.endswith(f"; all 2 runs of this name at most ${3 * HOUR_ON_SPOT:.2f}")

    assert voxsrc_pipeline("watch", "r", "--once", "--json", "--region", REGION) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["cost"]["usd_all_on_spot"] == pytest.approx(HOUR_ON_SPOT, abs=1e-4)
    assert answer["cost_of_name"] == {
        "runs": 2,
        "usd_at_most": pytest.approx(3 * HOUR_ON_SPOT, abs=1e-4),
        "usd_estimated": None,
        "usd_all_on_spot": pytest.approx(3 * HOUR_ON_SPOT, abs=1e-4),
        "usd_all_on_demand": pytest.approx(
            3 * load_prices().gpu(REGION, "l4", 1).on_demand_usd_per_hour, abs=1e-4
        ),
        "runs_with_unknown_steps": 0,
        "runs_without_cost": 0,
    }
