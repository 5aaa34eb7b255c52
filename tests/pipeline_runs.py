"""Runs as the Kubeflow Pipelines API tells of them, built from the nodes of the Argo workflow beneath."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml

from kfp_server import NO_TIME, task_details
from voxsrc.pipelines.package import package_path

Nodes = dict[str, tuple[str, str, str]]
ROOT = "w.root"
T0 = datetime(2026, 11, 23, 9, tzinfo=UTC)


def at(minutes: float) -> str:
    return (T0 + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def tree(*below: Nodes) -> Nodes:
    nodes = {
        "w": ("RUNNING", at(0), ""),
        "w.root-driver": ("SUCCEEDED", at(0), at(1)),
        ROOT: ("RUNNING", at(1), ""),
    }
    for part in below:
        nodes |= part
    return nodes


def step(path: str, state: str, start: float, end: float | None, failed_attempts: int = 0) -> Nodes:
    """The nodes of one step with a retry policy: driver, DAG, the node above the attempts, attempts."""
    stop = "" if end is None else at(end)
    nodes = {
        f"{path}-driver": ("SUCCEEDED", at(start - 1), at(start)),
        path: (state, at(start), stop),
        f"{path}.executor": (state, at(start), stop),
    }
    for index in range(failed_attempts):
        nodes[f"{path}.executor({index})"] = ("FAILED", at(start + index), at(start + index + 1))
    nodes[f"{path}.executor({failed_attempts})"] = (state, at(start + failed_attempts), stop)
    return nodes


def loop(path: str, name: str, states: list[tuple[str, int]], start: float, end: float | None) -> Nodes:
    nodes = {
        path: ("RUNNING", at(start), ""),
        f"{path}.iteration-driver": ("SUCCEEDED", at(start), at(start)),
        f"{path}.iteration-iterations": ("RUNNING", at(start), ""),
    }
    for index, (state, failed) in enumerate(states):
        item = f"{path}.iteration-iterations({index}:{index})"
        nodes |= {
            item: (state, at(start), ""),
            f"{item}.iteration-item-driver": ("SUCCEEDED", at(start), at(start)),
            f"{item}.iteration-item": (state, at(start), ""),
        }
        nodes |= step(f"{item}.iteration-item.{name}", state, start + 1, end, failed)
    return nodes


def retried(nodes: Nodes) -> Nodes:
    """The same under the defaults of Kubeflow Pipelines 2.17.0: each template is the first attempt of a node.

    The nodes that are numbered attempts already, and the one above a loop's items, are no templates.
    """
    found: Nodes = {}
    for path, times in nodes.items():
        *scopes, name = path.split(".")
        above = "".join(f"{scope}(0)." for scope in scopes)
        found[above + name] = times
        is_attempt = re.search(r"\(\d+\)$", name) is not None
        if not is_attempt and name != "iteration-iterations" and f"{path}(0)" not in nodes:
            found[f"{above}{name}(0)"] = times
    return found


def run_of(nodes: Nodes, **fields: Any) -> dict[str, Any]:
    return {
        "state": "RUNNING",
        "created_at": at(0),
        "finished_at": NO_TIME,
        "run_details": task_details(nodes),
        **fields,
    }


def train_run(nodes: Nodes, state: str = "RUNNING", **arguments: Any) -> dict[str, Any]:
    spec, platform = yaml.safe_load_all(package_path("train").read_text())
    return run_of(
        nodes,
        state=state,
        pipeline_spec={"pipeline_spec": spec, "platform_spec": platform},
        runtime_config={"parameters": arguments},
    )


def planning_run(minutes: int) -> dict[str, Any]:
    """A run whose one step, on CPUs, took so long."""
    return train_run(
        tree(
            {f"{ROOT}.voxsrc-extract": ("RUNNING", at(1), "")},
            step(f"{ROOT}.voxsrc-extract.plan-extraction", "SUCCEEDED", 6, 6 + minutes),
        )
    )


class Clock:
    """A time that only `pause` moves; `pauses` keeps each wait."""

    def __init__(self) -> None:
        self.now = T0
        self.pauses: list[float] = []

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += timedelta(seconds=seconds)
