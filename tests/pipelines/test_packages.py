"""The Kubeflow Pipelines packages: equal to their definitions, accepted by kfp, in step with the commands."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

if not os.environ.get("VOXSRC_REQUIRE_KFP"):
    pytest.importorskip("kfp", reason="kfp is not installed (extra `pipelines`)")

import yaml
from google.protobuf import json_format
from kfp import compiler, components, dsl
from kfp.local import executor_output_utils
from kfp.pipeline_spec import pipeline_spec_pb2

from evaluator import cli as evaluator_cli
from evaluator.options import EvaluationOptions
from feature_extractor.cli import build_parser
from trainer import cli as trainer_cli
from trainer import launch
from voxsrc.features import PRESETS
from voxsrc.kfp_output import write_executor_output
from voxsrc.pipelines import compile as packages
from voxsrc.recipes import shipped_recipes

ROOT = Path(__file__).resolve().parents[2]
FEATURE_EXTRACTOR = "components/feature-extractor/feature_extractor_component.yaml"
TRAIN = "components/train/train_component.yaml"
EVALUATE = "components/evaluate/evaluate_component.yaml"
COMPONENTS = [EVALUATE, FEATURE_EXTRACTOR, TRAIN]
NAMES = [*COMPONENTS, "extract_pipeline.yaml", "train_pipeline.yaml"]


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    definitions = packages.packages()
    assert sorted(definitions) == NAMES
    return {name: packages.compile_package(definition) for name, definition in definitions.items()}


def spec_of(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return spec


def container_of(name: str) -> dict[str, Any]:
    (executor,) = spec_of(name)["deploymentSpec"]["executors"].values()
    container: dict[str, Any] = executor["container"]
    return container


def inputs_of(name: str) -> dict[str, Any]:
    (component,) = spec_of(name)["components"].values()
    inputs: dict[str, Any] = component["inputDefinitions"]["parameters"]
    return inputs


def substituted(name: str, given: dict[str, str]) -> list[str]:
    """The container's arguments as the launcher writes them, with the defaults of inputs not given."""
    values = dict(given)
    for parameter, definition in inputs_of(name).items():
        if definition.get("isOptional"):
            value = definition["defaultValue"]
            # The launcher writes a NUMBER_INTEGER without a decimal point.
            whole = definition["parameterType"] == "NUMBER_INTEGER"
            values.setdefault(parameter, str(int(value) if whole else value))
    assert set(values) == set(inputs_of(name))
    arguments = [
        re.sub(r"\{\{\$\.inputs\.parameters\['(\w+)'\]\}\}", lambda match: values[match[1]], argument)
        for argument in container_of(name)["args"]
    ]
    assert arguments.count("{{$}}") == 1
    outputs = [argument for argument in arguments if "{{" in argument and argument != "{{$}}"]
    (component,) = spec_of(name)["components"].values()
    for output in outputs:
        named = re.fullmatch(r"\{\{\$\.outputs\.artifacts\['(\w+)'\]\.path\}\}", output)
        assert named is not None
        assert named[1] in component["outputDefinitions"]["artifacts"]
    return arguments


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_package_is_what_the_code_compiles_to(name: str, texts: dict[str, str]) -> None:
    assert (ROOT / name).read_text() == texts[name], "run: python -m voxsrc.pipelines.compile"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in [*NAMES, "pyproject.toml"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_check_finds_drift_and_compile_repairs_it(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package = checkout / FEATURE_EXTRACTOR
    good = package.read_text()
    assert packages.main(["--check", "--root", str(checkout)]) == 0
    package.write_text(good.replace("--max-rejected", "--max-refused"))
    assert packages.main(["--check", "--root", str(checkout)]) == 1
    captured = capsys.readouterr()
    assert f"{FEATURE_EXTRACTOR}: differs from its definition" in captured.out
    assert "+        - --max-rejected" in captured.err
    assert package.read_text() != good, "--check must not write"
    package.unlink()
    assert packages.main(["--check", "--root", str(checkout)]) == 1
    assert packages.main(["--root", str(checkout)]) == 0
    assert package.read_text() == good


def test_a_root_that_is_none_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert packages.main(["--root", str(tmp_path)]) == 1
    assert f"{tmp_path}: no pyproject.toml there; expected the repository" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_package_names_no_registry_and_no_moving_tag(name: str) -> None:
    for executor in spec_of(name)["deploymentSpec"]["executors"].values():
        assert re.fullmatch(r"voxsrc-[a-z-]+:\d+\.\d+\.\d+", executor["container"]["image"])


@pytest.mark.parametrize(
    ("name", "key", "known"),
    [
        (FEATURE_EXTRACTOR, "preset", list(PRESETS)),
        ("extract_pipeline.yaml", "preset", list(PRESETS)),
        ("train_pipeline.yaml", "preset", list(PRESETS)),
        (TRAIN, "recipe", list(shipped_recipes())),
        ("train_pipeline.yaml", "recipe", list(shipped_recipes())),
    ],
)
def test_a_package_names_all_presets_and_recipes(name: str, key: str, known: list[str]) -> None:
    spec = next(yaml.safe_load_all((ROOT / name).read_text()))
    described = spec["root"]["inputDefinitions"]["parameters"][key]["description"]
    listed = described.removeprefix("Filterbank: ").partition(", or a YAML")[0]
    assert set(re.findall(r"\w+", listed)) - {"or"} == set(known)


@pytest.mark.parametrize("name", COMPONENTS)
def test_steps_that_read_buckets_are_not_cached(name: str) -> None:
    for task in spec_of(name)["root"]["dag"]["tasks"].values():
        assert task["cachingOptions"] == {}


@pytest.mark.parametrize("name", COMPONENTS)
def test_kfp_loads_the_package_and_builds_a_pipeline_on_it(name: str, tmp_path: Path) -> None:
    component = components.load_component_from_file(str(ROOT / name))
    needed = [name for name, definition in inputs_of(name).items() if not definition.get("isOptional")]

    @dsl.pipeline(name="uses-the-component")
    def pipeline(image: str) -> None:
        task = component(**{name: f"gs://bucket/{name}" for name in needed})
        task.set_container_image(image)

    compiler.Compiler().compile(pipeline, str(tmp_path / "pipeline.yaml"))
    (executor,) = yaml.safe_load((tmp_path / "pipeline.yaml").read_text())["deploymentSpec"][
        "executors"
    ].values()
    assert executor["container"]["image"].startswith("{{$.inputs.parameters[")


def run_options() -> set[str]:
    """Every flag of the feature extractor's `run`."""
    (commands,) = [
        action
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction) and "run" in action.choices
    ]
    return {option for action in commands.choices["run"]._actions for option in action.option_strings}


def test_the_component_speaks_the_commands_flags() -> None:
    arguments = container_of(FEATURE_EXTRACTOR)["args"]
    flags = [argument for argument in arguments if argument.startswith("--")]
    assert container_of(FEATURE_EXTRACTOR)["command"] == ["feature-extractor"]
    assert set(flags) <= run_options()
    assert flags == [
        "--audio",
        "--list",
        "--output",
        "--preset",
        "--step",
        "--num-workers",
        "--num-shards",
        "--speed",
        "--max-rejected",
        "--executor-input",
    ]


def test_the_command_accepts_the_components_defaults_as_the_launcher_writes_them() -> None:
    values = {"audio": "gs://b/audio.zip", "utterance_list": "gs://b/list.txt", "output": "gs://b/features"}
    parsed = vars(build_parser().parse_args(substituted(FEATURE_EXTRACTOR, values)))
    assert parsed["audio"] == ["gs://b/audio.zip"]
    assert parsed["output"] == "gs://b/features"
    assert parsed["executor_input"] == "{{$}}"


TRAIN_VALUES = {"features": "gs://b/features", "output": "gs://b/run"}


def test_the_train_component_speaks_the_launchers_and_the_trainers_flags() -> None:
    container = container_of(TRAIN)
    flags = [argument for argument in container["args"] if argument.startswith("--")]
    known = {
        option
        for parser in (launch.build_parser(), trainer_cli.build_parser())
        for action in parser._actions
        for option in action.option_strings
    }
    assert container["command"] == ["python", "-m", launch.__name__]
    assert set(flags) <= known
    assert flags == [
        "--recipe",
        "--features",
        "--output",
        "--overrides",
        "--num-processes",
        "--executor-input",
    ]


def test_the_trainer_accepts_the_components_defaults_as_the_launcher_writes_them() -> None:
    line, _ = launch.command(substituted(TRAIN, TRAIN_VALUES))
    assert line[1:3] == ["-m", "trainer"]
    parsed = vars(trainer_cli.build_parser().parse_args(line[3:]))
    assert parsed["recipe"] == "fast_resnet34_angleproto"
    assert (parsed["features"], parsed["output"]) == ("gs://b/features", "gs://b/run")
    assert parsed["set"] == []
    assert parsed["executor_input"] == "{{$}}"


def test_the_trainer_gets_all_that_the_component_is_given() -> None:
    more = {
        "overrides": "num_steps=10; sampler.crop_frames=300",
        "num_processes": "8",
    }
    line, _ = launch.command(substituted(TRAIN, TRAIN_VALUES | more))
    assert line[line.index("--nproc-per-node") + 1] == "8"
    parsed = vars(trainer_cli.build_parser().parse_args(line[line.index("trainer") + 1 :]))
    assert parsed["set"] == ["num_steps=10", "sampler.crop_frames=300"]


EVALUATE_VALUES = {"model": "gs://b/model", "trials": "gs://b/trials.txt", "output": "gs://b/evaluation"}


def test_the_evaluate_component_speaks_the_commands_flags() -> None:
    container = container_of(EVALUATE)
    flags = [argument for argument in container["args"] if argument.startswith("--")]
    known = {option for action in evaluator_cli.build_parser()._actions for option in action.option_strings}
    assert container["command"] == ["evaluator"]
    assert set(flags) <= known
    assert flags == [
        "--model",
        "--trials",
        "--output",
        "--features",
        "--audio",
        "--scoring",
        "--train-features",
        "--metadata",
        "--p-target",
        "--num-resamples",
        "--title",
        "--report-path",
        "--executor-input",
    ]
    path = container["args"][container["args"].index("--report-path") + 1]
    assert path == "{{$.outputs.artifacts['report'].path}}"


def evaluator_options(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> EvaluationOptions:
    """What the command makes of its arguments."""
    taken: list[EvaluationOptions] = []
    monkeypatch.setattr("evaluator.evaluation.evaluate", taken.append)
    assert evaluator_cli.main(arguments) == 0
    (options,) = taken
    return options


def test_the_evaluator_accepts_the_components_defaults_as_the_launcher_writes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each input left out has the default of the flag left out."""
    given = {**EVALUATE_VALUES, "features": "gs://b/test"}
    options = evaluator_options(monkeypatch, substituted(EVALUATE, given))
    by_hand = evaluator_options(
        monkeypatch, [part for name, value in given.items() for part in (f"--{name}", value)]
    )
    assert options == replace(
        by_hand, executor_input="{{$}}", report_path="{{$.outputs.artifacts['report'].path}}"
    )


def test_the_evaluator_gets_all_that_the_component_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    more = {
        "audio": "gs://b/dev_partaa; gs://b/test.zip",
        "scoring": "as-norm",
        "train_features": "gs://b/train",
        "metadata": "gs://b/vox1_meta.csv",
        "p_target": "0.01",
        "num_resamples": "50",
        "title": "VoxCeleb1-O",
    }
    options = evaluator_options(monkeypatch, substituted(EVALUATE, EVALUATE_VALUES | more))
    assert options.audio == ("gs://b/dev_partaa", "gs://b/test.zip")
    del more["audio"]
    assert {name: str(getattr(options, name)) for name in more} == more
    assert options.features is None


# What Kubeflow alone has a use for.
KUBEFLOWS = {"--executor-input", "--report-path"}


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        (FEATURE_EXTRACTOR, "--audio URI --list URI --output URI [flags of `feature-extractor run`]"),
        (TRAIN, "--recipe NAME|FILE --features URI --output URI [--set KEY=VALUE ...] [--num-processes N]"),
        (EVALUATE, "--model URI --features URI --trials URI --output URI [flags of `evaluator`]"),
    ],
    ids=["feature-extractor", "train", "evaluate"],
)
def test_run_local_takes_the_components_flags(name: str, usage: str) -> None:
    done = subprocess.run(
        [(ROOT / name).parent / "run_local.sh", "--help"],
        env={**os.environ, "PYTHON": sys.executable},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"usage: run_local.sh {usage}")
    # its own usage comes before the command's help
    shown = set(re.findall(r"--[a-z][a-z-]+", done.stdout.removeprefix("usage: ").partition("usage: ")[2]))
    flags = {argument for argument in container_of(name)["args"] if argument.startswith("--")}
    assert flags - shown == flags & KUBEFLOWS != set()
    assert set(re.findall(r"--[a-z][a-z-]+", usage)) <= shown


def test_kfp_reads_what_the_helper_writes(tmp_path: Path) -> None:
    component = components.load_component_from_file(str(ROOT / FEATURE_EXTRACTOR))
    path = tmp_path / "executor_output.json"
    executor_input = {
        "inputs": {"parameterValues": {"step": 0.2}},
        "outputs": {
            "artifacts": {
                "metrics": {
                    "artifacts": [
                        {
                            "name": "metrics",
                            "type": {"schemaTitle": "system.Metrics", "schemaVersion": "0.0.1"},
                            "uri": str(tmp_path / "metrics"),
                            "metadata": {},
                        }
                    ]
                }
            },
            "outputFile": str(path),
        },
    }
    write_executor_output(
        json.dumps(executor_input), metrics={"metrics": {"num_utterances": 3, "hours": 0.5}}
    )
    message = pipeline_spec_pb2.ExecutorInput()
    json_format.ParseDict(executor_input, message)
    spec = component.pipeline_spec.components["comp-feature-extractor"]
    outputs = executor_output_utils.get_outputs_for_task(message, spec)
    assert isinstance(outputs["metrics"], dsl.Metrics)
    assert outputs["metrics"].metadata == {"num_utterances": 3.0, "hours": 0.5}
    assert outputs["metrics"].uri == str(tmp_path / "metrics")
