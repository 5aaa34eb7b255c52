"""`voxsrc cost`: Spot against on demand, cost and finish time of a run."""

import argparse
import json
from typing import TYPE_CHECKING

from voxsrc.command import add_debug_flag
from voxsrc.errors import ConfigError

if TYPE_CHECKING:
    from voxsrc.cost.estimate import Request
    from voxsrc.cost.measured import MeasuredRun
    from voxsrc.cost.prices import Prices

_GPU = "L4"
_REGION = "us-central1"

# Numbers that have a default, which `voxsrc.cost.assumptions` explains, and their help.
_ASSUMED = {
    "--mean-hours-between-preemptions": ("M", "of one machine; inf for never"),
    "--save-seconds": ("S", "of one checkpoint, copy and write"),
    "--restore-seconds": ("R", "that a restart takes more than a start: to find and load a checkpoint"),
    "--start-seconds": ("B", "from the machine's first billed second to the first step"),
    "--wait-seconds": ("W", "until Spot capacity is found, not billed"),
    "--fallback-probability": ("P", "that a start finds no Spot machine, for the mixed scenario"),
    "--extract-core-hours": ("H", "of feature extraction, in vCPUs; not part of the finish time"),
    "--storage-gb": ("GB", "features and checkpoints in the bucket, while the run lasts"),
    "--boot-disk-gb": ("GB", "of the GPU machine"),
    "--pool-machines": ("N", "machines of the default pool, which always run"),
    "--pool-disk-gb": ("GB", "of each of them"),
}


def add_commands(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `cost`."""
    command = groups.add_parser(
        "cost", help="cost and finish time of a run, Spot against on demand", description=_cost.__doc__
    )
    command.add_argument(
        "--gpu", help=f"such as T4, L4, V100, A100-40, A100-80, H100 (default: the run's, else {_GPU})"
    )
    command.add_argument("--gpus", type=int, metavar="N", help="in one machine (default: the run's, else 1)")
    command.add_argument("--region", help=f"of the price file (default: VOXSRC_REGION, else {_REGION})")
    command.add_argument(
        "--from-run",
        metavar="URI",
        help="the --output of a training, local or gs://: its own times of saves, restores and starts "
        "instead of assumed ones, its GPU, and its work if neither --work-hours nor --recipe is given",
    )
    work = command.add_mutually_exclusive_group()
    work.add_argument("--work-hours", type=float, metavar="H", help="of computing on this machine")
    work.add_argument("--recipe", help="a recipe's name or YAML file, instead of --work-hours")
    command.add_argument("--utterances", type=int, metavar="N", help="of the feature set, with --recipe")
    command.add_argument("--speakers", type=int, metavar="N", help="likewise, if the recipe needs it")
    command.add_argument(
        "--crops-per-second", type=float, metavar="X", help="of all GPUs together, with --recipe"
    )
    for flag, (metavar, text) in _ASSUMED.items():
        command.add_argument(flag, type=float, metavar=metavar, help=text)
    command.add_argument(
        "--checkpoint-interval", default="auto", metavar="S", help="seconds of work between saves, or auto"
    )
    command.add_argument("--prices", metavar="FILE", help="a price file of your own, local or gs://")
    command.add_argument("--simulate", type=int, metavar="N", help="simulate N runs, show their spread")
    command.add_argument("--seed", type=int, default=0, help="of the simulation (default 0)")
    shape = command.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print JSON")
    shape.add_argument(
        "--markdown", action="store_true", help="print a table for a README, of all GPU types without --gpu"
    )
    command.set_defaults(function=_cost)
    add_debug_flag(command)


def _cost(parsed: argparse.Namespace) -> None:
    """Estimates what a training costs and when it is finished, on Spot machines and on demand.

    Says what each number rests on. Prices come from a file, with their dates: Spot prices change. How long
    saves, restores and starts take is assumed, unless --from-run names a training, which records it.
    """
    from voxsrc.cost.estimate import Estimator, compare_gpus
    from voxsrc.cost.measured import measured_run
    from voxsrc.cost.prices import load_prices
    from voxsrc.cost.report import as_mapping, as_markdown, as_text

    prices = load_prices(parsed.prices)
    run = measured_run(parsed.from_run) if parsed.from_run else None
    request, names_gpu = _request(parsed, prices, run)
    if parsed.markdown:
        if parsed.simulate is not None:
            raise ConfigError("--simulate: not with --markdown, whose table has no place for it")
        one = [Estimator(request, prices).estimate()] if names_gpu else compare_gpus(request, prices)
        print(as_markdown(one))
        return
    estimator = Estimator(request, prices)
    estimate = estimator.estimate()
    simulated = None
    if parsed.simulate is not None:
        simulated = estimator.simulate(parsed.simulate, seed=parsed.seed)
    if parsed.json:
        print(json.dumps(as_mapping(estimate, simulated), indent=1, ensure_ascii=False, allow_nan=False))
        return
    if run is not None:
        print(run.describe())
    print(as_text(estimate, simulated, parsed.simulate or 0))


def _request(
    parsed: argparse.Namespace, prices: "Prices", run: "MeasuredRun | None"
) -> tuple["Request", bool]:
    """What is asked, and whether flag or run say for which GPU."""
    from voxsrc.cost.estimate import Request
    from voxsrc.cost.measured import gpu_type_of

    region = _region(parsed.region, prices)
    runs_on = gpu_type_of(run.device, prices.region(region).gpus) if run is not None else None
    gpu = prices.gpu_type(region, parsed.gpu) if parsed.gpu else runs_on
    num_gpus = parsed.gpus
    if num_gpus is None:
        num_gpus = run.num_processes if run is not None and runs_on is not None else 1
    if parsed.work_hours is None and parsed.recipe is None:
        work_hours = _recorded_hours(run, gpu if gpu == runs_on else None, num_gpus)
    else:
        work_hours = _work_hours(parsed)
    keys = [flag.removeprefix("--").replace("-", "_") for flag in _ASSUMED]
    request = Request(
        region=region,
        gpu=gpu or _GPU,
        num_gpus=num_gpus,
        work_hours=work_hours,
        checkpoint_interval_s=_checkpoint_interval_s(parsed.checkpoint_interval),
        given={key: getattr(parsed, key) for key in keys},
        measured=run.values if run is not None else {},
    )
    return request, gpu is not None


def _region(flag: str | None, prices: "Prices") -> str:
    """The region of `--region`, else of the settings, as `pipeline watch` has it, else the default."""
    from voxsrc.pipelines.settings import load_settings

    if flag is not None:
        return flag
    setting = load_settings().get("VOXSRC_REGION")
    if setting is not None:
        try:
            prices.region(setting)
        except ConfigError as error:
            raise ConfigError(f"VOXSRC_REGION: {error}, or another region with --region") from error
    return setting or _REGION


def _recorded_hours(run: "MeasuredRun | None", gpu: str | None, num_gpus: int) -> float:
    """The run's own work, if it was done on the machine that is asked about; `gpu` is None if it was not."""
    if run is None:
        raise ConfigError("no work is given; expected --work-hours, --recipe or --from-run")
    if gpu is None or num_gpus != run.num_processes:
        raise ConfigError(
            f"the run was timed on {run.machine}, which says nothing of the hours on the machine that is "
            "asked about: give --work-hours or --recipe, too"
        )
    if run.work_hours is None:
        raise ConfigError("the run has timed no step so far: give --work-hours or --recipe, too")
    return run.work_hours


def _work_hours(parsed: argparse.Namespace) -> float:
    from voxsrc.cost.workload import work_hours

    with_recipe = {
        "--utterances": parsed.utterances,
        "--crops-per-second": parsed.crops_per_second,
        "--speakers": parsed.speakers,
    }
    if parsed.recipe is None:
        needless = [flag for flag, value in with_recipe.items() if value is not None]
        if needless:
            raise ConfigError(f"{', '.join(needless)}: only with --recipe, not with --work-hours")
        hours: float = parsed.work_hours
        return hours
    missing = [flag for flag in ("--utterances", "--crops-per-second") if with_recipe[flag] is None]
    if missing:
        raise ConfigError(f"--recipe needs {' and '.join(missing)}, too")
    return work_hours(
        parsed.recipe,
        num_utterances=parsed.utterances,
        crops_per_second=parsed.crops_per_second,
        num_speakers=parsed.speakers,
    )


def _checkpoint_interval_s(text: str) -> float | None:
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"--checkpoint-interval is {text!r}; expected seconds, or auto") from error
