"""Submits a pipeline; the run's name says what is continued.

Kubeflow Pipelines lets many runs have one name. Here a name stands for one piece of work: everything that the
steps write lies at URIs that the arguments name, so that a new run with the same arguments goes on from where
the last one ended, by failure, preemptions beyond its retries or termination. (The API's own RetryRun keeps
the old images, and needs the old workflow.)
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from voxsrc.errors import ConfigError
from voxsrc.pipelines.kfp_api import KubeflowApi, KubeflowError
from voxsrc.pipelines.package import Package, package_from

ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
# The server dates a run before it makes the workflow, and lists it after that.
_LISTED_AFTER_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What became of a submission.

    Attributes:
        run_id: Of the new run, or of the one that had succeeded.
        link: Its page.
        action: started, continued (an earlier run of the name had ended early), repeated (it had succeeded),
            or already_succeeded (nothing was submitted).
        previous_run_id: The newest earlier run with this name.
        changes: Arguments that differ from that run's, in words.
    """

    run_id: str
    link: str
    action: Literal["started", "continued", "repeated", "already_succeeded"]
    previous_run_id: str | None = None
    changes: tuple[str, ...] = ()


def submit(
    api: KubeflowApi,
    path: Path,
    package: Package,
    arguments: Mapping[str, Any],
    *,
    run_name: str,
    experiment: str,
    service_account: str | None = None,
    again: bool = False,
    allow_changes: bool = False,
    before: Callable[[], None] | None = None,
    made: Callable[[str], None],
    pause: Callable[[float], None],
) -> Submission:
    """Starts or continues the run of this name.

    Args:
        api: The endpoint.
        path: The package's file.
        package: The package.
        arguments: As `read_arguments` gives them.
        run_name: The resume key.
        experiment: Under which the run is listed; the name counts in all of them.
        service_account: Kubernetes service account of the pods; None for the server's default.
        again: Submit although the newest run of this name succeeded.
        allow_changes: Continue with other arguments than the newest run's.
        before: Called once it is clear that a run is to be made; what it raises prevents that.
        made: Is told the new run's id, before others that were made at the same time are looked for.
        pause: Waits so many seconds.

    Raises:
        KubeflowError: A run of this name has not ended, or the API refuses.
        ConfigError: The name is empty, or pipeline or arguments differ from those of the newest run.
    """
    if not run_name.strip():
        raise ConfigError("--run-name is empty; expected a name such as resnet-2020-11")
    runs = api.find_runs(run_name)
    for run in runs:
        if is_under_way(run):
            raise _under_way(api, run, run_name)
    previous = runs[0] if runs else None
    succeeded = previous is not None and previous.state == "SUCCEEDED"
    changes = _changes(previous, package, arguments) if previous is not None else ()
    if previous is not None and succeeded and not again:
        if changes:
            raise ConfigError(
                f"run {run_name!r} has succeeded, and was another: {'; '.join(changes)}. Give another "
                "--run-name, or --again to run this under the same one"
            )
        return Submission(run_id=previous.run_id, link=api.link(previous.run_id), action="already_succeeded")
    if changes and not allow_changes and not succeeded:
        raise ConfigError(
            f"run {run_name!r} would be continued with other arguments: {'; '.join(changes)}. Give the same "
            "ones, another --run-name, or --allow-changes if what is stored at its URIs fits the new ones"
        )
    if before is not None:
        before()
    created = api.create_run(
        path, arguments, name=run_name, experiment=experiment, service_account=service_account
    )
    made(str(created.run_id))
    try:
        first = give_way(api, created, pause)
    except KubeflowError as error:
        raise KubeflowError(
            f"run {run_name!r} was submitted: {api.link(created.run_id)}. Another of this name may be under "
            f"way: {error}"
        ) from error
    if first is not None:
        raise _under_way(api, first, run_name)
    action: Literal["started", "continued", "repeated"] = "started"
    if previous is not None:
        action = "repeated" if succeeded else "continued"
    return Submission(
        run_id=created.run_id,
        link=api.link(created.run_id),
        action=action,
        previous_run_id=previous.run_id if previous is not None else None,
        changes=changes,
    )


def is_under_way(run: Any) -> bool:
    """Whether a run has not ended, or not even begun."""
    return str(run.state or "PENDING") not in ENDED


def first_under_way(runs: Sequence[Any]) -> Any | None:
    """The oldest run that has not ended, which stays beside any other; `runs` as `find_runs` gives them."""
    return next(filter(is_under_way, reversed(runs)), None)


def newer_runs(runs: Sequence[Any], run_id: str) -> list[Any]:
    """Those of `find_runs` that were made after one of them."""
    return list(itertools.takewhile(lambda run: run.run_id != run_id, runs))


def give_way(
    api: KubeflowApi, created: Any, pause: Callable[[float], None], *, after: str = ""
) -> Any | None:
    """Deletes a run that was just made if one of its name was made before it that is under way; gives that.

    Two who look, find none and submit would both pay, and write to the same places. Which was the first is
    told by the server's order, the same for both: by time in whole seconds, then by id. The server lists a
    run up to seconds after it has dated it, so that who asks sooner may miss one: this waits before it asks.
    The run is deleted, not terminated: as the newest of its name it would stand for all of them.

    Args:
        api: The endpoint.
        created: The run.
        pause: Waits so many seconds.
        after: Only runs that are newer than this one count; all by default.

    Raises:
        KubeflowError: The API does not answer, or refuses: both may go on.
    """
    pause(_LISTED_AFTER_S)
    listed = newer_runs(api.find_runs(str(created.display_name)), after)
    older = list(itertools.dropwhile(lambda run: run.run_id != created.run_id, listed))[1:]
    first = first_under_way(older)
    if first is not None:
        api.delete_run(created.run_id, f"made at the same time as run {first.run_id}")
    return first


def package_of(run: Any) -> Package | None:
    """The package that a run was made from, None where the server does not give it."""
    spec = run.pipeline_spec
    if not isinstance(spec, Mapping):
        return None
    platform = spec.get("platform_spec")
    try:
        return package_from(spec.get("pipeline_spec", spec), platform, f"run {run.run_id}")
    except ConfigError:
        return None  # a v1 pipeline: its name was taken by something else


def arguments_of(run: Any) -> dict[str, Any]:
    """The arguments that a run was given."""
    parameters = run.runtime_config.parameters if run.runtime_config is not None else None
    return dict(parameters or {})


def _changes(previous: Any, package: Package, arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """What differs from an earlier run, with its own and the new package's defaults, in words."""
    before = package_of(previous)
    old = (before or package).effective(arguments_of(previous))
    new = package.effective(arguments)
    pipelines = {"pipeline": package.name if before is None else before.name}, {"pipeline": package.name}
    return tuple(
        f"{name} was {was.get(name)!r}, now {now.get(name)!r}"
        for was, now in (pipelines, (old, new))
        for name in sorted(was.keys() | now.keys())
        if was.get(name) != now.get(name)
    )


def _under_way(api: KubeflowApi, run: Any, run_name: str) -> KubeflowError:
    state = str(run.state or "PENDING")
    ending = "; wait until it has ended" if state == "CANCELING" else ""
    return KubeflowError(
        f"run {run_name!r} is {state}: {api.link(run.run_id)}{ending}. Follow it with `voxsrc pipeline "
        "watch`, or give another --run-name"
    )
