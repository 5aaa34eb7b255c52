"""gcp-cluster's scripts for the way from a cluster to a run: login, quota, upload, connection."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cloud_cli import CloudCli
from cloud_scripts import Cloud
from voxsrc.pipelines.package import load_package, package_path

PYTHON = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"${0%/*}/calls"
echo progress
[[ "$*" != *"$FAILING"* ]]
"""


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with CloudCli() as cli:
        cli.state["clusters"]["some-cluster"] = {"status": "RUNNING"}
        cli.state["kubernetes"]["namespace"] = "kubeflow"
        yield Cloud(tmp_path, cli)


def test_docker_logs_in_to_the_host_of_the_registry(cloud: Cloud) -> None:
    printed = cloud.printed("login_docker")
    cloud.succeed("login_docker")
    assert cloud.changing_calls() == printed
    assert printed == [["gcloud", "auth", "configure-docker", "europe-west4-docker.pkg.dev", "--quiet"]]


@pytest.mark.parametrize("endpoint", ["", "http://localhost:9090", "http://127.0.0.1:9090/"])
def test_a_connection_prints_the_endpoint_and_is_made_again_when_lost(cloud: Cloud, endpoint: str) -> None:
    port = "9090" if endpoint else "8080"
    cloud.cli.state["forwards"] = 3
    done = cloud.run("connect", VOXSRC_KFP_ENDPOINT=endpoint)
    assert done.returncode == 1, "in the end the port cannot be opened any more"
    assert done.stdout == f"VOXSRC_KFP_ENDPOINT={endpoint or 'http://localhost:8080'}\n", "once"
    forwards = [call for call in cloud.changing_calls() if "port-forward" in call]
    assert len(forwards) == 3 + 20
    assert forwards[0] == [
        "kubectl",
        "port-forward",
        "service/ml-pipeline-ui",
        f"{port}:80",
        "--namespace=kubeflow",
        "--context=gke_some-project_europe-west4-a_some-cluster",
    ]
    assert "the connection is lost: trying again" in done.stderr
    assert cloud.printed("connect")[-1] == (
        forwards[0] if endpoint == "" else [*forwards[0][:3], "8080:80", *forwards[0][4:]]
    )


def test_a_connection_that_cannot_be_made_ends_at_once(cloud: Cloud) -> None:
    cloud.cli.state["forwards"] = 0
    done = cloud.run("connect")
    assert done.returncode == 1
    assert "unable to listen" in done.stderr
    assert "no connection (the reason is above)" in done.stderr
    assert len([call for call in cloud.changing_calls() if "port-forward" in call]) == 1


def test_an_endpoint_elsewhere_needs_no_connection(cloud: Cloud) -> None:
    done = cloud.run("connect", VOXSRC_KFP_ENDPOINT="https://kfp.example.org")
    assert done.returncode == 1
    assert "found https://kfp.example.org; expected http://localhost:PORT" in done.stderr
    assert cloud.cli.calls == []


def test_the_quota_is_shown_beside_what_the_pools_want(cloud: Cloud) -> None:
    cloud.cli.state["quotas"] = {
        "region": [
            ("CPUS", 24, 4),
            ("PREEMPTIBLE_CPUS", 0, 0),
            ("N2D_CPUS", 64, 8),
            ("IN_USE_ADDRESSES", 8, 1),
            ("PREEMPTIBLE_NVIDIA_L4_GPUS", 2, 0),
            ("NVIDIA_L4_GPUS", 1, 0),
            ("NVIDIA_T4_GPUS", 1, 0),
            ("SSD_TOTAL_GB", 2000, 500),
            ("GPUS_ALL_REGIONS", 9, 9),
        ],
        "project": [("GPUS_ALL_REGIONS", 4, 1), ("CPUS_ALL_REGIONS", 32, 4), ("IN_USE_ADDRESSES", 1, 1)],
    }
    rows = [line.split(maxsplit=4) for line in cloud.succeed("show_quota").splitlines()]
    assert rows == [
        ["quota", "wanted", "limit", "used"],
        ["CPUS", "28", "24", "4", "less than wanted"],
        ["SSD_TOTAL_GB", "1190", "2000", "500"],
        ["IN_USE_ADDRESSES", "13", "8", "1", "less than wanted"],
        ["CPUS_ALL_REGIONS", "92", "32", "4", "less than wanted"],
        ["PREEMPTIBLE_CPUS", "80", "0", "0", "0: the other CPU quotas count"],
        ["N2D_CPUS", "64", "64", "8", "less than wanted"],
        ["PREEMPTIBLE_NVIDIA_L4_GPUS", "2", "2", "0"],
        ["GPUS_ALL_REGIONS", "2", "4", "1"],
        ["PREEMPTIBLE_LOCAL_SSD_GB", "750", "-", "-", "not listed"],
        ["NVIDIA_L4_GPUS", "2", "1", "0", "less than wanted"],
        ["LOCAL_SSD_TOTAL_GB", "750", "-", "-", "not listed"],
    ]
    assert cloud.changing_calls() == []
    assert cloud.printed("show_quota") == [call.command for call in cloud.cli.calls]


def test_the_wanted_quota_follows_the_settings(cloud: Cloud) -> None:
    metrics = ["CPUS", "E2_CPUS", "N2_CPUS", "PREEMPTIBLE_CPUS", "IN_USE_ADDRESSES", "CPUS_ALL_REGIONS"]
    cloud.cli.state["quotas"] = {"region": [(metric, 100, 0) for metric in metrics]}

    def wanted(**settings: str) -> dict[str, str]:
        shown = cloud.succeed("show_quota", **settings)
        return {line.split()[0]: line.split()[1] for line in shown.splitlines()[1:]}

    few = {"VOXSRC_GPU_TYPES": "none", "VOXSRC_CPU_MAX_NODES": "2", "VOXSRC_SYSTEM_MAX_NODES": "1"}
    own = {"VOXSRC_CPU_MACHINE_TYPE": "n2-standard-16", "VOXSRC_SYSTEM_MACHINE_TYPE": "e2-standard-2"}
    found = wanted(**few, **own)
    assert found["SSD_TOTAL_GB"] == str(50 + 40 + 2 * 100)
    assert {name: found[name] for name in ("CPUS", "E2_CPUS", "N2_CPUS", "PREEMPTIBLE_CPUS")} == {
        "CPUS": "2",
        "E2_CPUS": "2",
        "N2_CPUS": "32",
        "PREEMPTIBLE_CPUS": "32",
    }
    assert "N2D_CPUS" not in found
    assert "CPUS_ALL_REGIONS" not in found, "only the project's counts"
    assert wanted(**few)["IN_USE_ADDRESSES"] == "3"
    assert wanted(**few, VOXSRC_PRIVATE_NODES="yes")["IN_USE_ADDRESSES"] == "1", "the NAT's"
    assert "IN_USE_ADDRESSES" not in wanted(**few, VOXSRC_PRIVATE_NODES="own-nat")
    shown = cloud.run("show_quota", VOXSRC_CPU_MACHINE_TYPE="x9-mega")
    assert shown.returncode == 0
    assert "the name x9-mega does not tell its vCPUs: they are left out" in shown.stderr


def test_spot_machines_count_in_other_quotas_only_without_their_own(cloud: Cloud) -> None:
    """An H100's pool is Spot alone, so that nothing else wants CPUS for it."""
    settings = {"VOXSRC_GPU_TYPES": "h100", "VOXSRC_GPU_MAX_NODES": "1", "VOXSRC_SYSTEM_MAX_NODES": "1"}
    for limit, cpus in ((100, 4), (0, 4 + 26)):
        cloud.cli.state["quotas"] = {"region": [("PREEMPTIBLE_CPUS", limit, 0), ("CPUS", 100, 0)]}
        shown = dict(line.split()[:2] for line in cloud.succeed("show_quota", **settings).splitlines())
        assert shown["CPUS"] == str(cpus)


def test_all_gpu_types_have_a_wanted_quota(cloud: Cloud) -> None:
    shown = cloud.succeed("show_quota", VOXSRC_GPU_TYPES="t4,l4,v100,a100-40gb,a100-80gb,h100")
    wanted = dict(line.split()[:2] for line in shown.splitlines()[1:])
    assert sum("NVIDIA" in metric for metric in wanted) == 11
    assert wanted["PREEMPTIBLE_LOCAL_SSD_GB"] == "1500"


@pytest.fixture
def python(cloud: Cloud) -> Path:
    program = cloud.programs / "python"
    program.write_text(PYTHON)
    program.chmod(0o755)
    return program


def test_the_upload_brings_what_the_printed_parameters_name(cloud: Cloud, python: Path) -> None:
    options = ["--from=/data/voxceleb", "--staging", "/big disk", "--run", "second"]
    output = cloud.succeed("upload_voxceleb", *options, PYTHON=str(python), FAILING="none")
    calls = (cloud.programs / "calls").read_text().splitlines()
    assert calls == [
        f"-m voxceleb_data.cli {words}"
        for words in [
            "download vox2-dev --from /data/voxceleb --output gs://some-bucket/vox2 --staging /big disk",
            "download vox1-test --from /data/voxceleb --output gs://some-bucket/vox1 --staging /big disk",
            "trials vox1-O --output gs://some-bucket/lists",
            "prepare --audio gs://some-bucket/vox2/vox2_dev_aac_partaa"
            " --output gs://some-bucket/lists/vox2-dev.txt",
            "prepare --audio gs://some-bucket/vox1/vox1_test_wav.zip"
            " --trials gs://some-bucket/lists/vox1-O-cleaned.txt"
            " --output gs://some-bucket/lists/vox1-test.txt",
        ]
    ]
    parameters = yaml.safe_load(output)
    for name in ("train_audio", "train_list", "test_audio", "test_list"):
        assert any(word == parameters[name] for call in calls for word in call.split()), name
    assert parameters["training"] == "gs://some-bucket/runs/second"
    printed = cloud.printed("upload_voxceleb", *options)
    assert [" ".join(command[1:]) for command in printed] == calls


def test_the_upload_prints_all_that_the_train_pipeline_must_be_given(cloud: Cloud, python: Path) -> None:
    output = cloud.succeed("upload_voxceleb", "--from", "gs://x/y", PYTHON=str(python), FAILING="none")
    parameters = load_package(package_path("train")).parameters
    assert yaml.safe_load(output).keys() == {name for name in parameters if parameters[name].required}


def test_the_upload_calls_only_commands_that_there_are(cloud: Cloud) -> None:
    from voxceleb_data.cli import build_parser

    for command in cloud.printed("upload_voxceleb", "--from", "/data", "--key-env", "KEY"):
        assert command[1:3] == ["-m", "voxceleb_data.cli"]
        build_parser().parse_args(command[3:])


def test_an_upload_that_fails_prints_no_parameters(cloud: Cloud, python: Path) -> None:
    done = cloud.run("upload_voxceleb", "--from", "/data", PYTHON=str(python), FAILING="trials")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "run this again: it continues" in done.stderr
    for wrong, message in [
        ([], "--from is missing"),
        (["--from", "a", "--run", "a/b"], "--run: found a/b; expected letters"),
    ]:
        done = cloud.run("upload_voxceleb", *wrong)
        assert done.returncode == 1
        assert message in done.stderr
    done = cloud.run("upload_voxceleb", "--from", "/data", PYTHON="/nowhere/python")
    assert "no interpreter /nowhere/python; make it: make cloud" in done.stderr
