"""What `voxsrc pipeline` prints of runs and checks."""

from collections.abc import Iterator, Sequence
from typing import Any

from voxsrc.pipelines.checks import Check
from voxsrc.pipelines.progress import WAITING, StepProgress
from voxsrc.pipelines.run_cost import NameCost, RunCost, as_mapping, name_mapping
from voxsrc.pipelines.watching import Snapshot

# A line now and then even if no step changes: the run's time and cost do.
HEARTBEAT_S = 600.0


def snapshot_lines(snapshot: Snapshot, shown: Snapshot | None) -> Iterator[str]:
    """Lines for what has changed since the snapshot that was last shown; none if nothing has.

    Args:
        snapshot: The new one.
        shown: The last one of which lines were printed; None before the first.
    """
    before = {step.step: _key(step, shown) for step in shown.progress.steps} if shown is not None else {}
    changed = [step for step in snapshot.progress.steps if before.get(step.step) != _key(step, snapshot)]
    if shown is not None:
        quiet_s = (snapshot.at - shown.at).total_seconds()
        same_state = shown.progress.state == snapshot.progress.state
        if not changed and same_state and quiet_s < HEARTBEAT_S:
            return
    progress = snapshot.progress
    width = max((len(step.title) for step in progress.steps), default=0)
    yield (
        f"{snapshot.at.astimezone():%Y-%m-%d %H:%M:%S}  run {progress.name} ({progress.run_id})  "
        f"{progress.state}  {duration(progress.seconds(snapshot.at))}  {_cost(snapshot)}"
    )
    for step in changed:
        yield f"  {step.title:<{width}}  {_step(step, snapshot)}"
    if progress.error:
        yield f"  error: {progress.error}"


def snapshot_mapping(snapshot: Snapshot, link: str) -> dict[str, Any]:
    """A snapshot for JSON."""
    progress = snapshot.progress
    return {
        "at": snapshot.at.isoformat(),
        "run": progress.name,
        "run_id": progress.run_id,
        "link": link,
        "state": progress.state,
        "seconds": round(progress.seconds(snapshot.at)),
        "error": progress.error,
        "steps": [
            {
                "step": step.title,
                "state": step.state,
                "seconds": round(step.seconds(snapshot.at)),
                "attempts": step.attempts,
                "retries": step.retries,
                "preemptions": None if snapshot.preemptions is None else snapshot.preemptions[step.step],
                "deleted_pods": None if snapshot.deletions is None else snapshot.deletions[step.step],
            }
            for step in progress.steps
        ],
        "cost": None if snapshot.cost is None else as_mapping(snapshot.cost),
        "no_cost": snapshot.no_cost,
        "cost_of_name": None if snapshot.name_cost is None else name_mapping(snapshot.name_cost),
    }


def check_lines(checks: Sequence[Check]) -> Iterator[str]:
    """A line for each check, with what to run below those that are not ok."""
    for check in checks:
        yield f"{check.state:<8} {check.what}: {check.found}"
        if check.remedy:
            yield f"         → {check.remedy}"


def duration(seconds: float) -> str:
    """Such as 45 s, 12 min, 3 h 05 min or 2 d 04 h."""
    minutes = int(seconds) // 60
    if minutes < 1:
        return f"{int(seconds)} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24:02} h"


def _key(step: StepProgress, snapshot: Snapshot | None) -> tuple[object, ...]:
    counts = (snapshot.preemptions, snapshot.deletions) if snapshot is not None else ()
    return step.state, step.attempts, *(None if count is None else count[step.step] for count in counts)


def _step(step: StepProgress, snapshot: Snapshot) -> str:
    if step.state == WAITING:
        return "waiting"
    words = [step.state, duration(step.seconds(snapshot.at))]
    if step.attempts:
        words.append(f"attempt {step.attempts}")
    if step.retries:
        words.append(f"{step.retries} {'retry' if step.retries == 1 else 'retries'}")
    if snapshot.preemptions is not None and step.retries:
        words.append(f"{snapshot.preemptions[step.step]} by preemption")
    if snapshot.deletions is not None and snapshot.deletions[step.step]:
        words.append(f"{snapshot.deletions[step.step]} by a deleted pod")
    return ", ".join(words)


def _cost(snapshot: Snapshot) -> str:
    cost = snapshot.cost
    if cost is None:
        return f"cost not known: {snapshot.no_cost}"
    text = (
        f"this run's machines {_amount(cost)} so far (all on Spot ${cost.spot_usd:.2f}, "
        f"all on demand ${cost.on_demand_usd:.2f})"
    )
    text += f", without {', '.join(cost.unknown)}" if cost.unknown else ""
    return text + ("" if snapshot.name_cost is None else f"; {_name_cost(snapshot.name_cost)}")


def _amount(cost: RunCost | NameCost) -> str:
    return f"{'about' if cost.is_estimate else 'at most'} ${cost.most_usd:.2f}"


def _name_cost(cost: NameCost) -> str:
    if cost.num_runs == 1:
        return "the only run of this name"
    text = f"all {cost.num_runs} runs of this name {_amount(cost)}"
    if cost.num_unknown:
        text += f", without {cost.num_unknown} whose cost is not known"
    if cost.num_incomplete:
        text += f", without steps of {cost.num_incomplete} whose machines are not known"
    return text
