"""Checks, before a run, that the cluster has what its steps ask for, and says what to run if not.

Pools scale from zero, so the nodes of the moment do not tell: the pools come from `gcloud container
node-pools list`, and only where gcloud cannot tell from the nodes that there are. gcp-cluster/pools.tsv says
what the scripts make where something is missing.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from voxsrc.pipelines.checks import Check
from voxsrc.pipelines.cluster import Cluster, GcloudError, Project
from voxsrc.pipelines.machines import Machines
from voxsrc.pipelines.needs import StepNeeds
from voxsrc.pipelines.pools import Nodes, Pool, fitting, misfits
from voxsrc.pipelines.quotas import quota_checks
from voxsrc.pipelines.registry import image_checks
from voxsrc.pipelines.retry_policy import retry_checks
from voxsrc.pipelines.settings import Settings

# Without these no run starts (manifests/kustomize/env/platform-agnostic of kubeflow/pipelines 2.17.0).
KFP_DEPLOYMENTS = (
    "ml-pipeline",
    "ml-pipeline-persistenceagent",
    "metadata-grpc-deployment",
    "workflow-controller",
)
_IDENTITY = "iam.gke.io/gcp-service-account"
_RUNNER = "pipeline-runner"
_SCRIPTS = "gcp-cluster"
_PERMANENT = ("voxsrc/pool", "system")


def preflight(
    needs: Sequence[StepNeeds],
    pools: Sequence[Pool],
    cluster: Cluster,
    project: Project,
    settings: Settings,
) -> list[Check]:
    """Makes all checks.

    Args:
        needs: Of the package with its arguments.
        pools: Of gcp-cluster/pools.tsv.
        cluster: The cluster.
        project: Its project.
        settings: They name the service accounts, and machine types of pools that are to be made.

    Raises:
        ClusterError: The cluster cannot be read.
    """
    nodes = cluster.nodes()
    there: Sequence[Nodes] | None
    try:
        there, trouble = project.node_pools(), ""
    except GcloudError as error:
        there, trouble = None, str(error)
    machines = Machines(pools, project)
    pools = machines.as_made(pools, there or (), settings)
    label, value = _PERMANENT
    permanent = [node for node in nodes if node.labels.get(label) == value]
    return [
        *_kubeflow(cluster),
        _service_account(cluster, settings),
        *retry_checks(cluster),
        *_pools(needs, pools, there, trouble, nodes, machines),
        *quota_checks(needs, pools, project, settings, permanent, machines),
        *image_checks(needs, project),
    ]


def _kubeflow(cluster: Cluster) -> Iterator[Check]:
    """That Kubeflow Pipelines is there, and all of it ready."""
    deployments = cluster.deployments()
    what = f"Kubeflow Pipelines in namespace {cluster.namespace}"
    if absent := [name for name in KFP_DEPLOYMENTS if name not in deployments]:
        found = f"no deployment {', '.join(absent)}"
        yield Check(what=what, state="missing", found=found, remedy=f"{_SCRIPTS}/install_kfp.sh")
        return
    down = [
        f"{name} ({ready} of {asked} ready)"
        for name, (ready, asked) in sorted(deployments.items())
        if ready < max(asked, 1 if name in KFP_DEPLOYMENTS else 0)
    ]
    if down:
        yield Check(
            what=what,
            state="missing",
            found=f"not ready: {', '.join(down)}",
            remedy=f"see kubectl get pods --namespace={cluster.namespace}; then {_SCRIPTS}/install_kfp.sh, "
            "which waits until all are",
        )
        return
    yield Check(what=what, state="ok", found=f"{len(deployments)} deployments ready")


def _service_account(cluster: Cluster, settings: Settings) -> Check:
    """That pods act as the Google account that may read and write the bucket."""
    name = settings.get("VOXSRC_KUBERNETES_SERVICE_ACCOUNT") or ""
    wanted = settings.get("VOXSRC_SERVICE_ACCOUNT")
    what = f"service account {name}, bound to {wanted or 'a Google service account'}"
    bind = f"{_SCRIPTS}/bind_identities.sh"
    make = f"{_SCRIPTS}/install_kfp.sh makes it, then {bind} binds it"
    if name != _RUNNER:
        bind = make = (
            f"{_SCRIPTS}/ makes and binds {_RUNNER} alone: correct VOXSRC_KUBERNETES_SERVICE_ACCOUNT, or "
            "make and bind that one by hand"
        )
    annotations = cluster.service_account(name)
    if annotations is None:
        return Check(what=what, state="missing", found="no such service account", remedy=make)
    bound = annotations.get(_IDENTITY)
    if bound is None or (wanted and bound != wanted):
        found = f"bound to {bound}" if bound else f"no annotation {_IDENTITY}"
        return Check(what=what, state="missing", found=found, remedy=bind)
    return Check(what=what, state="ok", found=f"bound to {bound}")


def _pools(
    needs: Sequence[StepNeeds],
    pools: Sequence[Pool],
    there: Sequence[Nodes] | None,
    trouble: str,
    nodes_now: Sequence[Nodes],
    machines: Machines,
) -> Iterator[Check]:
    """That each step has a pool on which its pods can run.

    Args:
        needs: Of the steps.
        pools: Of gcp-cluster/pools.tsv, with the machines that they have.
        there: The cluster's pools; None if gcloud cannot tell.
        trouble: Why it cannot.
        nodes_now: Then these tell.
        machines: Sizes of machine types.
    """
    complete = there is not None
    if there is None:
        there = list({node.name: node for node in nodes_now}.values())
    for need, titles in _grouped(needs):
        what = f"nodes for {titles}: {_asked(need)}"
        if "node selector" in need.unknown or "tolerations" in need.unknown:
            yield Check(
                what=what,
                state="unknown",
                found="its node selector depends on another step's result",
                remedy="look at the pipeline's definition",
            )
            continue
        reasons = {
            nodes.name: misfits(nodes, need.node_selector, need.tolerations, need.gpus) for nodes in there
        }
        fits = [nodes for nodes in there if not reasons[nodes.name]]
        planned = fitting(pools, need.node_selector, need.tolerations, need.gpus)
        if fits:
            yield _size(what, need, planned, fits, machines)
        elif complete:
            yield Check(
                what=what,
                state="missing",
                found=_nearest(reasons, planned),
                remedy=_pool_remedy(need, planned, reasons),
            )
        else:
            yield Check(
                what=what,
                state="unknown",
                found=f"no such node now; whether a pool could make one is not known ({trouble})",
                remedy="install gcloud, log in and set VOXSRC_CLUSTER and VOXSRC_ZONE to know; if there is "
                f"none: {_pool_remedy(need, planned, reasons)}",
            )


def _size(
    what: str, need: StepNeeds, planned: Sequence[Pool], fits: Sequence[Nodes], machines: Machines
) -> Check:
    """That a pod is smaller than a node."""
    sizes = {nodes.name: machines.size(nodes.machine_type) for nodes in fits}
    # a node keeps some of its cores and memory for itself
    small = {
        name: size
        for name, size in sizes.items()
        if size is not None and (need.cpus >= size.vcpus or need.memory_gib >= size.memory_gib)
    }
    if len(small) == len(sizes):
        name, size = next(iter(small.items()))
        return Check(
            what=what,
            state="missing",
            found=f"{name} has {size.vcpus} vCPUs and {size.memory_gib:g} GiB a node, less what the node "
            "itself needs",
            remedy=f"add a pool with a larger machine type to {_SCRIPTS}/pools.tsv, run "
            f"{_SCRIPTS}/create_node_pools.sh, and select it",
        )
    unknown = {nodes.name: nodes.machine_type for nodes in fits if sizes[nodes.name] is None}
    if len(small) + len(unknown) == len(sizes) and (need.cpus or need.memory_gib):
        types = ", ".join(sorted({machine_type or "of no known type" for machine_type in unknown.values()}))
        return Check(
            what=what,
            state="unknown",
            found=f"pool {', '.join(sorted(unknown))}: nobody could tell how large its machines "
            f"are ({types})",
            remedy="gcloud compute machine-types describe TYPE --zone=ZONE tells; they must have more "
            "than the pod asks for, as nodes keep some for themselves",
        )
    names = ", ".join(sorted(nodes.name for nodes in fits))
    for pool, nodes in itertools.product(planned, fits):
        if open_to := set(pool.taints) - set(nodes.taints) if pool.name == nodes.name else None:
            return Check(
                what=what,
                state="warning",
                found=f"pool {names}; {pool.name} lacks the taint {', '.join(map(str, open_to))}: other pods "
                "may land there and keep its nodes",
                remedy=_anew(pool),
            )
    return Check(what=what, state="ok", found=f"pool {names}")


def _grouped(needs: Sequence[StepNeeds]) -> Iterator[tuple[StepNeeds, str]]:
    """Steps that ask for the same nodes, together; the one that asks for most stands for them."""
    groups: dict[tuple[object, ...], list[StepNeeds]] = {}
    for need in needs:
        key = (tuple(sorted(need.node_selector.items())), need.tolerations, need.gpus, need.unknown)
        groups.setdefault(key, []).append(need)
    for group in groups.values():
        titles = ", ".join(dict.fromkeys(need.title.rpartition("/")[2] for need in group))
        yield max(group, key=lambda need: (need.cpus, need.memory_gib)), titles


def _asked(need: StepNeeds) -> str:
    labels = ", ".join(f"{key}={value}" for key, value in sorted(need.node_selector.items())) or "any node"
    parts = [f"{need.gpus} GPU{'s' if need.gpus > 1 else ''}" if need.gpus else ""]
    parts += [
        f"{need.cpus:g} vCPUs" if need.cpus else "",
        f"{need.memory_gib:.3g} GiB" if need.memory_gib else "",
    ]
    return ", ".join([labels, *filter(None, parts)])


def _nearest(reasons: Mapping[str, Sequence[str]], planned: Sequence[Pool]) -> str:
    if not reasons:
        return "the cluster has no pool"
    meant = {pool.name for pool in planned}
    name = min(reasons, key=lambda pool: (pool not in meant, len(reasons[pool])))
    return f"no pool fits; nearest is {name}: {'; '.join(reasons[name])}"


def _pool_remedy(need: StepNeeds, planned: Sequence[Pool], reasons: Mapping[str, Sequence[str]]) -> str:
    """The script that makes a fitting pool, or what else to change."""
    standing = [pool for pool in planned if pool.name in reasons]
    if standing:
        return _anew(standing[0])
    if planned:
        return _create(planned[0])
    return (
        f"no pool of {_SCRIPTS}/pools.tsv fits either: correct the node selector "
        f"({_SCRIPTS}/create_node_pools.sh --list shows the pools), or add a line with these labels and "
        f"{need.gpus} GPUs a node"
    )


def _anew(pool: Pool) -> str:
    return (
        f"pool {pool.name} is not as {_SCRIPTS}/pools.tsv has it; delete it (gcloud container node-pools "
        f"delete {pool.name} --cluster=CLUSTER --location=ZONE), then {_create(pool)}"
    )


def _create(pool: Pool) -> str:
    return f"{_SCRIPTS}/create_node_pools.sh --gpu {pool.gpu}"
