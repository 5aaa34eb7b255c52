"""Submits a run again that has ended because its machines were taken away.

Kubeflow Pipelines retries a pod that failed, but not one that is gone, "pod deleted"
(kubeflow/pipelines#13456, #8381), and a machine that is taken may leave either. Then the run is FAILED though
nothing is wrong with it, and a new run of the same name continues it, as after `voxsrc pipeline submit`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from voxsrc.pipelines.cluster import Attempt, ClusterError
from voxsrc.pipelines.kfp_api import KubeflowApi
from voxsrc.pipelines.submission import ENDED, package_of

# Runs that one watching may start: a cluster that takes machines more often is no place for the run.
MOST_RESUBMISSIONS = 50
_WAITS_S = (2.0, 4.0, 8.0, 16.0, 32.0, *[60.0] * 9)


@dataclass(frozen=True, kw_only=True)
class Resubmission:
    """What became of a run that has failed.

    Attributes:
        run_id: Of the run that continues it; None if there is none.
        reason: Why there is one, or none.
    """

    run_id: str | None
    reason: str


def resubmit(
    api: KubeflowApi,
    run_id: str,
    attempts: Callable[[str], list[Attempt]],
    *,
    seen: Iterable[Attempt] = (),
    warn: Callable[[str], None],
    pause: Callable[[float], None],
) -> Resubmission:
    """Submits a failed run again if all that ended it is that machines were taken away.

    Args:
        api: The endpoint.
        run_id: Of the run.
        attempts: Lists the pods of a run.
        seen: Those that were listed before, of which the cluster may have forgotten some.
        warn: Is told, in words, of each failure of the cluster that is waited out.
        pause: Waits so many seconds.

    Raises:
        ClusterError: The cluster has not answered for ten minutes.
        KubeflowError: The API does not answer, or refuses.
    """
    pods = {attempt.path: attempt for attempt in (*seen, *_listed(attempts, run_id, warn, pause))}
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
    for other in api.find_runs(str(run.display_name)):
        if other.run_id == run_id:
            break
        under_way = str(other.state or "PENDING") not in ENDED
        words = "continues it already" if under_way else "is newer"
        return Resubmission(run_id=None, reason=f"run {other.run_id} of the same name {words}")
    created = api.repeat_run(run)
    reasons = ", ".join(f"{attempt.step}: {attempt.message}" for attempt in failed)
    return Resubmission(run_id=str(created.run_id), reason=reasons)


def failed_steps(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The last attempt of each pod, if it has failed: the others were retried."""
    last: dict[str, Attempt] = {}
    for attempt in attempts:
        pod, _ = _numbered(attempt)
        if pod not in last or _numbered(last[pod])[1] < _numbered(attempt)[1]:
            last[pod] = attempt
    return [attempt for attempt in last.values() if attempt.failed]


def _numbered(attempt: Attempt) -> tuple[str, int]:
    """The path without the number of the attempt, and the number; a pod without a retry policy has none."""
    scope, dot, name = attempt.path.rpartition(".")
    base, parenthesis, number = name.partition("(")
    if base != "executor" or not parenthesis:
        return attempt.path, 0
    return scope + dot + base, int(number.removesuffix(")"))


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
