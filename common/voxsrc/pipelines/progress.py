"""How far a run is, from what the v2 API of Kubeflow Pipelines tells of it.

`GetRun` gives one task detail for each node of the Argo workflow beneath: display name, start, end, state,
state history and the ids of its children. The fields `pod_name`, `executor_detail` and `error` of a task are
never filled, so neither the id of a task itself, nor its parent, nor why an attempt ended can be read
(`toApiPipelineTaskDetail` in backend/src/apiserver/server/api_converter.go); an end that is not yet is a time
before 1971. But the id of an Argo node is the workflow's name and the FNV-1a hash of the node's path
(`Workflow.NodeID` of argo-workflows), and a path is made of display names: so each child id is resolved here
to a path such as `WORKFLOW.root.train.executor(2)`, the third attempt of step `train`.

Since 2.17.0 Kubeflow's manifests give every template a retry policy, and so each driver and DAG is the first
attempt of a node above it: `WORKFLOW(0).root(0).train(0).executor(2)`. `bare` takes the numbers of attempts
from a path, and `numbers` gives them. An item of a loop has an index and a value in its parentheses, `(3:3)`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

_FNV_PRIME, _FNV_BASIS = 0x01000193, 0x811C9DC5
_NUMBER = re.compile(r"\((\d+)\)$")
_ITERATION = re.compile(r"iteration-iterations\((\d+):[^)]*\)")
_ITEM = re.compile(r"\[\d+\]")
_LOOP_DRIVERS = {"iteration-driver", "iteration-item-driver"}
_FIRST_REAL_YEAR = 2000
WAITING = "WAITING"


@dataclass(frozen=True, kw_only=True)
class StepProgress:
    """One step, or one item of a loop's.

    Attributes:
        step: Its name; with the loop's and the item's index, as in `for-loop-1[0]/shard`.
        title: The same with the names for display, where the package is known.
        state: PENDING, RUNNING, SUCCEEDED, SKIPPED, FAILED, CANCELED, or WAITING for other steps.
        started: Of its first attempt, None before; with the wait for a machine.
        ended: None until it has.
        attempts: Pods so far; a result from the cache, which our packages have off, looks like one.
    """

    step: str
    title: str
    state: str
    started: datetime | None = None
    ended: datetime | None = None
    attempts: int = 0

    @property
    def retries(self) -> int:
        """Attempts after the first."""
        return max(0, self.attempts - 1)

    def seconds(self, now: datetime) -> float:
        """From the start to the end or now."""
        return 0.0 if self.started is None else ((self.ended or now) - self.started).total_seconds()


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """A run.

    Attributes:
        name: Of the run.
        run_id: Its id.
        state: As the server says; PENDING where it says nothing yet.
        created: When it was submitted.
        ended: None until it has.
        error: The server's words, or empty.
        steps: In the order of their start.
    """

    name: str
    run_id: str
    state: str
    created: datetime | None
    ended: datetime | None
    error: str
    steps: tuple[StepProgress, ...]

    def seconds(self, now: datetime) -> float:
        """From the submission to the end or now."""
        return 0.0 if self.created is None else ((self.ended or now) - self.created).total_seconds()


def read_progress(run: Any, titles: Mapping[str, str] | None = None) -> RunProgress:
    """The progress of a V2beta1Run.

    Args:
        run: As `KubeflowApi.get_run` gives it.
        titles: The package's steps → their titles; steps that have not begun are WAITING.
    """
    titles = titles or {}
    tasks = (run.run_details.task_details if run.run_details is not None else None) or []
    paths = _resolve(tasks)
    steps = [replace(step, title=_title(step.step, titles)) for step in _steps(tasks, paths)]
    begun = {without_items(step.step) for step in steps}
    steps += [
        StepProgress(step=step, title=title, state=WAITING)
        for step, title in titles.items()
        if step not in begun
    ]
    return RunProgress(
        name=str(run.display_name),
        run_id=str(run.run_id),
        state=str(run.state or "PENDING"),
        created=_real(run.created_at),
        ended=_real(run.finished_at),
        error=str(run.error.message or "") if run.error is not None else "",
        steps=tuple(steps),
    )


def without_items(step: str) -> str:
    """The name of a step in its package, without the items of loops."""
    return _ITEM.sub("", step)


def _title(step: str, titles: Mapping[str, str]) -> str:
    """The title of a step, with the items of loops where its name has them."""
    parts = step.split("/")
    shown = titles.get(without_items(step), without_items(step)).split("/")
    items = ("".join(_ITEM.findall(part)) for part in parts)
    return "/".join(part + item for part, item in zip(shown, items, strict=True))


def step_of(path: str) -> str:
    """The name of a step for people, without the workflow and the nodes that every run has."""
    parts: list[str] = []
    for part in bare(path).split(".")[2:]:
        if match := _ITERATION.fullmatch(part):
            if parts:
                parts[-1] += f"[{match[1]}]"
        elif part != "iteration-item":
            parts.append(part)
    return "/".join(parts)


def bare(path: str) -> str:
    """The path without the numbers of attempts."""
    return ".".join(_NUMBER.sub("", part) for part in path.split("."))


def numbers(path: str) -> tuple[int, ...]:
    """The numbers of the attempts along a path; -1 for a node that is none."""
    found = (_NUMBER.search(part) for part in path.split("."))
    return tuple(-1 if match is None else int(match[1]) for match in found)


def node_id(path: str) -> str:
    """The id that Argo gives to the node of this path."""
    return f"{bare(path.partition('.')[0])}-{_fnv(path.encode())}"


def _fnv(data: bytes, basis: int = _FNV_BASIS) -> int:
    for byte in data:
        basis = ((basis ^ byte) * _FNV_PRIME) & 0xFFFFFFFF
    return basis


def _resolve(tasks: Iterable[Any]) -> dict[str, str]:
    """Child id → path, for all that can be told."""
    ids = {child.pod_name for task in tasks for child in task.child_tasks or () if child.pod_name}
    names = {str(task.display_name): str(task.display_name).encode() for task in tasks}
    workflows = {identity.rpartition("-")[0] for identity in ids}
    retried = [name for name in names if name not in workflows and bare(name) in workflows]
    paths = {node_id(name): name for name in retried}
    # where every template is retried, only attempts have nodes of other names below them
    scopes = retried or list(workflows)
    while scopes:
        scope = scopes.pop()
        workflow = bare(scope.partition(".")[0])
        prefix = _fnv(f"{scope}.".encode())  # the hash goes on from here for every name
        for name, data in names.items():
            identity = f"{workflow}-{_fnv(data, prefix)}"
            if identity in ids and identity not in paths:
                paths[identity] = f"{scope}.{name}"
                if not retried or _NUMBER.search(name):
                    scopes.append(paths[identity])
    return paths


def _steps(tasks: Sequence[Any], paths: Mapping[str, str]) -> list[StepProgress]:
    """Every step that has an executor or at least a driver, in the order of their start."""
    drivers, begun = set[str](), set[str]()
    executors: dict[str, set[str]] = defaultdict(set)
    for path in paths.values():
        parent, _, name = bare(path).rpartition(".")
        if name == "executor":
            executors[parent].add(path)
        elif name.endswith("-driver") and name not in _LOOP_DRIVERS:
            drivers.add(f"{parent}.{name}".removesuffix("-driver"))
        while parent and parent not in begun:
            begun.add(parent)
            parent = parent.rpartition(".")[0]
    for step in drivers - begun:
        executors[step] = set()
    records = _records(tasks, paths)
    steps = [_step(path, found, records.get(path, ())) for path, found in executors.items() if step_of(path)]
    return sorted(steps, key=lambda step: (step.started or datetime.max.replace(tzinfo=UTC), step.step))


def _step(path: str, executors: set[str], records: Sequence[Any]) -> StepProgress:
    """A step of this bare path; it has several records where a DAG around it was tried again."""
    # with retries, `executor` is the node above the attempts and no pod itself
    numbered = {executor for executor in executors if _NUMBER.search(executor)}
    last = records[-1] if records else None
    return StepProgress(
        step=step_of(path),
        title=step_of(path),
        state=str(last.state) if last is not None and last.state else "PENDING",
        started=_real(records[0].start_time) if records and executors else None,
        ended=_real(last.end_time) if last is not None else None,
        attempts=len(numbered or executors),
    )


def _records(tasks: Iterable[Any], paths: Mapping[str, str]) -> dict[str, list[Any]]:
    """Bare path → the task details of the nodes of this path that are no attempts, in the order of attempts.

    A path is that of the display name where only one has it, else it is told by a child that lies below.
    """
    by_name: dict[str, list[Any]] = defaultdict(list)
    for task in tasks:
        if not _NUMBER.search(str(task.display_name)):
            by_name[str(task.display_name)].append(task)
    paths_by_name: dict[str, list[str]] = defaultdict(list)
    for path in paths.values():
        paths_by_name[path.rpartition(".")[2]].append(path)
    found: dict[str, Any] = {}
    for name, candidates in by_name.items():
        if len(candidates) == 1 and len(paths_by_name[name]) == 1:
            found[paths_by_name[name][0]] = candidates[0]
            continue
        for task in candidates:
            for child in task.child_tasks or ():
                below = paths.get(child.pod_name, "")
                # what waits for a node is its child too, and lies beside it
                for path in (below.rpartition(".")[0], _NUMBER.sub("", below)):
                    if path != below and path.rpartition(".")[2] == name:
                        found[path] = task
    records: dict[str, list[Any]] = defaultdict(list)
    for path in sorted(found, key=numbers):
        records[bare(path)].append(found[path])
    return records


def _real(time: Any) -> datetime | None:
    """None for the times before 1971 that stand for none."""
    if not isinstance(time, datetime) or time.year < _FIRST_REAL_YEAR:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
