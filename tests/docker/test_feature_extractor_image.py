"""The feature extractor's image: what is in it, and the whole job in it on the bundled real speech."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "data" / "samples"
TRAIN = ("--audio", "/data", "--list", "/data/train_list.txt")
MAX_BYTES = 700e6


@pytest.fixture
def container(confined: Callable[..., Any], tmp_path: Path) -> Any:
    return confined({"/data:ro": SAMPLES, "/out": writable(tmp_path / "out")})


def writable(folder: Path) -> Path:
    """A folder in which the container's user, who is nobody here, may write."""
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shards_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Each finished shard's record, with what changes if it is written again."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("shard-*.json")}


def voxsrc(*arguments: str | Path) -> str:
    """Runs the host's own `voxsrc`."""
    command = [sys.executable, "-m", "voxsrc.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_image_is_small(docker: Any, image: str, built: dict[str, str]) -> None:
    size = int(docker("image", "inspect", "--format", "{{.Size}}", image))
    assert size < MAX_BYTES
    assert built["size"] == f"{size // 1_000_000} MB"


def test_the_image_says_what_it_is(docker: Any, image: str, built: dict[str, str]) -> None:
    (description,) = json.loads(docker("image", "inspect", image))
    config = description["Config"]
    environment = dict(variable.split("=", 1) for variable in config["Env"])
    revision = config["Labels"]["org.opencontainers.image.revision"]
    assert built["id"] == description["Id"]
    assert built["tag"] == revision == environment["VOXSRC_COMMIT"]
    assert config["Labels"]["org.opencontainers.image.title"] == "voxsrc-feature-extractor"
    assert f"voxsrc {config['Labels']['org.opencontainers.image.version']}" in docker(
        "run", "--rm", image, "--version"
    )
    assert config["User"] == "10001:10001"
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "1"


def test_the_image_has_no_torch_no_installer_and_no_compiler(container: Any) -> None:
    names = "['torch', 'torchaudio', 'kfp', 'pip', 'setuptools', 'hatchling', 'pytest']"
    tools = "['pip', 'gcc', 'cc', 'strip', 'git', 'curl']"
    found = container.python(
        f"import importlib.util, shutil\nprint([n for n in {names} if importlib.util.find_spec(n)], "
        f"[t for t in {tools} if shutil.which(t)])"
    )
    assert found.strip() == "[] []"


def test_the_whole_job_with_no_rights(container: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    container.run("run", *TRAIN, "--output", "/out", "--num-workers", "2")
    assert not (container.mounts["/data:ro"] / "plan").exists()
    listed = (SAMPLES / "train_list.txt").read_text().splitlines()

    inside = json.loads(container.run("features", "info", "/out", "--json", options=("--entrypoint=voxsrc",)))
    container.run("features", "verify", "/out", options=("--entrypoint=voxsrc",))
    voxsrc("features", "verify", out)
    outside = json.loads(voxsrc("features", "info", out, "--json"))
    assert inside == {**outside, **{key: inside[key] for key in inside if inside[key] == "/out"}}
    assert inside["num_utterances"] == len(listed)
    assert inside["num_speakers"] == len({line.split()[0] for line in listed})
    assert inside["percent_of_pcm16"] <= 7.5

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert "nothing to do" in container.run("run", *TRAIN, "--output", "/out")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_the_component_as_kubeflow_runs_it(confined: Callable[..., Any], tmp_path: Path) -> None:
    mounts = {"/data:ro": SAMPLES, "/out": writable(tmp_path / "out"), "/kfp": writable(tmp_path / "kfp")}
    spec = yaml.safe_load(
        (ROOT / "components/feature-extractor/feature_extractor_component.yaml").read_text()
    )
    inputs = spec["components"]["comp-feature-extractor"]["inputDefinitions"]["parameters"]
    values = {name: definition.get("defaultValue") for name, definition in inputs.items()}
    values |= {"audio": "/data", "utterance_list": "/data/test_list.txt", "output": "/out", "num_workers": 2}
    artifact = {"name": "metrics", "uri": "/kfp/metrics", "type": {"schemaTitle": "system.Metrics"}}
    executor_input = {
        "inputs": {"parameterValues": values},
        "outputs": {
            "artifacts": {"metrics": {"artifacts": [artifact]}},
            "outputFile": "/kfp/output_metadata.json",
        },
    }

    def substituted(argument: str) -> str:
        if argument == "{{$}}":
            return json.dumps(executor_input)
        parameter = re.fullmatch(r"\{\{\$\.inputs\.parameters\['(\w+)'\]\}\}", argument)
        if parameter is None:
            return argument
        value = values[parameter[1]]
        # the launcher writes whole numbers without a decimal point
        return f"{value:g}" if isinstance(value, float) else str(value)

    (executor,) = spec["deploymentSpec"]["executors"].values()
    assert executor["container"]["command"] == ["feature-extractor"]
    confined(mounts).run(*map(substituted, executor["container"]["args"]))

    output = json.loads((tmp_path / "kfp" / "output_metadata.json").read_text())
    (metrics,) = output["artifacts"]["metrics"]["artifacts"]
    assert metrics["uri"] == "/kfp/metrics"
    assert metrics["metadata"]["num_utterances"] == len((SAMPLES / "test_list.txt").read_text().splitlines())


def test_killed_in_the_middle_it_continues_to_the_same_bytes(
    docker: Any, confined: Callable[..., Any], tmp_path: Path
) -> None:
    out, whole = writable(tmp_path / "out"), writable(tmp_path / "whole")
    mounts: dict[str, Path] = {"/data:ro": SAMPLES}
    job = ("run", *TRAIN, "--num-shards", "12", "--num-workers", "1", "--output", "/out")
    confined({**mounts, "/out": whole}).run(*job)

    confined({**mounts, "/out": out}).kill_once(lambda: len(shards_of(out)) >= 3, *job)
    finished = shards_of(out)
    assert 3 <= len(finished) < 12
    assert not (out / "manifest.json").exists()

    confined({**mounts, "/out": out}).run(*job)
    assert {shard: written for shard, written in shards_of(out).items() if shard in finished} == finished
    assert bytes_of(out) == bytes_of(whole)
    voxsrc("features", "verify", out)


def test_the_image_builds_from_a_folder_of_wheels_without_a_network(
    docker: Any, build_image: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    wheels = tmp_path / "wheels"
    requirements = [
        f"--requirement={ROOT}/env/requirements-{name}.txt" for name in ("feature-extractor", "build")
    ]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
    ]
    subprocess.run([*pip, f"--dest={wheels}", *requirements], check=True, capture_output=True)
    offline = build_image("--wheels", str(wheels), "--tag", "offline")
    assert "voxsrc" in docker("run", "--rm", f"{offline['image']}:offline", "--version")
    docker("image", "rm", f"{offline['image']}:offline")
    assert "voxsrc-wheels" not in docker("image", "ls", "--format", "{{.Repository}}")
    shutil.rmtree(wheels)
