"""The containers of a local run: started, followed to their end, and judged by what they leave."""

import codecs
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from voxsrc import storage
from voxsrc.errors import ConfigError, StorageError

# Tells a container which step it is; kfp gives it nothing but a command.
STEP_VARIABLE = "VOXSRC_STEP"
# What has to be below --output after a step: of each tuple one file. A step that is not named here, such as
# extract-part, is judged by the next one.
_PRODUCTS: Mapping[str, Sequence[Sequence[str]]] = {
    "feature-extractor": (("manifest.json",),),
    "plan-extraction": (("plan/plan.json", "manifest.json"),),
    "finish-extraction": (("manifest.json",), ("utterances.parquet",)),
    "train": (("model/model.yaml",), ("model/model.safetensors",)),
    "evaluate": (("metrics.json",), ("report.html",), ("scores.txt",)),
}
_LINE_END = re.compile(r"[\r\n]+")


@dataclass(frozen=True)
class LocalStep:
    """A container that has ended.

    Attributes:
        name: Of the step; the second of a kind has -2.
        image: That it ran.
        exit_code: 137 for SIGKILL, 0 if all went well.
        began: By the monotonic clock.
        seconds: That it ran, from its creation to its end.
    """

    name: str
    image: str
    exit_code: int
    began: float
    seconds: float


class Containers:
    """Runs containers in place of kfp.local's `run_docker_container`; may be called from threads.

    Attributes:
        steps: Containers that have ended.
        problems: What went wrong, a line for each failure.
    """

    def __init__(self) -> None:
        self.steps: list[LocalStep] = []
        self.problems: list[str] = []

    def run(
        self, client: Any, image: str, command: list[str], volumes: Mapping[str, Any], **options: Any
    ) -> int:
        """Runs a container to its end, printing its log; returns 0 if it left what it has to."""
        step = options["environment"][STEP_VARIABLE]
        say(step, f"runs {image}")
        began = time.monotonic()
        try:
            exit_code = _follow(client, image, command, volumes=volumes, **options)
        except OSError as error:  # which all errors of Docker's client are
            self.problems.append(f"step {step} could not run: {error}")
            say(step, f"could not run: {error}")
            return 1
        seconds = time.monotonic() - began
        self.steps.append(LocalStep(step, image, exit_code, began, seconds))
        found = [f"ended with {exit_code}"] if exit_code else missing_products(step, command)
        self.problems += [f"step {step} {problem}" for problem in found]
        say(step, f"{'; '.join(found) or 'done'} after {seconds:.1f} s")
        return exit_code or len(found)


def _follow(client: Any, image: str, command: list[str], **options: Any) -> int:
    """Runs a container to its end, printing its log; returns its exit code."""
    # In a pod the command replaces the image's entry point.
    container = client.containers.run(image, command[1:], entrypoint=command[:1], detach=True, **options)
    try:
        for line in log_lines(container.logs(stream=True)):
            say(options["environment"][STEP_VARIABLE], line)
        return int(container.wait()["StatusCode"])
    finally:
        # Ends it, too, when the run is interrupted.
        container.remove(force=True)


def say(step: str, text: str) -> None:
    """Prints a line of a step at once, whole: others may print theirs."""
    sys.stdout.write(f"{step} | {text}\n")
    sys.stdout.flush()


def log_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a log that comes in pieces; of a progress bar each state is one."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest = ""
    for chunk in chunks:
        *lines, rest = _LINE_END.split(rest + decoder.decode(chunk))
        yield from filter(None, lines)
    if rest:
        yield rest


def missing_products(step: str, command: Sequence[str]) -> list[str]:
    """What a step that ended with 0 should have written and has not, in words."""
    kind = step.rstrip("0123456789").removesuffix("-") if step[-1].isdigit() else step
    missing = []
    if kind in _PRODUCTS:
        output = command[command.index("--output") + 1]
        for names in _PRODUCTS[kind]:
            if not any(_exists(storage.join(output, name)) for name in names):
                missing.append(f"ended with 0, but {storage.join(output, names[0])} is not there")
    if "--executor-input" in command:
        outputs = json.loads(command[command.index("--executor-input") + 1])["outputs"]
        if not Path(outputs["outputFile"]).is_file():
            missing.append(f"ended with 0, but wrote no executor output {outputs['outputFile']}")
    return missing


def _exists(uri: str) -> bool:
    try:
        return storage.exists(uri)
    except StorageError as error:
        say("error", f"cannot look for {uri}: {error}")
        return False


class Engine:
    """The Docker engine of this machine; a context manager.

    Raises:
        ConfigError: No engine answers.
    """

    def __init__(self) -> None:
        import docker  # type: ignore[import-untyped]

        try:
            self._client = docker.from_env()
            self._client.ping()
        except docker.errors.DockerException as error:
            raise ConfigError(
                f"no Docker engine answers ({error}); start it, or set DOCKER_HOST to where it listens"
            ) from error
        self._mount: Callable[..., Any] = docker.types.Mount
        self._not_found: type[Exception] = docker.errors.ImageNotFound

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connection."""
        self._client.close()

    def has_image(self, image: str) -> bool:
        """Whether the image is here, under that very name."""
        try:
            self._client.images.get(image)
        except self._not_found:
            return False
        return True

    def runner(
        self,
        *,
        mounts: Sequence[Path],
        environment: Mapping[str, str],
        network: str | None,
        user: str | None,
    ) -> Any:
        """kfp's DockerRunner, whose containers may do no more than the pods of a cluster."""
        from kfp.local import DockerRunner

        options: dict[str, Any] = {"environment": dict(environment)}
        if network is not None:
            options["network_mode"] = network
        if user is not None:
            options["user"] = user
        return DockerRunner(
            mounts=[self._bind(folder) for folder in mounts],
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            shm_size="1g",
            **options,
        )

    def _bind(self, folder: Path) -> Any:
        folder = folder.absolute()
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder} to mount; make it first")
        return self._mount(str(folder), str(folder), "bind", read_only=not os.access(folder, os.W_OK))
