import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from voxsrc.errors import ConfigError
from voxsrc.pipelines.images import check_images
from voxsrc.pipelines.needs import StepNeeds, step_needs
from voxsrc.pipelines.package import Package, load_package, package_from, package_path, read_arguments
from voxsrc.pipelines.pools import Taint, fitting, read_pools
from voxsrc.pipelines.settings import load_settings

KINDS = {
    "text": "STRING",
    "count": "NUMBER_INTEGER",
    "ratio": "NUMBER_DOUBLE",
    "switch": "BOOLEAN",
    "items": "LIST",
    "labels": "STRUCT",
}


def package(**parameters: dict[str, Any]) -> Package:
    root = {"dag": {"tasks": {}}, "inputDefinitions": {"parameters": parameters}}
    return package_from({"pipelineInfo": {"name": "p"}, "root": root}, None, "p.yaml")


def optional(**more: Any) -> Package:
    return package(**{n: {"parameterType": k, "isOptional": True, **more} for n, k in KINDS.items()})


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("text=1e-3", "1e-3"),
        ("text=a=b", "a=b"),
        ("text=", ""),
        ("count=12", 12),
        ("count=1e3", 1000),
        ("ratio=2", 2.0),
        ("ratio=1e-3", 0.001),
        ("switch=true", True),
        ("items=[a, 1]", ["a", 1]),
        ('items=["0/2"]', ["0/2"]),
        ("labels={voxsrc/pool: cpu-spot}", {"voxsrc/pool": "cpu-spot"}),
        ('labels={"a.b": "true"}', {"a.b": "true"}),
    ],
)
def test_values_are_typed_by_the_parameter(item: str, value: Any) -> None:
    (read,) = read_arguments(optional(), [item]).values()
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("count=1.5", "a whole number"),
        ("count=true", "a whole number"),
        ("count=.inf", "a whole number"),
        ("ratio=fast", "a number"),
        ("ratio=.nan", "a number"),
        ("switch=1", "true or false"),
        ("items=a", "a list"),
        ("labels=[1]", "a mapping"),
    ],
)
def test_values_of_another_type_are_refused(item: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"^{item.partition('=')[0]}: found .*expected {expected}"):
        read_arguments(optional(), [item])


def test_a_file_is_typed_too_and_set_wins(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("count: 1\nratio: 2\nitems: [1]\n")
    assert read_arguments(optional(), ["count=5"], [str(file)]) == {"count": 5, "ratio": 2.0, "items": [1]}
    file.write_text("text: 2020\n")
    with pytest.raises(ConfigError, match="text: found 2020, expected text; quote it"):
        read_arguments(optional(), [], [str(file)])


def test_files_add_up_and_a_name_in_two_of_them_is_an_error_that_names_both(tmp_path: Path) -> None:
    data, images = tmp_path / "data.yaml", tmp_path / "images.yaml"
    data.write_text("count: 1\nratio: 2\n")
    images.write_text("items: [1]\n")
    files = [str(data), str(images)]
    assert read_arguments(optional(), [], files) == {"count": 1, "ratio": 2.0, "items": [1]}
    images.write_text("ratio: 3\ncount: 1\n")
    both = f"given in {re.escape(files[0])} and in {re.escape(files[1])}"
    with pytest.raises(ConfigError, match=f"^count: {both}; ratio: {both}; expected each parameter in one"):
        read_arguments(optional(), ["count=5"], files)


@pytest.mark.parametrize("content", ["", "\n", "# nothing but this\n", "{}\n"])
def test_a_file_that_names_no_parameter_is_refused(content: str, tmp_path: Path) -> None:
    """A build that failed has truncated what its output was redirected to."""
    data, images = tmp_path / "data.yaml", tmp_path / "images.yaml"
    data.write_text("count: 1\n")
    images.write_text(content)
    with pytest.raises(
        ConfigError, match=f"^{re.escape(str(images))}: found no parameters; .* has failed: run"
    ):
        read_arguments(optional(), [], [str(data), str(images)])


def test_unknown_names_come_with_the_nearest_and_missing_ones_are_all_named() -> None:
    with pytest.raises(
        ConfigError, match="outptu: no parameter of pipeline voxsrc-extract, did you mean output"
    ):
        read_arguments(load_package(package_path("extract")), ["outptu=gs://b/x"])
    with pytest.raises(ConfigError, match=r"audio \(text: Folder.*output \(text: Folder"):
        read_arguments(load_package(package_path("extract")))


def test_an_item_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="--set 'count': expected NAME=VALUE"):
        read_arguments(optional(), ["count"])


def test_choices_are_kept_to() -> None:
    literal = package(mode={"parameterType": "STRING", "isOptional": True, "literals": ["fast", "slow"]})
    assert read_arguments(literal, ["mode=slow"]) == {"mode": "slow"}
    with pytest.raises(ConfigError, match="mode: found 'fsat', did you mean fast"):
        read_arguments(literal, ["mode=fsat"])


def test_needs_do_not_make_a_text_of_a_label_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"step train: its node selector: label a has the bool true"):
        needs_of("train", gpu_node_selector={"a": True})


def test_the_run_name_fills_a_parameter_of_that_name_only() -> None:
    named = package(run_name={"parameterType": "STRING"})
    assert read_arguments(named, run_name="r") == {"run_name": "r"}
    assert read_arguments(named, ["run_name=own"], run_name="r") == {"run_name": "own"}
    assert read_arguments(package(), run_name="r") == {}


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("implementation: {container: {}}\n")
    with pytest.raises(ConfigError, match="no compiled pipeline"):
        load_package(file)
    file.write_text("a: [\n")
    with pytest.raises(ConfigError, match="not YAML"):
        load_package(file)
    with pytest.raises(ConfigError, match="no pipeline package trian; did you mean train"):
        package_path("trian")


def needs_of(name: str, **arguments: Any) -> dict[str, StepNeeds]:
    loaded = load_package(package_path(name))
    required = {key: "gs://b/x" for key, parameter in loaded.parameters.items() if parameter.required}
    return {need.title: need for need in step_needs(loaded, required | arguments)}


def test_needs_follow_parameters_into_loops_and_nested_pipelines() -> None:
    needs = needs_of(
        "train",
        feature_extractor_image="r/f@x",
        cpu_node_selector={"voxsrc/pool": "cpu-on-demand"},
        gpu_node_selector={"voxsrc/pool": "gpu-spot-t4"},
        num_gpus="1",
        train_image="r/t@x",
    )
    assert all(not need.unknown for need in needs.values())
    parts = [need for title, need in needs.items() if title.endswith("/extract-part")]
    assert len(parts) == 2
    for part in parts:
        assert part.image == "r/f@x"
        assert part.node_selector == {"voxsrc/pool": "cpu-on-demand"}
        assert part.gpus == 0
        assert part.cpus > 0
    assert needs["train"].image == "r/t@x"
    assert needs["train"].gpus == 1
    assert needs["train"].memory_gib == pytest.approx(20e9 / 2**30)
    assert Taint("nvidia.com/gpu", "present", "NoSchedule") in needs["train"].tolerations


@pytest.mark.parametrize("name", ["extract", "train"])
def test_every_step_of_our_packages_fits_a_pool_of_gcp_cluster_as_it_comes(name: str) -> None:
    for need in needs_of(name).values():
        pools = fitting(read_pools(), need.node_selector, need.tolerations, need.gpus)
        assert [pool.provisioning for pool in pools] == ["spot"], need
        assert need.cpus < pools[0].vcpus
        assert need.memory_gib < pools[0].memory_gib


def test_needs_that_only_the_run_knows_are_named() -> None:
    spec = {
        "pipelineInfo": {"name": "p"},
        "root": {
            "dag": {
                "tasks": {
                    "a": {
                        "componentRef": {"name": "comp-a"},
                        "inputs": {"parameters": {"x": {"taskOutputParameter": {"producerTask": "b"}}}},
                    }
                }
            }
        },
        "components": {
            "comp-a": {
                "executorLabel": "exec-a",
                "inputDefinitions": {"parameters": {"x": {"defaultValue": "not this"}}},
            }
        },
        "deploymentSpec": {"executors": {"exec-a": {"container": {"image": "{{$.inputs.parameters['x']}}"}}}},
    }
    selector = {"nodeSelector": {"nodeSelectorJson": {"taskOutputParameter": {"producerTask": "b"}}}}
    executors = {"kubernetes": {"deploymentSpec": {"executors": {"exec-a": selector}}}}
    (need,) = step_needs(package_from(spec, {"platforms": executors}, "p"), {})
    assert need.image is None
    assert set(need.unknown) == {"image", "node selector"}
    assert check_images([need]) == []


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        (Taint("k", "v", "NoSchedule"), True),
        (Taint("k", "v"), True),
        (Taint("k", operator="Exists"), True),
        (Taint("", operator="Exists"), True),
        (Taint("k", "w", "NoSchedule"), False),
        (Taint("k", "v", "NoExecute"), False),
        (Taint("l", operator="Exists"), False),
        (Taint(""), False),
    ],
)
def test_tolerations_have_the_rules_of_kubernetes(toleration: Taint, tolerated: bool) -> None:
    assert toleration.tolerates(Taint("k", "v", "NoSchedule")) is tolerated


def test_settings_come_from_the_flag_then_the_environment_then_the_file_then_the_default(
    cloud_env: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud_env.write_text('# a comment\n\nVOXSRC_REGION="a"\nVOXSRC_ZONE=z\nVOXSRC_BUCKET=\n')
    monkeypatch.setenv("VOXSRC_ZONE", "y")
    settings = load_settings()
    assert settings.get("VOXSRC_REGION") == "a"
    assert settings.get("VOXSRC_ZONE") == "y"
    assert settings.get("VOXSRC_ZONE", "x") == "x"
    assert settings.get("VOXSRC_BUCKET") is None
    assert settings.get("VOXSRC_KFP_NAMESPACE") == "kubeflow"
    with pytest.raises(ConfigError, match="VOXSRC_BUCKET is not set; give --bucket"):
        settings.require("VOXSRC_BUCKET", None, "--bucket")


def test_settings_name_the_line_that_is_wrong(cloud_env: Path) -> None:
    cloud_env.write_text("VOXSRC_REGION=a\nexport VOXSRC_ZONE=z\n")
    with pytest.raises(ConfigError, match=r"cloud\.env:2: found export VOXSRC_ZONE=z"):
        load_settings()
    with pytest.raises(ConfigError, match="no settings file"):
        load_settings(str(cloud_env.with_name("other.env")))


def test_packages_of_runs_are_read_as_files_are() -> None:
    path = package_path("train")
    spec, platform = yaml.safe_load_all(path.read_text())
    assert package_from(spec, platform, str(path)) == load_package(path)
