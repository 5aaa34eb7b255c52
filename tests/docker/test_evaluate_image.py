"""The evaluator's image: what is in it, and whole evaluations in it of the bundled real speech."""

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from voxsrc.corpus import read_trials
from voxsrc.lease import LEASE_NAME

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "data" / "samples"
MAX_BYTES = 1.3e9
JOB = ("--model=/model", "--features=/features/test", "--trials=/data/test_trials.txt", "--output=/out/run")
# Threads that wait for each other by spinning take ages where cores are shared.
ONE_THREAD = "--env=OMP_NUM_THREADS=1"


@pytest.fixture
def container(
    confined_evaluate: Callable[..., Any], features: Path, trained: Path, tmp_path: Path
) -> Callable[[str], Any]:
    """The image with model, features and audio, and a folder of this name to write to."""

    def confined(name: str) -> Any:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)  # the container's user is nobody here
        return confined_evaluate(
            {"/model:ro": trained / "model", "/features:ro": features, "/data:ro": SAMPLES, "/out": folder}
        )

    return confined


def results(run: Path) -> dict[str, bytes]:
    """All that an evaluation leaves but its lease and kept embeddings, which lie as they were made."""
    files = (path for path in run.iterdir() if path.is_file() and path.name != LEASE_NAME)
    return {path.name: path.read_bytes() for path in files}


def test_the_image_is_small(docker: Any, evaluate_image: str, built_evaluate: dict[str, str]) -> None:
    size = int(docker("image", "inspect", "--format", "{{.Size}}", evaluate_image))
    assert size < MAX_BYTES
    assert built_evaluate["size"] == f"{size // 1_000_000} MB"


def test_the_image_says_what_it_is(docker: Any, evaluate_image: str, built_evaluate: dict[str, str]) -> None:
    (description,) = json.loads(docker("image", "inspect", evaluate_image))
    config = description["Config"]
    environment = dict(variable.split("=", 1) for variable in config["Env"])
    assert built_evaluate["tag"] == f"{environment['VOXSRC_COMMIT']}-cpu"
    assert config["Labels"]["org.opencontainers.image.title"] == "voxsrc-evaluate"
    version = config["Labels"]["org.opencontainers.image.version"]
    assert docker("run", "--rm", evaluate_image, "--version") == f"voxsrc {version}\n"
    assert config["User"] == "10001:10001"


def test_the_image_has_no_cuda_no_trainer_no_installer_and_no_compiler(
    container: Callable[[str], Any],
) -> None:
    names = "['nvidia', 'triton', 'trainer', 'onnx', 'tensorboard', 'kfp', 'pip', 'hatchling', 'pytest']"
    tools = "['pip', 'gcc', 'cc', 'strip', 'git', 'curl']"
    found = container("out").python(
        f"import importlib.util, shutil, torch\nprint([n for n in {names} if importlib.util.find_spec(n)], "
        f"[t for t in {tools} if shutil.which(t)], torch.version.cuda)"
    )
    assert found.strip() == "[] [] None"


def test_killed_in_the_middle_it_ends_with_the_same_bytes(
    docker: Any, container: Callable[[str], Any], tmp_path: Path
) -> None:
    whole = docker.attempt(*container("whole").command(*JOB, "--audio=/data", options=(ONE_THREAD,)))
    assert whole.returncode == 0, whole.stderr
    assert "cache" not in whole.stderr, "a library found no folder for its cache"
    assert re.search(r"EER: \d+\.\d\d\s% \(95 % interval over speakers", whole.stdout)
    assert "report: /out/run/report.html" in whole.stdout
    undisturbed = results(tmp_path / "whole" / "run")
    assert {"scores.txt", "metrics.json", "report.html", "det.png", "scores.png"} <= undisturbed.keys()
    assert b"data:audio/flac;base64," in undisturbed["report.html"]

    out = tmp_path / "out" / "run"
    container("out").kill_once(
        lambda: any(out.glob("embeddings/*/part-*")), *JOB, "--audio=/data", options=(ONE_THREAD,)
    )
    assert not (out / "report.html").exists()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("embeddings/*/*")}

    again = docker.attempt(*container("out").command(*JOB, "--audio=/data", options=(ONE_THREAD,)))
    assert again.returncode == 0, again.stderr
    assert results(out) == undisturbed
    assert {path: path.stat().st_mtime_ns for path in out.glob("embeddings/*/*")} == kept


def test_straight_from_audio_and_without_labels(container: Callable[[str], Any], tmp_path: Path) -> None:
    trials = read_trials(str(SAMPLES / "test_trials.txt"))
    folder = tmp_path / "out"
    made = container("out")
    pairs = zip(trials.enrollments[:20], trials.tests[:20], strict=True)
    (folder / "blind.txt").write_text("".join(f"{first} {second}\n" for first, second in pairs))
    printed = made.run(
        "--model=/model",
        "--audio=/data",
        "--trials=/out/blind.txt",
        "--output=/out/run",
        options=(ONE_THREAD,),
    )
    assert "submission: /out/run/submission.zip" in printed
    with zipfile.ZipFile(folder / "run" / "submission.zip") as archive:
        assert len(archive.read("scores.txt").splitlines()) == 20


def test_the_component_as_kubeflow_runs_it(container: Callable[[str], Any], tmp_path: Path) -> None:
    spec = yaml.safe_load((ROOT / "components/evaluate/evaluate_component.yaml").read_text())
    definition = spec["components"]["comp-evaluate"]
    values = {
        name: each.get("defaultValue") for name, each in definition["inputDefinitions"]["parameters"].items()
    }
    values |= {
        "model": "/model",
        "features": "/features/test",
        "train_features": "/features/train",
        "scoring": "as-norm",
        "trials": "/data/test_trials.txt",
        "output": "/out/run",
        "num_resamples": 50,
    }
    artifacts = {
        name: {"artifacts": [{"name": name, "uri": f"/out/{name}", "type": each["artifactType"]}]}
        for name, each in definition["outputDefinitions"]["artifacts"].items()
    }
    executor_input = {
        "inputs": {"parameterValues": values},
        "outputs": {"artifacts": artifacts, "outputFile": "/out/kfp/output_metadata.json"},
    }

    def substituted(argument: str) -> str:
        if argument == "{{$}}":
            return json.dumps(executor_input)
        if parameter := re.fullmatch(r"\{\{\$\.inputs\.parameters\['(\w+)'\]\}\}", argument):
            return str(values[parameter[1]])
        if artifact := re.fullmatch(r"\{\{\$\.outputs\.artifacts\['(\w+)'\]\.path\}\}", argument):
            return f"/out/{artifact[1]}"
        return argument

    (executor,) = spec["deploymentSpec"]["executors"].values()
    assert executor["container"]["command"] == ["evaluator"]
    printed = container("out").run(*map(substituted, executor["container"]["args"]), options=(ONE_THREAD,))
    assert "EER: " in printed

    out = tmp_path / "out"
    output = json.loads((out / "kfp/output_metadata.json").read_text())["artifacts"]
    metrics, roc, report = (output[name]["artifacts"][0]["metadata"] for name in ("metrics", "roc", "report"))
    assert metrics["eer"] == json.loads((out / "run/metrics.json").read_text())["eer"]
    assert metrics["eer_low"] <= metrics["eer"] <= metrics["eer_high"]
    assert {"confidenceThreshold", "falsePositiveRate", "recall"} == roc["confidenceMetrics"][0].keys()
    assert report == {}
    assert (out / "report").read_bytes() == (out / "run/report.html").read_bytes()


def test_an_error_is_one_line_and_an_exit_code(docker: Any, container: Callable[[str], Any]) -> None:
    done = docker.attempt(*container("out").command(*JOB, "--device=cuda"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
