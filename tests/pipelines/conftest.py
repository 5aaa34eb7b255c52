"""Fixtures of the pipelines' tests: servers as Kubeflow Pipelines' and Kubernetes', packages, commands."""

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import pipeline_runs
from cluster_objects import Gcloud, complete_cluster
from kfp_server import KfpServer, task_details
from kubernetes_server import KubernetesServer
from pipeline_runs import Clock, retried
from voxsrc.command import run_command
from voxsrc.commands import pipeline
from voxsrc.errors import VoxsrcError

if TYPE_CHECKING:
    from voxsrc.pipelines.kfp_api import KubeflowApi
    from voxsrc.pipelines.package import Package
    from voxsrc.pipelines.watching import Watcher


@pytest.fixture
def cloud_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty settings file in use, and an environment without settings and kfp's own context."""
    kfp = pytest.importorskip("kfp")
    for name in os.environ:
        if name.startswith(("VOXSRC_", "KF_PIPELINES_")):
            monkeypatch.delenv(name)
    file = tmp_path / "cloud.env"
    file.touch()
    monkeypatch.setenv("VOXSRC_CLOUD_ENV", str(file))
    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "kfp" / "context.json"))
    return file


@pytest.fixture
def kfp_server(cloud_env: Path) -> Iterator[KfpServer]:
    """A server; the settings name it as the endpoint."""
    with KfpServer() as server:
        cloud_env.write_text(f"VOXSRC_KFP_ENDPOINT={server.url}\n")
        yield server


@pytest.fixture
def kubernetes_server() -> Iterator[KubernetesServer]:
    """A cluster that lacks nothing, until the test takes something away."""
    with complete_cluster() as server:
        yield server


@pytest.fixture
def gcloud() -> Gcloud:
    """What gcloud answers of the same cluster's project."""
    return Gcloud()


@pytest.fixture
def train() -> "Package":
    """The train pipeline."""
    from voxsrc.pipelines.package import load_package, package_path

    return load_package(package_path("train"))


@pytest.fixture
def voxsrc_pipeline(cloud_env: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs `voxsrc pipeline ARGUMENTS`, which waits for nothing; gives its exit code."""
    monkeypatch.setattr("time.sleep", lambda _: None)

    def run(*arguments: str) -> int:
        parser = argparse.ArgumentParser()
        pipeline.add_commands(parser.add_subparsers(dest="group", required=True))
        parsed = parser.parse_args(["pipeline", *arguments])
        return run_command(parsed.function, parsed)

    return run


@pytest.fixture
def interrupted_by_user(voxsrc_pipeline: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody presses Ctrl-C in the first wait of `voxsrc_pipeline`."""

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)


@pytest.fixture(params=["as compiled", "under Kubeflow's defaults"])
def both_shapes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs whose nodes are as our packages compile, and as the retry policy for all templates makes them."""
    if request.param != "as compiled":
        monkeypatch.setattr(pipeline_runs, "task_details", lambda nodes: task_details(retried(nodes)))


@pytest.fixture
def api(kfp_server: KfpServer) -> "KubeflowApi":
    """The API at the server."""
    from voxsrc.pipelines.kfp_api import KubeflowApi

    return KubeflowApi(kfp_server.url, "kubeflow")


@pytest.fixture
def watch(kfp_server: KfpServer, api: "KubeflowApi") -> "tuple[str, Watcher, Clock, list[str]]":
    """A run's id, its watcher, the watcher's clock and its warnings; without prices."""
    from voxsrc.pipelines.watching import Watcher

    def no_price(*_: Any) -> Any:
        raise VoxsrcError("no prices here")

    identity = kfp_server.add_run("r", "RUNNING")
    clock, warnings = Clock(), list[str]()
    watcher = Watcher(
        api=api,
        run_id=identity,
        price=no_price,
        attempts=None,
        warn=warnings.append,
        pause=clock.pause,
        clock=lambda: clock.now,
    )
    return identity, watcher, clock, warnings
