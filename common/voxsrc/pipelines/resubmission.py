"""Submits a run again that has ended because its machines were taken away.

A machine that is taken leaves a pod that failed or none at all (`voxsrc.pipelines.attempts`). Which of them
is tried again within the run is up to the retry policy of the cluster's workflow controller: with that of
gcp-cluster/install_kfp.sh both are; with that of Kubeflow's manifests 2.17.0, OnError, only a pod that is
gone; without any, as before 2.17.0, only one that failed (kubeflow/pipelines#13456, #8381). Else, and after
the last retry, the run is FAILED though nothing is wrong with it, and a new run of the same name continues
it, as after `voxsrc pipeline submit`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from voxsrc.pipelines.attempts import Attempt, AttemptsError
from voxsrc.pipelines.cluster import ClusterError
from voxsrc.pipelines.kfp_api import KubeflowApi, KubeflowError
from voxsrc.pipelines.progress import bare, numbers
from voxsrc.pipelines.submission import first_under_way, give_way, is_under_way, newer_runs, package_of

# Runs that one watching may start: a cluster that takes machines more often is no place for the run.
MOST_RESUBMISSIONS = 50
_WAITS_S = (2.0, 4.0, 8.0, 16.0, 32.0, *[60.0] * 9)


@dataclass(frozen=True, kw_only=True)
class Resubmission:
    """What became of a run that has failed.

    Attributes:
        run_id: Of the run to follow now; None if there is none.
        reason: Why there is one, or none.
        submitted: Whether this made it; if not, somebody else has.
    """

    run_id: str | None
    reason: str
    submitted: bool = False


def resubmit(
    api: KubeflowApi,
    run_id: str,
    attempts: Callable[[str], list[Attempt]],
    *,
    seen: Iterable[Attempt] = (),
    made: Callable[[str], None],
    warn: Callable[[str], None],
    pause: Callable[[float], None],
) -> Resubmission:
    """Submits a failed run again if all that ended it is that machines were taken away.

    Nothing is submitted beside a newer run of the name. Of several that are made at once the first stays, and
    is followed; what is older than `run_id` does not count.

    Args:
        api: The endpoint.
        run_id: Of the run.
        attempts: Lists the pods of a run.
        seen: Those that were listed before, of which the cluster may have forgotten some.
        made: Is told the id of a run that this submits, before others that were made at the same time are
            looked for.
        warn: Is told, in words, of each failure of the cluster that is waited out, and if others may have
            submitted the run, too.
        pause: Waits so many seconds.

    Raises:
        ClusterError: The cluster has not answered for ten minutes.
        KubeflowError: The API does not answer, or refuses.
    """
    try:
        listed = _listed(attempts, run_id, warn, pause)
    except AttemptsError as error:
        return Resubmission(run_id=None, reason=str(error))
    pods = {attempt.path: attempt for attempt in (*seen, *listed)}
    run = api.get_run(run_id)
    if any(str(status.state) == "CANCELING" for status in run.state_history or ()):
        return Resubmission(run_id=None, reason="somebody terminated it")
    failed = failed_steps(list(pods.values()))
    if not failed:
        return Resubmission(run_id=None, reason="the cluster remembers no attempt that failed")
    for attempt in failed:
        if not (attempt.preempted or attempt.deleted):
            found = f"{attempt.step or attempt.path} failed by itself: {attempt.message or 'no reason given'}"
            return Resubmission(run_id=None, reason=found)
    if package_of(run) is None:
        return Resubmission(run_id=None, reason="the server does not give the run's pipeline")
    newer = newer_runs(api.find_runs(str(run.display_name)), run_id)
    if newer:
        # another than the first may be about to give way
        return _follow(first_under_way(newer) or newer[0])
    created = api.repeat_run(run)
    made(str(created.run_id))
    try:
        first = give_way(api, created, pause, after=run_id)
    except KubeflowError as error:
        warn(f"run {created.run_id} may not be the only one of its name under way: {error}")
        first = None
    if first is not None:
        return _follow(first)
    reasons = ", ".join(f"{attempt.step or attempt.path}: {attempt.message}" for attempt in failed)
    return Resubmission(run_id=str(created.run_id), reason=reasons, submitted=True)


def failed_steps(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The attempts that failed and were not followed by another, of the pod or of a DAG around it."""
    last: dict[tuple[str, ...], int] = {}
    for attempt in attempts:
        for place, number in _places(attempt.path):
            last[place] = max(number, last.get(place, number))
    return [
        attempt
        for attempt in attempts
        if attempt.failed and all(last[place] == number for place, number in _places(attempt.path))
    ]


def _follow(other: Any) -> Resubmission:
    words = "continues it already" if is_under_way(other) else "is newer"
    return Resubmission(
        run_id=str(other.run_id), reason=f"run {other.run_id} of the same name {words}, and is followed"
    )


def _places(path: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Each node along a path, without the number of its own attempt, and that number."""
    parts = path.split(".")
    for level, (name, number) in enumerate(zip(bare(path).split("."), numbers(path), strict=True)):
        yield (*parts[:level], name), number


def _listed(
    attempts: Callable[[str], list[Attempt]],
    run_id: str,
    warn: Callable[[str], None],
    pause: Callable[[float], None],
) -> list[Attempt]:
    for wait_s in _WAITS_S:
        try:
            return attempts(run_id)
        except ClusterError as error:
            warn(f"{error} Trying again in {wait_s:.0f} s")
        pause(wait_s)
    return attempts(run_id)
