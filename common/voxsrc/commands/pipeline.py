"""`voxsrc pipeline`: compile, run here, check the cluster, submit and watch the Kubeflow pipelines."""

import argparse
import json
import sys
from pathlib import Path

from voxsrc.command import EXIT_FAILED, warn
from voxsrc.commands import pipeline_watch
from voxsrc.commands.pipeline_options import (
    add_command,
    add_context,
    add_endpoint,
    add_package,
    add_settings,
    open_api,
    open_cluster,
    read_package,
    read_pairs,
    read_settings,
)


def add_commands(groups: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `pipeline` with its subcommands."""
    group = groups.add_parser("pipeline", help="compile, check, submit and watch the Kubeflow pipelines")
    commands = group.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_compile(commands)
    _add_run_local(commands)
    _add_preflight(commands)
    _add_submit(commands)
    pipeline_watch.add_command(commands)


def _add_compile(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = add_command(commands, "compile", _compile, "write the committed packages")
    command.add_argument("--check", action="store_true", help="write nothing; fail if a package differs")


def _add_run_local(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = add_command(commands, "run-local", _run_local, "run a pipeline in containers of this machine")
    add_package(command)
    command.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="COMPONENT=IMAGE",
        help="local image of feature-extractor, train or evaluate, instead of the arguments' one",
    )
    command.add_argument(
        "--mount", action="append", default=[], type=Path, metavar="FOLDER", help="that the containers see"
    )
    command.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="variable of the containers"
    )
    command.add_argument("--network", help="Docker's network for the containers")
    command.add_argument("--user", metavar="UID:GID", help="that the containers run as")
    command.add_argument("--retries", type=int, default=0, metavar="N", help="of a failed step (default 0)")
    command.add_argument(
        "--root", type=Path, default=Path("build/pipelines"), help="for small results (default %(default)s)"
    )


def _add_preflight(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = add_command(
        commands, "preflight", _preflight, "check that the cluster has what a pipeline asks for"
    )
    add_package(command)
    add_settings(command)
    add_context(command)
    command.add_argument("--json", action="store_true", help="print JSON")


def _add_submit(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = add_command(commands, "submit", _submit, "start a run, or continue the one of this name")
    add_package(command)
    command.add_argument("--run-name", required=True, help="the same name continues a run that failed")
    command.add_argument("--experiment", help="to list the run under (default: VOXSRC_KFP_EXPERIMENT)")
    command.add_argument("--again", action="store_true", help="also if the run of this name succeeded")
    command.add_argument(
        "--allow-changes", action="store_true", help="continue with other arguments than before"
    )
    command.add_argument(
        "--no-input-check", action="store_true", help="submit without looking whether the inputs exist"
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    add_endpoint(command)


def _compile(parsed: argparse.Namespace) -> int:
    """Compiles components and pipelines to the packages in the repository."""
    from voxsrc.pipelines.compile import compile_all

    return compile_all(only_check=parsed.check)


def _run_local(parsed: argparse.Namespace) -> None:
    """Runs a compiled pipeline in containers of this machine's Docker engine."""
    from voxsrc.pipelines.local import run_local

    _, _, arguments = read_package(parsed)
    done = run_local(
        parsed.pipeline,
        arguments,
        images=read_pairs("--image", parsed.image),
        mounts=parsed.mount,
        environment=read_pairs("--env", parsed.env),
        network=parsed.network,
        user=parsed.user,
        retries=parsed.retries,
        root=parsed.root,
    )
    print(done.table())
    for name, values in done.metrics.items():
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in values.items()))
    for name, path in done.files.items():
        print(f"{name}: {path}")


def _preflight(parsed: argparse.Namespace) -> int:
    """Checks that the cluster has what a pipeline asks for; ends with 1 if something is missing.

    Checks Kubeflow Pipelines, the pods' service account, node pools with the right labels, taints and GPUs,
    the project's quota and the images. What gcloud would tell is "unknown" where it is not installed; a
    "warning" is what the run may have to wait for, and does not end with 1.
    """
    from voxsrc.pipelines.needs import step_needs
    from voxsrc.pipelines.pools import read_pools

    settings = read_settings(parsed)
    _, package, arguments = read_package(parsed)
    needs = step_needs(package, arguments)
    cluster = open_cluster(parsed, settings)

    from voxsrc.pipelines.cluster import Project
    from voxsrc.pipelines.preflight import preflight
    from voxsrc.pipelines.report import check_lines

    checks = preflight(needs, read_pools(), cluster, Project(settings), settings)
    missing = sum(check.state == "missing" for check in checks)
    if parsed.json:
        print(json.dumps([vars(check) for check in checks], indent=1, ensure_ascii=False))
    else:
        print("\n".join(check_lines(checks)))
        warnings = sum(check.state == "warning" for check in checks)
        also = f", {warnings} {'warning' if warnings == 1 else 'warnings'}" if warnings else ""
        print((f"{missing} of {len(checks)} missing" if missing else "nothing is missing") + also)
    return EXIT_FAILED if missing else 0


def _submit(parsed: argparse.Namespace) -> None:
    """Submits a pipeline to Kubeflow Pipelines, or continues the run of this name.

    A name stands for one piece of work. If its newest run failed or was terminated, a new one with the same
    arguments continues it: finished feature sets, checkpoints and models lie at the URIs that the arguments
    name. While a run of the name is under way nothing is submitted; nor after it succeeded, without --again.
    Another pipeline or other arguments than the newest run's are refused, without --allow-changes, or --again
    after a success. Of runs that are submitted at once the first stays, by the server's times in whole
    seconds, then by id; the others are deleted. For that, the runs of the name are looked at again 5 s after
    a new one was made.

    Before that, the inputs that the arguments of our pipelines name are looked up in their buckets, with your
    own credentials: audio, lists, trials, tables, a recipe's file, and the feature sets and the model that a
    recipe or its overrides name; so are the buckets that it writes to. All that are missing are named, and
    nothing is submitted; of what you may not read, the run's account perhaps may, so that is a warning.
    Feature sets that the run makes need not exist, nor their audio once they are finished. A local path is
    refused, the cluster's pods do not have it; so are an image that names no registry, and an output at the
    place of another or of an input.
    """
    import time

    from voxsrc.pipelines.images import check_images
    from voxsrc.pipelines.input_check import require_inputs, require_registries
    from voxsrc.pipelines.needs import step_needs

    settings = read_settings(parsed)
    path, package, arguments = read_package(parsed, run_name=parsed.run_name)
    needs = step_needs(package, arguments)
    require_registries(package, needs)
    for warning in check_images(needs):
        warn(warning)
    experiment = settings.require("VOXSRC_KFP_EXPERIMENT", parsed.experiment, "--experiment")
    api = open_api(parsed, settings)

    from voxsrc.pipelines.submission import submit

    def check_inputs() -> None:
        require_inputs(package, arguments, warn)

    made = list[str]()
    try:
        done = submit(
            api,
            path,
            package,
            arguments,
            run_name=parsed.run_name,
            experiment=experiment,
            # the server's own default otherwise, which may have another name
            service_account=settings.values.get("VOXSRC_KUBERNETES_SERVICE_ACCOUNT"),
            again=parsed.again,
            allow_changes=parsed.allow_changes,
            before=None if parsed.no_input_check else check_inputs,
            made=made.append,
            pause=time.sleep,
        )
    except KeyboardInterrupt:
        for run_id in made:
            print(
                f"run {parsed.run_name!r} was submitted, and goes on: {api.link(run_id)}. Whether another of "
                "this name is under way was not looked at",
                file=sys.stderr,
            )
        raise
    if parsed.json:
        print(json.dumps(vars(done), indent=1, ensure_ascii=False))
        return
    words = {
        "started": "submitted",
        "continued": f"continues run {done.previous_run_id}",
        "repeated": f"repeats run {done.previous_run_id}, which succeeded",
        "already_succeeded": "has succeeded already; nothing was submitted (--again repeats it)",
    }
    print(f"run {parsed.run_name!r} {words[done.action]}: {done.link}")
    for change in done.changes:
        print(f"  changed: {change}")
    if done.action != "already_succeeded":
        print(f"follow it: voxsrc pipeline watch --resubmit {parsed.run_name}")
