"""`install_kfp.sh`: what it makes of the defaults that Kubeflow's manifests give to every workflow."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cloud_cli import CloudCli
from cloud_kubectl import KFP_DEFAULTS, KFP_VARIABLES
from cloud_scripts import SCRIPTS, SETTINGS, Cloud

CONTROLLER, AGENT = "workflow-controller", "ml-pipeline-persistenceagent"


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    """A project with a cluster and nothing in it."""
    with CloudCli() as cli:
        cli.state["clusters"]["some-cluster"] = {"status": "RUNNING"}
        yield Cloud(tmp_path, cli)


def installed(name: str) -> dict[str, str]:
    patch = yaml.safe_load((SCRIPTS / "kubeflow" / f"{name}.yaml").read_text())
    (container,) = patch["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable["value"] for variable in container["env"]}


def test_the_defaults_of_all_workflows_are_replaced(cloud: Cloud) -> None:
    cloud.succeed("install_kfp")
    spec = cloud.state["kubernetes"]["workflow_defaults"]["spec"]
    assert spec["templateDefaults"]["retryStrategy"] == {"limit": "2", "retryPolicy": "OnTransientError"}
    assert spec.keys() == KFP_DEFAULTS.keys()
    variables = cloud.state["kubernetes"]["variables"]
    assert variables == {CONTROLLER: installed("workflow_controller"), AGENT: installed("persistence_agent")}
    assert {name: values.keys() for name, values in variables.items()} == {
        name: values.keys() for name, values in KFP_VARIABLES.items()
    }
    ttl, agent_s = spec["ttlStrategy"], int(variables[AGENT]["TTL_SECONDS_AFTER_WORKFLOW_FINISH"])
    assert ttl["secondsAfterFailure"] == ttl["secondsAfterCompletion"] == agent_s == 14 * 86400
    assert ttl["secondsAfterSuccess"] == 7 * 86400


def test_installing_again_comes_to_the_same_although_it_begins_with_the_manifests(cloud: Cloud) -> None:
    cloud.succeed("install_kfp")
    first, calls = copy.deepcopy(cloud.state), cloud.changed()
    assert calls == cloud.printed("install_kfp")
    cloud.cli.calls.clear()
    cloud.succeed("install_kfp")
    assert cloud.state == first
    pauses = [call for call in cloud.changed() if '--patch={"spec":{"paused":true}}' in call]
    assert [call[3] for call in pauses] == [AGENT, CONTROLLER]
    assert [call for call in cloud.changed() if call not in pauses] == calls


def test_where_it_runs_no_pod_ever_starts_with_the_manifests_values(cloud: Cloud) -> None:
    """With 86400 seconds the agent deletes runs of two days ago; with their pattern steps are not retried."""
    cloud.succeed("install_kfp")
    started = copy.deepcopy(cloud.state["kubernetes"]["started"])
    assert started[AGENT][-1] == installed("persistence_agent")
    assert started[CONTROLLER][-1] == installed("workflow_controller")
    cloud.cli.calls.clear()
    for fails_at in range(1, 14):
        cloud.cli.fail_at = len(cloud.changing_calls()) + fails_at
        assert cloud.run("install_kfp").returncode == 1
        assert cloud.state["kubernetes"]["started"] == started, fails_at
    cloud.cli.fail_at = 0
    cloud.succeed("install_kfp")
    assert cloud.state["kubernetes"]["started"] == started
    assert cloud.state["kubernetes"]["paused"] == []


def test_what_others_have_installed_goes_straight_to_the_right_values(cloud: Cloud) -> None:
    context = "gke_some-project_europe-west4-a_some-cluster"
    cloud.state["kubernetes"] |= {"context": context, "crds": True}
    manifests = "https://github.com/kubeflow/pipelines/manifests/kustomize/env/platform-agnostic?ref=2.16.1"
    applied = cloud.cli.call(["kubectl", "apply", f"--kustomize={manifests}", f"--context={context}"])
    assert applied == (0, "", "")
    cloud.succeed("install_kfp")
    assert cloud.state["kubernetes"]["started"] == {
        CONTROLLER: [KFP_VARIABLES[CONTROLLER], installed("workflow_controller")],
        AGENT: [KFP_VARIABLES[AGENT], installed("persistence_agent")],
    }


def test_before_2_17_the_agent_alone_is_held_and_let_go(cloud: Cloud) -> None:
    earlier = {"VOXSRC_KFP_VERSION": "2.16.1"}
    cloud.succeed("install_kfp", **earlier)
    cloud.cli.calls.clear()
    started = copy.deepcopy(cloud.state["kubernetes"]["started"])
    cloud.succeed("install_kfp", **earlier)
    kubernetes = cloud.state["kubernetes"]
    assert (kubernetes["started"], kubernetes["paused"]) == (started, [])
    assert not [call for call in cloud.cli.calls if CONTROLLER in call.command]


def test_the_controller_is_started_anew_with_all_that_is_changed_and_waited_for(cloud: Cloud) -> None:
    words = [command[1:4] for command in cloud.printed("install_kfp") if command[0] == "kubectl"]
    restart = words.index(["rollout", "restart", f"deployment/{CONTROLLER}"])
    patches = [n for n, word in enumerate(words) if word[:1] == ["patch"] and CONTROLLER in word[2]]
    assert [words[n][1] for n in patches] == ["configmap", "deployment"]
    assert max(n for n, word in enumerate(words) if word[0] == "apply") < patches[0] < patches[1] < restart
    assert words[restart + 1] == ["rollout", "status", f"deployment/{CONTROLLER}"]
    assert words[-1][:2] == ["wait", "deployment"]


@pytest.mark.parametrize("fails_at", range(1, 12))
def test_an_installation_that_broke_off_is_completed_by_the_next(cloud: Cloud, fails_at: int) -> None:
    cloud.cli.fail_at = fails_at
    assert cloud.run("install_kfp").returncode == 1
    cloud.cli.fail_at = 0
    cloud.succeed("install_kfp")
    policy = cloud.state["kubernetes"]["workflow_defaults"]["spec"]["templateDefaults"]["retryStrategy"]
    assert policy["retryPolicy"] == "OnTransientError"
    assert cloud.state["kubernetes"]["variables"][AGENT] == installed("persistence_agent")


@pytest.mark.parametrize(
    ("version", "retried"),
    [
        ("2.9.0", False),
        ("2.16.1", False),
        ("2.17.0", True),
        ("2.17.3", True),
        ("2.20.0", True),
        ("3.0.0", True),
    ],
)
def test_earlier_releases_keep_their_templates_without_a_policy(
    cloud: Cloud, version: str, retried: bool
) -> None:
    cloud.write(SETTINGS | {"VOXSRC_KFP_VERSION": version})
    commands = cloud.printed("install_kfp")
    touched = {word for command in commands for word in command if CONTROLLER in word}
    assert bool(touched) == retried
    assert any(AGENT in command for command in commands)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["patch", "deployment", CONTROLLER, "--type=merge", "--patch-file={file}"], "adds a container"),
        (["patch", "deployment", AGENT, "--type=strategic", "--patch-file={file}"], "adds a container"),
        (["patch", "deployment", "other", "--type=strategic", "--patch-file={file}"], "not found"),
        (["patch", "deployment", CONTROLLER, "--type=strategic"], "must specify --patch"),
        (["rollout", "undo", f"deployment/{CONTROLLER}"], "unknown command rollout undo"),
        (["rollout", "restart", "deployment/other"], "deployment/other not found"),
        (["get", "deployment", "other"], "not found"),
    ],
)
def test_the_stand_in_refuses_other_patches(cloud: Cloud, arguments: list[str], words: str) -> None:
    cloud.succeed("install_kfp")
    file = SCRIPTS / "kubeflow" / "workflow_controller.yaml"
    context = cloud.state["kubernetes"]["context"]
    given = [word.format(file=file) for word in arguments]
    status, _, errors = cloud.cli.call(["kubectl", *given, "--namespace=kubeflow", f"--context={context}"])
    assert status == 1
    assert words in errors
