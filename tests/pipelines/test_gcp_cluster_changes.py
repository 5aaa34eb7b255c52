"""gcp-cluster's scripts on a project that exists, with settings that have changed since."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_cli import CloudCli
from cloud_scripts import Cloud


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """What exists after setup.sh --gpu none, which no test changes."""
    with CloudCli() as cli:
        Cloud(tmp_path_factory.mktemp("made"), cli).succeed("setup", "--gpu", "none")
        yield cli.state


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Cloud]:
    with CloudCli() as cli:
        yield Cloud(tmp_path, cli)


@pytest.fixture
def cloud(empty: Cloud, made: dict[str, object]) -> Cloud:
    empty.cli.state = copy.deepcopy(made)
    return empty


def cluster_flags(cloud: Cloud) -> dict[str, str]:
    flags: dict[str, str] = cloud.state["clusters"]["some-cluster"]["flags"]
    return flags


def test_authorized_networks_are_set_on_a_cluster_that_exists(cloud: Cloud) -> None:
    networks = {"VOXSRC_AUTHORIZED_NETWORKS": "192.0.2.0/24,198.51.100.0/24"}
    done = cloud.run("create_cluster", **networks)
    assert done.returncode == 0, done.stderr
    assert cluster_flags(cloud)["master-authorized-networks"] == networks["VOXSRC_AUTHORIZED_NETWORKS"]
    assert (
        "networks that reach the API of cluster some-cluster: any; the settings say 192.0.2.0/24"
        in done.stderr
    )
    cloud.cli.calls.clear()
    reordered = {"VOXSRC_AUTHORIZED_NETWORKS": "198.51.100.0/24,192.0.2.0/24"}
    cloud.succeed("create_cluster", **reordered)
    assert cloud.changing_calls() == []
    cloud.succeed("create_cluster", VOXSRC_AUTHORIZED_NETWORKS="203.0.113.0/24")
    assert cluster_flags(cloud)["master-authorized-networks"] == "203.0.113.0/24"


def test_a_closed_cluster_is_not_opened_without_being_asked(cloud: Cloud) -> None:
    cloud.succeed("create_cluster", VOXSRC_AUTHORIZED_NETWORKS="192.0.2.0/24")
    cloud.cli.calls.clear()
    done = cloud.run("create_cluster")
    assert done.returncode == 0
    assert "warning: only 192.0.2.0/24 reaches the API" in done.stderr
    assert (
        "clusters update some-cluster --project=some-project --location=europe-west4-a --no-enable-master"
        in done.stderr
    )
    assert cloud.changing_calls() == []


def test_the_most_nodes_of_pools_follow_the_settings(cloud: Cloud) -> None:
    done = cloud.run("setup", "--gpu", "none", VOXSRC_CPU_MAX_NODES="20", VOXSRC_SYSTEM_MAX_NODES="5")
    assert done.returncode == 0, done.stderr
    assert {flags["total-max-nodes"] for flags in cloud.pools().values()} == {"20"}
    assert cluster_flags(cloud)["max-nodes"] == "5"
    assert "pool cpu-spot has at most 8 nodes; the settings say 20: changed" in done.stderr
    assert "pool default-pool has at most 3 nodes; the settings say 5: changed" in done.stderr


def test_other_zones_and_machines_are_told_with_the_command_that_changes_them(cloud: Cloud) -> None:
    changes = {
        "VOXSRC_NODE_ZONES": "europe-west4-b,europe-west4-a",
        "VOXSRC_CPU_MACHINE_TYPE": "n1-standard-8",
        "VOXSRC_SYSTEM_MACHINE_TYPE": "e2-standard-2",
    }
    before = copy.deepcopy(cloud.state)
    done = cloud.run("setup", "--gpu", "none", **changes)
    assert done.returncode == 0, done.stderr
    assert (cloud.state["pools"], cloud.state["clusters"]) == (before["pools"], before["clusters"])
    at = "--project=some-project --cluster=some-cluster --location=europe-west4-a"
    for told in (
        "pool cpu-spot is in europe-west4-a; the settings say europe-west4-a,europe-west4-b",
        f"node-pools update cpu-spot {at} --node-locations=europe-west4-b,europe-west4-a",
        "machines of pool cpu-on-demand are n2d-standard-8; the settings say n1-standard-8",
        f"node-pools delete cpu-on-demand {at}",
        "machines of pool default-pool are e2-standard-4; the settings say e2-standard-2",
        f"node-pools update default-pool {at} --machine-type=e2-standard-2",
    ):
        assert told in done.stderr, told


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "VOXSRC_PRIVATE_NODES",
            "own-nat",
            "private nodes of cluster some-cluster: no; VOXSRC_PRIVATE_NODES says own-nat",
        ),
        ("VOXSRC_NETWORK", "other", "is in network default; VOXSRC_NETWORK says other"),
        ("VOXSRC_SUBNETWORK", "other", "is in subnetwork default; VOXSRC_SUBNETWORK says other"),
        (
            "VOXSRC_NODE_SERVICE_ACCOUNT",
            "others@some-project.iam.gserviceaccount.com",
            "pool default-pool act as voxsrc-nodes@",
        ),
    ],
)
def test_what_concerns_security_and_cannot_be_changed_is_an_error(
    name: str, value: str, message: str, cloud: Cloud
) -> None:
    done = cloud.run("create_cluster", **{name: value})
    assert done.returncode == 1
    assert message in done.stderr
    assert "delete the cluster (delete_cluster.sh) to make it anew, or correct the setting" in done.stderr
    assert cloud.changing_calls() == []


def test_another_zone_does_not_make_a_second_cluster(cloud: Cloud) -> None:
    done = cloud.run("create_cluster", VOXSRC_ZONE="europe-west4-b")
    assert done.returncode == 1
    assert "cluster some-cluster is in europe-west4-a; VOXSRC_ZONE says europe-west4-b" in done.stderr
    assert cloud.changing_calls() == []


def test_a_pool_with_another_account_is_an_error(cloud: Cloud) -> None:
    account = "others@some-project.iam.gserviceaccount.com"
    done = cloud.run("create_node_pools", "--gpu", "none", VOXSRC_NODE_SERVICE_ACCOUNT=account)
    assert done.returncode == 1
    assert "nodes of pool cpu-spot act as voxsrc-nodes@some-project.iam.gserviceaccount.com" in done.stderr
    assert (
        f"VOXSRC_NODE_SERVICE_ACCOUNT says {account}: delete it (gcloud container node-pools" in done.stderr
    )
    assert cloud.changing_calls() == []


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (["--gpu", "l40"], {}, "--gpu: found l40; expected one of: a100-40gb"),
        (["--zones", "us-central1-a"], {}, "found us-central1-a; expected zones of VOXSRC_REGION"),
        (["--bogus"], {}, "unexpected argument --bogus; see --help"),
        (["--list"], {}, "unexpected argument --list; see --help"),
        (["--gpu", "l4", "--list"], {}, "unexpected argument --list; see --help"),
        (["--zones"], {}, "--zones: found nothing; expected a value"),
        (["--gpu", "none", "--yes", "--zones=europe-west4-a"], {}, "unexpected argument --yes; see --help"),
        (
            [],
            {"VOXSRC_KFP_NAMESPACE": "pipelines"},
            "VOXSRC_KFP_NAMESPACE: found pipelines; expected kubeflow",
        ),
        (
            [],
            {"VOXSRC_KUBERNETES_SERVICE_ACCOUNT": "runner"},
            "VOXSRC_KUBERNETES_SERVICE_ACCOUNT: found runner; expected pipeline-runner",
        ),
    ],
)
def test_setup_checks_every_step_before_it_makes_anything(
    arguments: list[str], settings: dict[str, str], message: str, empty: Cloud
) -> None:
    done = empty.run("setup", *arguments, **settings)
    assert done.returncode == 1
    assert message in done.stderr
    assert "nothing was made" in done.stderr
    assert empty.cli.calls == []


def test_setup_looks_for_all_programs_before_it_makes_anything(empty: Cloud) -> None:
    (empty.programs / "kubectl").unlink()
    done = empty.run("setup")
    assert done.returncode == 1
    assert "kubectl is missing" in done.stderr
    assert empty.cli.calls == []


def test_a_namespace_that_does_not_go_away_has_a_way_out(cloud: Cloud) -> None:
    cloud.cli.fail_at = 2
    done = cloud.run("delete_cluster", "--yes")
    assert done.returncode == 1
    assert "kubectl delete namespace kubeflow" in done.stderr
    assert "delete the cluster all the same with --skip-kfp" in done.stderr
    assert cloud.state["clusters"]
    cloud.succeed("delete_cluster", "--skip-kfp", "--yes")
    assert not cloud.state["clusters"]
    cloud.cli.fail_at = len(cloud.changing_calls()) + 1
    done = cloud.run("delete_cluster", "--with-bucket", "--yes")
    assert done.returncode == 1
    assert "--skip-kfp" not in done.stderr
