"""The trainer's image: what is in it, and whole trainings in it on the bundled real speech.

The CPU variant: what differs in the other one, torch and CUDA's libraries, needs a GPU to be tried.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "data" / "samples"
MAX_BYTES = 1.3e9
NUM_STEPS = 24
RECIPE = (
    "--recipe=demo",
    f"--set=num_steps={NUM_STEPS}",
    "--set=batch_size=16",
    "--set=checkpoint_interval_s=0",
    "--set=log_interval_steps=5",
    "--set=validation.interval_steps=10",
)


@pytest.fixture
def container(confined_train: Callable[..., Any], features: Path, tmp_path: Path) -> Callable[[str], Any]:
    """The image with the features, and a folder of this name to write to."""

    def confined(name: str) -> Any:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)  # the container's user is nobody here
        return confined_train({"/features:ro": features, "/data:ro": SAMPLES, "/out": folder})

    return confined


def test_the_image_is_small(docker: Any, train_image: str, built_train: dict[str, str]) -> None:
    size = int(docker("image", "inspect", "--format", "{{.Size}}", train_image))
    assert size < MAX_BYTES
    assert built_train["size"] == f"{size // 1_000_000} MB"


def test_the_image_says_what_it_is(docker: Any, train_image: str, built_train: dict[str, str]) -> None:
    (description,) = json.loads(docker("image", "inspect", train_image))
    config = description["Config"]
    environment = dict(variable.split("=", 1) for variable in config["Env"])
    assert built_train["tag"] == f"{environment['VOXSRC_COMMIT']}-cpu"
    assert config["Labels"]["org.opencontainers.image.revision"] == environment["VOXSRC_COMMIT"]
    assert config["Labels"]["org.opencontainers.image.title"] == "voxsrc-train"
    version = config["Labels"]["org.opencontainers.image.version"]
    assert docker("run", "--rm", train_image, "--version") == f"voxsrc {version}\n"
    assert (
        docker("image", "inspect", "--format", "{{.Id}}", f"voxsrc-train:{version}-cpu").strip()
        == (built_train["id"])
    )
    assert config["User"] == "10001:10001"


def test_the_image_has_no_cuda_no_installer_and_no_compiler(container: Callable[[str], Any]) -> None:
    names = "['nvidia', 'triton', 'torchaudio', 'av', 'kfp', 'pip', 'hatchling', 'pytest']"
    tools = "['pip', 'gcc', 'cc', 'strip', 'git', 'curl']"
    found = container("out").python(
        f"import importlib.util, shutil, torch\nprint([n for n in {names} if importlib.util.find_spec(n)], "
        f"[t for t in {tools} if shutil.which(t)], torch.version.cuda)"
    )
    assert found.strip() == "[] [] None"


def test_killed_in_the_middle_it_continues_to_the_same_model(
    docker: Any, container: Callable[[str], Any], tmp_path: Path
) -> None:
    job = (*RECIPE, "--features=/features/train", "--output=/out/run")
    # Threads that wait for each other by spinning take ages where cores are shared.
    one_thread = "--env=OMP_NUM_THREADS=1"
    whole = docker.attempt(*container("whole").command(*job, options=(one_thread,)))
    assert whole.returncode == 0, whole.stderr
    assert "cache" not in whole.stderr, "a library found no folder for its cache"

    out = tmp_path / "out" / "run"
    container("out").kill_once(lambda: last_step(out) >= NUM_STEPS // 4, *job, options=(one_thread,))
    killed_after = last_step(out)
    assert NUM_STEPS // 4 <= killed_after < NUM_STEPS
    assert not (out / "model").exists()

    again = docker.attempt(*container("out").command(*job, options=(one_thread,)))
    assert again.returncode == 0, again.stderr
    assert f"continuing after step {killed_after} of {NUM_STEPS}" in again.stderr
    assert last_step(out) == NUM_STEPS
    for path in ("model/model.safetensors", "model/model.onnx", "history.jsonl"):
        assert (out / path).read_bytes() == (tmp_path / "whole" / "run" / path).read_bytes(), path
    assert (out / "training.png").read_bytes().startswith(b"\x89PNG")
    # one of each life
    assert len(list((out / "tensorboard").iterdir())) == 2

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert "nothing to do" in container("out").run(*job)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def last_step(run: Path) -> int:
    """Steps done in the newest checkpoint; 0 without any."""
    try:
        pointer = json.loads((run / "checkpoints" / "latest.json").read_text())
    except FileNotFoundError:
        return 0
    return max((entry["step"] for entry in pointer["checkpoints"]), default=0)


def test_the_component_as_kubeflow_runs_it_with_two_processes(
    container: Callable[[str], Any], confined_train: Callable[..., Any], tmp_path: Path
) -> None:
    spec = yaml.safe_load((ROOT / "components/train/train_component.yaml").read_text())
    inputs = spec["components"]["comp-train"]["inputDefinitions"]["parameters"]
    values = {name: definition.get("defaultValue") for name, definition in inputs.items()}
    values |= {
        "features": "/features/train",
        "output": "/out/run",
        "recipe": "demo",
        "overrides": "num_steps=4; batch_size=16; augment.babble.snr_db=[4, 15]",
        "num_processes": 2,
    }
    artifact = {"name": "metrics", "uri": "/out/metrics", "type": {"schemaTitle": "system.Metrics"}}
    executor_input = {
        "inputs": {"parameterValues": values},
        "outputs": {
            "artifacts": {"metrics": {"artifacts": [artifact]}},
            "outputFile": "/out/kfp/output_metadata.json",
        },
    }

    def substituted(argument: str) -> str:
        if argument == "{{$}}":
            return json.dumps(executor_input)
        parameter = re.fullmatch(r"\{\{\$\.inputs\.parameters\['(\w+)'\]\}\}", argument)
        return str(values[parameter[1]]) if parameter else argument

    (executor,) = spec["deploymentSpec"]["executors"].values()
    assert executor["container"]["command"] == ["python", "-m", "trainer.launch"]
    entry = (*executor["container"]["command"][1:], *map(substituted, executor["container"]["args"]))
    printed = container("out").run(*entry, options=("--entrypoint=python",))
    assert "4 steps" in printed

    output = json.loads((tmp_path / "out/kfp/output_metadata.json").read_text())
    (metrics,) = output["artifacts"]["metrics"]["artifacts"]
    assert metrics["uri"] == "/out/metrics"
    assert metrics["metadata"]["steps"] == 4
    assert 0 <= metrics["metadata"]["validation_eer"] <= 1
    model = yaml.safe_load((tmp_path / "out/run/model/model.yaml").read_text())
    assert model["recipe"]["augment"]["babble"]["snr_db"] == [4, 15]


def test_an_error_is_one_line_and_an_exit_code(docker: Any, container: Callable[[str], Any]) -> None:
    done = docker.attempt(
        *container("out").command(
            "--recipe=demo", "--features=/features/train", "--output=/out/run", "--set=device=cuda"
        )
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: device is 'cuda', but torch ")
    assert "sees no GPU; take cpu" in done.stderr
    assert len(done.stderr.splitlines()) == 1
