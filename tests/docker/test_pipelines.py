"""Both pipelines end to end in real containers, on the bundled real speech, with storage over a network."""

import json
import os
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if not os.environ.get("VOXSRC_REQUIRE_KFP"):
    pytest.importorskip("kfp", reason="kfp is not installed (extra `pipelines`)")

from gcs_server import GcsServer
from voxsrc import storage
from voxsrc.feature_set import read_manifest
from voxsrc.feature_set.verification import verify
from voxsrc.pipelines.local import LocalRun, PipelineError, run_local

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "data" / "samples"
NUM_STEPS = 24
OVERRIDES = (
    f"num_steps={NUM_STEPS}; batch_size=16; checkpoint_interval_s=0; log_interval_steps=5; "
    "validation.interval_steps=12; onnx=none"
)
TWO_PARTS = {"parts": ["0/2", "1/2"], "num_shards": 2, "num_workers": 1}


@pytest.fixture(scope="module")
def server(docker: Any) -> Iterator[GcsServer]:
    """A storage server at the host's address in the containers' network."""
    host = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}").strip()
    before = os.environ.get("STORAGE_EMULATOR_HOST")
    with GcsServer(host) as server:
        os.environ["STORAGE_EMULATOR_HOST"] = server.url
        server.create_bucket("voxsrc-test")
        yield server
        del os.environ["STORAGE_EMULATOR_HOST"]
    if before is not None:
        os.environ["STORAGE_EMULATOR_HOST"] = before


@pytest.fixture(scope="module")
def environment(server: GcsServer) -> dict[str, str]:
    """What leads to the storage server."""
    # Threads that wait for each other by spinning take ages where cores are shared.
    return {"STORAGE_EMULATOR_HOST": server.url, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def speech(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bundled speech in the bucket as an archive, beside its lists."""
    archive = tmp_path_factory.mktemp("speech") / "samples.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(SAMPLES.glob("t*/**/*.*")):
            file.write(path, path.relative_to(SAMPLES))
    storage.upload(str(archive), "gs://voxsrc-test/speech/samples.zip")
    for name in ("train_list.txt", "test_list.txt", "test_trials.txt"):
        storage.upload(str(SAMPLES / name), f"gs://voxsrc-test/speech/{name}")
    return "gs://voxsrc-test/speech"


@pytest.fixture(scope="module")
def images(image: str, train_image: str, evaluate_image: str) -> dict[str, str]:
    return {"feature-extractor": image, "train": train_image, "evaluate": evaluate_image}


@pytest.fixture(scope="module")
def run(
    images: dict[str, str], environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., LocalRun]:
    """run_local with these images and this storage."""
    root = tmp_path_factory.mktemp("pipelines")
    root.parent.chmod(0o755)

    def run(name: str, arguments: dict[str, Any], **options: Any) -> LocalRun:
        return run_local(
            name, arguments, **{"images": images, "environment": environment, "root": root, **options}
        )

    return run


@pytest.fixture(scope="module")
def bare(
    docker: Any, images: dict[str, str], environment: dict[str, str]
) -> Callable[..., tuple[float, str]]:
    """Runs a component's command in its image without a pipeline; returns its seconds and its log."""
    variables = [f"--env={name}={value}" for name, value in environment.items()]

    def bare(component: str, *arguments: str) -> tuple[float, str]:
        began = time.monotonic()
        done = docker.attempt("run", "--rm", *variables, images[component], *arguments)
        assert done.returncode == 0, done.stderr
        return time.monotonic() - began, done.stdout + done.stderr

    return bare


def objects(uri: str) -> dict[str, tuple[int, str | None]]:
    """Generation and checksum of all that is there."""
    return {info.uri: (info.generation, info.crc32c) for info in storage.list_files(uri)}


def test_extract_pipeline_makes_two_parts_at_once_and_then_has_nothing_to_do(
    run: Callable[..., LocalRun],
    bare: Callable[..., tuple[float, str]],
    speech: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = "gs://voxsrc-test/extract/features"
    inputs = {"audio": f"{speech}/samples.zip", "utterance_list": f"{speech}/train_list.txt"}
    done = run("extract", {**inputs, "output": output, **TWO_PARTS})
    assert [step.name for step in done.steps] == [
        "plan-extraction",
        "extract-part",
        "extract-part",
        "finish-extraction",
    ]
    first, second = sorted(done.steps[1:3], key=lambda step: step.began)
    assert second.began < first.began + first.seconds, "one after the other"
    manifest = read_manifest(output)
    assert len(manifest.shards) == 2
    assert verify(output) == []
    assert done.metrics["metrics"]["num_utterances"] == manifest.num_utterances == 215

    alone = "gs://voxsrc-test/extract/alone"
    seconds, _ = bare(
        "feature-extractor",
        "run",
        f"--audio={inputs['audio']}",
        f"--list={inputs['utterance_list']}",
        f"--output={alone}",
        "--num-shards=2",
        "--num-workers=2",
    )
    assert [shard.sha256 for shard in read_manifest(alone).shards] == [
        shard.sha256 for shard in manifest.shards
    ]
    shards = {uri: seen for uri, seen in objects(output).items() if "shard" in uri}
    capsys.readouterr()
    again = run("extract", {**inputs, "output": output, **TWO_PARTS})
    assert "is finished already; nothing to plan" in capsys.readouterr().out
    assert {uri: seen for uri, seen in objects(output).items() if "shard" in uri} == shards
    with capsys.disabled():
        print(f"\n{done.table()}\nfinished already: {again.seconds:.1f} s; one bare command: {seconds:.1f} s")


def train_arguments(speech: str, output: str) -> dict[str, Any]:
    return {
        "train_audio": f"{speech}/samples.zip",
        "train_list": f"{speech}/train_list.txt",
        "train_features": f"{output}/features/train",
        "test_audio": f"{speech}/samples.zip",
        "test_list": f"{speech}/test_list.txt",
        "test_features": f"{output}/features/test",
        "trials": f"{speech}/test_trials.txt",
        "training": f"{output}/training",
        "evaluation": f"{output}/evaluation",
        "recipe": "demo",
        "overrides": OVERRIDES,
        "num_resamples": 50,
        **TWO_PARTS,
    }


class Killer(threading.Thread):
    """Kills the container of an image by SIGKILL once its training has come to a step.

    However long that takes, the training does not end meanwhile: storage answers none of its uploads.
    """

    def __init__(self, docker: Any, server: GcsServer, image: str, training: str, step: int) -> None:
        super().__init__(daemon=True)
        self.docker, self.server, self.image = docker, server, image
        self.training, self.step = training, step
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.02):
            if last_step(self.training) >= self.step:
                for method in ("POST", "PUT"):
                    self.server.fail("stall", method=method, path="/upload/", times=1000)
                ids = self.docker("ps", "--quiet", f"--filter=ancestor={self.image}").split()
                self.docker("kill", "--signal=KILL", *ids)
                self.server.clear()
                return


def last_step(training: str) -> int:
    """Steps done in the newest checkpoint; 0 without any."""
    pointer = f"{training}/checkpoints/latest.json"
    if not storage.exists(pointer):
        return 0
    return max((entry["step"] for entry in json.loads(storage.read_bytes(pointer))["checkpoints"]), default=0)


def run_bare(bare: Callable[..., tuple[float, str]], speech: str, output: str) -> dict[str, float]:
    """The commands of the train pipeline one by one; the seconds of each."""
    arguments = train_arguments(speech, output)
    seconds = {}
    for fold in ("train", "test"):
        seconds[f"extract {fold}"], _ = bare(
            "feature-extractor",
            "run",
            f"--audio={arguments['train_audio']}",
            f"--list={arguments[f'{fold}_list']}",
            f"--output={arguments[f'{fold}_features']}",
            "--num-shards=2",
            "--num-workers=2",
        )
    seconds["train"], _ = bare(
        "train",
        "--recipe=demo",
        f"--overrides={OVERRIDES}",
        f"--features={arguments['train_features']}",
        f"--output={arguments['training']}",
    )
    seconds["evaluate"], _ = bare(
        "evaluate",
        f"--model={arguments['training']}/model",
        f"--trials={arguments['trials']}",
        f"--features={arguments['test_features']}",
        f"--train-features={arguments['train_features']}",
        f"--audio={arguments['test_audio']}",
        f"--output={arguments['evaluation']}",
        "--num-resamples=50",
    )
    return seconds


def test_train_pipeline_ends_as_the_bare_commands_though_its_training_is_killed(
    docker: Any,
    server: GcsServer,
    run: Callable[..., LocalRun],
    bare: Callable[..., tuple[float, str]],
    images: dict[str, str],
    speech: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = "gs://voxsrc-test/train"
    arguments = train_arguments(speech, output)
    killer = Killer(docker, server, images["train"], arguments["training"], NUM_STEPS // 4)
    killer.start()
    try:
        done = run("train", arguments, retries=1)
    finally:
        killer.over.set()
        killer.join()
    assert [step.exit_code for step in done.steps if step.name == "train"] == [137, 0]
    assert sum(step.exit_code for step in done.steps) == 137
    assert sum(step.name.startswith("extract-part") for step in done.steps) == 4
    continued = re.findall(rf"train \| continuing after step (\d+) of {NUM_STEPS}\n", capsys.readouterr().out)
    assert len(continued) == 1
    assert NUM_STEPS // 4 <= int(continued[0]) < NUM_STEPS

    metrics = json.loads(storage.read_bytes(f"{arguments['evaluation']}/metrics.json"))
    assert done.metrics["evaluation"]["eer"] == pytest.approx(metrics["eer"])
    assert done.metrics["training"]["steps"] == NUM_STEPS
    report = storage.read_bytes(f"{arguments['evaluation']}/report.html")
    assert report.lower().startswith(b"<!doctype html>")
    assert done.files["report"].read_bytes() == report

    model = storage.read_bytes(f"{arguments['training']}/model/model.safetensors")
    before = {uri: seen for uri, seen in objects(output).items() if "/model/" in uri or "shard" in uri}
    again = run("train", arguments)
    assert "model is finished already; nothing to do" in capsys.readouterr().out
    assert {
        uri: seen for uri, seen in objects(output).items() if "/model/" in uri or "shard" in uri
    } == before
    assert again.metrics["evaluation"] == done.metrics["evaluation"]

    seconds = run_bare(bare, speech, "gs://voxsrc-test/bare")
    assert storage.read_bytes("gs://voxsrc-test/bare/training/model/model.safetensors") == model
    assert (
        json.loads(storage.read_bytes("gs://voxsrc-test/bare/evaluation/metrics.json"))["eer"]
        == metrics["eer"]
    )
    with capsys.disabled():
        (lost,) = (step.seconds for step in done.steps if step.exit_code)
        whole = sum(seconds.values())
        print(
            f"\n{done.table()}\nbare commands: {whole:.1f} s, "
            + ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
            + f"\nthe pipeline: {done.seconds - whole:+.1f} s, of which the killed training {lost:.1f} s"
            + f"\nall finished already: {again.seconds:.1f} s"
        )


def test_a_step_that_fails_ends_the_pipeline_with_its_name_and_exit_code(
    run: Callable[..., LocalRun], speech: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {"audio": f"{speech}/none.zip", "output": "gs://voxsrc-test/none", **TWO_PARTS}
    with pytest.raises(PipelineError, match="voxsrc-extract: step plan-extraction ended with 1; step plan"):
        run("extract", arguments, retries=1)
    assert "none.zip" in capsys.readouterr().out
    assert objects("gs://voxsrc-test/none") == {}


def test_local_folders_and_a_user_of_no_name(run: Callable[..., LocalRun], tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    tmp_path.parent.chmod(0o755)
    output = tmp_path / "features"
    arguments = {
        "audio": str(SAMPLES),
        "utterance_list": str(SAMPLES / "test_list.txt"),
        "output": str(output),
        **TWO_PARTS,
    }
    run("extract", arguments, mounts=[SAMPLES, tmp_path], user="12345:12345", environment={})
    assert verify(str(output)) == []
    assert (output / "manifest.json").stat().st_uid == 12345
