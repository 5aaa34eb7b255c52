"""`voxsrc pipeline submit` looks whether the inputs exist, before it submits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gcs_server import GcsServer
from kfp_server import KfpServer
from run_arguments import an_archive, arguments_in, missing, states, submitting
from voxsrc import storage
from voxsrc.errors import ConfigError
from voxsrc.pipelines import input_check
from voxsrc.pipelines.input_check import check_inputs
from voxsrc.pipelines.inputs import run_places
from voxsrc.pipelines.package import Package, load_package, package_from, package_path
from voxsrc.storage.gcs_connection import GcsSettings

# kfp's client says so each time that it is made
pytestmark = [
    pytest.mark.filterwarnings("ignore:This client only works with:FutureWarning"),
    pytest.mark.usefixtures("hurry"),
]

Run = Callable[..., int]


def test_the_inputs_of_our_pipelines_are_told_from_what_they_are_passed_to(train: Package) -> None:
    arguments = dict.fromkeys(train.parameters, "gs://b/x") | {"title": "A title"}
    kinds = {place.parameter: place.kind for place in run_places(train, arguments)}
    assert (
        kinds.items()
        >= {
            "train_audio": "audio",
            "train_list": "file",
            "train_features": "output",
            "test_audio": "audio",
            "test_list": "file",
            "test_features": "output",
            "trials": "file",
            "metadata": "file",
            "recipe": "recipe",
            "training": "output",
            "evaluation": "output",
        }.items()
    )
    assert "title" not in kinds
    extract = load_package(package_path("extract"))
    given = {"audio": "gs://b/a", "output": "gs://b/o"}
    assert {p.parameter: p.kind for p in run_places(extract, given)} == {"audio": "audio", "output": "output"}


def test_every_parameter_that_is_described_as_a_uri_is_a_place() -> None:
    for name in ("extract", "train"):
        package = load_package(package_path(name))
        arguments = {key: "gs://b/x" for key, p in package.parameters.items() if p.kind == "STRING"}
        places = {place.parameter for place in run_places(package, arguments)}
        described = {key for key, p in package.parameters.items() if "gs:// URI" in p.description}
        assert described
        assert described <= places


def test_of_other_pipelines_nothing_is_known() -> None:
    root = {"dag": {"tasks": {}}, "inputDefinitions": {"parameters": {"audio": {"parameterType": "STRING"}}}}
    other = package_from({"pipelineInfo": {"name": "p"}, "root": root}, None, "p.yaml")
    assert check_inputs(other, {"audio": "/nowhere", "overrides": "x"}) == []


def test_a_run_whose_inputs_exist_is_submitted(
    kfp_server: KfpServer, bucket: str, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert voxsrc_pipeline(*submitting(arguments_in(bucket))) == 0
    assert len(kfp_server.sent("POST", "/runs")) == 1
    assert capsys.readouterr().err == ""


def test_all_missing_inputs_are_named_and_nothing_is_submitted(
    kfp_server: KfpServer, bucket: str, voxsrc_pipeline: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = arguments_in(bucket) | {
        "train_audio": f"{bucket}/audio/vox",  # a prefix of the name, and no folder
        "trials": f"{bucket}/lists",
        "metadata": "gs://voxsrc-no-such-bucket/table.csv",
        "recipe": f"{bucket}/own.yaml",
        "overrides": f"num_steps=5; augment.noise.features={bucket}/musan",
        "test_list": "lists/test.txt",
        "training": "runs/r",
    }
    assert voxsrc_pipeline(*submitting(arguments)) == 1
    assert not kfp_server.sent("POST", "/runs")
    assert not kfp_server.sent("POST", "/experiments")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: nothing was submitted")
    assert lines[-1] == "--no-input-check submits it all the same"
    found = dict(line.strip().split(": ", 1) for line in lines[1:-1] if "overrides" not in line)
    assert found.keys() == {"train_audio", "test_list", "trials", "training", "recipe", "metadata"}
    assert f"{bucket}/audio/vox does not exist, nor anything below it; copy" in found["train_audio"]
    assert f"{bucket}/lists does not exist; copy the file there" in found["trials"]
    assert f"gcloud storage ls {bucket}/" in found["trials"]
    assert "no such bucket" in found["metadata"]
    assert f"{bucket}/own.yaml" in found["recipe"]
    assert "a path of this machine, and does not exist in the cluster" in found["test_list"]
    assert "gcloud storage cp --recursive lists/test.txt gs://BUCKET/" in found["test_list"]
    assert "runs/r is a path within each pod" in found["training"]
    (noise,) = [line for line in lines if "overrides" in line]
    assert f"overrides: augment.noise.features: {bucket}/musan is no finished feature set" in noise

    assert voxsrc_pipeline(*submitting(arguments, "--no-input-check")) == 0
    assert len(kfp_server.sent("POST", "/runs")) == 1


def test_nothing_is_looked_up_if_nothing_would_be_submitted(
    kfp_server: KfpServer, bucket: str, gcs_server: GcsServer, voxsrc_pipeline: Run
) -> None:
    arguments = arguments_in(bucket) | {"trials": f"{bucket}/gone"}
    assert voxsrc_pipeline(*submitting(arguments, "--no-input-check")) == 0
    (run,) = kfp_server.runs.values()
    run["state"] = "SUCCEEDED"
    gcs_server.clear()
    assert voxsrc_pipeline(*submitting(arguments)) == 0
    assert gcs_server.requests == []
    assert voxsrc_pipeline(*submitting(arguments, "--again")) == 1


def test_several_sources_of_audio_are_looked_up_each(train: Package, bucket: str) -> None:
    arguments = arguments_in(bucket)
    both = f"{bucket}/audio/vox2; {bucket}/test.zip\n"
    assert missing(train, arguments | {"train_audio": both}) == {}
    for third in (f"{both}{bucket}/three.tar", f"{both};{bucket}/three.tar;"):
        (found,) = missing(train, arguments | {"train_audio": third}).values()
        assert found.startswith(f"{bucket}/three.tar does not exist")
    with pytest.raises(ConfigError, match=r"train_audio: --audio names .* which are the same"):
        check_inputs(train, arguments | {"train_audio": f"{bucket}/test.zip; {bucket}/test.zip"})


def test_audio_that_is_no_source_or_lacks_a_part_is_found(train: Package, bucket: str) -> None:
    arguments = arguments_in(bucket)
    assert (
        "expected a folder, a tar"
        in missing(train, arguments | {"test_audio": f"{bucket}/lists/test.txt"})["test_audio"]
    )
    part = {"test_audio": f"{bucket}/vox_partaa"}
    assert "has no files vox_partaa" in missing(train, arguments | part)["test_audio"]
    for name in ("aa", "ac"):
        storage.write_bytes(f"{bucket}/vox_part{name}", an_archive())
    assert "part vox_partab is missing" in missing(train, arguments | part)["test_audio"]
    storage.write_bytes(f"{bucket}/vox_partab", b"")
    assert missing(train, arguments | part) == {}


def test_audio_is_not_needed_once_the_set_made_of_it_is_finished(train: Package, bucket: str) -> None:
    gone = {"train_audio": f"{bucket}/gone", "test_audio": f"{bucket}/gone"}
    arguments = arguments_in(bucket) | gone
    assert missing(train, arguments).keys() == gone.keys()
    for features in ("train_features", "test_features"):
        storage.write_bytes(f"{arguments[features]}/manifest.json", b"{}")
    # the report plays that of the test set
    assert missing(train, arguments).keys() == {"test_audio"}


def test_empty_arguments_are_inputs_only_where_a_step_needs_one(train: Package, bucket: str) -> None:
    arguments = arguments_in(bucket) | {"train_list": "", "test_list": "", "metadata": ""}
    assert missing(train, arguments) == {}
    assert missing(train, arguments | {"trials": ""}) == {"trials": "it is empty; give a gs:// URI"}


def test_what_the_caller_may_not_read_is_a_warning(
    kfp_server: KfpServer,
    bucket: str,
    gcs_server: GcsServer,
    voxsrc_pipeline: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = arguments_in(bucket)
    gcs_server.fail("status", status=403, path="trials.txt", times=9)
    assert voxsrc_pipeline(*submitting(arguments)) == 0
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: trials: not checked whether it exists")
    assert "storage.objects.get" in warning
    gcs_server.fail("status", status=403, path="trials.txt", times=9)
    other = arguments | {"test_list": f"{bucket}/gone"}
    assert states(load_package(package_path("train")), other).items() >= {
        ("trials", "unknown"),
        ("test_list", "missing"),
    }


def test_without_credentials_it_is_said_once(
    kfp_server: KfpServer,
    voxsrc_pipeline: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    inputs = ["test_audio", "test_list", "train_audio", "train_list", "trials"]
    outputs = ["train_features", "test_features", "training", "evaluation"]
    names = sorted(inputs + outputs)
    arguments = {name: f"gs://bucket/{name}" for name in names}
    assert voxsrc_pipeline(*submitting(arguments)) == 0
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"warning: {', '.join(names)}: not checked whether they exist")
    assert "gcloud auth application-default login" in warning
    # that needs no credentials
    assert voxsrc_pipeline(*submitting(arguments | {"trials": "trials.txt"}, "--again")) == 1


def test_a_storage_that_does_not_answer_is_waited_for_once(
    train: Package, gcs_server: GcsServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = arguments_in(bucket)
    monkeypatch.setenv("VOXSRC_STORAGE_DEADLINE_S", "0.001")
    gcs_server.clear()
    gcs_server.fail("status", status=503, times=1000)
    checks = check_inputs(train, arguments)
    reasons = {check.found for check in checks if check.state == "unknown"}
    assert len(reasons) == 1
    assert "nothing has moved" in reasons.pop()
    assert len(gcs_server.requests) < 5


def test_names_that_can_be_none_are_missing(train: Package, bucket: str) -> None:
    wrong = {"train_list": "s3://b/list", "test_list": "gs://B/list", "trials": bucket}
    found = missing(train, arguments_in(bucket) | wrong)
    assert found.keys() == wrong.keys()
    assert "unknown scheme s3://" in found["train_list"]
    assert "is no bucket name" in found["test_list"]
    assert "expected an object" in found["trials"]


def test_the_patience_is_short_unless_it_is_set(
    train: Package, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, seen = arguments_in(bucket), set[Any]()
    exists = storage.exists

    def asked(uri: str) -> bool:
        seen.add(GcsSettings.from_env().deadline_s)
        return exists(uri)

    monkeypatch.setattr(storage, "exists", asked)
    monkeypatch.delenv("VOXSRC_STORAGE_DEADLINE_S", raising=False)
    check_inputs(train, arguments)
    assert seen == {input_check.PATIENCE_S}
    assert GcsSettings.from_env() == GcsSettings()
    monkeypatch.setenv("VOXSRC_STORAGE_DEADLINE_S", "30")
    check_inputs(train, arguments)
    assert seen == {input_check.PATIENCE_S, 30}
