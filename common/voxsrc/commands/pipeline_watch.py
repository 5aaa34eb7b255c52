"""`voxsrc pipeline watch`: follows a run, and the runs that continue it."""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from voxsrc.command import EXIT_FAILED, EXIT_INTERRUPTED, warn
from voxsrc.commands import pipeline_options
from voxsrc.commands.pipeline_options import (
    add_context,
    add_endpoint,
    open_api,
    open_cluster,
    read_settings,
)
from voxsrc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from voxsrc.pipelines.kfp_api import KubeflowApi
    from voxsrc.pipelines.needs import StepNeeds
    from voxsrc.pipelines.progress import RunProgress
    from voxsrc.pipelines.resubmission import Resubmission
    from voxsrc.pipelines.run_cost import RunCost
    from voxsrc.pipelines.settings import Settings
    from voxsrc.pipelines.watching import Snapshot, Watcher

# 2 is argparse's, 130 that of Ctrl-C.
EXIT_CODES = {"SUCCEEDED": 0, "FAILED": EXIT_FAILED, "CANCELED": 3, "SKIPPED": 3}
EXIT_RUNNING = 4


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `watch`."""
    command = pipeline_options.add_command(commands, "watch", _watch, "follow a run until it ends")
    command.add_argument("run", metavar="RUN", help="its name, or its id")
    command.add_argument("--once", action="store_true", help="print the state of now, and end")
    command.add_argument("--json", action="store_true", help="print a line of JSON for each change")
    command.add_argument(
        "--cluster", action="store_true", help="ask the cluster too why attempts ended: counts preemptions"
    )
    command.add_argument(
        "--resubmit",
        action="store_true",
        help="submit a run again that failed as machines were taken away, and follow that; asks the cluster",
    )
    add_context(command)
    command.add_argument("--region", help="of the price file (default: VOXSRC_REGION)")
    command.add_argument("--prices", metavar="FILE", help="a price file of your own, local or gs://")
    add_endpoint(command)


def _watch(parsed: argparse.Namespace) -> int:
    """Follows a run until it ends: steps, attempts, time and cost so far. Ctrl-C leaves the run alone.

    Ends with 0 if the run succeeded, 1 if it failed or was terminated, 3 if it was cancelled or skipped, 4 if
    it still runs (--once).

    The cluster tries a step again that lost its machine, if gcp-cluster/install_kfp.sh has set it up; with
    other retry policies, and after 50 times, the run is FAILED (`voxsrc pipeline preflight` tells). With
    --resubmit a new run of the same name, with the same pipeline and arguments, then continues it, up to 50
    times, and is followed instead. A run in which a step failed by itself, or which somebody terminated, is
    not submitted again. Several may watch one run in this way: what one of them has submitted, all follow.

    Kubeflow's API tells how often a step was tried, not why an attempt ended: --cluster asks the Argo
    workflow in the cluster for that, as long as it is kept. A step's time includes waiting for machines, and
    each pod is charged with a whole machine, so the cost is an upper bound of the machines while steps hold
    them; steps on Spot are priced as such. CPU machines of the size that VOXSRC_CPU_MACHINE_TYPE names cost
    about as much a core as the price file's, which makes it an estimate, no bound; of another type, their
    cost is not known. It is given for this run, and for all runs of its name that the server still has: a run
    that was submitted again has cost what its predecessors did, too.
    """
    import time

    if parsed.once and parsed.resubmit:
        raise ConfigError("--resubmit follows a run until it ends, and --once does not; give one of them")
    settings = read_settings(parsed)
    api = open_api(parsed, settings)

    from voxsrc.pipelines.watching import Watcher, find_run

    asks = parsed.cluster or parsed.resubmit
    watcher = Watcher(
        api=api,
        run_id=find_run(api, parsed.run),
        price=_pricing(parsed, settings),
        attempts=open_cluster(parsed, settings).attempts if asks else None,
        warn=warn,
        pause=time.sleep,
    )
    try:
        last = _follow(watcher, api, parsed)
        num_submitted = 0
        while parsed.resubmit and last.progress.state == "FAILED":
            done = _continued(watcher, last, num_submitted)
            if done is None:
                break
            num_submitted += done.submitted
            last = _follow(watcher, api, parsed)
    except KeyboardInterrupt:
        print(
            f"no longer watched; the run goes on: {api.link(watcher.run_id)}\n"
            f"follow it again: voxsrc pipeline watch {watcher.run_id}",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED
    return EXIT_CODES.get(last.progress.state, EXIT_RUNNING)


def _follow(watcher: "Watcher", api: "KubeflowApi", parsed: argparse.Namespace) -> "Snapshot":
    """Prints what changes until the run ends, or once; gives the last snapshot."""
    from voxsrc.pipelines.report import snapshot_lines, snapshot_mapping

    shown = None
    for snapshot in watcher.follow():
        if lines := list(snapshot_lines(snapshot, shown)):
            shown = snapshot
            mapping = snapshot_mapping(snapshot, api.link(watcher.run_id))
            print(json.dumps(mapping) if parsed.json else "\n".join(lines), flush=True)
        if parsed.once or snapshot.has_ended:
            return snapshot
    raise AssertionError("the last snapshot is of a run that has ended")


def _continued(watcher: "Watcher", last: "Snapshot", num_submitted: int) -> "Resubmission | None":
    """Submits the run again if preemptions ended it, and lets `watcher` follow that; says what it did.

    Returns:
        None if there is no other run to follow.
    """
    from voxsrc.pipelines.resubmission import MOST_RESUBMISSIONS, resubmit

    name = last.progress.name
    if num_submitted == MOST_RESUBMISSIONS:
        print(f"run {name!r}: not submitted again, as it was {num_submitted} times", file=sys.stderr)
        return None
    if watcher.attempts is None:
        return None
    done = resubmit(
        watcher.api,
        watcher.run_id,
        watcher.attempts,
        seen=last.attempts or (),
        # Ctrl-C from here on names the run that goes on
        made=watcher.turn_to,
        warn=watcher.warn,
        pause=watcher.pause,
    )
    if done.run_id is None:
        print(f"run {name!r}: not submitted again: {done.reason}", file=sys.stderr, flush=True)
        return None
    words = f" lost its machine ({done.reason}); submitted again" if done.submitted else f": {done.reason}"
    print(f"run {name!r}{words}: {watcher.api.link(done.run_id)}", file=sys.stderr, flush=True)
    watcher.turn_to(done.run_id)
    return done


def _pricing(
    parsed: argparse.Namespace, settings: "Settings"
) -> "Callable[[RunProgress, list[StepNeeds], datetime], RunCost]":
    """Prices a run; wrong flags are refused now, a region without prices shows as an unknown cost.

    That a price is an estimate, or a machine without one, is said with the first cost that has such a step.
    """
    from voxsrc.cost.prices import load_prices
    from voxsrc.pipelines.machines import Machines
    from voxsrc.pipelines.pools import read_pools
    from voxsrc.pipelines.run_cost import NobodyToAsk, cost_so_far

    prices = load_prices(parsed.prices)
    if parsed.region is not None:
        prices.region(parsed.region)
    said = set[str]()

    def price(progress: "RunProgress", needs: "list[StepNeeds]", now: "datetime") -> "RunCost":
        region = settings.require("VOXSRC_REGION", parsed.region, "--region")
        table = read_pools()
        pools = Machines(table, NobodyToAsk()).as_made(table, [], settings)
        cost = cost_so_far(progress, needs, pools, prices, region, now)
        for machine, priced_as in {(step.machine, step.priced_as) for step in cost.steps if step.priced_as}:
            if machine not in said:
                said.add(machine)
                warn(
                    f"{prices.name} has no price of {machine}: what steps on it cost is estimated by that "
                    f"of {priced_as}"
                )
        return cost

    return price
