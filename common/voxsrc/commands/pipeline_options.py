"""Options that several subcommands of `voxsrc pipeline` have, and what they stand for."""

import argparse
import inspect
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxsrc.command import add_debug_flag
from voxsrc.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from voxsrc.pipelines.cluster import Cluster
    from voxsrc.pipelines.kfp_api import KubeflowApi
    from voxsrc.pipelines.package import Package
    from voxsrc.pipelines.settings import Settings


def add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    function: "Callable[[argparse.Namespace], int | None]",
    text: str,
) -> argparse.ArgumentParser:
    """Adds a subcommand, which is described by its function's docstring."""
    command = commands.add_parser(
        name,
        help=text,
        description=inspect.getdoc(function),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(function=function)
    add_debug_flag(command)
    return command


def add_package(command: argparse.ArgumentParser) -> None:
    """Adds the pipeline and its parameters, which `read_package` reads."""
    command.add_argument("pipeline", metavar="extract|train|FILE", help="a pipeline of ours, or a package")
    command.add_argument(
        "--set", action="append", default=[], dest="sets", metavar="NAME=VALUE", help="a pipeline parameter"
    )
    command.add_argument(
        "--arguments",
        action="append",
        default=[],
        metavar="FILE",
        help="YAML file of parameters, repeatable, each parameter in one of the files; --set wins over them",
    )


def add_settings(command: argparse.ArgumentParser) -> None:
    """Adds the settings file and what overrides it, which `read_settings` reads."""
    command.add_argument(
        "--cloud-env", metavar="FILE", help="settings (default: $VOXSRC_CLOUD_ENV, else env/cloud.env)"
    )
    command.add_argument("--namespace", help="of Kubeflow Pipelines (default: VOXSRC_KFP_NAMESPACE)")


def add_endpoint(command: argparse.ArgumentParser) -> None:
    """Adds the endpoint, which `open_api` reads, and the settings."""
    command.add_argument("--endpoint", metavar="URL", help="of its API (default: VOXSRC_KFP_ENDPOINT)")
    add_settings(command)


def add_context(command: argparse.ArgumentParser) -> None:
    """Adds the cluster's context, which `open_cluster` reads."""
    command.add_argument("--context", help="of the kubeconfig (default: that of VOXSRC_CLUSTER)")


def read_settings(parsed: argparse.Namespace) -> "Settings":
    """The settings, with the flag that overrides one; raises ConfigError."""
    from voxsrc.pipelines.settings import load_settings

    settings = load_settings(parsed.cloud_env)
    if parsed.namespace is None:
        return settings
    return replace(settings, values={**settings.values, "VOXSRC_KFP_NAMESPACE": parsed.namespace})


def read_package(
    parsed: argparse.Namespace, run_name: str | None = None
) -> "tuple[Path, Package, dict[str, Any]]":
    """The package's file, the package and its arguments, typed and complete; raises ConfigError."""
    from voxsrc.pipelines.package import load_package, package_path, read_arguments

    path = package_path(parsed.pipeline)
    package = load_package(path)
    return path, package, read_arguments(package, parsed.sets, parsed.arguments, run_name=run_name)


def open_api(parsed: argparse.Namespace, settings: "Settings") -> "KubeflowApi":
    """The API at the endpoint; raises ConfigError without one, KubeflowError if it does not answer."""
    endpoint = settings.require("VOXSRC_KFP_ENDPOINT", parsed.endpoint, "--endpoint")
    from voxsrc.pipelines.kfp_api import KubeflowApi

    return KubeflowApi(endpoint, settings.get("VOXSRC_KFP_NAMESPACE") or "kubeflow")


def open_cluster(parsed: argparse.Namespace, settings: "Settings") -> "Cluster":
    """The cluster, as kubectl would reach it; raises ClusterError."""
    from voxsrc.pipelines.cluster import connect

    return connect(settings, parsed.context)


def read_pairs(flag: str, items: list[str]) -> dict[str, str]:
    """`NAME=VALUE` items as a mapping; raises ConfigError."""
    pairs = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not (name and equals):
            raise ConfigError(f"{flag} {item!r}: expected NAME=VALUE")
        pairs[name] = value
    return pairs
