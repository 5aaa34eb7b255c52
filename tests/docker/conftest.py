"""The Docker engine and the images under test; a machine without an engine skips these tests.

VOXSRC_REQUIRE_DOCKER=1 turns the skip into a failure (CI). DOCKER names the client.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "data" / "samples"


@dataclass(frozen=True)
class Docker:
    """A client whose engine answers."""

    client: str

    def __call__(self, *arguments: str | Path) -> str:
        """Runs the client; returns what it printed. A failure shows both streams."""
        done = self.attempt(*arguments)
        assert done.returncode == 0, f"docker {' '.join(map(str, arguments))}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def attempt(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs the client; the caller judges the exit code."""
        return subprocess.run(
            [self.client, *map(str, arguments)], capture_output=True, text=True, check=False
        )


@dataclass(frozen=True)
class Container:
    """How the tests run an image: as a stranger would who trusts it with nothing."""

    docker: Docker
    image: str
    mounts: Mapping[str, Path]

    def command(self, *arguments: str | Path, options: tuple[str, ...] = ()) -> list[str]:
        """The `docker run` of the entry point with these arguments."""
        volumes = [f"--volume={path}:{target}" for target, path in self.mounts.items()]
        confined = ["--read-only", "--tmpfs=/tmp", "--user=10001", "--network=none", "--cap-drop=ALL"]
        return ["run", "--rm", *confined, *volumes, *options, self.image, *map(str, arguments)]

    def run(self, *arguments: str | Path, options: tuple[str, ...] = ()) -> str:
        """Runs the entry point to its end; returns what it printed on stdout."""
        return self.docker(*self.command(*arguments, options=options))

    def kill_once(
        self, reached: Callable[[], bool], *arguments: str | Path, options: tuple[str, ...] = ()
    ) -> None:
        """Runs the entry point and kills it by SIGKILL as soon as it has reached something.

        It has half a core, so that the middle lasts long enough to be hit.
        """
        name = f"voxsrc-test-kill-{uuid.uuid4().hex}"
        command = self.command(*arguments, options=(*options, f"--name={name}", "--cpus=0.5"))
        process = subprocess.Popen(
            [self.docker.client, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while not reached() and process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.02)
        killed = self.docker.attempt("kill", "--signal=KILL", name)
        _, errors = process.communicate()
        assert process.returncode == 137, f"{killed.stderr}{errors}"

    def python(self, code: str) -> str:
        """Runs Python code in the image instead of the entry point."""
        return self.docker(*self.command("-c", code, options=("--entrypoint=python",)))


@pytest.fixture(scope="session")
def docker() -> Docker:
    client = shutil.which(os.environ.get("DOCKER", "docker"))
    reason = "no Docker client"
    if client:
        answer = subprocess.run([client, "version"], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return Docker(client)
        reason = f"no Docker engine answers: {answer.stderr.strip()}"
    if os.environ.get("VOXSRC_REQUIRE_DOCKER"):
        pytest.fail(f"{reason}; tests/docker/ci.sh installs and starts one")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def build(docker: Docker) -> Callable[..., dict[str, str]]:
    """Builds a component's image; returns what build_image.sh printed, by its first word."""

    def build(component: str, *arguments: str | Path) -> dict[str, str]:
        done = subprocess.run(
            [ROOT / "components" / component / "build_image.sh", *arguments],
            env={**os.environ, "DOCKER": docker.client},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())

    return build


@pytest.fixture(scope="session")
def build_image(build: Callable[..., dict[str, str]]) -> Callable[..., dict[str, str]]:
    """Builds the feature extractor's image."""
    return partial(build, "feature-extractor")


@pytest.fixture(scope="session")
def built(build_image: Callable[..., dict[str, str]]) -> dict[str, str]:
    return build_image()


@pytest.fixture(scope="session")
def image(built: dict[str, str]) -> str:
    return f"{built['image']}:{built['tag']}"


@pytest.fixture(scope="session")
def confined(docker: Docker, image: str) -> Callable[[Mapping[str, Path]], Container]:
    """The image with these folders mounted: path in the container → folder here."""
    return lambda mounts: Container(docker, image, mounts)


@pytest.fixture(scope="session")
def build_without_cuda(
    build: Callable[..., dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, str]]:
    """Builds a component's image with a CPU build of torch, from wheels alone.

    VOXSRC_CPU_TORCH names the build as a requirement; pip's own configuration says where it is found.
    """

    def build_without_cuda(component: str) -> dict[str, str]:
        wheels = tmp_path_factory.mktemp("wheels")
        done = subprocess.run(
            [ROOT / "common/containers/pytorch/cpu_wheels.sh", component, wheels],
            env={**os.environ, "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        built = build(component, "--variant", "cpu", "--wheels", wheels)
        shutil.rmtree(wheels)
        return built

    return build_without_cuda


@pytest.fixture(scope="session")
def built_train(build_without_cuda: Callable[[str], dict[str, str]]) -> dict[str, str]:
    return build_without_cuda("train")


@pytest.fixture(scope="session")
def train_image(built_train: dict[str, str]) -> str:
    return f"{built_train['image']}:{built_train['tag']}"


@pytest.fixture(scope="session")
def confined_train(docker: Docker, train_image: str) -> Callable[[Mapping[str, Path]], Container]:
    """The trainer's image with these folders mounted."""
    return lambda mounts: Container(docker, train_image, mounts)


@pytest.fixture(scope="session")
def built_evaluate(build_without_cuda: Callable[[str], dict[str, str]]) -> dict[str, str]:
    return build_without_cuda("evaluate")


@pytest.fixture(scope="session")
def evaluate_image(built_evaluate: dict[str, str]) -> str:
    return f"{built_evaluate['image']}:{built_evaluate['tag']}"


@pytest.fixture(scope="session")
def confined_evaluate(docker: Docker, evaluate_image: str) -> Callable[[Mapping[str, Path]], Container]:
    """The evaluator's image with these folders mounted."""
    return lambda mounts: Container(docker, evaluate_image, mounts)


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled speech as the feature sets `train` and `test`, made by this machine's own extractor."""
    folder = tmp_path_factory.mktemp("features")
    folder.chmod(0o755)
    for fold in ("train", "test"):
        where = ["--audio", SAMPLES, "--list", SAMPLES / f"{fold}_list.txt", "--output", folder / fold]
        command = [sys.executable, "-m", "feature_extractor", "run", *map(str, where)]
        subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def trained(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model`, trained for some steps by this machine's own trainer."""
    folder = tmp_path_factory.mktemp("trained")
    folder.chmod(0o755)
    what = ["--recipe=demo", "--set=num_steps=24", "--set=batch_size=16", "--set=onnx=none"]
    where = [f"--features={features / 'train'}", f"--output={folder}"]
    subprocess.run([sys.executable, "-m", "trainer", *what, *where], check=True, capture_output=True)
    return folder
