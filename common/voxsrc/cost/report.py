"""An estimate as text for a terminal, as a table for a README, and as plain values for JSON."""

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from voxsrc.cost.estimate import Estimate, Scenario

_ORIGINAL = "The original project, mmwebster/voxsrc-2020, claims costs of about 1/3."
_WIDTH = 100
_TIMES = {
    "mean_hours_between_preemptions",
    "start_seconds",
    "restore_seconds",
    "save_seconds",
    "wait_seconds",
}


def as_text(estimate: Estimate, simulated: Mapping[str, Mapping[str, float]] | None, num_runs: int) -> str:
    """The table, what the ratio depends on, the simulation if there is one, and all assumptions."""
    request = estimate.request
    scenarios = (estimate.on_demand, estimate.spot, estimate.fallback)
    count = "" if request.num_gpus == 1 else f"{request.num_gpus} × "
    parts = [
        f"{request.work_hours:.4g} h of work on {count}{estimate.machine.machine} in {request.region}; "
        "means over many runs\n",
        _columns(_scenario_rows(scenarios), left=1),
        "\n" + _ratio_words(estimate),
    ]
    if simulated is not None:
        parts.append(f"\n{num_runs:,} simulated runs; ± is one standard error of the mean")
        parts.append(_columns(_simulation_rows(simulated, scenarios), left=1))
    parts.append("\nAssumptions")
    rows = [[a.key, f"{a.value:.6g}", a.origin, a.basis] for a in estimate.assumptions]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    parts += [
        f"  {key:<{widths[0]}}  {value:>{widths[1]}}  {origin:<{widths[2]}}  {basis}".rstrip()
        for key, value, origin, basis in rows
    ]
    parts.append("\nSources of prices; Spot prices change up to once a day")
    parts += [f"  {key}: {where}" for key, where in estimate.price_sources.items()]
    return "\n".join(parts)


def as_markdown(estimates: Sequence[Estimate]) -> str:
    """A table with a row for each estimate of one job, and what it assumes."""
    first = estimates[0]
    request = first.request
    lines = [
        "| GPU | on demand, $/h | Spot, $/h | on demand, $ | Spot, $ | Spot / on demand | with cluster and "
        "storage | finished after, h |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in estimates:
        num, machine = each.request.num_gpus, each.machine
        count = f"{num} × " if num > 1 else ""
        lines.append(
            f"| {count}{each.request.gpu} | {num * machine.on_demand_usd_per_hour:.2f} "
            f"| {num * machine.spot_usd_per_hour:.2f} "
            f"| {each.on_demand.lines['GPU machine']:,.2f} | {each.spot.lines['GPU machine']:,.2f} "
            f"| {each.machine_ratio:.2f} | {each.total_ratio:.2f} | {each.spot.wall_hours:.1f} |"
        )
    values = {assumption.key: assumption.value for assumption in first.assumptions}
    dates = sorted({each.machine.read for each in estimates})
    assumed = [
        a.key.replace("_", " ") for a in first.assumptions if a.key in _TIMES and a.origin == "default"
    ]
    words = (
        f"{request.work_hours:g} h of work in {request.region} for each type, which differ in speed: compare "
        f"ratios. Means with a preemption every {values['mean_hours_between_preemptions']:g} h of a machine, "
        f"{values['start_seconds']:g} s to start, {values['restore_seconds']:g} s to restore, "
        f"{values['save_seconds']:g} s to save, {values['wait_seconds']:g} s of waiting for capacity; list "
        f"prices read {' and '.join(dates)}."
        + (f" Assumed, not measured: {', '.join(assumed)}." if assumed else "")
    )
    lines.append("\n" + textwrap.fill(words, _WIDTH))
    return "\n".join(lines)


def as_mapping(estimate: Estimate, simulated: Mapping[str, Mapping[str, float]] | None) -> dict[str, Any]:
    """Plain values; what would be infinite is None, as JSON has no such number."""
    fields = dataclasses.asdict(estimate)
    for name in ("on_demand", "spot", "fallback"):
        fields[name]["total_usd"] = getattr(estimate, name).total_usd
    for name in ("price_ratio", "time_ratio", "machine_ratio", "total_ratio"):
        fields[name] = getattr(estimate, name)
    fields["simulated"] = simulated
    plain: dict[str, Any] = _finite(fields)
    return plain


def _scenario_rows(scenarios: Sequence[Scenario]) -> list[list[str]]:
    spot, on_demand = scenarios[1], scenarios[0]
    rows = [["", *(each.name for each in scenarios), "Spot / on demand"]]
    rows.append(["finished after, h", *(f"{each.wall_hours:,.2f}" for each in scenarios)])
    rows[-1].append(f"{spot.wall_hours / on_demand.wall_hours:.3f}")
    rows.append(["billed machine, h", *(f"{each.billed_hours:,.2f}" for each in scenarios)])
    rows[-1].append(f"{spot.billed_hours / on_demand.billed_hours:.3f}")
    rows.append(["preemptions", *(f"{each.preemptions:,.1f}" for each in scenarios), ""])
    rows.append(["save every, s", *(f"{each.checkpoint_interval_s:,.0f}" for each in scenarios), ""])
    for line in on_demand.lines:
        amounts = [each.lines[line] for each in scenarios]
        if any(amounts):
            rows.append([f"{line}, $", *(f"{usd:,.2f}" for usd in amounts)])
            rows[-1].append(f"{amounts[1] / amounts[0]:.3f}")
    rows.append(["all, $", *(f"{each.total_usd:,.2f}" for each in scenarios)])
    rows[-1].append(f"{spot.total_usd / on_demand.total_usd:.3f}")
    return rows


def _simulation_rows(
    simulated: Mapping[str, Mapping[str, float]], scenarios: Sequence[Scenario]
) -> list[list[str]]:
    rows = [["", "", "median", "90 % below", "mean", "closed form"]]
    expected = {each.name: {"wall_hours": each.wall_hours, "usd": each.total_usd} for each in scenarios}
    for name, summary in simulated.items():
        for key, label in (("wall_hours", "finished after, h"), ("usd", "all, $")):
            mean = f"{summary[f'{key}_mean']:,.2f} ± {summary[f'{key}_error']:,.2f}"
            quantiles = (f"{summary[f'{key}_median']:,.2f}", f"{summary[f'{key}_p90']:,.2f}")
            rows.append([name, label, *quantiles, mean, f"{expected[name][key]:,.2f}"])
    return rows


def _ratio_words(estimate: Estimate) -> str:
    half, double = estimate.sensitivity
    unverified = "" if estimate.machine.verified else ", not verified"
    words = (
        f"The GPU machine costs {estimate.machine_ratio:.2f} of its on-demand cost: the Spot price is "
        f"{estimate.price_ratio:.2f} of the on-demand price (read {estimate.machine.read}{unverified}), and "
        f"preemptions make it billed {estimate.time_ratio:.3f} times as long. With cluster and storage the "
        f"ratio is {estimate.total_ratio:.2f}. {_ORIGINAL} It depends on the Spot price of GPU type, region "
        f"and day above all, then on the preemption rate: half of it gives {_ratio(half.machine_ratio)} and "
        f"{_hours(half.wall_hours)}, twice {_ratio(double.machine_ratio)} and {_hours(double.wall_hours)}."
    )
    return textwrap.fill(words, _WIDTH)


def _ratio(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "no end"


def _hours(value: float) -> str:
    return f"{value:,.1f} h" if math.isfinite(value) else "no end"


def _columns(rows: Sequence[Sequence[str]], *, left: int) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
