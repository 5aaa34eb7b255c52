"""How the pods of a pipeline's steps run: on which nodes, how often again, as whom, with what.

The labels and taints are those of gcp-cluster/pools.tsv. A pipeline's node selectors are parameters: the
pool's label chooses one pool, and so between Spot and on demand; the labels voxsrc/gpu and voxsrc/kind choose
both, of which GKE's autoscaler takes the cheaper one that it can get. Every pod tolerates the taints of all
these pools, so that nothing else has to be changed for it.
"""

from typing import Any

from kfp import dsl, kubernetes

POOL_LABEL = "voxsrc/pool"
CPU_POOL = {POOL_LABEL: "cpu-spot"}
GPU_POOL = {POOL_LABEL: "gpu-spot-l4"}
_TAINTS = (
    ("cloud.google.com/gke-spot", "true"),
    ("nvidia.com/gpu", "present"),
    # the pool's own, which keeps Kubeflow's pods from making it grow
    (POOL_LABEL, "cpu-on-demand"),
)
_GPU_RESOURCE = "nvidia.com/gpu"

# A Spot node may go at any time and capacity come back days later. A package can say how often a pod is made
# again and when, not after which ends: that is the retry policy of the cluster. With the one that
# gcp-cluster/install_kfp.sh installs it is after the loss of its machine, whether the pod is then failed or
# gone, and after its timeout; a run that ends all the same: `voxsrc pipeline watch --resubmit`. Without a
# maximum of its own the backend takes one hour from the first attempt, then retries no more and kills a retry
# that runs; the factor must be whole.
_RETRIES, _WAIT, _FACTOR, _MAX_DURATION = 50, "30s", 1, "1209600s"
# Of the images (common/containers/python/Dockerfile).
_USER = 10001
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - no temporary file, the kernel's own mount point


def on_cpu_nodes(
    task: dsl.PipelineTask, node_selector: Any, *, component: str, cpus: int, memory: str, hours: int
) -> None:
    """Lets a task run on nodes for CPUs.

    Args:
        task: The task.
        node_selector: Labels of its nodes: a pipeline parameter.
        component: Value of its pods' label app.kubernetes.io/component.
        cpus: Cores that it requests; it may use all that its node has.
        memory: That it requests, such as 8G.
        hours: After which one attempt has hung, and is ended to be made again.
    """
    # The key of a cached result would hold the URIs, but neither the bucket's content nor the image's digest.
    task.set_caching_options(False)
    task.set_retry(_RETRIES, _WAIT, _FACTOR, _MAX_DURATION)
    task.set_cpu_request(str(cpus)).set_memory_request(memory)
    kubernetes.set_timeout(task, hours * 3600)
    kubernetes.add_node_selector_json(task, node_selector)
    for key, value in _TAINTS:
        kubernetes.add_toleration(task, key=key, operator="Equal", value=value, effect="NoSchedule")
    kubernetes.set_security_context(task, run_as_user=_USER, run_as_group=_USER, run_as_non_root=True)
    kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "voxsrc")
    kubernetes.add_pod_label(task, "app.kubernetes.io/component", component)
    # To save a node, the autoscaler would move a pod that has worked for hours.
    kubernetes.add_pod_annotation(task, "cluster-autoscaler.kubernetes.io/safe-to-evict", "false")


def on_gpu_nodes(
    task: dsl.PipelineTask,
    node_selector: Any,
    num_gpus: Any,
    *,
    component: str,
    cpus: int,
    memory: str,
    shared_memory: str,
    hours: int,
) -> None:
    """Lets a task run on nodes with GPUs; the arguments are those of `on_cpu_nodes`, and two more.

    Args:
        num_gpus: A number, or a pipeline parameter of type str: of one that is a number the backend makes an
            empty text, and gives no GPU.
        shared_memory: Size of /dev/shm, which is 64 MB otherwise; part of the pod's memory.
    """
    on_cpu_nodes(task, node_selector, component=component, cpus=cpus, memory=memory, hours=hours)
    task.set_accelerator_type(_GPU_RESOURCE).set_accelerator_limit(num_gpus)
    kubernetes.empty_dir_mount(
        task, volume_name="shm", mount_path=_SHARED_MEMORY, medium="Memory", size_limit=shared_memory
    )
