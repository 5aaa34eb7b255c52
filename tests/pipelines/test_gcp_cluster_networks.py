"""gcp-cluster's scripts in networks of one's own: private nodes, the router with Cloud NAT, and its end."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_cli import CloudCli
from cloud_scripts import Cloud


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Cloud]:
    with CloudCli() as cli:
        yield Cloud(tmp_path, cli)


def cluster_flags(cloud: Cloud) -> dict[str, str]:
    flags: dict[str, str] = cloud.state["clusters"]["some-cluster"]["flags"]
    return flags


def test_private_nodes_get_a_nat_that_goes_with_the_cluster(empty: Cloud) -> None:
    private = {"VOXSRC_PRIVATE_NODES": "yes", "VOXSRC_NETWORK": "own", "VOXSRC_SUBNETWORK": "own-eu"}
    empty.state["networks"].append("own")
    for step in ("create_storage", "create_identities", "create_cluster"):
        empty.succeed(step, **private)
    flags = cluster_flags(empty)
    assert "enable-private-nodes" in flags
    assert (flags["network"], flags["subnetwork"]) == ("own", "own-eu")
    (router,) = empty.state["routers"].values()
    assert router["flags"]["network"] == "own"
    assert router["nats"].keys() == {"some-cluster-nat"}
    empty.cli.calls.clear()
    empty.succeed("create_cluster", **private)
    assert empty.changing_calls() == []
    # the router is found whatever the settings say by then
    empty.succeed("delete_cluster", "--skip-kfp", "--yes")
    assert empty.state["routers"] == {}


def test_a_network_with_a_way_out_gets_no_nat(empty: Cloud) -> None:
    for step in ("create_storage", "create_identities", "create_cluster"):
        empty.succeed(step, VOXSRC_PRIVATE_NODES="own-nat")
    assert "enable-private-nodes" in cluster_flags(empty)
    assert empty.state["routers"] == {}


def test_a_killed_creation_of_the_nat_goes_on(empty: Cloud) -> None:
    for step in ("create_storage", "create_identities"):
        empty.succeed(step)
    empty.cli.fail_at = len(empty.changing_calls()) + 2
    assert empty.run("create_cluster", VOXSRC_PRIVATE_NODES="yes").returncode == 1
    assert [router["nats"] for router in empty.state["routers"].values()] == [{}]
    empty.succeed("create_cluster", VOXSRC_PRIVATE_NODES="yes")
    assert [len(router["nats"]) for router in empty.state["routers"].values()] == [1]


def test_a_dry_run_shows_the_nat(empty: Cloud) -> None:
    private = {"VOXSRC_PRIVATE_NODES": "yes"}
    printed = empty.succeed("create_cluster", "--dry-run", **private)
    assert "routers create some-cluster-router" in printed
    assert "nats create some-cluster-nat" in printed
    for settings in (private, {"VOXSRC_PRIVATE_NODES": "own-nat"}, {}):
        assert "routers delete some-cluster-router" in empty.succeed(
            "delete_cluster", "--dry-run", **settings
        )


@pytest.mark.parametrize(
    ("nats", "told"),
    [([], "no NAT"), (["own"], "own"), (["some-cluster-nat", "own"], "some-cluster-nat,own")],
)
def test_a_router_that_the_scripts_did_not_make_is_not_deleted(
    empty: Cloud, nats: list[str], told: str
) -> None:
    empty.state["clusters"]["some-cluster"] = {"status": "RUNNING"}
    router = {"nats": {name: {} for name in nats}, "flags": {"network": "default"}}
    empty.state["routers"]["some-cluster-router"] = router
    done = empty.run("delete_cluster", "--skip-kfp", "--yes")
    assert done.returncode == 0, done.stderr
    assert not empty.state["clusters"]
    assert empty.state["routers"] == {"some-cluster-router": router}
    assert f"router some-cluster-router has {told}; expected some-cluster-nat alone" in done.stderr
    assert "gcloud compute routers delete some-cluster-router --project=some-project" in done.stderr


def test_a_nat_that_the_settings_do_not_ask_for_any_more_is_told(empty: Cloud) -> None:
    for step in ("create_storage", "create_identities", "create_cluster"):
        empty.succeed(step, VOXSRC_PRIVATE_NODES="yes")
    before = copy.deepcopy(empty.state)
    empty.cli.calls.clear()
    done = empty.run("create_cluster", VOXSRC_PRIVATE_NODES="own-nat")
    assert done.returncode == 0, done.stderr
    assert "warning: NAT some-cluster-nat is there and costs money; VOXSRC_PRIVATE_NODES says own-nat" in (
        done.stderr
    )
    assert "gcloud compute routers delete some-cluster-router --project=some-project --region=" in done.stderr
    assert (empty.state, empty.changing_calls()) == (before, [])
    empty.succeed("delete_cluster", "--skip-kfp", "--yes", VOXSRC_PRIVATE_NODES="own-nat")
    assert empty.state["routers"] == {}
    done = empty.run("create_cluster", VOXSRC_PRIVATE_NODES="own-nat")
    assert done.returncode == 0
    assert "warning" not in done.stderr


def test_a_router_in_another_network_is_an_error_before_the_cluster_is_made(empty: Cloud) -> None:
    """It would give the private cluster's network no way out."""
    empty.state["networks"] += ["corp-a", "corp-b"]
    for step in ("create_storage", "create_identities"):
        empty.succeed(step)
    private = {"VOXSRC_PRIVATE_NODES": "yes"}
    # of an earlier try the router and its NAT are left
    empty.cli.fail_at = len(empty.changing_calls()) + 3
    assert empty.run("create_cluster", VOXSRC_NETWORK="corp-a", **private).returncode == 1
    assert empty.state["clusters"] == {}
    assert [router["nats"].keys() for router in empty.state["routers"].values()] == [{"some-cluster-nat"}]
    empty.cli.fail_at = 0
    empty.cli.calls.clear()
    done = empty.run("create_cluster", VOXSRC_NETWORK="corp-b", **private)
    assert done.returncode == 1
    assert "router some-cluster-router is in network corp-a" in done.stderr
    assert (
        "VOXSRC_NETWORK says corp-b: delete the router (gcloud compute routers delete some-cluster-router"
        in (done.stderr)
    )
    assert empty.changing_calls() == []
    empty.state["routers"].clear()
    empty.succeed("create_cluster", VOXSRC_NETWORK="corp-b", **private)
    (router,) = empty.state["routers"].values()
    assert router["flags"]["network"] == cluster_flags(empty)["network"] == "corp-b"
