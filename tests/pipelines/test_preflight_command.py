import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path

import kubernetes
import pytest
import yaml

from cluster_objects import IMAGE, SETTINGS, Gcloud
from kubernetes_server import KubernetesServer
from voxsrc.pipelines.cluster import connect
from voxsrc.pipelines.package import load_package, package_path
from voxsrc.pipelines.settings import Settings

Run = Callable[..., int]

FAKE_GCLOUD = """#!{python}
import json, sys
answers = json.load(open({answers!r}))
for command, answer in answers.items():
    if " ".join(sys.argv[1:]).startswith(command):
        print(json.dumps(answer))
        sys.exit()
sys.exit("ERROR: NOT_FOUND")
"""


@pytest.fixture
def workstation(
    kubernetes_server: KubernetesServer,
    gcloud: Gcloud,
    cloud_env: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A kubeconfig with the cluster, gcloud on the PATH, settings; gives the file of gcloud's answers."""
    context = "gke_my-project_europe-west4-a_my-cluster"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": context, "cluster": {"server": kubernetes_server.url}}],
                "users": [{"name": context, "user": {}}],
                "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
            }
        )
    )
    monkeypatch.setattr(kubernetes.config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    cloud_env.write_text("".join(f"{name}={value}\n" for name, value in SETTINGS.items()))
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps(gcloud.answers))
    program = tmp_path / "bin" / "gcloud"
    program.parent.mkdir()
    program.write_text(FAKE_GCLOUD.format(python=sys.executable, answers=str(answers)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return answers


def arguments(tmp_path: Path) -> list[str]:
    package = load_package(package_path("extract"))
    values = {"audio": "gs://b/a", "output": "gs://b/o"}
    values |= {key: IMAGE.format("x") for key in package.parameters if key.endswith("_image")}
    file = tmp_path / "arguments.yaml"
    file.write_text(yaml.safe_dump(values))
    return ["preflight", "extract", "--arguments", str(file)]


def test_the_command_ends_with_1_if_something_is_missing(
    workstation: Path, tmp_path: Path, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert voxsrc_pipeline(*arguments(tmp_path)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing is missing"

    answers = json.loads(workstation.read_text())
    without = copy.deepcopy(answers)
    without["container node-pools list"].pop(1)
    workstation.write_text(json.dumps(without))
    assert voxsrc_pipeline(*arguments(tmp_path)) == 1
    printed = capsys.readouterr().out
    assert "missing  nodes for " in printed
    assert "→ gcp-cluster/create_node_pools.sh --gpu none" in printed

    assert voxsrc_pipeline(*arguments(tmp_path), "--json") == 1
    states = [check["state"] for check in json.loads(capsys.readouterr().out)]
    assert states.count("missing") == 1


def test_a_warning_is_counted_and_does_not_end_with_1(
    workstation: Path,
    gcloud: Gcloud,
    tmp_path: Path,
    voxsrc_pipeline: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gcloud.quota("PREEMPTIBLE_CPUS", 8, usage=8)
    workstation.write_text(json.dumps(gcloud.answers))
    assert voxsrc_pipeline(*arguments(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "warning  quota PREEMPTIBLE_CPUS in europe-west4: 8: 8 of 8 in use" in printed
    assert printed.splitlines()[-1] == "nothing is missing, 1 warning"


def test_a_context_that_is_missing_says_how_to_make_it(
    workstation: Path, tmp_path: Path, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert voxsrc_pipeline(*arguments(tmp_path), "--context", "other") == 1
    message = capsys.readouterr().err
    assert "no usable context other" in message
    assert "get-credentials" in message


def test_the_settings_name_the_context(workstation: Path) -> None:
    assert Settings(SETTINGS, "x").cluster_context() == "gke_my-project_europe-west4-a_my-cluster"
    assert connect(Settings(SETTINGS, "x")).deployments()
    assert Settings({}, "x").cluster_context() is None
