"""Checks, before a run, that the cluster has what its steps ask for, and says what to run if not.

Pools scale from zero, so the nodes of the moment do not tell: the pools come from `gcloud container
node-pools list`, and only where gcloud cannot tell from the nodes that there are. gcp-cluster/pools.tsv says
what the scripts make where something is missing.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

from voxsrc.pipelines.checks import Check
from voxsrc.pipelines.cluster import Cluster, Project
from voxsrc.pipelines.images import has_digest
from voxsrc.pipelines.needs import StepNeeds
from voxsrc.pipelines.pools import Nodes, Pool, fitting, misfits
from voxsrc.pipelines.quotas import quota_checks
from voxsrc.pipelines.settings import Settings

# Without these no run starts (manifests/kustomize/env/platform-agnostic of kubeflow/pipelines 2.17.0).
KFP_DEPLOYMENTS = (
    "ml-pipeline",
    "ml-pipeline-persistenceagent",
    "metadata-grpc-deployment",
    "workflow-controller",
)
_IDENTITY = "iam.gke.io/gcp-service-account"
_SCRIPTS = "gcp-cluster"


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
        settings: They name the service accounts.

    Raises:
        ClusterError: The cluster cannot be read.
    """
    return [
        *_kubeflow(cluster),
        _service_account(cluster, settings),
        *_pools(needs, pools, cluster, project),
        *quota_checks(needs, pools, project, settings),
        *_images(needs, project),
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
    annotations = cluster.service_account(name)
    if annotations is None:
        return Check(
            what=what,
            state="missing",
            found="no such service account",
            remedy=f"{_SCRIPTS}/install_kfp.sh makes it, then {_SCRIPTS}/bind_identities.sh binds it; or "
            "correct VOXSRC_KUBERNETES_SERVICE_ACCOUNT",
        )
    bound = annotations.get(_IDENTITY)
    if bound is None or (wanted and bound != wanted):
        found = f"bound to {bound}" if bound else f"no annotation {_IDENTITY}"
        return Check(what=what, state="missing", found=found, remedy=f"{_SCRIPTS}/bind_identities.sh")
    return Check(what=what, state="ok", found=f"bound to {bound}")


def _pools(
    needs: Sequence[StepNeeds], pools: Sequence[Pool], cluster: Cluster, project: Project
) -> Iterator[Check]:
    """That each step has a pool on which its pods can run."""
    there: Sequence[Nodes] | None = project.node_pools()
    complete = there is not None
    if there is None:
        there = list({node.name: node for node in cluster.nodes()}.values())
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
            yield _size(what, need, planned, fits)
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
                found=f"no such node now; whether a pool could make one is not known ({project.trouble})",
                remedy="install gcloud, log in and set VOXSRC_CLUSTER and VOXSRC_ZONE to know; if there is "
                f"none: {_pool_remedy(need, planned, reasons)}",
            )


def _size(what: str, need: StepNeeds, planned: Sequence[Pool], fits: Sequence[Nodes]) -> Check:
    """That a pod is smaller than a node, where the pool is as the table has it."""
    known = {(pool.name, pool.machine_type): pool for pool in planned}
    sizes = [known.get((nodes.name, nodes.machine_type)) for nodes in fits]
    # a node keeps some of its cores and memory for itself
    small = [
        pool
        for pool in sizes
        if pool is not None and (need.cpus >= pool.vcpus or need.memory_gib >= pool.memory_gib)
    ]
    if len(small) == len(fits):
        pool = small[0]
        return Check(
            what=what,
            state="missing",
            found=f"{pool.name} has {pool.vcpus} vCPUs and {pool.memory_gib:g} GiB a node, less what the "
            "node itself needs",
            remedy=f"add a pool with a larger machine type to {_SCRIPTS}/pools.tsv, run "
            f"{_SCRIPTS}/create_node_pools.sh, and select it",
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


def _images(needs: Sequence[StepNeeds], project: Project) -> Iterator[Check]:
    """That the images exist, where they can be looked up."""
    for image in sorted({need.image for need in needs if need.image is not None}):
        what = f"image {image}"
        host = image.partition("/")[0]
        name = image.rpartition("/")[2].partition("@")[0].partition(":")[0].removeprefix("voxsrc-")
        build = f"components/{name}/build_image.sh --push"
        if "/" not in image:
            found = "names no registry, so the cluster would look on Docker Hub"
            remedy = f"{build}, and give the name that it prints"
            yield Check(what=what, state="missing", found=found, remedy=remedy)
        elif not host.endswith("-docker.pkg.dev"):
            found = "not in Artifact Registry: not looked up"
            yield Check(what=what, state="unknown", found=found, remedy=f"docker manifest inspect {image}")
        elif (exists := project.has_image(image)) is None:
            remedy = f"gcloud artifacts docker images describe {image}"
            yield Check(what=what, state="unknown", found=project.trouble, remedy=remedy)
        elif exists:
            found = "exists" if has_digest(image) else "exists, but its tag may be moved: give it by digest"
            yield Check(what=what, state="ok", found=found)
        else:
            yield Check(what=what, state="missing", found="not in the registry", remedy=build)


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
