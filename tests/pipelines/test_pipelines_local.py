"""run_local without an engine: kfp runs the compiled pipelines, and a client pretends to run containers."""

import inspect
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

if not os.environ.get("VOXSRC_REQUIRE_KFP"):
    pytest.importorskip("kfp.kubernetes", reason="kfp is not installed (extra `pipelines`)")
    pytest.importorskip("docker", reason="the docker package is not installed (extra `pipelines`)")

from kfp.local import docker_task_handler, logging_utils

import docker
from evaluator.cli import build_parser as evaluator_parser
from feature_extractor.cli import build_parser as extractor_parser
from trainer import cli as trainer_cli
from trainer import launch
from voxsrc import storage
from voxsrc.errors import ConfigError
from voxsrc.kfp_output import write_executor_output
from voxsrc.pipelines import local
from voxsrc.pipelines.containers import LocalStep, log_lines
from voxsrc.pipelines.images import COMPONENTS
from voxsrc.pipelines.local import LocalRun, PipelineError, run_local
from voxsrc.pipelines.package import load_package, package_path

IMAGES = {f"voxsrc-{name}:0.1.0" for name in ("feature-extractor", "train", "evaluate")}
# What each step writes below its --output.
WRITTEN = {
    "plan-extraction": ["plan/plan.json"],
    "extract-part": [],
    "finish-extraction": ["manifest.json", "utterances.parquet"],
    "train": ["model/model.yaml", "model/model.safetensors"],
    "evaluate": ["metrics.json", "report.html", "scores.txt"],
}


class FakeDocker:
    """In place of Docker's client; by default every container does all that its step has to.

    Attributes:
        images_here: Names of the images of this machine.
        ends: Step → exit codes of its containers in order, where not 0.
        forgets: Step → names of files, or "executor output", that it does not write.
        ran: The options of each container, with its whole command.
        removed: Containers that were removed.
    """

    def __init__(self) -> None:
        self.images_here = set(IMAGES)
        self.ends: dict[str, list[int]] = {}
        self.forgets: dict[str, set[str]] = {}
        self.ran: list[dict[str, Any]] = []
        self.removed = 0
        self.while_running: Callable[[str], None] = lambda step: None
        self.containers = SimpleNamespace(run=self._run)
        self.images = SimpleNamespace(get=self._get_image)

    def info(self) -> dict[str, Any]:
        return {}

    def ping(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def _get_image(self, name: str) -> None:
        if name not in self.images_here:
            raise docker.errors.ImageNotFound(name)

    def _run(self, image: str, command: list[str], *, entrypoint: list[str], **options: Any) -> Any:
        step = options["environment"]["VOXSRC_STEP"]
        self.ran.append({"step": step, "image": image, "command": [*entrypoint, *command], **options})
        codes = self.ends.get(step, [])
        code = codes.pop(0) if codes else 0

        def logs(stream: bool) -> Iterator[bytes]:
            yield f"{step} says hel".encode()
            self.while_running(step)
            yield "lo: ×".encode()[:-1]
            yield "×\n".encode()[1:]

        def wait() -> dict[str, int]:
            if code == 0:
                self._write(step.removesuffix("-2"), command)
            return {"StatusCode": code}

        def remove(force: bool) -> None:
            self.removed += 1

        return SimpleNamespace(logs=logs, wait=wait, remove=remove)

    def _write(self, step: str, command: Sequence[str]) -> None:
        forgotten = self.forgets.get(step, set())
        output = command[command.index("--output") + 1]
        for name in set(WRITTEN[step]) - forgotten:
            storage.write_bytes(storage.join(output, name), b"content")
        if "--executor-input" not in command or "executor output" in forgotten:
            return
        executor_input = command[command.index("--executor-input") + 1]
        artifacts: Mapping[str, Any] = json.loads(executor_input)["outputs"]["artifacts"]
        others = {name: {} for name in artifacts.keys() - {"metrics"}}
        write_executor_output(executor_input, metrics={"metrics": {"value": 0.25}}, artifacts=others)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    fake = FakeDocker()
    monkeypatch.setattr(docker, "from_env", lambda: fake)
    return fake


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    names = ("train_audio", "train_list", "test_audio", "test_list", "trials")
    outputs = ("train_features", "test_features", "training", "evaluation")
    return {
        **{name: f"/data/{name}" for name in names},
        **{name: str(tmp_path / name) for name in outputs},
        "parts": ["0/2", "1/2"],
    }


@pytest.fixture
def extract(tmp_path: Path) -> dict[str, Any]:
    return {"audio": "/data/audio", "output": str(tmp_path / "features"), "parts": ["0/2", "1/2"]}


def test_kfp_has_what_is_replaced_in_it() -> None:
    # Else another release of kfp would run containers its own way, unseen.
    parameters = inspect.signature(docker_task_handler.run_docker_container).parameters
    assert list(parameters) == ["client", "image", "command", "volumes", "container_run_args"]
    source = inspect.getsource(docker_task_handler.DockerTaskHandler.run)
    assert "run_docker_container(" in source
    for name in ("indented_print", "print_horizontal_line"):
        assert callable(getattr(logging_utils, name))


def test_the_train_pipeline_runs_commands_that_the_components_understand(
    engine: FakeDocker, arguments: dict[str, Any], tmp_path: Path
) -> None:
    more = {"overrides": "num_steps=10; batch_size=16", "num_gpus": "2", "speed": "0.9"}
    done = run_local("train", arguments | more, root=tmp_path / "root")
    commands: dict[str, list[list[str]]] = {}
    for ran in engine.ran:
        commands.setdefault(ran["step"], []).append(ran["command"])
    assert {step: len(ran) for step, ran in commands.items()} == {
        "plan-extraction": 1,
        "extract-part": 2,
        "finish-extraction": 1,
        "plan-extraction-2": 1,
        "extract-part-2": 2,
        "finish-extraction-2": 1,
        "train": 1,
        "evaluate": 1,
    }
    for step in commands.keys() - {"train", "evaluate"}:
        assert all(command[0] == "feature-extractor" for command in commands[step])
    parse = extractor_parser().parse_args
    plan = parse(commands["plan-extraction"][0][1:])
    assert (plan.audio, plan.list, plan.output) == (
        ["/data/train_audio"],
        "/data/train_list",
        arguments["train_features"],
    )
    assert (plan.speed, plan.num_shards) == ("0.9", 0)
    # copies at other speeds are for training
    assert parse(commands["plan-extraction-2"][0][1:]).speed == ""
    parts = [parse(command[1:]) for command in commands["extract-part-2"]]
    assert sorted(part.part for part in parts) == ["0/2", "1/2"]
    assert {part.output for part in parts} == {arguments["test_features"]}
    assert parse(commands["finish-extraction"][0][1:]).output == arguments["train_features"]

    (train,) = commands["train"]
    assert train[:3] == ["python", "-m", "trainer.launch"]
    line, _ = launch.command(train[3:])
    assert line[line.index("--nproc-per-node") + 1] == "2"
    parsed = trainer_cli.build_parser().parse_args(line[line.index("trainer") + 1 :])
    assert (parsed.features, parsed.output) == (arguments["train_features"], arguments["training"])
    assert parsed.set == ["num_steps=10", "batch_size=16"]

    (evaluate,) = commands["evaluate"]
    assert evaluate[0] == "evaluator"
    evaluation = evaluator_parser().parse_args(evaluate[1:])
    assert evaluation.model == f"{arguments['training']}/model"
    assert evaluation.features == arguments["test_features"]
    assert evaluation.train_features == arguments["train_features"]

    assert done.metrics == {"training": {"value": 0.25}, "evaluation": {"value": 0.25}}
    assert done.files["report"].name == "report"
    assert [step.name for step in done.steps][-1] == "evaluate"
    assert engine.removed == len(engine.ran) == len(done.steps)


def test_containers_may_do_no_more_than_pods(
    engine: FakeDocker, extract: dict[str, Any], tmp_path: Path
) -> None:
    run_local(
        "extract",
        extract,
        mounts=[tmp_path],
        environment={"STORAGE_EMULATOR_HOST": "http://host:1"},
        network="bridge",
        user="1000:1000",
        root=tmp_path / "root",
    )
    for ran in engine.ran:
        assert ran["cap_drop"] == ["ALL"]
        assert ran["security_opt"] == ["no-new-privileges"]
        assert ran["user"] == "1000:1000"
        assert ran["network_mode"] == "bridge"
        assert ran["environment"]["STORAGE_EMULATOR_HOST"] == "http://host:1"
        (mount,) = ran["mounts"]
        assert mount["Source"] == mount["Target"] == str(tmp_path)
        assert not mount["ReadOnly"]
        assert ran["volumes"][str(tmp_path / "root")]["bind"] == str(tmp_path / "root")


def test_the_parts_run_side_by_side(engine: FakeDocker, extract: dict[str, Any], tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=300)

    def meet(step: str) -> None:
        if step == "extract-part":
            both.wait()

    engine.while_running = meet
    done = run_local("extract", extract, root=tmp_path / "root")
    assert [step.name for step in done.steps].count("extract-part") == 2


def test_a_killed_step_is_run_again_as_often_as_asked(
    engine: FakeDocker, arguments: dict[str, Any], tmp_path: Path
) -> None:
    engine.ends["train"] = [137, 137]
    done = run_local("train", arguments, retries=2, root=tmp_path / "root")
    assert [step.exit_code for step in done.steps if step.name == "train"] == [137, 137, 0]
    assert sum(step.name == "extract-part" for step in done.steps) == 2

    engine.ends["train"] = [137, 137]
    with pytest.raises(PipelineError, match="step train ended with 137; step train ended with 137; its log"):
        run_local("train", arguments, retries=1, root=tmp_path / "root")


def test_without_retries_a_failure_ends_the_pipeline(
    engine: FakeDocker, arguments: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.ends["train"] = [1]
    with pytest.raises(PipelineError, match=r"voxsrc-train: step train ended with 1; its log is above"):
        run_local("train", arguments, root=tmp_path / "root")
    assert "evaluate" not in {ran["step"] for ran in engine.ran}
    assert "train | ended with 1 after" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ("plan-extraction", "plan/plan.json"),
        ("finish-extraction", "manifest.json"),
        ("train", "model/model.safetensors"),
        ("evaluate", "report.html"),
        ("evaluate", "executor output"),
    ],
)
def test_a_step_that_ends_well_without_what_it_must_write_has_failed(
    engine: FakeDocker, arguments: dict[str, Any], tmp_path: Path, step: str, name: str
) -> None:
    engine.forgets[step] = {name}
    found = "wrote no executor output" if name == "executor output" else f"{name} is not there"
    with pytest.raises(PipelineError, match=f"step {step}(-2)? ended with 0, but .*{found}"):
        run_local("train", arguments, root=tmp_path / "root")


def test_a_container_that_cannot_be_started_is_a_failure_that_says_why(
    engine: FakeDocker, arguments: dict[str, Any], tmp_path: Path
) -> None:
    def refuse(step: str) -> None:
        if step.startswith("extract-part"):
            raise docker.errors.APIError("no space left on device")

    engine.while_running = refuse
    with pytest.raises(PipelineError, match="step extract-part could not run: no space left on device"):
        run_local("train", arguments, root=tmp_path / "root")


def test_a_finished_set_has_no_plan(engine: FakeDocker, extract: dict[str, Any], tmp_path: Path) -> None:
    engine.forgets["plan-extraction"] = {"plan/plan.json"}
    storage.write_bytes(f"{extract['output']}/manifest.json", b"finished before")
    run_local("extract", extract, root=tmp_path / "root")


def test_an_interrupted_run_leaves_no_container(
    engine: FakeDocker, extract: dict[str, Any], tmp_path: Path
) -> None:
    def interrupt(step: str) -> None:
        raise KeyboardInterrupt

    engine.while_running = interrupt
    with pytest.raises(KeyboardInterrupt):
        run_local("extract", extract, root=tmp_path / "root")
    assert engine.removed == len(engine.ran) == 1


def test_kfp_is_as_it_was_after_a_run(engine: FakeDocker, extract: dict[str, Any], tmp_path: Path) -> None:
    own = docker_task_handler.run_docker_container
    printing = print
    run_local("extract", extract, root=tmp_path / "root")
    assert docker_task_handler.run_docker_container is own
    assert print is printing


@pytest.mark.parametrize("ending", ["well", "badly"])
def test_a_run_leaves_no_temporary_folder(
    ending: str,
    engine: FakeDocker,
    extract: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    if ending == "well":
        run_local("extract", extract, root=tmp_path / "root")
    else:
        engine.ends["plan-extraction"] = [1]
        with pytest.raises(PipelineError):
            run_local("extract", extract, root=tmp_path / "root")
    assert list(temporary.iterdir()) == []


def test_the_log_names_the_step_of_each_line(
    engine: FakeDocker, extract: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_local("extract", extract, root=tmp_path / "root")
    lines = capsys.readouterr().out.splitlines()
    assert "plan-extraction | runs voxsrc-feature-extractor:0.1.0" in lines
    assert lines.count("extract-part | extract-part says hello: ×") == 2
    assert all(" | " in line for line in lines)


def test_images_are_the_given_else_the_named_else_their_cpu_variant(
    engine: FakeDocker, arguments: dict[str, Any], tmp_path: Path
) -> None:
    engine.images_here = {"mine/extractor:3", "voxsrc-train:0.1.0-cpu", "r.example/voxsrc-evaluate:5"}
    run_local(
        "train",
        arguments | {"evaluate_image": "r.example/voxsrc-evaluate:5"},
        images={"feature-extractor": "mine/extractor:3"},
        root=tmp_path / "root",
    )
    assert {ran["step"].split("-")[0]: ran["image"] for ran in engine.ran} == {
        "plan": "mine/extractor:3",
        "extract": "mine/extractor:3",
        "finish": "mine/extractor:3",
        "train": "voxsrc-train:0.1.0-cpu",
        "evaluate": "r.example/voxsrc-evaluate:5",
    }


@pytest.mark.parametrize("own", ["r.example/voxsrc-train@sha256:" + "0" * 64, "r.example/ours/trainer:7"])
def test_an_image_is_given_for_a_component_whatever_the_arguments_name(
    own: str, engine: FakeDocker, arguments: dict[str, Any], tmp_path: Path
) -> None:
    engine.images_here |= {"mine/train:3"}
    images = {"train": "mine/train:3"}
    run_local("train", arguments | {"train_image": own}, images=images, root=tmp_path / "root")
    assert {ran["image"] for ran in engine.ran if ran["step"] == "train"} == {"mine/train:3"}


def test_an_image_for_a_component_that_the_pipeline_has_not_is_an_error_before_anything_runs(
    engine: FakeDocker, arguments: dict[str, Any], extract: dict[str, Any], tmp_path: Path
) -> None:
    engine.images_here |= {"mine:3"}
    with pytest.raises(
        ConfigError, match=r"feature_extractor=mine:3: did you mean feature-extractor\? \(known:"
    ):
        run_local("train", arguments, images={"feature_extractor": "mine:3"}, root=tmp_path / "root")
    with pytest.raises(ConfigError, match=r"trane=mine:3: known: feature-extractor$"):
        run_local("extract", extract, images={"trane": "mine:3"}, root=tmp_path / "root")
    assert engine.ran == []


def test_one_list_of_images_serves_every_pipeline(
    engine: FakeDocker, extract: dict[str, Any], tmp_path: Path
) -> None:
    train = load_package(package_path("train"))
    executors = train.spec["deploymentSpec"]["executors"].values()
    assert {local._component(executor["container"]["image"]) for executor in executors} == COMPONENTS
    engine.images_here |= {"mine:3"}
    images = {name: "mine:3" if name == "feature-extractor" else "elsewhere:1" for name in COMPONENTS}
    run_local("extract", extract, images=images, root=tmp_path / "root")
    assert {ran["image"] for ran in engine.ran} == {"mine:3"}


def test_an_image_that_is_not_here_is_an_error_before_anything_runs(
    engine: FakeDocker, arguments: dict[str, Any], tmp_path: Path
) -> None:
    engine.images_here.remove("voxsrc-evaluate:0.1.0")
    with pytest.raises(
        ConfigError, match=r"voxsrc-evaluate:0\.1\.0 is not .* components/evaluate/build_image"
    ):
        run_local("train", arguments, root=tmp_path / "root")
    assert engine.ran == []


def test_a_folder_to_mount_that_is_not_there_is_an_error(
    engine: FakeDocker, extract: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"there is no folder .*/none to mount"):
        run_local("extract", extract, mounts=[tmp_path / "none"], root=tmp_path / "root")


@pytest.mark.parametrize("change", [{"audoi": "/data"}, {"output": None}])
def test_arguments_that_the_pipeline_does_not_have_or_lacks_are_an_error(
    engine: FakeDocker, extract: dict[str, Any], tmp_path: Path, change: dict[str, Any]
) -> None:
    given = {name: value for name, value in (extract | change).items() if value is not None}
    with pytest.raises(ConfigError, match=next(iter(change))):
        run_local("extract", given, root=tmp_path / "root")
    assert engine.ran == []


def test_no_engine_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch, extract: dict[str, Any], tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(ConfigError, match=r"no Docker engine answers .* set DOCKER_HOST"):
        run_local("extract", extract)


def test_the_overhead_is_the_time_in_which_no_container_ran() -> None:
    def step(began: float, seconds: float, code: int = 0) -> LocalStep:
        return LocalStep("train", "image", code, began, seconds)

    steps = [step(103, 4), step(101, 3, 137), step(110, 5), step(111, 1)]
    done = LocalRun({}, {}, steps, seconds=20)
    assert done.overhead_s == pytest.approx(20 - (6 + 5))
    assert done.table().splitlines()[1].endswith("3.0 s  exit code 137")
    assert "of which 9.0 s between containers" in done.table()


def test_lines_of_a_log_survive_any_division() -> None:
    text = "one\ntwo ×\r50 %\r100 %\n\nlast"
    data = text.encode()
    for size in range(1, len(data) + 1):
        chunks = [data[i : i + size] for i in range(0, len(data), size)]
        assert list(log_lines(chunks)) == ["one", "two ×", "50 %", "100 %", "last"]


def test_nobody_runs_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert local._own_user() is None
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(os, "getgid", lambda: 1001)
    assert local._own_user() == "1000:1001"
