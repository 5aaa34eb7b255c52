"""A Google Cloud project and its cluster: what each command of `cloud_cli` needs, changes and prints.

From docs.cloud.google.com (iam: understanding-roles; storage: lifecycle, soft-delete; artifact-registry:
cleanup-policy).
"""

import json
import re
from pathlib import Path
from typing import Any

from cloud_rules import Flags, State, check_nodes, expect, fail, flattened, projected

ZONE = r"[a-z]+-[a-z]+\d-[a-f]"
REGION = r"[a-z]+-[a-z]+\d"
ROLES = {
    "roles/artifactregistry.reader",
    "roles/container.defaultNodeServiceAccount",
    "roles/iam.workloadIdentityUser",
    "roles/storage.objectUser",
    "roles/storage.objectViewer",
}


class Gcloud:
    """The commands, each a method named after it; `state` is changed in place."""

    def __init__(self, state: State, positionals: list[str], flags: Flags) -> None:
        self.state, self.names, self.flags = state, positionals, flags
        self.output = ""

    def print(self, *lines: str) -> None:
        self.output += "".join(f"{line}\n" for line in lines)

    def find(self, kind: str, message: str) -> State:
        if self.names[0].removeprefix("gs://") not in self.state[kind]:
            fail(message)
        found: State = self.state[kind][self.names[0].removeprefix("gs://")]
        return found

    def create(self, kind: str, name: str, **fields: Any) -> None:
        expect(name not in self.state[kind], f"code=409, message=Already exists: {name}")
        self.state[kind][name] = fields | {"flags": self.flags}

    def place(self, pattern: str) -> None:
        found = self.flags.get("location", "")
        expect(re.fullmatch(pattern, found) is not None, f"--location={found}: expected {pattern}")

    def account(self, member: str) -> None:
        email = member.removeprefix("serviceAccount:")
        if "svc.id.goog[" in email:
            expect(bool(self.state["clusters"]), f"Identity Pool does not exist ({email.partition('[')[0]})")
            return
        known = self.state["accounts"].get(email)
        if known is None or known["hidden"] > 0:
            if known is not None:
                known["hidden"] -= 1
            fail(f"NOT_FOUND: Service account {email} does not exist.")

    def bind(self, resource: str) -> None:
        binding = [resource, self.flags["member"], self.flags["role"]]
        expect(binding[2] in ROLES, f"Role {binding[2]} is not supported for this resource.")
        self.account(binding[1])
        if binding not in self.state["bindings"]:
            self.state["bindings"].append(binding)

    def services_list(self) -> None:
        expect("enabled" in self.flags, "lists all services")
        self.print(*self.state["services"])

    def services_enable(self) -> None:
        for name in self.names:
            expect(re.fullmatch(r"[a-z]+\.googleapis\.com", name) is not None, f"service {name}")
            self.state["services"][name] = {}

    def storage_buckets_describe(self) -> None:
        bucket = self.find("buckets", f"(gcloud.storage.buckets.describe) {self.names[0]} not found: 404.")
        flags = bucket["flags"]
        resource = {
            "location": bucket["location"].upper(),
            "public_access_prevention": "enforced" if "public-access-prevention" in flags else "inherited",
            "uniform_bucket_level_access": "uniform-bucket-level-access" in flags,
            "soft_delete_policy": {
                "retentionDurationSeconds": str(int(flags["soft-delete-duration"].removesuffix("d")) * 86400)
            },
        }
        if self.flags["format"] == "json(lifecycle_config)":
            rules = bucket["lifecycle"] and {"lifecycle_config": bucket["lifecycle"]["lifecycle"]}
            self.print(json.dumps(rules, indent=2, sort_keys=True))
        else:
            self.print(projected(resource, self.flags["format"]))

    def storage_buckets_create(self) -> None:
        self.place(REGION)
        self.check_soft_delete()
        lifecycle = self.read_lifecycle() if "lifecycle-file" in self.flags else None
        name = self.names[0].removeprefix("gs://")
        self.create("buckets", name, location=self.flags["location"], lifecycle=lifecycle)

    def check_soft_delete(self) -> None:
        match = re.fullmatch(r"(\d+)d", self.flags["soft-delete-duration"])
        expect(
            match is not None and (int(match[1]) == 0 or 7 <= int(match[1]) <= 90), "--soft-delete-duration"
        )

    def storage_buckets_update(self) -> None:
        bucket = self.find("buckets", f"{self.names[0]} not found: 404.")
        if "soft-delete-duration" in self.flags:
            self.check_soft_delete()
        if "lifecycle-file" in self.flags:
            bucket["lifecycle"] = self.read_lifecycle()
        bucket["flags"] = bucket["flags"] | self.flags

    def read_lifecycle(self) -> State:
        lifecycle: State = json.loads(Path(self.flags["lifecycle-file"]).read_text())
        for rule in lifecycle["lifecycle"]["rule"]:
            expect(rule["action"]["type"] in {"Delete", "AbortIncompleteMultipartUpload"}, "lifecycle action")
            known = {"age", "matchesPrefix", "matchesSuffix"}
            expect(rule["condition"].keys() <= known, f"lifecycle condition {rule['condition'].keys()}")
            # At most 50 prefixes and suffixes a condition.
            expect(
                all(len(value) <= 50 for value in rule["condition"].values() if isinstance(value, list)), "50"
            )
        return lifecycle

    def storage_buckets_add_iam_policy_binding(self) -> None:
        self.find("buckets", f"{self.names[0]} not found: 404.")
        self.bind(self.names[0])

    def storage_rm(self) -> None:
        self.find("buckets", f"The following URLs matched no objects or files: {self.names[0]}")
        del self.state["buckets"][self.names[0].removeprefix("gs://")]

    def artifacts_repositories_describe(self) -> None:
        self.place(REGION)
        repository = self.find("repositories", "NOT_FOUND: Requested entity was not found.")
        resource = {
            "name": self.names[0],
            "format": repository["format"],
            "description": repository["flags"].get("description"),
            "cleanupPolicies": {policy["name"]: policy for policy in repository["cleanup"]},
        }
        self.print(projected(resource, self.flags["format"]))

    def artifacts_repositories_create(self) -> None:
        self.place(REGION)
        expect(self.flags["repository-format"] in {"docker", "python", "generic"}, "--repository-format")
        kind = self.flags["repository-format"].upper()
        self.create("repositories", self.names[0], format=kind, cleanup=[])

    def artifacts_repositories_set_cleanup_policies(self) -> None:
        self.place(REGION)
        repository = self.find("repositories", "NOT_FOUND: Requested entity was not found.")
        repository["cleanup"] = json.loads(Path(self.flags["policy"]).read_text())
        for policy in repository["cleanup"]:
            expect(policy["action"]["type"] in {"Delete", "Keep"}, "cleanup action")
            expect(len(policy.keys() & {"condition", "mostRecentVersions"}) == 1, "cleanup condition")

    def artifacts_repositories_add_iam_policy_binding(self) -> None:
        self.find("repositories", "NOT_FOUND: Requested entity was not found.")
        self.bind(self.names[0])

    def artifacts_repositories_delete(self) -> None:
        self.find("repositories", "NOT_FOUND: Requested entity was not found.")
        del self.state["repositories"][self.names[0]]

    def iam_service_accounts_describe(self) -> None:
        self.find("accounts", f"NOT_FOUND: Unknown service account {self.names[0]}")
        self.print(self.names[0])

    def iam_service_accounts_create(self) -> None:
        expect(re.fullmatch(r"[a-z][a-z0-9-]{4,28}[a-z0-9]", self.names[0]) is not None, "account id")
        # A new account is not known everywhere at once.
        email = f"{self.names[0]}@{self.flags['project']}.iam.gserviceaccount.com"
        self.create("accounts", email, hidden=1)

    def iam_service_accounts_delete(self) -> None:
        self.find("accounts", f"NOT_FOUND: Unknown service account {self.names[0]}")
        del self.state["accounts"][self.names[0]]

    def iam_service_accounts_add_iam_policy_binding(self) -> None:
        self.find("accounts", f"NOT_FOUND: Unknown service account {self.names[0]}")
        self.bind(self.names[0])

    def projects_add_iam_policy_binding(self) -> None:
        expect(self.flags.get("condition") == "None", "a policy with conditions needs --condition")
        self.bind(self.names[0])

    def projects_get_iam_policy(self) -> None:
        match = re.fullmatch(r"bindings\.members=(\S+)", self.flags["filter"])
        expect(match is not None and self.flags["flatten"] == "bindings[].members", "--filter, --flatten")
        bindings = self.state["bindings"]
        self.print(
            *(role for where, who, role in bindings if match and [where, who] == [self.names[0], match[1]])
        )

    def projects_remove_iam_policy_binding(self) -> None:
        binding = [self.names[0], self.flags["member"], self.flags["role"]]
        expect(binding in self.state["bindings"], "Policy binding with the specified principal not found!")
        self.state["bindings"].remove(binding)

    def container_clusters_describe(self) -> None:
        self.place(ZONE)
        cluster = self.find("clusters", "ResponseError: code=404, message=Not found: clusters.")
        flags = cluster.get("flags", {})
        expect(flags.get("location", self.flags["location"]) == self.flags["location"], "code=404")
        networks = {
            "enabled": "enable-master-authorized-networks" in flags or None,
            "cidrBlocks": [
                {"cidrBlock": block}
                for block in flags.get("master-authorized-networks", "").split(",")
                if block
            ],
        }
        resource = {
            "status": cluster["status"],
            "network": flags.get("network", "default"),
            "subnetwork": flags.get("subnetwork", flags.get("network", "default")),
            "networkConfig": {"defaultEnablePrivateNodes": "enable-private-nodes" in flags or None},
            "controlPlaneEndpointsConfig": {"ipEndpointsConfig": {"authorizedNetworksConfig": networks}},
        }
        self.print(projected(resource, self.flags["format"]))

    def container_clusters_create(self) -> None:
        self.place(ZONE)
        project = self.flags["project"]
        expect(self.flags.get("workload-pool") == f"{project}.svc.id.goog", "--workload-pool")
        expect(
            self.flags["autoscaling-profile"] in {"balanced", "optimize-utilization"}, "--autoscaling-profile"
        )
        expect(int(self.flags["min-nodes"]) <= int(self.flags["max-nodes"]), "--min-nodes")
        expect(
            ("master-authorized-networks" in self.flags)
            <= ("enable-master-authorized-networks" in self.flags),
            "",
        )
        check_nodes(self.flags)
        self.account(self.flags["service-account"])
        network = self.flags.get("network", "default")
        expect(network in self.state["networks"], f"code=404, message=Not found: network {network}")
        expect(
            "enable-private-nodes" not in self.flags or "enable-ip-alias" in self.flags,
            "Cannot specify --enable-private-nodes without --enable-ip-alias.",
        )
        self.create("clusters", self.names[0], status="RUNNING")

    def container_clusters_update(self) -> None:
        self.place(ZONE)
        cluster = self.find("clusters", "ResponseError: code=404, message=Not found: clusters.")
        expect(not self.state["operations"], "code=400, message=CLUSTER_ALREADY_HAS_OPERATION")
        given = self.flags.keys() - {"project", "location"}
        expect(
            given == {"enable-master-authorized-networks", "master-authorized-networks"},
            "Exactly one of these must be specified, the networks only with what enables them",
        )
        cluster["flags"] = cluster["flags"] | {name: self.flags[name] for name in given}

    def container_clusters_get_credentials(self) -> None:
        cluster = self.find("clusters", "ResponseError: code=404, message=Not found: clusters.")
        # as while it is PROVISIONING
        expect(cluster["status"] != "PROVISIONING", f"cluster {self.names[0]} is missing endpoint.")
        context = f"gke_{self.flags['project']}_{self.flags['location']}_{self.names[0]}"
        self.state["kubernetes"]["context"] = context

    def container_clusters_delete(self) -> None:
        cluster = self.find("clusters", "ResponseError: code=404, message=Not found: clusters.")
        place = cluster.get("flags", self.flags)["location"]
        expect(place == self.flags["location"], "code=404, message=Not found: clusters.")
        expect(not self.state["operations"], "code=400, message=Cluster is running incompatible operation")
        # Without the namespace's deletion its disks are left.
        if "namespace" in self.state["kubernetes"]:
            self.state["disks"]["pvc-1"] = {"users": []}
        del self.state["clusters"][self.names[0]]
        self.state.update(pools={}, kubernetes={})

    def container_operations_list(self) -> None:
        self.print(*self.state["operations"])

    def container_operations_wait(self) -> None:
        self.find("operations", "ResponseError: code=404, message=Not found: operation.")
        self.state["operations"] = {}
        clusters = self.state["clusters"].items()
        self.state["clusters"] = {name: each for name, each in clusters if each["status"] != "STOPPING"}
        for resource in [*self.state["clusters"].values(), *self.state["pools"].values()]:
            resource["status"] = "RUNNING"

    def container_node_pools_describe(self) -> None:
        expect(self.flags["cluster"] in self.state["clusters"], "code=404, message=Not found: clusters.")
        if self.names[0] == "default-pool":
            pool = self.state["clusters"][self.flags["cluster"]]
        else:
            pool = self.find("pools", "ResponseError: code=404, message=Not found: nodePools.")
        flags = pool["flags"]
        resource = {
            "status": pool["status"],
            "config": {"machineType": flags["machine-type"], "serviceAccount": flags["service-account"]},
            "autoscaling": {
                "maxNodeCount": flags.get("max-nodes"),
                "totalMaxNodeCount": flags.get("total-max-nodes"),
            },
            "locations": flags.get("node-locations", flags["location"]).split(","),
        }
        self.print(projected(resource, self.flags["format"]))

    def container_node_pools_update(self) -> None:
        self.place(ZONE)
        expect(self.flags["cluster"] in self.state["clusters"], "code=404, message=Not found: clusters.")
        expect(not self.state["operations"], "code=400, message=CLUSTER_ALREADY_HAS_OPERATION")
        is_default = self.names[0] == "default-pool"
        kind = "clusters" if is_default else "pools"
        if is_default:
            self.names = [self.flags["cluster"]]
        pool = self.find(kind, "ResponseError: code=404, message=Not found: nodePools.")
        total = "" if is_default else "total-"
        scaling = {"enable-autoscaling", f"{total}min-nodes", f"{total}max-nodes"}
        given = self.flags.keys() - {"project", "location", "cluster"}
        expect(given == scaling, "Exactly one of these must be specified: node-locations, autoscaling, …")
        pool["flags"] = pool["flags"] | {name: self.flags[name] for name in scaling}

    def container_node_pools_create(self) -> None:
        self.place(ZONE)
        expect(self.flags["cluster"] in self.state["clusters"], "code=404, message=Not found: clusters.")
        expect(not self.state["operations"], "code=400, message=CLUSTER_ALREADY_HAS_OPERATION")
        expect(re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", self.names[0]) is not None, "pool name")
        for zone in self.flags["node-locations"].split(","):
            expect(zone.rpartition("-")[0] == self.flags["location"].rpartition("-")[0], f"zone {zone}")
        expect("enable-autoscaling" in self.flags, "--total-max-nodes needs --enable-autoscaling")
        expect(int(self.flags["total-min-nodes"]) <= int(self.flags["total-max-nodes"]), "--total-min-nodes")
        check_nodes(self.flags)
        self.account(self.flags["service-account"])
        self.create("pools", self.names[0], status="RUNNING")

    def router(self, name: str) -> State:
        expect(re.fullmatch(REGION, self.flags.get("region", "")) is not None, "--region")
        expect(name in self.state["routers"], f"Could not fetch resource: {name!r} was not found")
        return dict(self.state["routers"][name])

    def compute_routers_describe(self) -> None:
        router = self.router(self.names[0])
        networks = f"https://www.googleapis.com/compute/v1/projects/{self.flags['project']}/global/networks"
        resource = {
            "network": f"{networks}/{router['flags']['network']}",
            "nats": [{"name": name} for name in router["nats"]],
        }
        self.print(projected(resource, self.flags["format"]))

    def compute_routers_create(self) -> None:
        expect(re.fullmatch(REGION, self.flags.get("region", "")) is not None, "--region")
        expect(self.flags["network"] in self.state["networks"], f"network {self.flags['network']}")
        self.create("routers", self.names[0], nats={})

    def compute_routers_delete(self) -> None:
        expect(not self.state["clusters"], "the nodes of a cluster still use its NAT")
        self.router(self.names[0])
        del self.state["routers"][self.names[0]]

    def compute_routers_list(self) -> None:
        self.print(*self.state["routers"])

    def compute_routers_nats_describe(self) -> None:
        nats = self.router(self.flags["router"])["nats"]
        expect(self.names[0] in nats, f"NAT `{self.names[0]}` not found")
        self.print(self.names[0])

    def compute_routers_nats_create(self) -> None:
        nats = self.router(self.flags["router"])["nats"]
        expect({"auto-allocate-nat-external-ips", "nat-all-subnet-ip-ranges"} <= self.flags.keys(), "ranges")
        nats[self.names[0]] = self.flags

    def auth_configure_docker(self) -> None:
        # Without a host it would name those of gcr.io; without --quiet it asks.
        expect(len(self.names) == 1 and "quiet" in self.flags, f"configures {self.names}")
        expect(
            re.fullmatch(rf"{REGION}-docker\.pkg\.dev", self.names[0]) is not None, f"host {self.names[0]}"
        )

    def compute_regions_describe(self) -> None:
        expect(re.fullmatch(REGION, self.names[0]) is not None, f"region {self.names[0]}")
        self.print_quotas("region")

    def compute_project_info_describe(self) -> None:
        self.print_quotas("project")

    def print_quotas(self, scope: str) -> None:
        """Quotas in `state` are lists of metric, limit and usage, by scope."""
        columns = "csv[no-heading](quotas.metric,quotas.limit,quotas.usage)"
        expect(self.flags == self.flags | {"flatten": "quotas", "format": columns}, "--format")
        for metric, limit, usage in self.state["quotas"].get(scope, []):
            self.print(f"{metric},{limit:.1f},{usage:.1f}")

    def compute_disks_list(self) -> None:
        described, _, unattached = self.flags["filter"].partition(" AND ")
        expect(described.startswith("description~created-for/pvc/namespace"), described)
        expect(unattached in {"", "-users:*"}, f"--filter={self.flags['filter']}")
        self.print(
            *(name for name, disk in self.state["disks"].items() if not (unattached and disk["users"]))
        )

    def container_clusters_list(self) -> None:
        clusters = []
        for name, cluster in self.state["clusters"].items():
            flags = cluster.get("flags", {})
            pools = self.state["pools"].items()
            own = {"default-pool": flags} | {
                pool: each["flags"] for pool, each in pools if each["flags"]["cluster"] == name
            }
            nodes = [
                {"name": pool, "config": {"serviceAccount": each.get("service-account")}}
                for pool, each in own.items()
            ]
            clusters.append({"name": name, "location": flags.get("location", ""), "nodePools": nodes})
        if "filter" in self.flags:
            clusters = [each for each in clusters if f"name={each['name']}" == self.flags["filter"]]
        if "flatten" in self.flags:
            clusters = flattened(clusters, self.flags["flatten"].removesuffix("[]"))
        for cluster in clusters:
            if self.flags["format"].startswith("table"):
                self.print(cluster["nodePools"]["name"] if "flatten" in self.flags else cluster["name"])
            else:
                self.print(projected(cluster, self.flags["format"]))

    def compute_instances_list(self) -> None:
        self.print("NAME")
