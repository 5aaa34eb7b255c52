"""The scripts of gcp-cluster/ against `cloud_cli.py`, which refuses what gcloud and kubectl refuse."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_cli import CloudCli
from cloud_scripts import ROOT, SCRIPTS, SETTINGS, Cloud
from trainer.checkpoint.pointer import file_name

SPOT_TAINT = "cloud.google.com/gke-spot=true:NoSchedule"
ALL_GPUS = "t4,l4,v100,a100-40gb,a100-80gb,h100"


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with CloudCli() as cli:
        yield Cloud(tmp_path, cli)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A project after setup.sh, which no test changes."""
    with CloudCli() as cli:
        cloud = Cloud(tmp_path_factory.mktemp("finished"), cli)
        cloud.succeed("setup", "--gpu", ALL_GPUS)
        yield cloud


@pytest.fixture
def ready(cloud: Cloud, finished: Cloud) -> Cloud:
    """A project after setup.sh, without calls yet."""
    cloud.cli.state = copy.deepcopy(finished.state)
    return cloud


def table() -> Iterator[dict[str, str]]:
    """The lines of pools.tsv."""
    lines = [line for line in (SCRIPTS / "pools.tsv").read_text().splitlines() if not line.startswith("#")]
    for line in lines[1:]:
        yield dict(zip(lines[0].split("\t"), line.split("\t"), strict=True))


def test_a_dry_run_prints_exactly_the_commands_that_setup_then_runs(cloud: Cloud, finished: Cloud) -> None:
    printed = cloud.printed("setup", "--gpu", ALL_GPUS)
    assert printed == finished.changed()
    assert len(printed) > 25


def test_setup_run_again_creates_nothing(ready: Cloud) -> None:
    before = copy.deepcopy(ready.state)
    done = ready.run("setup", "--gpu", ALL_GPUS)
    assert done.returncode == 0, done.stderr
    assert ready.state == before
    assert not [
        call for call in [call.command for call in ready.cli.calls] if {"create", "enable"} & set(call)
    ]
    kinds = re.findall(r"(\w+) \S+ exists: (?:left alone|compared with)", done.stderr)
    assert [kinds.count(kind) for kind in ("bucket", "repository", "account", "cluster", "pool")] == [
        1,
        1,
        3,
        1,
        13,
    ]
    assert "all services are enabled: left alone" in done.stderr
    assert "warning" not in done.stderr and "changed" not in done.stderr


@pytest.mark.parametrize("failing", [3, 10, 17])
def test_setup_continues_after_a_failure(cloud: Cloud, failing: int) -> None:
    cloud.cli.fail_at = failing
    failed = cloud.run("setup", "--gpu", "none")
    assert failed.returncode == 1
    assert "RESOURCE_EXHAUSTED" in failed.stderr
    assert "run setup.sh again: it continues" in failed.stderr
    stopped = len(cloud.changing_calls())
    assert stopped == failing
    cloud.succeed("setup", "--gpu", "none")
    creations = [call for call in cloud.changing_calls()[failing:] if "create" in call]
    done_before = [call for call in cloud.changing_calls()[: failing - 1] if "create" in call]
    assert not [call for call in creations if call in done_before]
    assert cloud.state["pools"].keys() == {"cpu-spot", "cpu-on-demand"}
    assert len(cloud.state["kubernetes"]["annotations"]) == 3


@pytest.mark.parametrize(("script", "what"), [("create_cluster", "clusters"), ("create_node_pools", "pools")])
def test_what_a_killed_run_has_begun_is_waited_for(cloud: Cloud, script: str, what: str) -> None:
    for step in ("create_storage", "create_identities"):
        cloud.succeed(step)
    if what == "pools":
        cloud.succeed("create_cluster")
    cloud.cli.kill_at = len(cloud.changing_calls()) + 1
    assert cloud.run(script).returncode == 1
    assert "PROVISIONING" in {resource["status"] for resource in cloud.state[what].values()}
    done = cloud.run(script)
    assert done.returncode == 0, done.stderr
    assert "waiting for operation-1" in done.stderr
    assert {resource["status"] for resource in cloud.state[what].values()} == {"RUNNING"}
    creations = [call[3:5] for call in cloud.changing_calls() if call[1] == "container" and "create" in call]
    assert len(creations) == len({tuple(creation) for creation in creations})


@pytest.mark.parametrize(
    "script", ["create_storage", "create_identities", "create_cluster", "delete_cluster"]
)
def test_a_denied_permission_ends_the_script_before_it_changes_anything(cloud: Cloud, script: str) -> None:
    cloud.cli.denied = "describe"
    done = cloud.run(script, *["--yes"][: script == "delete_cluster"])
    assert done.returncode == 1
    assert "PERMISSION_DENIED" in done.stderr
    assert "could not find out whether something exists: gcloud " in done.stderr
    assert cloud.changing_calls() == []


def test_a_binding_is_tried_again_while_its_account_is_new_but_not_for_ever(cloud: Cloud) -> None:
    cloud.succeed("create_storage")
    cloud.succeed("create_identities")
    assert len(cloud.changing_calls()) - len(cloud.changed()) == 3
    cloud.cli.calls.clear()
    for account in cloud.state["accounts"].values():
        account["hidden"] = 1000
    assert cloud.run("create_identities").returncode == 1
    assert len(cloud.changing_calls()) == 8
    assert cloud.changed() == cloud.changing_calls()[:1]


def test_every_pool_is_as_pools_tsv_says(finished: Cloud) -> None:
    pools = finished.pools()
    rows = {row["pool"]: row for row in table()}
    assert pools.keys() == rows.keys()
    for name, row in rows.items():
        flags = pools[name]
        spot = row["provisioning"] == "spot"
        assert name.startswith(f"{'cpu' if row['gpu'] == 'none' else 'gpu'}-{row['provisioning']}")
        assert ("spot" in flags) == spot
        assert (SPOT_TAINT in flags.get("node-taints", "").split(",")) == spot
        assert flags.get("node-taints", "none") == row["taints"]
        assert flags["node-labels"] == row["labels"]
        labels = dict(item.split("=") for item in row["labels"].split(","))
        assert labels["voxsrc/pool"] == name
        assert labels["voxsrc/kind"] == ("cpu" if row["gpu"] == "none" else "gpu")
        assert labels["voxsrc/provisioning"] == row["provisioning"]
        assert labels.get("voxsrc/gpu", "none") == row["gpu"]
        assert flags["total-min-nodes"] == flags["num-nodes"] == "0"
        assert flags["total-max-nodes"] == ("8" if row["gpu"] == "none" else "2")
        assert flags["workload-metadata"] == "GKE_METADATA"
        accelerator = f"type={row['accelerator']},count={row['gpus']},gpu-driver-version={row['driver']}"
        assert flags.get("accelerator") == (None if row["gpu"] == "none" else accelerator)
        automatic = dict(item.split("=") for item in row["automatic_labels"].split(",") if item != "none")
        assert (automatic.get("cloud.google.com/gke-spot") == "true") == spot
        assert automatic.get("cloud.google.com/gke-accelerator", "none") == row["accelerator"]
        assert ("nvidia.com/gpu=present:NoSchedule" in row["taints"]) == (row["gpu"] != "none")
        assert ("GPUS_ALL_REGIONS" in row["quotas"]) == (row["gpu"] != "none")
        assert row["quotas"].startswith("PREEMPTIBLE_") == spot


def test_no_pool_is_open_to_pods_that_do_not_ask_for_it(finished: Cloud) -> None:
    """Kubeflow Pipelines' own pods would keep a node alive, or make the autoscaler add one."""
    assert all(flags.get("node-taints") for flags in finished.pools().values())
    assert finished.pools()["cpu-on-demand"]["node-taints"] == "voxsrc/pool=cpu-on-demand:NoSchedule"


def test_a_label_chooses_spot_and_on_demand_together(finished: Cloud) -> None:
    def having(label: str) -> set[str]:
        return {name for name, flags in finished.pools().items() if label in flags["node-labels"].split(",")}

    assert having("voxsrc/kind=cpu") == {"cpu-spot", "cpu-on-demand"}
    assert having("voxsrc/gpu=l4") == {"gpu-spot-l4", "gpu-on-demand-l4"}
    assert having("voxsrc/kind=gpu") == {name for name in finished.pools() if name.startswith("gpu-")}


def test_pool_settings_and_flags_reach_the_pools(cloud: Cloud) -> None:
    cloud.write(
        SETTINGS | {"VOXSRC_GPU_TYPES": "none", "VOXSRC_CPU_MAX_NODES": "20", "VOXSRC_GPU_MAX_NODES": "5"}
    )
    for step in ("create_storage", "create_identities", "create_cluster"):
        cloud.succeed(step)
    cloud.succeed("create_node_pools", VOXSRC_CPU_MACHINE_TYPE="n1-standard-8")
    assert cloud.pools().keys() == {"cpu-spot", "cpu-on-demand"}
    assert cloud.pools()["cpu-spot"]["total-max-nodes"] == "20"
    assert cloud.pools()["cpu-spot"]["machine-type"] == "n1-standard-8"
    zones = "europe-west4-b,europe-west4-c"
    cloud.succeed("create_node_pools", "--gpu=t4", "--gpu", "t4", "--zones", zones)
    added = cloud.pools().keys() - {"cpu-spot", "cpu-on-demand"}
    assert added == {"gpu-spot-t4", "gpu-on-demand-t4"}
    assert cloud.pools()["gpu-spot-t4"]["node-locations"] == zones
    assert cloud.pools()["gpu-spot-t4"]["total-max-nodes"] == "5"
    wrong = cloud.run("create_node_pools", "--gpu", "k80")
    assert wrong.returncode == 1
    assert "--gpu: found k80; expected one of: a100-40gb" in wrong.stderr
    wrong = cloud.run("create_node_pools", "--zones", "us-central1-a")
    assert "found us-central1-a; expected zones of VOXSRC_REGION, europe-west4" in wrong.stderr


def test_accounts_have_the_least_rights(finished: Cloud) -> None:

    def account(name: str) -> str:
        return f"serviceAccount:{name}@some-project.iam.gserviceaccount.com"

    def pod(name: str) -> str:
        return f"serviceAccount:some-project.svc.id.goog[kubeflow/{name}]"

    user = "roles/iam.workloadIdentityUser"
    pipeline, kfp = SETTINGS["VOXSRC_SERVICE_ACCOUNT"], "voxsrc-kfp@some-project.iam.gserviceaccount.com"
    assert sorted(finished.state["bindings"]) == sorted(
        [
            ["some-project", account("voxsrc-nodes"), "roles/container.defaultNodeServiceAccount"],
            ["images", account("voxsrc-nodes"), "roles/artifactregistry.reader"],
            ["gs://some-bucket", account("pipeline"), "roles/storage.objectUser"],
            ["gs://some-bucket", account("voxsrc-kfp"), "roles/storage.objectViewer"],
            [pipeline, pod("pipeline-runner"), user],
            [kfp, pod("ml-pipeline"), user],
            [kfp, pod("ml-pipeline-ui"), user],
        ]
    )
    annotation = "iam.gke.io/gcp-service-account"
    assert finished.state["kubernetes"]["annotations"]["pipeline-runner"] == {annotation: pipeline}
    assert finished.state["kubernetes"]["launcher"] == {
        "defaultPipelineRoot": "gs://some-bucket/pipeline-root"
    }


def test_the_cluster_and_the_bucket_are_closed(cloud: Cloud) -> None:
    options = {"VOXSRC_AUTHORIZED_NETWORKS": "192.0.2.0/24", "VOXSRC_SOFT_DELETE_DAYS": "0"}
    for step in ("create_storage", "create_identities", "create_cluster"):
        cloud.succeed(step, **options)
    cluster = cloud.state["clusters"]["some-cluster"]["flags"]
    assert {"enable-ip-alias", "enable-shielded-nodes", "shielded-secure-boot"} <= cluster.keys()
    assert cluster["release-channel"] == "regular"
    assert cluster["master-authorized-networks"] == "192.0.2.0/24"
    assert cluster["service-account"] == "voxsrc-nodes@some-project.iam.gserviceaccount.com"
    bucket = cloud.state["buckets"]["some-bucket"]["flags"]
    assert {"uniform-bucket-level-access", "public-access-prevention"} <= bucket.keys()
    assert bucket["soft-delete-duration"] == "0d"


def test_the_lifecycle_rule_deletes_checkpoints_and_nothing_else(cloud: Cloud) -> None:
    cloud.succeed("create_storage")
    rules = cloud.state["buckets"]["some-bucket"]["lifecycle"]["lifecycle"]["rule"]
    [condition] = [rule["condition"] for rule in rules if rule["action"]["type"] == "Delete"]

    def deleted(name: str) -> bool:
        prefixes, suffixes = tuple(condition["matchesPrefix"]), tuple(condition["matchesSuffix"])
        return name.startswith(prefixes) and name.endswith(suffixes)

    for digit in "0123456789abcdef":
        assert deleted(f"runs/baseline/checkpoints/{file_name(1000, 11 * '0' + digit + 52 * '0')}")
    kept = [f"evaluation/embeddings/part-{digit * 16}.safetensors" for digit in "09af"]
    for name in (
        *kept,
        "vox1.safetensors",
        "cohort-ecapa.safetensors",
        "vox2-dev-encoded.safetensors",
        "model/model.safetensors",
        "model/model.yaml",
        "model/model.onnx",
        "checkpoints/latest.json",
    ):
        assert not deleted(f"runs/baseline/{name}")
    assert not deleted("runs/baseline/tensorboard/events.out.tfevents.0")
    assert not deleted("features/vox2/shard-00000.lfb.zst")
    assert not deleted(f"models/{file_name(1, 64 * 'a')}")
    assert condition["age"] >= 30


def test_deletion_asks_for_the_clusters_name(ready: Cloud) -> None:
    before = copy.deepcopy(ready.state)
    for answer in ("", "yes\n", "some-clusters\n"):
        done = ready.run("delete_cluster", answer=answer)
        assert done.returncode == 1
        found = answer.strip() or "nothing"
        assert f"not confirmed: found {found}; expected some-cluster. Nothing was deleted" in done.stderr
    done = ready.run("delete_cluster", "--with-bucket", answer="some-cluster\nsome-cluster\n")
    assert "expected some-bucket. Nothing was deleted" in done.stderr
    assert ready.state == before


def test_deletion_keeps_all_but_the_cluster_unless_named(ready: Cloud) -> None:
    ready.succeed("delete_cluster", answer="some-cluster\n")
    state = ready.state
    assert (state["clusters"], state["pools"], state["disks"]) == ({}, {}, {})
    assert state["buckets"] and state["repositories"] and len(state["accounts"]) == 3
    everything = ["--with-bucket", "--with-registry", "--with-identities"]
    ready.succeed("delete_cluster", *everything, "--yes")
    state = ready.state
    assert [state[kind] for kind in ("buckets", "repositories", "accounts")] == [{}, {}, {}]
    assert "some-project" not in [binding[0] for binding in state["bindings"]]
    ready.cli.calls.clear()
    ready.succeed("delete_cluster", *everything, "--yes")
    assert ready.changing_calls() == []


def test_a_dry_run_of_deletion_prints_what_deletion_then_runs(ready: Cloud) -> None:
    everything = ["--with-bucket", "--with-registry", "--with-identities"]
    ready.state["routers"]["some-cluster-router"] = {
        "nats": {"some-cluster-nat": {}},
        "flags": {"network": "default"},
    }
    printed = ready.printed("delete_cluster", *everything)
    ready.succeed("delete_cluster", *everything, answer="some-cluster\nsome-bucket\n")
    assert ["compute", "routers", "delete"] in [command[1:4] for command in printed]
    assert printed == ready.changed()


def test_a_cluster_in_another_zone_is_an_error_of_deletion_and_all_the_rest_stays(ready: Cloud) -> None:
    before = copy.deepcopy(ready.state)
    everything = ["--with-bucket", "--with-registry", "--with-identities", "--yes"]
    done = ready.run("delete_cluster", *everything, VOXSRC_ZONE="europe-west4-b")
    assert done.returncode == 1
    assert (
        "cluster some-cluster is in europe-west4-a; VOXSRC_ZONE says europe-west4-b; nothing was deleted"
        in done.stderr
    )
    assert "VOXSRC_ZONE=europe-west4-a gcp-cluster/delete_cluster.sh" in done.stderr
    assert "nothing to delete" not in done.stderr
    assert ready.changing_calls() == []
    assert ready.state == before
    ready.cli.denied = "clusters list"
    done = ready.run("delete_cluster", *everything, VOXSRC_ZONE="europe-west4-b")
    assert done.returncode == 1
    assert "could not list the clusters of some-project" in done.stderr
    assert ready.state == before


def test_disks_that_are_left_are_named(ready: Cloud) -> None:
    done = ready.run("delete_cluster", "--skip-kfp", "--yes")
    assert (
        "disks of Kubeflow Pipelines are left that no machine uses, and cost money: pvc-1 (gcloud"
        in done.stderr
    )


def test_status_changes_nothing(ready: Cloud) -> None:
    assert "gpu-spot-l4" in ready.succeed("status")
    assert ready.changing_calls() == []
    assert ready.printed("status") == [call.command for call in ready.cli.calls]


def test_a_missing_program_is_named(cloud: Cloud) -> None:
    (cloud.programs / "gke-gcloud-auth-plugin").unlink()
    done = cloud.run("install_kfp")
    assert done.returncode == 1
    assert "gke-gcloud-auth-plugin is missing" in done.stderr
    assert cloud.printed("install_kfp")


def test_kfps_version_is_pinned_and_can_be_set(cloud: Cloud) -> None:
    extras = (ROOT / "pyproject.toml").read_text()
    pinned = re.search(r'"kfp==([\d.]+)"', extras)
    assert pinned is not None
    urls = [word for command in cloud.printed("install_kfp") for word in command if "?ref=" in word]
    assert [url.partition("?ref=")[2] for url in urls] == [pinned[1]] * 2
    cloud.write(SETTINGS | {"VOXSRC_KFP_VERSION": "2.16.1"})
    urls = [word for command in cloud.printed("install_kfp") for word in command if "?ref=" in word]
    assert {url.partition("?ref=")[2] for url in urls} == {"2.16.1"}
