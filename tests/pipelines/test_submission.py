import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import kfp
import pytest
import yaml
from kfp import components

from kfp_server import KfpServer
from voxsrc.pipelines.images import check_images
from voxsrc.pipelines.input_check import require_registries
from voxsrc.pipelines.needs import step_needs
from voxsrc.pipelines.package import load_package, package_from, package_path

# kfp's client says so each time that it is made
pytestmark = pytest.mark.filterwarnings("ignore:This client only works with:FutureWarning")

Run = Callable[..., int]
DIGEST = "europe-west4-docker.pkg.dev/p/voxsrc/{}@sha256:" + "0" * 64
PACKAGES = ["extract", "train"]
EXTRACT = ["--set", "audio=gs://b/audio", "--set", "output=gs://b/set"]
IMAGE = ["--set", f"feature_extractor_image={DIGEST.format('voxsrc-feature-extractor')}"]
# what these tests name is in no bucket; test_submission_inputs.py is about that
SUBMIT = ["submit", "extract", *EXTRACT, *IMAGE, "--no-input-check", "--run-name", "first"]


def required(name: str) -> dict[str, str]:
    parameters = load_package(package_path(name)).parameters
    return {key: f"gs://b/{key}" for key, parameter in parameters.items() if parameter.required}


def spec_of(text: str) -> Any:
    return next(yaml.safe_load_all(text))


@pytest.mark.parametrize("name", PACKAGES)
def test_kfp_accepts_and_uploads_the_package(name: str, kfp_server: KfpServer) -> None:
    path = package_path(name)
    loaded = components.load_component_from_file(str(path))
    assert set(loaded.component_spec.inputs) == set(load_package(path).parameters)

    uploaded = kfp.Client(host=kfp_server.url).upload_pipeline(str(path))
    (request,) = kfp_server.sent("POST", "/pipelines/upload")
    assert request.body == path.read_bytes()
    assert request.query["name"] == uploaded.display_name == load_package(path).name


@pytest.mark.parametrize("name", PACKAGES)
def test_kfp_creates_a_run_of_the_package(name: str, kfp_server: KfpServer) -> None:
    client = kfp.Client(host=kfp_server.url)
    client.create_run_from_pipeline_package(str(package_path(name)), arguments=required(name), run_name="r")
    (request,) = kfp_server.sent("POST", "/runs")
    assert request.body["runtime_config"]["parameters"] == required(name)
    sent = request.body["pipeline_spec"]["pipeline_spec"]
    assert sent["pipelineInfo"] == spec_of(package_path(name).read_text())["pipelineInfo"]


def test_submits_spec_platform_and_typed_arguments(
    kfp_server: KfpServer, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["--set", "num_shards=16", "--set", "step=0.1", "--set", 'parts=["0/2", "1/2"]']
    selector = ["--set", "cpu_node_selector={voxsrc/pool: cpu-on-demand}"]
    assert voxsrc_pipeline(*SUBMIT, *typed, *selector, "--experiment", "e") == 0
    (request,) = kfp_server.sent("POST", "/runs")
    assert request.body["display_name"] == "first"
    parameters = request.body["runtime_config"]["parameters"]
    assert parameters == {
        "audio": "gs://b/audio",
        "output": "gs://b/set",
        "feature_extractor_image": DIGEST.format("voxsrc-feature-extractor"),
        "num_shards": 16,
        "step": 0.1,
        "parts": ["0/2", "1/2"],
        "cpu_node_selector": {"voxsrc/pool": "cpu-on-demand"},
    }
    sent = request.body["pipeline_spec"]
    assert sent["pipeline_spec"]["root"]["dag"]["tasks"].keys() == (
        spec_of(package_path("extract").read_text())["root"]["dag"]["tasks"].keys()
    )
    executors = sent["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert all(fields["tolerations"] for fields in executors.values())
    (experiment,) = kfp_server.experiments.values()
    assert experiment["display_name"] == "e"
    assert request.body["experiment_id"] == experiment["experiment_id"]
    (identity,) = kfp_server.runs
    printed = capsys.readouterr()
    assert f"{kfp_server.url}/#/runs/details/{identity}" in printed.out
    assert printed.out.startswith("run 'first' submitted: ")
    assert "warning" not in printed.err


def test_every_request_is_without_secrets_and_namespaces(kfp_server: KfpServer, voxsrc_pipeline: Run) -> None:
    assert voxsrc_pipeline(*SUBMIT) == 0
    assert all("Authorization" not in request.headers for request in kfp_server.requests)
    assert not any(request.query.get("namespace") for request in kfp_server.requests)


def test_a_server_of_several_users_is_told_the_namespace(kfp_server: KfpServer, voxsrc_pipeline: Run) -> None:
    kfp_server.multi_user = True
    assert voxsrc_pipeline(*SUBMIT, "--namespace", "team-a") == 0
    assert kfp_server.sent("GET", "/runs")[0].query["namespace"] == "team-a"
    (created,) = kfp_server.sent("POST", "/experiments")
    assert created.body["namespace"] == "team-a"


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_failed_run_is_continued_with_the_same_arguments(
    state: str, kfp_server: KfpServer, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert voxsrc_pipeline(*SUBMIT) == 0
    (first,) = kfp_server.runs.values()
    first["state"] = state
    capsys.readouterr()
    assert voxsrc_pipeline(*SUBMIT, "--json") == 0
    before, after = kfp_server.sent("POST", "/runs")
    assert before.body["runtime_config"] == after.body["runtime_config"]
    assert before.body["experiment_id"] == after.body["experiment_id"]
    answer = json.loads(capsys.readouterr().out)
    assert answer["action"] == "continued"
    assert answer["previous_run_id"] == first["run_id"] != answer["run_id"]


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "CANCELING", "PAUSED", None])
def test_a_run_under_way_is_refused_with_its_link(
    state: str | None, kfp_server: KfpServer, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = kfp_server.add_run("first", state)
    kfp_server.add_run("first", "FAILED")  # a newer one does not hide it
    assert voxsrc_pipeline(*SUBMIT, "--again", "--allow-changes") == 1
    assert not kfp_server.sent("POST", "/runs")
    assert f"{kfp_server.url}/#/runs/details/{identity}" in capsys.readouterr().err


def test_a_succeeded_run_is_reported_and_repeated_only_again(
    kfp_server: KfpServer, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    kfp_server.add_run("first", "FAILED")
    assert voxsrc_pipeline(*SUBMIT, "--allow-changes") == 0
    *_, identity = kfp_server.runs
    kfp_server.runs[identity]["state"] = "SUCCEEDED"
    kfp_server.requests.clear()
    capsys.readouterr()
    assert voxsrc_pipeline(*SUBMIT) == 0
    assert not kfp_server.sent("POST", "/runs")
    assert identity in (out := capsys.readouterr().out) and "nothing was submitted" in out
    assert voxsrc_pipeline(*SUBMIT, "--again") == 0
    assert len(kfp_server.sent("POST", "/runs")) == 1
    assert f"repeats run {identity}" in capsys.readouterr().out


def test_other_names_do_not_count(kfp_server: KfpServer, voxsrc_pipeline: Run) -> None:
    kfp_server.add_run("second", "RUNNING")
    assert voxsrc_pipeline(*SUBMIT) == 0


def test_a_run_under_way_is_found_behind_a_page_of_others(
    kfp_server: KfpServer, voxsrc_pipeline: Run
) -> None:
    kfp_server.add_run("first", "RUNNING")
    for _ in range(100):
        kfp_server.add_run("first", "FAILED")
    assert voxsrc_pipeline(*SUBMIT) == 1
    assert len(kfp_server.sent("GET", "/runs")) == 2


def test_changed_arguments_are_named_and_need_a_flag(
    kfp_server: KfpServer, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert voxsrc_pipeline(*SUBMIT) == 0
    next(iter(kfp_server.runs.values()))["state"] = "FAILED"
    changed = ["--set", "output=gs://b/other", "--set", "num_workers=8"]  # 8 is the default: no change
    assert voxsrc_pipeline(*SUBMIT, *changed) == 1
    assert len(kfp_server.sent("POST", "/runs")) == 1
    message = capsys.readouterr().err
    assert "output was 'gs://b/set', now 'gs://b/other'" in message
    assert "num_workers" not in message
    assert voxsrc_pipeline(*SUBMIT, *changed, "--allow-changes") == 0
    assert "changed: output" in capsys.readouterr().out


def test_an_endpoint_that_is_not_there_says_how_to_connect(
    cloud_env: Path, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with KfpServer() as gone:
        url = gone.url
    assert voxsrc_pipeline(*SUBMIT, "--endpoint", url, "--namespace", "ns") == 1
    message = capsys.readouterr().err
    assert "refused" in message
    # the one line that `watch` prints of it
    assert "keep gcp-cluster/connect.sh running in another terminal" in message.splitlines()[0]
    assert "kubectl port-forward service/ml-pipeline-ui 8080:80 --namespace=ns" in message


def test_another_server_is_not_taken_for_kubeflow(
    kfp_server: KfpServer, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    kfp_server.faults = [("GET", "/healthz", 200, b"<html>welcome</html>")]
    assert voxsrc_pipeline(*SUBMIT) == 1
    assert "not as Kubeflow Pipelines does" in capsys.readouterr().err


def test_a_server_that_wants_a_login_is_asked_once(
    kfp_server: KfpServer, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = ("GET", "/healthz", 401, b'{"message": "no token"}')
    kfp_server.faults = [refused] * 3
    assert voxsrc_pipeline(*SUBMIT) == 1
    # our own look, and kfp's client
    assert len(kfp_server.faults) == 1
    message = capsys.readouterr().err
    assert "HTTP 401, no token; log in" in message
    assert "gcp-cluster/connect.sh" in message


def test_an_unclear_end_of_the_submission_is_said(
    kfp_server: KfpServer, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    kfp_server.faults = [("POST", "/runs", 502, b"")]
    assert voxsrc_pipeline(*SUBMIT) == 1
    assert len(kfp_server.sent("POST", "/runs")) == 1
    assert "Whether it was created is not known" in capsys.readouterr().err


def test_without_any_endpoint_the_setting_is_named(
    cloud_env: Path, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert voxsrc_pipeline(*SUBMIT) == 1
    assert "VOXSRC_KFP_ENDPOINT is not set; give --endpoint" in capsys.readouterr().err


def test_the_settings_name_the_service_account(
    kfp_server: KfpServer, cloud_env: Path, voxsrc_pipeline: Run
) -> None:
    assert voxsrc_pipeline(*SUBMIT) == 0
    assert kfp_server.sent("POST", "/runs")[0].body.get("service_account") is None
    cloud_env.write_text(cloud_env.read_text() + "VOXSRC_KUBERNETES_SERVICE_ACCOUNT=runner\n")
    assert voxsrc_pipeline(*SUBMIT[:-1], "second") == 0
    assert kfp_server.sent("POST", "/runs")[1].body["service_account"] == "runner"


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("r.example/voxsrc-train:latest", "expected one by digest"),
        ("r.example:5000/voxsrc-train", "expected one by digest"),
        ("", "expected one by digest"),
    ],
)
def test_latest_is_refused_before_the_server_is_asked(
    image: str,
    words: str,
    kfp_server: KfpServer,
    voxsrc_pipeline: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert voxsrc_pipeline(*SUBMIT, "--set", f"feature_extractor_image={image}") == 1
    assert words in capsys.readouterr().err
    assert not kfp_server.requests


def test_a_tag_is_warned_of_once(
    kfp_server: KfpServer, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    image = "r.example:5000/x/voxsrc-train:abc"
    assert voxsrc_pipeline(*SUBMIT, "--set", f"feature_extractor_image={image}") == 0
    message = capsys.readouterr().err
    assert message.count("warning") == 1
    assert "named by a tag" in message


def test_images_without_a_registry_are_all_refused(
    kfp_server: KfpServer, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the packages come with them, for this machine's Docker engine."""
    given = [x for name, uri in required("train").items() for x in ("--set", f"{name}={uri}")]
    train = ["submit", "train", *given, "--no-input-check", "--run-name", "first"]
    assert voxsrc_pipeline(*train, *IMAGE) == 1
    message = capsys.readouterr().err
    assert "voxsrc-evaluate:0.1.0, voxsrc-train:0.1.0: the images name no registry" in message
    assert "voxsrc-feature-extractor" not in message
    assert "common/containers/build_images.sh --push --yaml" in message
    local = f"feature_extractor_image=voxsrc-feature-extractor@sha256:{'0' * 64}"
    assert voxsrc_pipeline(*SUBMIT, "--set", local) == 1
    assert "the image names no registry" in capsys.readouterr().err
    assert not kfp_server.requests


def test_other_pipelines_may_use_images_of_docker_hub() -> None:
    spec = {"pipelineInfo": {"name": "other"}, "root": {"dag": {"tasks": {}}}}
    need = replace(
        step_needs(load_package(package_path("extract")), required("extract"))[0], image="python:3.12"
    )
    require_registries(package_from(spec, None, "other.yaml"), [need])
    assert any("names no registry" in warning for warning in check_images([need]))
