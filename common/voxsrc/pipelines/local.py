"""Runs a compiled pipeline on this machine: each step in a container, by `kfp.local` and its DockerRunner.

kfp runs the DAG, loops (two iterations at a time) and retries; here are the differences to a cluster that it
leaves open. Images that are pipeline parameters are filled in, a step's command replaces its image's entry
point, requests for resources and waiting before retries are dropped, and a step has succeeded when its
container ended with 0 and what it must have written is there: kfp itself reports success when a container was
removed before it asked how it ended, and loses the artifacts of a program that writes no executor output.
"""

import copy
import logging
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from voxsrc.config import suggestion
from voxsrc.errors import ConfigError, VoxsrcError
from voxsrc.pipelines.containers import STEP_VARIABLE, Containers, Engine, LocalStep
from voxsrc.pipelines.images import COMPONENTS
from voxsrc.pipelines.package import Package, load_package, package_path

_PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['pipelinechannel--(\w+)'\]\}\}")
_OUR_IMAGE = re.compile(r"voxsrc-([a-z-]+)[:@]")


class PipelineError(VoxsrcError):
    """A pipeline did not end well."""


@dataclass(frozen=True)
class LocalRun:
    """A pipeline that ended well.

    Attributes:
        metrics: Of each output of type Metrics, by the output's name.
        files: Content of each other output artifact.
        steps: Containers in the order in which they ended, failed ones too.
        seconds: From begin to end.
    """

    metrics: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, Path]
    steps: Sequence[LocalStep]
    seconds: float

    @property
    def overhead_s(self) -> float:
        """Seconds in which no container ran."""
        busy, until = 0.0, 0.0
        for step in sorted(self.steps, key=lambda step: step.began):
            ended = step.began + step.seconds
            busy += max(0.0, ended - max(until, step.began))
            until = max(until, ended)
        return self.seconds - busy

    def table(self) -> str:
        """A line for each container, and one for the whole."""
        lines = [
            f"{step.name:<24} {step.seconds:8.1f} s{f'  exit code {step.exit_code}' * bool(step.exit_code)}"
            for step in self.steps
        ]
        whole = f"{'all':<24} {self.seconds:8.1f} s  of which {self.overhead_s:.1f} s between containers"
        return "\n".join([*lines, whole])


def run_local(
    package: str | Path,
    arguments: Mapping[str, Any],
    *,
    images: Mapping[str, str] | None = None,
    mounts: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    network: str | None = None,
    user: str | None = None,
    retries: int = 0,
    root: Path = Path("build/pipelines"),
) -> LocalRun:
    """Runs a compiled pipeline in containers of this machine's Docker engine.

    Args:
        package: `extract`, `train`, or the file of a package.
        arguments: Of the pipeline, typed.
        images: Component (feature-extractor, train, evaluate) → local image to take instead of the one that
            the arguments name.
        mounts: Folders that the containers see, under the same path.
        environment: Variables of all containers, such as STORAGE_EMULATOR_HOST.
        network: Docker's network for them; None is Docker's default.
        user: That they run as, UID:GID; None is the caller, or the images' own user if that is root.
        retries: How often a failed step is run again at once, as a preempted pod would be.
        root: Folder for the small output artifacts.

    Raises:
        ConfigError: No engine answers, an image or a folder is missing, or `images` names another component.
        PipelineError: A step did not succeed.
    """
    loaded = load_package(package_path(str(package)))
    with Engine() as engine:
        spec = _localised(loaded, arguments, engine, images or {}, retries)
        runner = engine.runner(
            mounts=mounts, environment=environment or {}, network=network, user=user or _own_user()
        )
        containers = Containers()
        began = time.monotonic()
        with _kfp_local(runner, containers, _writable(root)):
            outputs = _run(spec, arguments, containers, loaded.name)
        seconds = time.monotonic() - began
    metrics, files = {}, {}
    for name, artifact in outputs.items():
        if artifact.schema_title == "system.Metrics":
            metrics[name] = dict(artifact.metadata)
        else:
            files[name] = Path(artifact.uri)
    return LocalRun(metrics, files, tuple(containers.steps), seconds)


def _run(
    spec: Mapping[str, Any], arguments: Mapping[str, Any], containers: Containers, name: str
) -> dict[str, Any]:
    import yaml
    from kfp import components

    try:
        task = components.load_component_from_text(yaml.safe_dump(spec))(**arguments)
    except TypeError as error:
        raise ConfigError(f"pipeline {name}: {error}") from error
    except (RuntimeError, ValueError) as error:
        # kfp names the task alone, in colours.
        reasons = "; ".join(containers.problems) or str(error)
        raise PipelineError(
            f"pipeline {name}: {reasons}; its log is above. Run the same again when that is mended: what is "
            "finished is not made again"
        ) from error
    return dict(task.outputs)


@contextmanager
def _kfp_local(runner: Any, containers: Containers, root: Path) -> Iterator[None]:
    """kfp.local set up, with our way to run a container and to tell of it."""
    from kfp import local
    from kfp.local import docker_task_handler, logging_utils

    with (
        _replaced(docker_task_handler, "run_docker_container", containers.run),
        # It replaces the built-in print, which two threads leave replaced.
        _replaced(logging_utils, "indented_print", nullcontext),
        _replaced(logging_utils, "print_horizontal_line", lambda: None),
        warnings.catch_warnings(),
        # kfp's own it would leave behind after a step that failed.
        TemporaryDirectory(prefix="kfp-workspace-") as workspace,
    ):
        # that names such as a step's title have no effect here
        warnings.filterwarnings("ignore", message=".*no effect in the current local runner")
        level = logging.root.manager.disable
        # It logs whole artifacts.
        logging.disable(logging.INFO)
        try:
            local.init(runner, pipeline_root=str(root), workspace_root=workspace)
            yield
        finally:
            logging.disable(level)


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    own = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, own)


def _localised(
    package: Package, arguments: Mapping[str, Any], engine: Engine, images: Mapping[str, str], retries: int
) -> dict[str, Any]:
    """The pipeline as kfp.local can run it: images filled in, each container told its step, no waiting."""
    spec: dict[str, Any] = copy.deepcopy(dict(package.spec))
    values = package.effective(arguments)
    executors = spec["deploymentSpec"]["executors"]
    components = {_component(executor["container"]["image"]) for executor in executors.values()} - {""}
    # One list of images serves every pipeline: what this one does not run is not looked at.
    if unknown := sorted(images.keys() - components - COMPONENTS):
        reasons = (f"{key}={images[key]}: {suggestion(key, components)}" for key in unknown)
        raise ConfigError(f"no such component in pipeline {package.name}: {'; '.join(reasons)}")
    for label, executor in executors.items():
        container = executor["container"]
        given = images.get(_component(container["image"]))
        container["image"] = _local_image(given or _filled(container["image"], values), engine)
        container.pop("resources", None)
        container["env"] = [
            *container.get("env", ()),
            {"name": STEP_VARIABLE, "value": label.removeprefix("exec-")},
        ]
    dags = [spec["root"], *(component for component in spec["components"].values() if "dag" in component)]
    for task in (task for dag in dags for task in dag["dag"]["tasks"].values()):
        if task.pop("retryPolicy", None) is not None and retries:
            task["retryPolicy"] = {
                "maxRetryCount": retries,
                "backoffDuration": "0s",
                "backoffFactor": 1.0,
                "backoffMaxDuration": "0s",
            }
    return spec


def _filled(image: str, values: Mapping[str, Any]) -> str:
    """The image of a placeholder: parameters of images keep their names in nested pipelines."""
    match = _PLACEHOLDER.fullmatch(image)
    if match is None:
        return image
    if match[1] not in values:
        raise ConfigError(f"image {image}: the pipeline has no parameter {match[1]}; name both alike")
    return str(values[match[1]])


def _local_image(image: str, engine: Engine) -> str:
    """The image of this machine to take: the one named, else its CPU variant."""
    for candidate in (image, f"{image}-cpu"):
        if engine.has_image(candidate):
            return candidate
    ours = _OUR_IMAGE.search(image)
    remedy = f"build it with components/{ours[1]}/build_image.sh" if ours else "build or pull it"
    raise ConfigError(f"image {image} is not on this machine, expected that very tag; {remedy}")


def _component(image: str) -> str:
    """The component of an image in a package, by its parameter (train_image) or its name; else empty."""
    if match := _PLACEHOLDER.fullmatch(image):
        return match[1].removesuffix("_image").replace("_", "-")
    ours = _OUR_IMAGE.search(image)
    return ours[1] if ours else ""


def _own_user() -> str | None:
    return f"{os.getuid()}:{os.getgid()}" if os.getuid() else None


def _writable(root: Path) -> Path:
    """The folder, made if it is missing, in which the containers' user may write."""
    root = root.absolute()
    root.mkdir(parents=True, exist_ok=True)
    if not os.getuid():
        root.chmod(0o777)
    return root
