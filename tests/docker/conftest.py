"""The Docker engine and the images under test; a machine without an engine skips these tests.

VOXSRC_REQUIRE_DOCKER=1 turns the skip into a failure (CI). DOCKER names the client.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


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
def built_train(
    build: Callable[..., dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The trainer's image with a CPU build of torch, made from wheels alone.

    VOXSRC_CPU_TORCH names the build as a requirement; pip's own configuration says where it is found.
    """
    folder = tmp_path_factory.mktemp("wheels")
    without_cuda = ROOT / "common/containers/pytorch/without_cuda.sh"
    requirements = folder / "requirements.txt"
    with requirements.open("w") as file:
        subprocess.run([without_cuda, ROOT / "env/requirements-train.txt"], stdout=file, check=True)
    wheels = folder / "wheels"
    pinned = ["--require-hashes", f"--requirement={requirements}"]
    build_system = ["--require-hashes", f"--requirement={ROOT}/env/requirements-build.txt"]
    for wanted in (pinned, build_system, [os.environ.get("VOXSRC_CPU_TORCH", "torch==2.13.0+cpu")]):
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run(
            [*download, f"--dest={wheels}", *wanted], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    built = build("train", "--variant", "cpu", "--wheels", wheels)
    shutil.rmtree(folder)
    return built


@pytest.fixture(scope="session")
def train_image(built_train: dict[str, str]) -> str:
    return f"{built_train['image']}:{built_train['tag']}"


@pytest.fixture(scope="session")
def confined_train(docker: Docker, train_image: str) -> Callable[[Mapping[str, Path]], Container]:
    """The trainer's image with these folders mounted."""
    return lambda mounts: Container(docker, train_image, mounts)
